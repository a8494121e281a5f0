// SPDX-License-Identifier: Apache-2.0

package rshim_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/rshim/bootlog"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
)

// lineRecords keeps what the daemon's log says of the boot log, "INFO rshim0
// text".
type lineRecords struct {
	slog.Handler
	device string

	mu    *sync.Mutex
	lines *[]string
}

func (h lineRecords) Enabled(context.Context, slog.Level) bool { return true }

func (h lineRecords) WithAttrs(attrs []slog.Attr) slog.Handler {
	for _, a := range attrs {
		if a.Key == "device" {
			h.device = a.Value.String()
		}
	}
	return h
}

func (h lineRecords) Handle(_ context.Context, r slog.Record) error {
	if r.Message != "boot log" {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	r.Attrs(func(a slog.Attr) bool {
		*h.lines = append(*h.lines, fmt.Sprintf("%v %s %s=%s", r.Level, h.device, a.Key, a.Value))
		return true
	})
	return nil
}

func (h lineRecords) taken() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	lines := *h.lines
	*h.lines = nil
	return lines
}

// TestLogRecords: each line of the boot log is in the daemon's log once, with its
// level, however often the RShim is given up, taken again, or unplugged.
func TestLogRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		records := lineRecords{Handler: slog.DiscardHandler, mu: new(sync.Mutex), lines: new([]string)}
		r := newRig(t, rshim.Options{Logger: slog.New(records)})
		fn := r.plug("1-1", bluefield.Config{StageScale: 1}, usbdev.Options{})
		d := r.attached(0)
		time.Sleep(20 * time.Second)
		boot := records.taken()
		count := make(map[string]int)
		for _, l := range boot {
			count[l]++
		}
		for _, l := range []string{"INFO rshim0 text=INFO[BL2]: start", "INFO rshim0 text=INFO[MISC]: DPU is ready"} {
			if count[l] != 1 {
				t.Errorf("%q is there %d times in\n%s", l, count[l], strings.Join(boot, "\n"))
			}
		}
		for i, line := range []string{"INFO[MISC]: a", "WARN[UEFI]: b", "ERR[BL31]: c", "ASSERT[BL2]: d", "INFO[MISC]: e\x1b[2J\nERR[MISC]: f"} {
			again := func() {
				if err := d.SetDrop(r.ctx, true); err != nil {
					t.Fatal(err)
				}
				if err := d.SetDrop(r.ctx, false); err != nil {
					t.Fatal(err)
				}
			}
			if i == 2 {
				again = func() {
					fn.Unplug()
					time.Sleep(time.Second)
					fn.Plug()
					r.attached(0)
				}
			}
			fn.DPU().Log(r.ctx, line)
			again()
			time.Sleep(10 * time.Second)
			again()
			time.Sleep(10 * time.Second)
		}
		want := []string{
			"INFO rshim0 text=INFO[MISC]: a", "WARN rshim0 text=WARN[UEFI]: b", "ERROR rshim0 text=ERR[BL31]: c",
			"ERROR rshim0 text=ASSERT[BL2]: d", `INFO rshim0 text=INFO[MISC]: e\x1b[2J\x0aERR[MISC]: f`,
		}
		if got := records.taken(); strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		lines, _, _ := d.Log(0)
		if len(lines) != len(boot)+len(want) || lines[len(lines)-2].Level != slog.LevelError || lines[len(boot)+1].Level != slog.LevelWarn {
			t.Errorf("the log has %d lines: %+v", len(lines), lines[len(boot):])
		}

		// A crash is a line for what has happened and one for each register.
		_ = push(r.ctx, d, []byte(strings.Repeat("no BFB ", 1000)))
		time.Sleep(20 * time.Second)
		crash := records.taken()
		at := 0
		for at < len(crash) && !strings.HasPrefix(crash[at], "ERROR rshim0 text=PANIC(BL1): PC = 0x") {
			at++
		}
		if len(crash)-at < 2 {
			t.Fatalf("no crash with registers in\n%s", strings.Join(crash, "\n"))
		}
		for _, l := range crash[at:] {
			if !strings.HasPrefix(l, "ERROR ") || strings.Contains(l, "\n") {
				t.Errorf("%q", l)
			}
		}
	})
}

// TestLogRecordsRestart: a daemon that is restarted does not log again what it
// has logged before, and knows it all the same. What nobody of ours can have
// logged is new, however old it is.
func TestLogRecordsRestart(t *testing.T) {
	for name, c := range map[string]struct {
		begin func(r *rig, fn *usbdev.Function) // what was there before
		most  slog.Level                        // of what it has left
	}{
		"a daemon before": {func(r *rig, fn *usbdev.Function) {
			r.bus.Plug("1-1", fn)
			r.attached(0)
			time.Sleep(5 * time.Second)
			for _, l := range []string{"INFO[MISC]: DPU is ready", "WARN[MISC]: b", "ERR[MISC]: c"} {
				fn.DPU().Log(r.ctx, l)
			}
			time.Sleep(5 * time.Second)
			r.stop()
		}, slog.LevelDebug},
		"none": {func(*rig, *usbdev.Function) {}, slog.LevelError},
		"an owner that lives": {func(r *rig, fn *usbdev.Function) {
			ctx, gone := context.WithCancel(r.ctx)
			go hostDriver(ctx, fn.DPU())
			time.AfterFunc(10*time.Second, gone)
			time.Sleep(time.Second)
		}, slog.LevelError},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				before := newRig(t, rshim.Options{})
				fn := usbdev.New(bluefield.New(bluefield.Config{StageScale: 1}), usbdev.Options{})
				before.start(fn)
				time.Sleep(20 * time.Second)
				c.begin(before, fn)

				records := lineRecords{Handler: slog.DiscardHandler, mu: new(sync.Mutex), lines: new([]string)}
				r := newRig(t, rshim.Options{Logger: slog.New(records)})
				r.bus.Plug("1-1", fn)
				d := r.attached(0)
				time.Sleep(5 * time.Second)
				got := records.taken()
				lines, _, _ := d.Log(0)
				if len(got) != len(lines) || len(got) < 3 {
					t.Fatalf("%d records of %d lines", len(got), len(lines))
				}
				for i, l := range got {
					want := min(lines[i].Level, c.most)
					if l != fmt.Sprintf("%v rshim0 text=%s", want, strings.TrimSpace(lines[i].Text)) {
						t.Errorf("%q, want level %v", l, want)
					}
				}
				if st := d.Status(); st.Stage != bootlog.StageReady {
					t.Errorf("%+v", st)
				}
				fn.DPU().Log(r.ctx, "INFO[MISC]: new")
				time.Sleep(5 * time.Second)
				if got := records.taken(); len(got) != 1 || got[0] != "INFO rshim0 text=INFO[MISC]: new" {
					t.Errorf("then %q", got)
				}
			})
		})
	}
}
