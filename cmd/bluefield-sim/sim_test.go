// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
)

func TestRunExitCodes(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
	}{
		{[]string{"-h"}, 0},
		{[]string{"-generation", "bf9"}, 2},
		{[]string{"-count", "0"}, 2},
		{[]string{"extra"}, 2},
		{[]string{"-net", "echo:1"}, 2},
		{[]string{"-host", "someone"}, 2},
		{[]string{"-net", "tap:"}, 2},
		{[]string{"-net", "bridge"}, 2},
		{[]string{"-net", "tap:dpu", "-count", "2"}, 2},
		{[]string{"-net-address", "192.168.100.2"}, 2},
		{[]string{"-vhci", t.TempDir()}, 1}, // no controller there
	} {
		var out, errs bytes.Buffer
		if code := run(t.Context(), c.args, strings.NewReader(""), &out, &errs); code != c.code || errs.Len() == 0 || out.Len() != 0 {
			t.Errorf("%q: exit code %d, want %d; %q %q", c.args, code, c.code, out.String(), errs.String())
		}
	}
}

func TestTooFewPorts(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "status"), []byte("hs  0000 004 000 00000000 000000 0-0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var errs bytes.Buffer
	if code := run(t.Context(), []string{"-vhci", dir, "-count", "2"}, strings.NewReader(""), &errs, &errs); code != 1 || !strings.Contains(errs.String(), "1 free, 2 needed") {
		t.Errorf("exit code %d, %q", code, errs.String())
	}
}

func TestEvents(t *testing.T) {
	var b bytes.Buffer
	log := slog.New((&events{w: &b}).device(3)).With("port", 2)
	log.Info("stage", "name", "rom", "n", 5)
	log.Info("log", "line", "INFO[BL2]: \"start\"\n\x1b", "empty", "")
	want := "stage dev=3 port=2 name=rom n=5\n" + `log dev=3 port=2 line="INFO[BL2]: \"start\"\n\x1b" empty=""` + "\n"
	if got := b.String(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// newDevice is a DPU that does not run, whose events go to w.
func newDevice(w io.Writer) *device {
	cfg := bluefield.Config{Logger: slog.New((&events{w: w}).device(0))}
	return &device{Function: usbdev.New(bluefield.New(cfg), usbdev.Options{})}
}

// fresh is the TMFIFO's part of the state before anything has happened.
const fresh = "console-in=0 console-out=0 console-in-lost=0 console-out-lost=0 " +
	"frames-in=0 frames-out=0 frames-in-lost=0 frames-out-lost=0 " +
	"control=0 skipped=0 bad=0 tm-overflow=0 mac=00:1a:ca:ff:ff:01 pxe-id=0x00000000 vlan=0,0"

func TestCommands(t *testing.T) {
	var devs control
	for range 2 {
		devs = append(devs, newDevice(io.Discard))
	}
	for _, c := range []struct{ line, reply, err string }{
		{line: "sum 1", reply: "sum dev=1 bytes=0 sha256=e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
		{line: "state 0", reply: "state dev=0 stage=off present=true epoch=1 speed=high overflow=0 swallowed=0 log-lost=0 " + fresh},
		{line: "unplug 0", reply: "ok"},
		{line: "state 0", reply: "state dev=0 stage=off present=false epoch=1 speed=high overflow=0 swallowed=0 log-lost=0 " + fresh},
		{line: "low-speed 0 1", reply: "ok"},
		{line: "plug 0", reply: "ok"},
		{line: "state 0", reply: "state dev=0 stage=off present=true epoch=2 speed=low overflow=0 swallowed=0 log-lost=0 " + fresh},
		{line: "write 1 1 0xc40 0x5089836482", reply: "ok"},
		{line: "read 1 1 0xc40", reply: "read dev=1 value=0x5089836482"},
		{line: "write 1 1 0xc40", err: "an argument is missing"},
		{line: "read 1 1 0xc40", reply: "read dev=1 value=0x5089836482"},
		{line: "log 1 INFO[MISC]: Linux up", reply: "ok"},
		{line: "read 1 1 0x600", reply: "read dev=1 value=0x2"},
		{line: "tm-hold 1 on", reply: "ok"},
		{line: "console-hold 1 on", reply: "ok"},
		{line: "tm-noise 1 1000", reply: "ok"},
		{line: "tm-noise 1 -1", err: "invalid syntax"},
		{line: "tm-half 1 end", reply: "ok"},
		{line: "tm-half 1 middle", err: `"middle" is none of begin, end`},
		{line: "nak 0 0x81 on", reply: "ok"},
		{line: "nak 0 0x81 maybe", err: `"maybe" is none of off, on`},
		{line: "stall 0 1", reply: "ok"},
		{line: "fault 0 1 3 512 nak 2s", reply: "ok"},
		{line: "fault 0 1 3 512 nak", err: "an argument is missing"},
		{line: "fault 0 1 3 512 stall 2s", err: "too many arguments"},
		{line: "pause 0 100 1h", reply: "ok"},
		{line: "hold 0 on", reply: "ok"},
		{line: "latency 0 5ms", reply: "ok"},
		{line: "link-rate 0 -1", err: "invalid syntax"},
		{line: "bad 1 0xbad00acce55 1h", reply: "ok"},
		{line: "read 1 1 0x110", reply: "read dev=1 value=0xbad00acce55"},
		{line: "sum 2", err: "no DPU 2"},
		{line: "sum", err: "an argument is missing"},
		{line: "dance 0", err: "no such command"},
	} {
		reply, err := devs.do(t.Context(), c.line)
		if reply != c.reply || (err != nil) != (c.err != "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%q: %q, %v; want %q, %q", c.line, reply, err, c.reply, c.err)
		}
	}
}

func TestServeAnswersEachLine(t *testing.T) {
	devs := control{newDevice(io.Discard)}
	var out bytes.Buffer
	devs.serve(t.Context(), strings.NewReader("plug 0\n\nplug 7\nhelp\n"), &out)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if lines[0] != "ok" || lines[1] != `error "no DPU 7"` || len(lines) != 2+len(commands)+1 {
		t.Errorf("answers %q", lines)
	}
}

func TestSocket(t *testing.T) {
	devs := control{newDevice(io.Discard)}
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); devs.listen(ctx, l) }()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	c.Write([]byte("plug 0\n"))
	if n, err := c.Read(buf); err != nil || string(buf[:n]) != "ok\n" {
		t.Errorf("%q, %v", buf[:n], err)
	}
	stop()
	if _, err := c.Read(buf); err == nil {
		t.Error("the connection outlives its context")
	}
	l.Close()
	<-done
}
