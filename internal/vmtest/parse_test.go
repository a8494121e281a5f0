// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestKernelTrouble(t *testing.T) {
	tests := []struct {
		line string
		bad  bool
	}{
		{"[    0.080000] Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b", true},
		{"[   12.345678] WARNING: CPU: 0 PID: 1 at net/core/dev.c:10 f+0x1/0x2", true},
		{"[    2.000000][    T1] BUG: sleeping function called from invalid context at mm/slab.h:1", true},
		{"[    2.000000] 8<--- cut here ---\n[    2.000001] Unable to handle kernel NULL pointer dereference at virtual address 00000000", true},
		{"[    2.000000] Internal error: Oops: 5 [#1] SMP ARM", true},
		{"[  242.000000] INFO: task bmc-rshim:99 blocked for more than 120 seconds.", true},
		{"[    0.040000] Unknown kernel command line parameters \"mem=512M\", will be passed to user space.", false},
		{"qemu-system-arm: warning: nic ftgmac100.0 has no peer", false},
		{"BUG: printed by a program", false},
		{"[   15.123456] WARNING: CPU: 0 PID: 93 at net/ncsi/ncsi-cmd.c:231 ncsi_cmd_handler_oem+0x58/0x9c", false},
	}
	for _, tt := range tests {
		if err := kernelTrouble("[    0.000000] Linux version\n" + tt.line + "\n"); (err != nil) != tt.bad {
			t.Errorf("%q: %v", tt.line, err)
		}
	}
}

func TestSelectTests(t *testing.T) {
	pkgs := []Package{{Path: "./internal/cuse"}, {Path: "./internal/uevent"}, {Path: "./e2e/guest", Args: []string{"-x"}}}
	type sel struct{ path, args string }
	all := []sel{{"./internal/cuse", ""}, {"./internal/uevent", ""}, {"./e2e/guest", "-x"}}
	tests := []struct {
		pattern string
		want    []sel
	}{
		{"", all},
		{"TestUML", all},
		{"TestUML/internal", all[:2]},
		{"TestUML/internal/cuse", all[:1]},
		{"^TestUML$/^internal$/cuse/TestRead/bf2", []sel{{"./internal/cuse", "-test.run=TestRead/bf2"}}},
		{"TestUML/e2e/guest/TestPush", []sel{{"./e2e/guest", "-x -test.run=TestPush"}}},
		{"TestUML/nothing", nil},
		{"TestUML/internal/cuse|TestAST2600", all}, // left to the host
	}
	for _, tt := range tests {
		var got []sel
		for _, p := range selectTests(pkgs, tt.pattern, 1) {
			got = append(got, sel{p.Path, strings.Join(p.Args, " ")})
		}
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%q: %v, want %v", tt.pattern, got, tt.want)
		}
	}
}

