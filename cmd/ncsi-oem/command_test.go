// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bluefield-go/bmc-rshim/i2c"
	"github.com/bluefield-go/bmc-rshim/mctp/afmctp"
	"github.com/bluefield-go/bmc-rshim/ncsi/netlink"
	"github.com/bluefield-go/bmc-rshim/ncsi/oem"
	simncsi "github.com/bluefield-go/bmc-rshim/sim/ncsi"
)

// With -json, every command line of the transcript prints one object and
// nothing else, which tells of success or failure as the exit code does.
func TestJSON(t *testing.T) {
	for _, tt := range transcript {
		if tt.args == "-h" {
			continue
		}
		synctest.Test(t, func(t *testing.T) {
			got := tt.rig().run(t.Context(), append([]string{"-json"}, strings.Fields(tt.args)...)...)
			d := json.NewDecoder(strings.NewReader(got.stdout))
			d.DisallowUnknownFields()
			var r report
			if err := d.Decode(&r); err != nil {
				t.Fatalf("%s: %v\n%s", tt.args, err, got.stdout)
			}
			if rest, err := d.Token(); err != io.EOF {
				t.Errorf("%s: %v follows the object", tt.args, rest)
			}
			if r.ExitCode != got.code || got.code != tt.code {
				t.Errorf("%s: exit code %d, and %d in JSON; want %d", tt.args, got.code, r.ExitCode, tt.code)
			}
			if (r.Error != "") != (tt.code != exitOK) {
				t.Errorf("%s: exit code %d and error %q", tt.args, tt.code, r.Error)
			}
			if r.Error != "" && !strings.Contains(got.stderr, r.Error) {
				t.Errorf("%s: error %q, and people read %q", tt.args, r.Error, got.stderr)
			}
		})
	}
}

func TestJSONFields(t *testing.T) {
	eth0 := map[string]any{
		"transport": "netlink", "device": "eth0", "package": 0.0, "channel": 31.0,
		"chosen": "the only NC-SI package that the kernel lists", "exit_code": 0.0,
	}
	for _, tt := range []struct {
		args string
		want map[string]any // beside eth0
	}{
		{"get", map[string]any{"persistent": "locked", "runtime": "locked"}},
		{"set enabled", map[string]any{"persistent": "enabled", "takes_effect": "dpu-reboot", "read_back": true}},
		{"runtime get", map[string]any{"runtime": "locked"}},
		{"runtime set enabled", map[string]any{"runtime": "enabled", "takes_effect": "now", "lasts_until": "dpu-reset", "read_back": true}},
		{"raw 12 19 00000001", map[string]any{"data": ""}},
		{"raw 13 19", map[string]any{"data": "00000002"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			got := eth(oem.Locked)().run(t.Context(), append(strings.Fields(tt.args), "-json")...)
			var fields map[string]any
			if err := json.Unmarshal([]byte(got.stdout), &fields); err != nil {
				t.Fatalf("%v\n%s", err, got.stdout)
			}
			tt.want["command"] = tt.args
			for k, v := range eth0 {
				tt.want[k] = v
			}
			if d := cmp.Diff(tt.want, fields); d != "" {
				t.Errorf("%s: (-want +got)\n%s", tt.args, d)
			}
		})
	}
}

