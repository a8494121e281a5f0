// SPDX-License-Identifier: Apache-2.0

package rshim_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
)

// hostDriver keeps the RShim as a driver on the host does, until ctx ends.
func hostDriver(ctx context.Context, dpu *bluefield.DPU) {
	for {
		dpu.WriteReg(dpu.Map().Scratchpad1, 8, reg.Keepalive)
		select {
		case <-time.After(300 * time.Millisecond):
		case <-ctx.Done():
			return
		}
	}
}

// owned plugs in a DPU whose RShim the host has, until the function that is
// returned is called.
func owned(r *rig) (*usbdev.Function, context.CancelFunc) {
	dpu := bluefield.New(bluefield.Config{})
	ctx, cancel := context.WithCancel(r.ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		hostDriver(ctx, dpu)
	}()
	r.t.Cleanup(func() {
		cancel()
		<-done
	})
	fn := usbdev.New(dpu, usbdev.Options{})
	r.start(fn)
	r.bus.Plug("1-1", fn)
	return fn, cancel
}

// TestTakenDuringReset: a push whose reset somebody else used to take the RShim
// fails and says so; the chip is left alone from then on, also when it comes
// back once more.
func TestTakenDuringReset(t *testing.T) {
	generations(t, func(t *testing.T, g reg.Generation) {
		for _, written := range []bool{true, false} {
			bubble(t, bluefield.Config{Generation: g}, usbdev.Options{}, func(r *rig, fn *usbdev.Function, d *rshim.Device) {
				m := reg.For(g)
				b := open(t, r, d)
				time.Sleep(100 * time.Millisecond)
				fn.Unplug() // the bus takes its time to find the chip again
				go hostDriver(r.ctx, fn.DPU())
				time.AfterFunc(2*time.Second, fn.Plug)
				var err error
				if written {
					var n int
					if n, err = b.Write(r.ctx, image(t, g, 10_000)); n != 0 || !errors.Is(err, rshim.ErrNotOwner) {
						t.Errorf("Write: %d, %v", n, err)
					}
				}
				time.Sleep(5 * time.Second)
				if s, _ := d.State(); s != rshim.Contended {
					t.Errorf("it is %v", s)
				}
				if err := b.Close(r.ctx); written && !errors.Is(err, rshim.ErrNotOwner) || err == nil {
					t.Errorf("Close: %v", err)
				}
				if p := d.Push(); p.Phase != rshim.PushFailed || p.Err == nil {
					t.Errorf("%+v", p)
				}
				if n, _ := fn.BootSum(); n != 0 {
					t.Errorf("%d bytes were sent to a chip that is not ours", n)
				}
				fn.DPU().Record(10000)
				fn.DPU().WriteReg(m.Scratchpad1, 8, 0)
				fn.Unplug()
				time.Sleep(time.Second)
				fn.Plug()
				time.Sleep(5 * time.Second)
				if s, _ := d.State(); s != rshim.Contended {
					t.Errorf("replugged, it is %v", s)
				}
				for _, a := range fn.DPU().Recorded() {
					if a.Write && a.Addr != m.Scratchpad1 {
						t.Errorf("%+v was written", a)
					}
				}
			})
		}
	})
}

// TestReplugIsNoReset: a chip whose cable had a bad moment just when it was to
// reset is not taken for one that has.
func TestReplugIsNoReset(t *testing.T) {
	generations(t, func(t *testing.T, g reg.Generation) {
		for held, want := range map[time.Duration]error{8 * time.Second: nil, time.Hour: rshim.ErrNoReset} {
			bubble(t, bluefield.Config{Generation: g, Reset: bluefield.ResetBehaviour{Held: held}}, usbdev.Options{}, func(r *rig, fn *usbdev.Function, d *rshim.Device) {
				stream := image(t, g, 100_000)
				done := make(chan error, 1)
				go func() { done <- push(r.ctx, d, stream) }()
				time.Sleep(time.Second)
				fn.Unplug()
				time.Sleep(time.Second)
				fn.Plug()
				if err := <-done; !errors.Is(err, want) {
					t.Errorf("held for %v: %v", held, err)
				}
				if want == nil {
					arrived(t, fn, stream)
					return
				}
				if n, _ := fn.BootSum(); n != 0 {
					t.Errorf("%d bytes were sent to a chip that has not reset", n)
				}
				// A run-time upgrade needs no reset, and no other push is held
				// responsible for the one that failed.
				if err := d.WriteMisc(r.ctx, "BOOT_RESET_SKIP 1"); err != nil {
					t.Fatal(err)
				}
				if err := push(r.ctx, d, []byte("small enough for the FIFO")); err != nil {
					t.Errorf("push with BOOT_RESET_SKIP: %v", err)
				}
			})
		}
	})
}

// TestAttachHiccup: one register access that fails while the device attaches
// after a reset does not make it forget that the chip has reset.
func TestAttachHiccup(t *testing.T) {
	generations(t, func(t *testing.T, g reg.Generation) {
		for nth := range 12 {
			for _, faults := range []int{1, 4} {
				bubble(t, bluefield.Config{Generation: g}, usbdev.Options{}, func(r *rig, fn *usbdev.Function, d *rshim.Device) {
					stream := image(t, g, 100_000)
					b := open(t, r, d)
					time.Sleep(100 * time.Millisecond)
					fn.ClearFaults()
					for i := range faults {
						fn.Inject(usbdev.Fault{Endpoint: 0, Nth: nth + i + 1, Kind: usbdev.Protocol})
					}
					begin := time.Now()
					if n, err := b.Write(r.ctx, stream); n != len(stream) || err != nil {
						t.Errorf("access %d: Write: %d, %v", nth, n, err)
					}
					if took := time.Since(begin); took > 5*time.Second {
						t.Errorf("access %d: Write took %v", nth, took)
					}
					fn.ClearFaults()
					if err := b.Close(r.ctx); err != nil {
						t.Errorf("access %d: Close: %v", nth, err)
					}
					arrived(t, fn, stream)
				})
			}
		}
	})
}