func TestParseTests(t *testing.T) {
	const events = `{"Action":"start"}
{"Action":"run","Test":"TestA"}
{"Action":"output","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"run","Test":"TestA/x"}
{"Action":"output","Test":"TestA/x","Output":"why\n"}
{"Action":"fail","Test":"TestA/x","Elapsed":0.25}
{"Action":"fail","Test":"TestA","Elapsed":1.5}
{"Action":"run","Test":"TestB"}
{"Action":"output","Output":"killed\n"}
{"Action":"fail"}
`
	got, err := parseTests([]byte(events))
	if err != nil {
		t.Fatal(err)
	}
	want := []*TestResult{
		{Name: "TestA", Action: "fail", Elapsed: 1500 * time.Millisecond, Sub: []*TestResult{
			{Name: "x", Action: "fail", Output: "why\n", Elapsed: 250 * time.Millisecond},
		}},
		{Name: "TestB"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
}

func TestParseMetrics(t *testing.T) {
	got := parseMetrics("    x\nMETRIC rss 13.5 MiB\nMETRIC short 1\nMETRIC bad x y\nMETRIC rate 1e3 kB/s\n")
	want := []Metric{{"rss", 13.5, "MiB"}, {"rate", 1000, "kB/s"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestReadEvents proves that an event stream that breaks off or makes no sense is an error.
func TestReadEvents(t *testing.T) {
	const boot, done = `{"kind":"boot","elapsed":5}` + "\n", `{"kind":"done"}` + "\n"
	tests := []struct{ events, want string }{
		{boot + `{"kind":"start"}` + "\n" + `{"kind":"exit"}` + "\n" + done, ""},
		{"", "ended before its tests did"},
		{boot + `{"kind":"sta`, "ended before its tests did"},
		{boot + "garbage\n", "garbage"},
		{boot + `{"kind":"start","run":7}` + "\n", "run 7"},
		{boot + `{"kind":"start","run":-1}` + "\n", "run -1"},
		{boot + `{"kind":"failed","text":"no root"}` + "\n", "no root"},
		{boot + boot, "restarted"},
	}
	for _, tt := range tests {
		r := newResult([]Package{{Path: "./x"}})
		err := r.readEvents(strings.NewReader(tt.events), io.Discard)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v, want %q", tt.events, err, tt.want)
		}
	}
}

// TestFollowKills proves that a machine that says nothing and ends by no means is killed, children and all.
func TestFollowKills(t *testing.T) {
	Need(t, "sh", "sleep")
	p, err := startMachine("sh", []string{"-c", "trap '' TERM INT; sleep 1000 & wait"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 100*time.Millisecond, errors.New("enough"))
	defer cancel()
	r := newResult([]Package{{Path: "./x"}})
	// follow waits for the end of the console, which the child holds too.
	if err := r.follow(ctx, p, time.Hour, io.Discard); err == nil || !strings.Contains(err.Error(), "enough") {
		t.Errorf("error %v", err)
	}
	if got := r.Packages[0].Err; got != "was not run" {
		t.Errorf("package: %q", got)
	}
}

func TestCached(t *testing.T) {
	t.Setenv("BMC_RSHIM_CACHE", filepath.Join(t.TempDir(), "cache"))
	broken := errors.New("broken")
	if _, err := cached("x", func(dir string) error {
		os.WriteFile(filepath.Join(dir, "half"), nil, 0o644)
		return broken
	}); !errors.Is(err, broken) {
		t.Errorf("failed build: %v", err)
	}
	var builds atomic.Int32
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			dir, err := cached("x", func(dir string) error {
				builds.Add(1)
				return os.WriteFile(filepath.Join(dir, "whole"), nil, 0o644)
			})
			if err != nil {
				t.Error(err)
			}
			if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 || entries[0].Name() != "whole" {
				t.Errorf("cache holds %v, %v", entries, err)
			}
		})
	}
	wg.Wait()
	if n := builds.Load(); n != 1 {
		t.Errorf("%d builds", n)
	}
}

func TestCheckConfig(t *testing.T) {
	name := filepath.Join(t.TempDir(), ".config")
	if err := os.WriteFile(name, []byte("CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=12\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := checkConfig([]byte("# why\nCONFIG_A=y\nCONFIG_C=12\n"), name); err != nil {
		t.Error(err)
	}
	if err := checkConfig([]byte("CONFIG_B=y\nCONFIG_A=y\nCONFIG_C=1\n"), name); err == nil || !strings.HasSuffix(err.Error(), "CONFIG_B=y CONFIG_C=1") {
		t.Errorf("dropped lines: %v", err)
	}
}

// TestNeed proves that what is missing skips a test, and with CI=true fails it.
func TestNeed(t *testing.T) {
	for ci, want := range map[string]string{"": "skip", "true": "fatal"} {
		t.Setenv("CI", ci)
		rec := &recorder{TB: t}
		Need(rec, "go", "no-such-program", "/no/such/file")
		if rec.got != want || !strings.Contains(rec.msg, "no-such-program /no/such/file") {
			t.Errorf("CI=%q: %s %q", ci, rec.got, rec.msg)
		}
	}
}

type recorder struct {
	testing.TB
	got, msg string
}

func (r *recorder) Helper() {}

func (r *recorder) Skip(args ...any) { r.note("skip", args) }

func (r *recorder) Fatal(args ...any) { r.note("fatal", args) }

// note keeps the first call: unlike the real one, it returns.
func (r *recorder) note(got string, args []any) {
	if r.got == "" {
		r.got, r.msg = got, args[0].(string)
	}
}
