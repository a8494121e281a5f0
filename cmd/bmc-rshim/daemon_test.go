// SPDX-License-Identifier: Apache-2.0

//go:build !nosim

package main

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
)

// The daemon finds a DPU, says so, follows it over a replug, and ends at once
// when it is told to.
func TestDaemon(t *testing.T) {
	t.Setenv("JOURNAL_STREAM", "")
	bubble(t, func(r *rig, g reg.Generation) {
		r.before = func(fn *usbdev.Function) {
			time.AfterFunc(5*time.Second, fn.Unplug)
			time.AfterFunc(7*time.Second, fn.Plug)
		}
		conf := file(r.t, []byte("BOOT_TIMEOUT 7\nFOO 1\nPCIE_HAS_UIO 1\n"))
		ctx, cancel := context.WithCancel(r.t.Context())
		var asked time.Time
		time.AfterFunc(10*time.Second, func() { asked = time.Now(); cancel() })
		code := r.run(ctx, "daemon", "-conf", conf, "-dev-root", r.t.TempDir())
		if late := time.Since(asked); late > time.Second {
			r.t.Errorf("the daemon ended after %v", late)
		}
		r.want(code, exitOK, "rshim0 attached", "name=usb-2-1.7", "disconnected", "no device files",
			conf+`:2: unknown key \"FOO\"`, conf+":3: PCIE_HAS_UIO has no effect over USB", "ended by a signal")
		if n := strings.Count(r.stderr.String(), "rshim0 attached"); n != 2 {
			r.t.Errorf("attached %d times, with one replug:\n%s", n, &r.stderr)
		}
	})
}

func TestLogger(t *testing.T) {
	t.Setenv("JOURNAL_STREAM", "8:1234")
	for level, want := range map[string]string{
		"0":      "",
		"error":  "<3>msg=e device=rshim0\n",
		"2":      "<3>msg=e device=rshim0\n<4>msg=w device=rshim0\n",
		"notice": "<3>msg=e device=rshim0\n<4>msg=w device=rshim0\n<6>msg=i device=rshim0\n",
		"4":      "<3>msg=e device=rshim0\n<4>msg=w device=rshim0\n<6>msg=i device=rshim0\n<7>msg=\"d\\nd\" device=rshim0 g.x=1\n",
	} {
		var b bytes.Buffer
		log, err := newLogger(&b, level)
		if err != nil {
			t.Fatal(err)
		}
		log = log.With("device", "rshim0")
		log.Error("e")
		log.Warn("w")
		log.Info("i")
		log.WithGroup("g").Debug("d\nd", "x", 1)
		if got := b.String(); got != want {
			t.Errorf("level %s:\n%s", level, got)
		}
	}
	t.Setenv("JOURNAL_STREAM", "")
	var b bytes.Buffer
	log, err := newLogger(&b, "info")
	if err != nil {
		t.Fatal(err)
	}
	log.Log(t.Context(), slog.LevelInfo, "x")
	if got := b.String(); !strings.HasPrefix(got, "time=") || !strings.HasSuffix(got, " level=INFO msg=x\n") {
		t.Errorf("not for the journal: %q", got)
	}
}