// TestGarbageIsNoPermission: a chip whose scratchpad cannot be read during the
// access check is not taken.
func TestGarbageIsNoPermission(t *testing.T) {
	for _, bad := range []uint64{0xbad00acce55, 0xbadacce55, ^uint64(0)} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, rshim.Options{})
			dpu := bluefield.New(bluefield.Config{})
			dpu.BadReads(dpu.Map().Scratchpad1, bad, 1, 100) // all of the check's
			ctx, cancel := context.WithCancel(r.ctx)
			defer cancel()
			go hostDriver(ctx, dpu)
			fn := usbdev.New(dpu, usbdev.Options{})
			r.start(fn)
			r.bus.Plug("1-1", fn)
			d := r.device(0)
			for range 100 {
				if s, _ := d.State(); s == rshim.Attached {
					t.Fatal("attached to a chip that the host has")
				}
				time.Sleep(50 * time.Millisecond)
			}
			r.state(d, rshim.Contended)
		})
	}
}

// TestClearOnRead: who polls misc as bfb-install does sees each line once, none
// of an earlier boot, and none is missing, across the reset that a push begins
// with and the one that it ends with.
func TestClearOnRead(t *testing.T) {
	generations(t, func(t *testing.T, g reg.Generation) {
		bubble(t, bluefield.Config{Generation: g, StageScale: 1}, usbdev.Options{}, func(r *rig, fn *usbdev.Function, d *rshim.Device) {
			if err := fn.DPU().WaitStage(r.ctx, bluefield.StageReady); err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Second)
			_, before, _ := d.Log(0)
			if err := push(r.ctx, d, image(t, g, 1<<20)); err != nil {
				t.Fatal(err)
			}
			if err := d.WriteMisc(r.ctx, "CLEAR_ON_READ 1\nDISPLAY_LEVEL 2\n"); err != nil {
				t.Fatal(err)
			}
			var polled strings.Builder
			for range 60 {
				_, log, ok := strings.Cut(d.Misc(r.ctx), "Log Messages\n---------------------------------------\n")
				if !ok {
					t.Fatal("no log in misc")
				}
				if strings.Contains(log, "DPU is ready") && !strings.Contains(polled.String(), "Rebooting...") {
					t.Fatalf("the boot before the push is taken for the one after it:\n%s%s", &polled, log)
				}
				polled.WriteString(log)
				time.Sleep(time.Second)
			}
			var want strings.Builder
			lines, _, _ := d.Log(before)
			for _, l := range lines {
				want.WriteString(l.Text + "\n")
			}
			if polled.String() != want.String() || strings.Count(polled.String(), "DPU is ready") != 1 {
				t.Errorf("polled:\n%s\nthe log:\n%s", &polled, &want)
			}
			if lost := fn.DPU().LogLost(); lost != 0 {
				t.Errorf("the chip lost %d lines", lost)
			}
		})
	})
}

// TestLogBounds: a chip that never stops logging fills the store, not memory.
func TestLogBounds(t *testing.T) {
	bubble(t, bluefield.Config{}, usbdev.Options{}, func(r *rig, fn *usbdev.Function, d *rshim.Device) {
		for range 3000 {
			for range 12 {
				fn.DPU().Log(r.ctx, "INFO[UEFI]: "+strings.Repeat("x", 40))
			}
			time.Sleep(200 * time.Millisecond)
		}
		lines, next, _ := d.Log(0)
		size := 0
		for _, l := range lines {
			size += len(l.Text)
		}
		if size > 64<<10 || size < 60<<10 {
			t.Errorf("%d bytes in %d lines are kept", size, len(lines))
		}
		if next < 30_000 || lines[len(lines)-1].Seq != next-1 || lines[0].Seq != next-int64(len(lines)) {
			t.Errorf("lines %d to %d are kept, the next is %d", lines[0].Seq, lines[len(lines)-1].Seq, next)
		}
	})
}

// TestOtherKind: a DPU of another generation that turns up while the only one
// is off the bus is not taken for it, least of all in the middle of a push. The
// same one under another name is.
func TestOtherKind(t *testing.T) {
	for _, g := range []reg.Generation{reg.BlueField2, reg.BlueField3} {
		bubble(t, bluefield.Config{Generation: reg.BlueField3}, usbdev.Options{}, func(r *rig, fn *usbdev.Function, d *rshim.Device) {
			stream := image(t, reg.BlueField3, 100_000)
			b := open(t, r, d)
			time.Sleep(100 * time.Millisecond)
			r.bus.Unplug("1-1") // while the chip resets
			other := fn
			if g != reg.BlueField3 {
				other = r.plug("2-1", bluefield.Config{Generation: g}, usbdev.Options{})
				time.AfterFunc(5*time.Second, func() { r.bus.Plug("1-1", fn) })
			} else {
				r.bus.Plug("2-1", fn)
			}
			if n, err := b.Write(r.ctx, stream); n != len(stream) || err != nil {
				t.Errorf("%v: Write: %d, %v", g, n, err)
			}
			if err := b.Close(r.ctx); err != nil {
				t.Errorf("%v: Close: %v", g, err)
			}
			arrived(t, fn, stream)
			if n, _ := other.BootSum(); other != fn && n != 0 {
				t.Errorf("%d bytes went to the other one", n)
			}
		})
	}
}