// What a command leaves behind in the NIC, besides what it says.
func TestEffect(t *testing.T) {
	for _, tt := range []struct {
		name  string
		rig   func() *rig
		args  string
		state oem.HostAccess
		now   oem.RuntimeAccess
		sets  int
	}{
		{"get", eth(oem.Locked), "get", oem.Locked, oem.RuntimeLocked, 0},
		{"set", eth(oem.Enabled), "set locked", oem.Locked, oem.RuntimeEnabled, 1},
		{"run time", eth(oem.Enabled), "runtime set locked", oem.Enabled, oem.RuntimeLocked, 1},
		{"lost response", eth(oem.Enabled, strikes(simncsi.Lost, 1)), "set locked", oem.Locked, oem.RuntimeEnabled, 1},
		{"confirmed", typed("Y\n"), "set disabled", oem.Disabled, oem.RuntimeEnabled, 1},
		{"not confirmed", typed("yeah, no\n"), "set disabled", oem.Enabled, oem.RuntimeEnabled, 0},
		{"nobody to confirm", eth(oem.Enabled), "set disabled", oem.Enabled, oem.RuntimeEnabled, 0},
		{"-yes", eth(oem.Enabled), "set disabled -yes", oem.Disabled, oem.RuntimeEnabled, 1},
		{"raw, not confirmed", eth(oem.Enabled), "raw 12 19 00000000", oem.Enabled, oem.RuntimeEnabled, 0},
		{"raw, short, not confirmed", eth(oem.Enabled), "raw 12 19 00", oem.Enabled, oem.RuntimeEnabled, 0},
		{"raw, long, not confirmed", eth(oem.Enabled), "raw 12 19 0000000001", oem.Enabled, oem.RuntimeEnabled, 0},
		{"raw, other state", eth(oem.Enabled), "raw 0x12 0x19 0x00000002", oem.Locked, oem.RuntimeEnabled, 1},
		{"raw, other parameter", eth(oem.Locked), "raw 12 1B 00000000", oem.Locked, oem.RuntimeEnabled, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := tt.rig()
				got := r.run(t.Context(), strings.Fields(tt.args)...)
				s, err := r.nic("-if eth0").State()
				if err != nil {
					t.Fatal(err)
				}
				if s.Stored != tt.state || s.Runtime != tt.now || s.Counts.Sets != tt.sets {
					t.Errorf("%v, %v after %d commands that set; want %v, %v after %d\n%s", s.Stored, s.Runtime, s.Counts.Sets, tt.state, tt.now, tt.sets, got.stderr)
				}
			})
		})
	}
}

// A silent NIC costs as many timeouts as its packages are asked, and no more.
func TestProbeTime(t *testing.T) {
	for _, tt := range []struct {
		args string
		rig  func() *rig
		want time.Duration
	}{
		{"-mctp 1:29 get", over("-mctp 1:29", oem.Enabled), 3 * time.Second}, // packages 0 to 2
		{"-mctp 1:29 -package 3 get", over("-mctp 1:29", oem.Enabled), 0},
		{"-mctp 1:29 -timeout 100ms get", over("-mctp 1:29", oem.Enabled, strikes(simncsi.Silent, 99)), 800 * time.Millisecond},
		{"get", sensors, 8 * time.Second},        // at the same time
		{"packages", sensors, 8 * time.Second},   // at the same time
		{"get", twoSegments, 11 * time.Second},   // one after the other
		{"get", unlisted(3), 7 * time.Second},    // all of them, as there may be several
		{"get -package 3", unlisted(3), 0},       // that alone
		{"get -package 3", lone3BesideListed, 0}, // which is never listed
	} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			tt.rig().run(t.Context(), strings.Fields(tt.args)...)
			if got := time.Since(start); got != tt.want {
				t.Errorf("%s took %v, want %v", tt.args, got, tt.want)
			}
		})
	}
}

// unlisted is a machine whose kernel lists no package of the NIC on eth0.
func unlisted(packages ...int) func() *rig {
	return with(func(c *simncsi.Config) { c.Packages = packages }, unlist)
}

func unlist(r *rig) { r.interfaces[0].Packages = nil }

// lone3BesideListed is one whose kernel lists package 0 alone of 0 and 3.
func lone3BesideListed() *rig {
	return with(func(c *simncsi.Config) { c.Packages = []int{0, 3} }, func(r *rig) {
		r.interfaces[0].Packages = r.interfaces[0].Packages[:1]
	})()
}

// sensors is a machine with a NIC among silent endpoints.
func sensors() *rig {
	r := over("-mctp 1:29", oem.Enabled)()
	for eid := range uint8(20) {
		r.endpoints = append(r.endpoints, address{transport: "mctp", network: 1, eid: 40 + eid, link: "mctpi2c4", bus: "i2c-4"})
	}
	return r
}

