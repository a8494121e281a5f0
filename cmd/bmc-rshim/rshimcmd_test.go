// SPDX-License-Identifier: Apache-2.0

//go:build !nosim

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
)

// cmdmodeRun runs "rshim -c" on what open opens.
func cmdmodeRun(ctx context.Context, t *testing.T, open func(context.Context) (registers, error), args ...string) (code int, stdout, stderr string) {
	t.Helper()
	o, exit := parseRshim(append([]string{"-c"}, args...))
	if exit != nil {
		t.Fatal(exit)
	}
	var out, errs bytes.Buffer
	m := &cmdmode{e: &env{stdout: &out, stderr: &errs}, o: o, devRoot: t.TempDir(), conf: "/does/not/exist", open: open}
	if open == nil {
		m.open = m.openRegs
	}
	code = m.run(ctx)
	return code, out.String(), errs.String()
}

// On the device itself, without a daemon, for both register maps.
func TestCmdmodeUSB(t *testing.T) {
	bubble(t, func(r *rig, g reg.Generation) {
		bus := plug(usbdev.New(bluefield.New(r.cfg), usbdev.Options{}))
		ctx, end := context.WithCancel(r.t.Context())
		done := make(chan struct{})
		go func() { defer close(done); bus.run(ctx) }()
		defer func() { end(); <-done }()
		open := func(ctx context.Context) (registers, error) { return openBusRegs(ctx, bus.host) }
		sp2 := fmt.Sprintf("0x%x.64", linear(reg.For(g).Scratchpad2))
		for _, c := range []struct{ args, want string }{
			{"-g", "0x0\n"},
			{"-s 1 -g", "0x1\n"},
			{"-s 0 --get-debug", "0x0\n"},
			{"-r " + sp2 + " 0x1122334455667788", "[" + sp2[:7] + "] <- 0x1122334455667788\n"},
			{"-r " + sp2, "[" + sp2[:7] + "] -> 0x1122334455667788\n"},
			{"-r " + sp2 + " 010 -g --reg " + sp2, "[" + sp2[:7] + "] <- 0x0000000000000008\n0x0\n[" + sp2[:7] + "] -> 0x0000000000000008\n"},
		} {
			code, stdout, stderr := cmdmodeRun(ctx, r.t, open, strings.Fields(c.args)...)
			if code != 0 || stdout != c.want || stderr != "" {
				r.t.Errorf("%q: exit status %d, %q, %q; want %q", c.args, code, stdout, stderr, c.want)
			}
		}
	})
}

func TestCmdmodeNoDevice(t *testing.T) {
	none := func(context.Context) (registers, error) { return nil, errors.New("none") }
	deaf := func(context.Context) (registers, error) {
		return &agent{regs: map[uint32]uint64{0x10110: ^uint64(0)}}, nil
	}
	for _, c := range []struct {
		args   string
		open   func(context.Context) (registers, error)
		code   int
		stdout string
	}{
		{"-g", none, 255, "Failed to read debug setting (0xffffffff)\n--get-debug failed\n"},
		{"-s 1", none, 255, "--set-debug failed\n"},
		{"-r 0x10110.64", none, 237, ""},
		{"-m", none, 237, "Timeout\n\nbfdump completed\n"},
		{"-r 0x10110.64", deaf, 237, "Failed to read FABRIC_DIM (0x0)\n"},
		{"-i 5 -r 0x10110.64", nil, 237, "Can't open rshim\n"},
	} {
		code, stdout, stderr := cmdmodeRun(t.Context(), t, c.open, strings.Fields(c.args)...)
		if code != c.code || stdout != c.stdout || stderr == "" {
			t.Errorf("%q: exit status %d, want %d; %q, want %q; %q", c.args, code, c.code, stdout, c.stdout, stderr)
		}
	}
}

func TestCmdmodeConfig(t *testing.T) {
	conf := file(t, []byte("#USB_TIMEOUT 1\nUSB_TIMEOUT 50 # x\nPCIE_RESET_DELAY x\nUSB_RESET_DELAY\nBOOT_TIMEOUT 7\n"))
	for _, c := range []struct {
		args, conf, want string
		code             int
	}{
		{"-p all", "/does/not/exist", "BOOT_TIMEOUT      300\nPCIE_RESET_DELAY  5\nUSB_RESET_DELAY   1\nUSB_TIMEOUT       40\n", 0},
		{"-p all", conf, "BOOT_TIMEOUT      7\nPCIE_RESET_DELAY  5\nUSB_RESET_DELAY   1\nUSB_TIMEOUT       50\n", 0},
		{"-p USB_TIMEOUT", conf, "50\n", 0},
		{"-p FOO", conf, "Invalid command\n", 234},
		{"-p FOO -p BOOT_TIMEOUT", conf, "Invalid command\n7\n", 0},
	} {
		o, exit := parseRshim(strings.Fields("-c " + c.args))
		if exit != nil {
			t.Fatal(exit)
		}
		var out bytes.Buffer
		m := &cmdmode{e: &env{stdout: &out, stderr: os.Stderr}, o: o, conf: c.conf}
		if code := m.run(t.Context()); code != c.code || out.String() != c.want {
			t.Errorf("%q: exit status %d, want %d:\n%s", c.args, code, c.code, &out)
		}
	}
}

