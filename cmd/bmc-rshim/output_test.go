// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What cannot print what it is for has failed, and ends.
func TestOutputFails(t *testing.T) {
	root, _ := fakeDev(t, "rshim0", miscBF3)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	for _, args := range []string{"misc", "misc -json", "log", "log -f", "log -f -json", "status", "status -json", "boot-mode", "help", "version", "log -h"} {
		words := strings.Fields(args)
		if words[0] != "help" && words[0] != "version" {
			words = append(words, "-dev-root", root)
		}
		var stderr bytes.Buffer
		if code := run(t.Context(), words, nil, full, &stderr); code != exitFailed || !strings.Contains(stderr.String(), "no space left") {
			t.Errorf("%s: exit code %d, %s", args, code, &stderr)
		}
	}
	// A push is more than its report.
	var stderr bytes.Buffer
	code := run(t.Context(), []string{"push", "-json", "-dev-root", root, "-no-check", "-"}, strings.NewReader("no BFB"), full, &stderr)
	if code != exitOK {
		t.Errorf("push: exit code %d, %s", code, &stderr)
	}
}

// With -json, a failure is an object, too.
func TestJSONFailure(t *testing.T) {
	none := t.TempDir()
	for args, want := range map[string]int{
		"status -json -dev-root " + none:          exitDevice,
		"reg 0x8 -json -dev-root " + none:         exitDevice,
		"force --json -dev-root " + none:          exitDevice,
		"log -json=true -dev-root " + none:        exitDevice,
		"reg -json -size 3 0x8":                   exitUsage,
		"push -json":                              exitUsage,
		"push -json -dev-root " + none + " /none": exitFailed,
	} {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), strings.Fields(args), nil, &stdout, &stderr)
		var got struct {
			Error    string
			ExitCode int `json:"exit_code"`
		}
		err := json.Unmarshal(stdout.Bytes(), &got)
		if err != nil || code != want || got.ExitCode != want || got.Error == "" || !strings.Contains(stderr.String(), got.Error) {
			t.Errorf("%s: exit code %d, %v, %s", args, code, err, &stdout)
		}
	}
	for _, args := range []string{"status -dev-root " + none, "status -dev-root -- -json"} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), strings.Fields(args), nil, &stdout, &stderr); code == exitOK || stdout.Len() > 0 {
			t.Errorf("%s: exit code %d, %s", args, code, &stdout)
		}
	}
}

// Of several devices, one that is gone between being listed and asked takes
// nothing away from the others.
func TestStatusVanished(t *testing.T) {
	root, _ := fakeDev(t, "rshim0", miscBF3)
	dir := filepath.Join(root, "rshim1")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "misc")); err != nil {
		t.Fatal(err)
	}
	for device, want := range map[string]int{"": exitOK, "rshim1": exitDevice} {
		var out bytes.Buffer
		code := run(t.Context(), []string{"status", "-dev-root", root, "-device", device}, nil, &out, &out)
		if code != want || strings.Contains(out.String(), "rshim0, usb-1.1") != (want == exitOK) {
			t.Errorf("%q: exit code %d, %s", device, code, &out)
		}
	}
	// Another failure is told, after what can be.
	if err := os.Remove(filepath.Join(dir, "misc")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "misc"), 0o700); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	code := run(t.Context(), []string{"status", "-dev-root", root}, nil, &out, &out)
	if code != exitFailed || !strings.Contains(out.String(), "rshim0, usb-1.1") || !strings.Contains(out.String(), "is a directory") {
		t.Errorf("exit code %d, %s", code, &out)
	}
}