// twoSegments is one with a NIC and a silent endpoint on two channels of a
// multiplexer.
func twoSegments() *rig {
	r := over("-mctp 1:29", oem.Enabled)()
	r.endpoints[0].link, r.endpoints[0].bus = "mctpi2c8", "i2c-4"
	r.endpoints = append(r.endpoints, address{transport: "mctp", network: 1, eid: 40, link: "mctpi2c9", bus: "i2c-4"})
	return r
}

// What is not told of a NIC is told of where it is.
func TestAdvice(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string // part of the advice; "" means none
	}{
		{afmctp.ErrBusy, "other programs"},
		{i2c.ErrNoBus, ""}, // it is in the error
		{i2c.ErrInUse, "another address"},
		{i2c.ErrNoAck, "check bus and address"},
		{netlink.ErrDown, "ncsi-oem packages"},
		{fmt.Errorf("%w: %w", oem.ErrOutcomeUnknown, i2c.ErrNoAck), "set again"},
	} {
		if _, got := outcome(tt.err); !strings.Contains(got, tt.want) || (tt.want == "") != (got == "") {
			t.Errorf("%v: %q, want %q", tt.err, got, tt.want)
		}
	}
}

func TestJSONVersion(t *testing.T) {
	var r report
	if err := json.Unmarshal([]byte(nobody().run(t.Context(), "-json", "-version").stdout), &r); err != nil || r.Version != version() {
		t.Errorf("%q, %v", r.Version, err)
	}
}

// hexValue is written in hexadecimal only if somebody wants it, as transports
// have it.
type hexValue []byte

func (h hexValue) LogValue() slog.Value { return slog.StringValue(fmt.Sprintf("%x", []byte(h))) }

func TestTracer(t *testing.T) {
	var out bytes.Buffer
	(&env{stderr: &out}).logger(options{trace: true}).With("to", hexValue{1}).Debug("sent", "frame", hexValue{0x64, 0x0f})
	if !strings.HasSuffix(out.String(), " s  sent  to 01  frame 640f\n") {
		t.Errorf("%q", &out)
	}
}

func TestInterrupted(t *testing.T) {
	for _, tt := range []struct {
		name, args string
		rig        func() *rig
		want       int
	}{
		{"while waiting", "get", eth(oem.Enabled, strikes(simncsi.Silent, 9)), exitInterrupted},
		{"while asking packages", "-mctp 1:29 get", over("-mctp 1:29", oem.Enabled), exitInterrupted},
		{"while listing", "packages", over("-mctp 1:29", oem.Enabled), exitInterrupted},
		{"while setting", "set locked", eth(oem.Enabled, strikes(simncsi.Lost, 9)), exitUnknown},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(500*time.Millisecond, cancel)
				start := time.Now()
				got := tt.rig().run(ctx, strings.Fields(tt.args)...)
				if got.code != tt.want || time.Since(start) > 500*time.Millisecond {
					t.Errorf("exit code %d after %v, want %d\n%s", got.code, time.Since(start), tt.want, got.stderr)
				}
			})
		})
	}
	t.Run("while asking the operator", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			stdin, typist := io.Pipe()
			defer typist.Close()
			r := eth(oem.Enabled)()
			r.stdin, r.terminal = stdin, true
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Minute, cancel)
			if got := r.run(ctx, "set", "disabled"); got.code != exitInterrupted {
				t.Errorf("exit code %d\n%s", got.code, got.stderr)
			}
			s, err := r.nic("-if eth0").State()
			if err != nil || s.Counts.Sets != 0 {
				t.Errorf("%d commands that set, %v", s.Counts.Sets, err)
			}
		})
	})
}