// agent is the DPU's side of a debug dump.
type agent struct {
	regs  map[uint32]uint64
	left  int  // pairs of words
	busy  int  // reads of scratchpad 3 until an answer
	deaf  bool // does not answer
	n     uint64
	polls int
	dies  bool // in the middle
}

const agentSP1, agentSP3, agentSP6 = 0x10c40, 0x10c50, 0x10c68

func (a *agent) read(_ context.Context, addr uint32, _ int) (uint64, error) {
	if addr == agentSP3 && a.regs[addr]&dpuOwns != 0 && !a.deaf {
		if a.polls++; a.polls > a.busy {
			a.polls = 0
			a.answer()
		}
	}
	return a.regs[addr], nil
}

func (a *agent) answer() {
	sp3 := a.regs[agentSP3] &^ dpuOwns
	if uint64(reg.DebugCommand(sp3)) == debugDump {
		a.regs[agentSP1], a.regs[agentSP6] = a.n, a.n+1
		a.n += 2
		if a.left--; a.left == 0 {
			sp3 &^= debugCommandMask
		}
		if a.dies && a.n == 4 {
			sp3 = ^uint64(0)
		}
	} else {
		a.n = 0
	}
	a.regs[agentSP3] = sp3
}

func (a *agent) write(_ context.Context, addr uint32, _ int, v uint64) error {
	a.regs[addr] = v
	return nil
}

func (a *agent) close() {}

func TestCmdmodeDump(t *testing.T) {
	data := func(pairs int) string {
		var b []byte
		for i := range uint64(2 * pairs) {
			b = binary.LittleEndian.AppendUint64(b, i)
		}
		return string(b)
	}
	const begin, end = "Use Ctrl+C to stop it at any time...\n\n", "\nbfdump completed\n"
	for _, c := range []struct {
		name    string
		agent   agent
		cancel  time.Duration // 0: not
		code    int
		want    string
		elapsed time.Duration // at least
	}{
		{"whole", agent{left: 100, busy: 3}, 0, 0, data(100) + begin + end, 0},
		{"too long", agent{left: 1 << 20}, 0, 0, data(1<<16) + begin + end, 0},
		{"deaf", agent{deaf: true}, 0, 146, "Timeout\n" + end, 10 * time.Second},
		{"gone", agent{left: 100, dies: true}, 0, 237, data(1) + begin + "Timeout\n" + end, 0},
		{"cut short", agent{left: 1 << 20, busy: 1000}, 10500 * time.Millisecond, 0, data(9) + begin + end, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := c.agent
				// The boot progress in scratchpad 3 stays what it is.
				a.regs = map[uint32]uint64{0x10110: 0x33, agentSP3: 0x42, agentSP6: 7}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if c.cancel != 0 {
					time.AfterFunc(c.cancel, cancel)
				}
				start := time.Now()
				code, stdout, _ := cmdmodeRun(ctx, t, func(context.Context) (registers, error) { return &a, nil }, "-m")
				if code != c.code {
					t.Errorf("exit status %d, want %d", code, c.code)
				}
				if stdout != c.want {
					t.Errorf("%d bytes:\n%.200q, want %d:\n%.200q", len(stdout), stdout, len(c.want), c.want)
				}
				if took := time.Since(start); took < c.elapsed || took > c.elapsed+c.cancel+time.Minute {
					t.Errorf("took %v", took)
				}
				if v := a.regs[agentSP6]; v != 0 {
					t.Errorf("scratchpad 6 is left with %#x", v)
				}
				sp3 := a.regs[agentSP3]
				if c.cancel != 0 && sp3&(dpuOwns|debugCommandMask) != dpuOwns {
					t.Errorf("cut short, and scratchpad 3 is %#x", sp3)
				}
				if !c.agent.dies && sp3&0xff != 0x42 {
					t.Errorf("scratchpad 3 is %#x", sp3)
				}
			})
		})
	}
}
