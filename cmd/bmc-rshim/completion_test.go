// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestCompletion(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir := t.TempDir()
	var out, errs strings.Builder
	if code := run(t.Context(), []string{"completion", "bash"}, nil, &out, &errs); code != exitOK {
		t.Fatal(errs.String())
	}
	name := filepath.Join(dir, "completion")
	if err := os.WriteFile(name, []byte(out.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := exec.Command(bash, "-n", name).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	if err := os.WriteFile(filepath.Join(dir, "a b.bfb"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// The program itself tells its flags.
	prog := filepath.Join(dir, "bmc-rshim")
	if err := os.WriteFile(prog, []byte("#!/bin/sh\n"+childEnv+"=main exec "+os.Args[0]+" \"$@\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for typed, want := range map[string]string{
		"re":                 "recover release reset reg",
		"pu":                 "push",
		"push -det":          "-detach",
		"push -wait ":        "ready streamed",
		"boot-mode em":       "emmc emmc-boot-swap emmc-legacy",
		"host-access ":       "get set enabled locked disabled",
		"status -j":          "-json",
		"reg -siz":           "-size",
		"daemon -metrics-fi": "-metrics-file",
		"status -nonsense":   "",
		"push " + dir + "/a": dir + "/a b.bfb",
	} {
		words := strings.Split("bmc-rshim "+typed, " ")
		words[0] = prog
		text := `. "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _bmc_rshim; echo "${COMPREPLY[*]}"`
		b, err := exec.Command(bash, append([]string{"--norc", "-c", text, "bash", name}, words...)...).CombinedOutput()
		if got := strings.TrimSpace(string(b)); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", typed, got, err, want)
		}
	}
	text := `. "$1"; COMP_WORDS=(x push "$2"); COMP_CWORD=2; _bmc_rshim; echo "${#COMPREPLY[@]}"`
	b, err := exec.Command(bash, "--norc", "-c", text, "bash", name, filepath.Join(dir, "a")).CombinedOutput()
	if got := strings.TrimSpace(string(b)); err != nil || got != "1" {
		t.Errorf("%q completions of one file with a space, %v", got, err)
	}
	if code := run(t.Context(), []string{"completion", "fish"}, nil, &out, &errs); code != exitUsage {
		t.Errorf("fish: exit code %d", code)
	}
}