// Every error that the packages below have a name for, and that can end a
// command, has an exit code of its own kind.
func TestOutcome(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want int
	}{
		{nil, exitOK},
		{errors.New("anything"), exitFailed},
		{oem.ErrUnsupported, exitUnsupported},
		{oem.ErrUntrusted, exitUntrusted},
		{oem.ErrUnavailable, exitUnavailable},
		{oem.ErrNotTaken, exitNotTaken},
		{oem.ErrOutcomeUnknown, exitUnknown},
		{fmt.Errorf("%w: %w", oem.ErrOutcomeUnknown, context.Canceled), exitUnknown},
		{fmt.Errorf("%w: %w", oem.ErrOutcomeUnknown, os.ErrDeadlineExceeded), exitUnknown},
		{oem.ErrUnknownState, exitFailed},
		{netlink.ErrNoDevice, exitDevice},
		{netlink.ErrNoFamily, exitDevice},
		{netlink.ErrDown, exitDevice},
		{afmctp.ErrNoMCTP, exitDevice},
		{afmctp.ErrNoRoute, exitDevice},
		{afmctp.ErrBusy, exitFailed},
		{i2c.ErrNoBus, exitDevice},
		{i2c.ErrNoQueue, exitDevice},
		{i2c.ErrInUse, exitDevice},
		{i2c.ErrNoAck, exitDevice},
		{os.ErrPermission, exitPermission},
		{os.ErrDeadlineExceeded, exitTimeout},
		{context.DeadlineExceeded, exitTimeout},
		{&i2c.OpError{Op: "send", Err: syscall.ETIMEDOUT}, exitTimeout},
		{&i2c.OpError{Op: "send", Err: syscall.EAGAIN}, exitTimeout},
		{oem.NotSent(netlink.ErrDown), exitDevice},
		{context.Canceled, exitInterrupted},
		{usageError("no"), exitUsage},
	} {
		if got, _ := outcome(tt.err); got != tt.want {
			t.Errorf("%v: exit code %d, want %d", tt.err, got, tt.want)
		}
		if tt.err == nil {
			continue
		}
		if got, _ := outcome(&deviceError{address{}, fmt.Errorf("wrapped: %w", tt.err)}); got != tt.want {
			t.Errorf("%v, wrapped: exit code %d, want %d", tt.err, got, tt.want)
		}
	}
	help := exitCodes()
	seen := make(map[int]bool)
	for _, o := range outcomes {
		if seen[o.code] {
			t.Errorf("exit code %d is there twice", o.code)
		}
		seen[o.code] = true
		if !strings.Contains(help, fmt.Sprintf("\n  %-4d %s\n", o.code, o.means)) {
			t.Errorf("exit code %d is not in the help", o.code)
		}
	}
}

// The machine's own ways. There is nothing to be reached over them where tests
// run, and they say so.
func TestMachine(t *testing.T) {
	for _, tt := range []struct {
		args string
		want []int
	}{
		{"-version", []int{exitOK}},
		{"-if lo -package 0 get", []int{exitDevice, exitPermission}},
		{"-if no-such0 -package 0 get", []int{exitDevice}},
		{"-mctp 77:29 -package 0 -timeout 100ms get", []int{exitDevice, exitPermission}},
		{"-i2c 250:0x32 get", []int{exitDevice}},
	} {
		var stdout, stderr bytes.Buffer
		got := run(t.Context(), strings.Fields(tt.args), strings.NewReader(""), &stdout, &stderr)
		ok := false
		for _, want := range tt.want {
			ok = ok || got == want
		}
		if !ok {
			t.Errorf("%s: exit code %d, want %d\n%s", tt.args, got, tt.want, &stderr)
		}
		if tt.args == "-version" && !strings.HasPrefix(stdout.String(), "ncsi-oem ") {
			t.Errorf("-version: %q", &stdout)
		}
	}
}

// What cannot be written is no success.
func TestFullDisk(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	if got := run(t.Context(), []string{"-version"}, strings.NewReader(""), full, io.Discard); got != exitFailed {
		t.Errorf("exit code %d, want %d", got, exitFailed)
	}
}
