// SPDX-License-Identifier: Apache-2.0

package rshim_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/rshim/bootlog"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

// The tests below are the reliability tests of the classes of failure that
// RShim is known for in the field. All run in virtual time.

// R1: a chip that stops reading its boot FIFO, even for longer than any
// firmware update is known to take, does not fail a push, and nothing else
// waits for it.
func TestR1StallAndResume(t *testing.T) {
	generations(t, func(t *testing.T, g reg.Generation) {
		for _, pause := range []time.Duration{30 * time.Second, 250 * time.Second} {
			t.Run(pause.String(), func(t *testing.T) {
				bubble(t, bluefield.Config{Generation: g}, usbdev.Options{}, func(r *rig, fn *usbdev.Function, d *rshim.Device) {
					stream := image(t, g, 1<<20)
					fn.DPU().PauseDrain(300_000, pause)
					begin := time.Now()
					done := make(chan error, 1)
					go func() { done <- push(r.ctx, d, stream) }()
					var slowest time.Duration
					for waiting := true; waiting; {
						select {
						case err := <-done:
							if err != nil {
								t.Fatal(err)
							}
							waiting = false
						case <-time.After(time.Second):
							asked := time.Now()
							d.Misc(r.ctx)
							slowest = max(slowest, time.Since(asked))
						}
					}
					if took := time.Since(begin); took < pause || took > pause+5*time.Second {
						t.Errorf("push took %v with a pause of %v", took, pause)
					}
					if slowest > 50*time.Millisecond {
						t.Errorf("misc took %v during the stall", slowest)
					}
					arrived(t, fn, stream)
				})
			})
		}
	})
}

// R2: a FIFO that stays full fails the push after BOOT_TIMEOUT, not earlier and
// not much later, and the writer is told.
func TestR2BootTimeout(t *testing.T) {
	generations(t, func(t *testing.T, g reg.Generation) {
		for _, seconds := range []int{3, 20, 300} {
			t.Run(fmt.Sprint(seconds), func(t *testing.T) {
				bubble(t, bluefield.Config{Generation: g}, usbdev.Options{}, func(r *rig, fn *usbdev.Function, d *rshim.Device) {
					limit := time.Duration(seconds) * time.Second
					if err := d.WriteMisc(r.ctx, fmt.Sprintf("BOOT_TIMEOUT %d\n", seconds)); err != nil {
						t.Fatal(err)
					}
					b, err := d.OpenBoot(r.ctx)
					if err != nil {
						t.Fatal(err)
					}
					stream := image(t, g, 1<<20)
					if _, err := b.Write(r.ctx, stream[:8192]); err != nil {
						t.Fatal(err)
					}
					fn.DPU().HoldDrain(true)
					begin := time.Now()
					for at := 8192; err == nil; at += 8192 {
						_, err = b.Write(r.ctx, stream[at:][:8192])
					}
					took := time.Since(begin)
					if !errors.Is(err, os.ErrDeadlineExceeded) {
						t.Errorf("Write: %v", err)
					}
					if took < limit || took > limit+limit/8+time.Second {
						t.Errorf("failed after %v, want %v", took, limit)
					}
					if _, again := b.Write(r.ctx, stream[:8]); !errors.Is(again, os.ErrDeadlineExceeded) {
						t.Errorf("Write after the timeout: %v", again)
					}
					if err := b.Close(r.ctx); !errors.Is(err, os.ErrDeadlineExceeded) {
						t.Errorf("Close: %v", err)
					}
					if p := d.Push(); p.Phase != rshim.PushFailed || p.Err == nil {
						t.Errorf("push is reported as %q, %v", p.Phase, p.Err)
					}
				})
			})
		}
	})
}

// R3: a writer that is interrupted while the chip does not read gets away at
// once, and can go on from exactly where it was.
func TestR3InterruptInStall(t *testing.T) {
	generations(t, func(t *testing.T, g reg.Generation) {
		bubble(t, bluefield.Config{Generation: g}, usbdev.Options{}, func(r *rig, fn *usbdev.Function, d *rshim.Device) {
			stream := image(t, g, 1<<20)
			b, err := d.OpenBoot(r.ctx)
			if err != nil {
				t.Fatal(err)
			}
			fn.DPU().PauseDrain(200_000, time.Hour)
			left := stream
			for i := 0; len(left) > 0; i++ {
				ctx, cancel := context.WithTimeout(r.ctx, 7*time.Second)
				n, err := b.Write(ctx, left[:min(len(left), 100_003)])
				if err != nil {
					deadline, _ := ctx.Deadline()
					if late := time.Since(deadline); late > 100*time.Millisecond {
						t.Errorf("Write returned %v after it was interrupted", late)
					}
				}
				cancel()
				left = left[n:]
				if i == 8 {
					fn.DPU().HoldDrain(false)
				}
			}
			if err := b.Close(r.ctx); err != nil {
				t.Fatal(err)
			}
			arrived(t, fn, stream)
		})
		bubble(t, bluefield.Config{Generation: g}, usbdev.Options{}, func(r *rig, fn *usbdev.Function, d *rshim.Device) {
			fn.DPU().PauseDrain(200_000, time.Hour)
			ctx, cancel := context.WithTimeout(r.ctx, 20*time.Second)
			defer cancel()
			if err := push(ctx, d, image(t, g, 1<<20)); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("push: %v", err)
			}
			deadline, _ := ctx.Deadline()
			if late := time.Since(deadline); late > 100*time.Millisecond {
				t.Errorf("push ended %v after it was interrupted", late)
			}
			if p := d.Push(); p.Phase != rshim.PushFailed || !errors.Is(p.Err, rshim.ErrIncomplete) {
				t.Errorf("push is reported as %q, %v", p.Phase, p.Err)
			}
		})
	})
}

// R4: whatever happens to single transfers, the stream arrives byte for byte.
func TestR4ByteExact(t *testing.T) {
	generations(t, func(t *testing.T, g reg.Generation) {
		for seed := range uint64(40) {
			bubble(t, bluefield.Config{Generation: g, DrainRate: 3 << 20}, usbdev.Options{Latency: 125 * time.Microsecond}, func(r *rig, fn *usbdev.Function, d *rshim.Device) {
				rnd := rand.New(rand.NewPCG(4, seed))
				stream := image(t, g, 500_000)
				boot, _, _, _ := fn.Endpoints()
				done := make(chan error, 1)
				go func() { done <- push(r.ctx, d, stream) }()
				for faults := 0; ; faults++ {
					wait := time.Duration(rnd.IntN(40)) * time.Millisecond
					if faults%10 == 9 {
						wait = 2 * time.Minute // some progress in between
					}
					select {
					case err := <-done:
						if err != nil {
							t.Errorf("seed %d: %v", seed, err)
						}
						arrived(t, fn, stream)
						return
					case <-time.After(wait):
					}
					if d.Push().Phase != rshim.PushStreaming {
						continue
					}
					f := usbdev.Fault{Endpoint: boot, Nth: 1 + rnd.IntN(3), After: 512 * rnd.IntN(20)}
					switch rnd.IntN(5) {
					case 0:
						f.Kind = usbdev.Stall
					case 1:
						f.Kind = usbdev.Protocol
					case 2:
						f.Kind, f.For = usbdev.NAK, time.Duration(rnd.IntN(20))*time.Second
					case 3: // control: reads of the fill level
						f.Endpoint, f.After, f.Kind = 0, 0, usbdev.Protocol
					case 4:
						fn.DPU().PauseDrain(0, time.Duration(rnd.IntN(30))*time.Second)
						continue
					}
					fn.Inject(f)
				}
			})
		}
	})
}

// R9: unplugged at any step of a push, the device is given up cleanly, and
// works again when it is back.
func TestR9UnplugAnywhere(t *testing.T) {
	generations(t, func(t *testing.T, g reg.Generation) {
		steps := []usbdev.Fault{}
		for n := range 40 {
			steps = append(steps, usbdev.Fault{Endpoint: 0, Nth: n + 1, Kind: usbdev.Unplug})
		}
		for n := range 12 {
			steps = append(steps, usbdev.Fault{Endpoint: 1, Nth: n + 1, After: 512 * n, Kind: usbdev.Unplug})
		}
		for _, step := range steps {
			bubble(t, bluefield.Config{Generation: g}, usbdev.Options{}, func(r *rig, fn *usbdev.Function, d *rshim.Device) {
				stream := image(t, g, 300_000) // more transfers than any step counts
				fn.Inject(step)
				done := make(chan error, 1)
				go func() { done <- push(r.ctx, d, stream) }()
				time.Sleep(3 * time.Second)
				fn.Plug()
				err := <-done
				if n, _ := fn.BootSum(); err == nil && n < int64(len(stream)) {
					t.Errorf("%+v: push is reported as done after %d bytes", step, n)
				}
				time.Sleep(30 * time.Second)
				r.state(d, rshim.Attached)
				if err := push(r.ctx, d, stream); err != nil {
					t.Errorf("%+v: push after it was back: %v", step, err)
				}
				arrived(t, fn, stream)
			})
		}
	})
}

// R10: a device that enumerates at low speed is enumerated anew.
func TestR10LowSpeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, rshim.Options{})
		fn := r.plug("1-1", bluefield.Config{}, usbdev.Options{LowSpeed: 3})
		d := r.attached(0)
		if st, _ := fn.State(); st.Speed != usb.SpeedHigh {
			t.Errorf("attached at %v speed", st.Speed)
		}
		fn.SetLowSpeed(1) // and again, when the push's reset re-enumerates it
		stream := image(t, reg.BlueField3, 100_000)
		if err := push(r.ctx, d, stream); err != nil {
			t.Fatal(err)
		}
		arrived(t, fn, stream)
	})
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, rshim.Options{})
		r.plug("1-1", bluefield.Config{}, usbdev.Options{LowSpeed: 1000})
		r.attached(0) // better slow than not at all
	})
}

// R11: a device keeps its index, wherever its bus brings it back.
func TestR11IndexStability(t *testing.T) {
	names := func(r *rig) (s []string) {
		for _, d := range r.set.Devices() {
			s = append(s, fmt.Sprintf("rshim%d %s", d.Index(), d.Status().Name))
		}
		return s
	}
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, rshim.Options{})
		fn := r.plug("2-1.7", bluefield.Config{}, usbdev.Options{})
		d := r.attached(0)
		for _, away := range []time.Duration{time.Second, time.Minute} {
			fn.Unplug()
			r.state(d, rshim.Gone)
			time.Sleep(away)
			fn.Plug()
			d = r.attached(0)
		}
		if got, want := names(r), []string{"rshim0 usb-2-1.7"}; !slices.Equal(got, want) {
			t.Errorf("replugged: %q, want %q", got, want)
		}
		r.bus.Unplug("2-1.7")
		r.state(d, rshim.Gone)
		time.Sleep(time.Minute)
		r.bus.Plug("1-1", fn)
		r.attached(0)
		if got, want := names(r), []string{"rshim0 usb-1.1"}; !slices.Equal(got, want) {
			t.Errorf("on another controller: %q, want %q", got, want)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, rshim.Options{})
		a := r.plug("1-1", bluefield.Config{}, usbdev.Options{})
		r.attached(0)
		b := r.plug("1-2", bluefield.Config{}, usbdev.Options{})
		r.attached(1)
		a.Unplug()
		b.Unplug()
		time.Sleep(time.Minute)
		r.plug("1-3", bluefield.Config{}, usbdev.Options{})
		r.attached(2)
		b.Plug()
		r.attached(1)
		a.Plug()
		r.attached(0)
		if got, want := names(r), []string{"rshim0 usb-1.1", "rshim1 usb-1.2", "rshim2 usb-1.3"}; !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	})
}

// R16: whatever stands in the log buffer, reading it does no harm, and what
// comes after is read.
func TestR16HostileLog(t *testing.T) {
	const header = 4<<56 | 1<<48 // a message of one word
	full := slices.Repeat(bootlog.EncodeMessage(bootlog.UEFI, bootlog.Info, "x"), 63)
	for name, words := range map[string][]uint64{
		"length zero":    {4 << 56, 4 << 56, 4 << 56, 1 << 56},
		"past the end":   {4<<56 | 0x7f<<48, 0x4141414141414141},
		"unknown type":   {0xf<<60 | 0xf<<56 | 2<<48, 1, 2},
		"unknown module": {0xf<<60 | header | 0xff, 0x41},
		"format":         {header | 1<<8 | 0x41414141<<16, 0x6e256e2573257325}, // "%s%s%n%n"
		"terminal":       {header, 0x1b5b324a07080d0a},
		"not UTF-8":      {header, ^uint64(0)},
		"full":           full,
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, bluefield.Config{}, usbdev.Options{}, func(r *rig, fn *usbdev.Function, d *rshim.Device) {
				if err := d.WriteMisc(r.ctx, "DISPLAY_LEVEL 2"); err != nil {
					t.Fatal(err)
				}
				d.Misc(r.ctx)
				_, from, _ := d.Log(0)
				fn.DPU().SetLog(words, len(words))
				text := d.Misc(r.ctx)
				for _, c := range text {
					if c != '\n' && (c < ' ' || c > '~') {
						t.Fatalf("%q in the log", c)
					}
				}
				fn.DPU().Log(r.ctx, "INFO[MISC]: still here")
				time.Sleep(10 * time.Second)
				lines, _, _ := d.Log(from)
				if n := len(lines); n == 0 || lines[n-1].Text != " INFO[MISC]: still here" {
					t.Errorf("the next line was not read; the log is %v", lines)
				}
				if lost := fn.DPU().LogLost(); lost != 0 {
					t.Errorf("%d lines were lost", lost)
				}
			})
		})
	}
}

// R16 also: a boot that writes much more than the buffer holds loses no line.
func TestR16LogWraps(t *testing.T) {
	generations(t, func(t *testing.T, g reg.Generation) {
		bubble(t, bluefield.Config{Generation: g}, usbdev.Options{}, func(r *rig, fn *usbdev.Function, d *rshim.Device) {
			_, from, _ := d.Log(0)
			for i := range 500 {
				fn.DPU().Log(r.ctx, fmt.Sprintf("INFO[UEFI]: line %d of a long boot", i))
				time.Sleep(20 * time.Millisecond)
			}
			time.Sleep(5 * time.Second)
			if lost := fn.DPU().LogLost(); lost != 0 {
				t.Errorf("the chip lost %d lines", lost)
			}
			i := 0
			lines, _, _ := d.Log(from)
			for _, l := range lines {
				if strings.Contains(l.Text, "long boot") {
					if want := fmt.Sprintf(" INFO[UEFI]: line %d of a long boot", i); l.Text != want {
						t.Fatalf("got %q, want %q", l.Text, want)
					}
					i++
				}
			}
			if i != 500 {
				t.Errorf("%d of 500 lines were read", i)
			}
		})
	})
}

// R22: what registers read as while a chip is in reset is never taken for a
// value, wherever it turns up.
func TestR22BadRegisters(t *testing.T) {
	for _, bad := range []uint64{0xbad00acce55, 0xbadacce55, ^uint64(0)} {
		generations(t, func(t *testing.T, g reg.Generation) {
			m := reg.For(g)
			regs := map[string]reg.Addr{
				"FABRIC_DIM": m.FabricDim, "BOOT_FIFO_COUNT": m.BootFIFOCount, "BOOT_CONTROL": m.BootControl,
				"SCRATCHPAD1": m.Scratchpad1, "SCRATCHPAD3": m.Scratchpad3, "SEMAPHORE0": m.Semaphore0, "SCRATCH_BUF_CTL": m.ScratchBufCtl,
				"SCRATCH_BUF_DAT": m.ScratchBufDat, "MEM_ACC_RSP_CNT": m.MemAccRspCnt, "UPTIME": m.Uptime, "SCRATCHPAD2": m.Scratchpad2,
			}
			for name, a := range regs {
				bubble(t, bluefield.Config{Generation: g}, usbdev.Options{}, func(r *rig, fn *usbdev.Function, d *rshim.Device) {
					stream := image(t, g, 200_000)
					fn.DPU().BadReads(a, bad, 0, 3)
					if err := d.WriteMisc(r.ctx, "DISPLAY_LEVEL 2"); err != nil {
						t.Fatal(err)
					}
					d.Misc(r.ctx)
					fn.DPU().BadReads(a, bad, 1, 5)
					if err := push(r.ctx, d, stream); err != nil {
						t.Errorf("%s: %v", name, err)
					}
					arrived(t, fn, stream)
				})
			}
			bubble(t, bluefield.Config{Generation: g}, usbdev.Options{}, func(r *rig, fn *usbdev.Function, d *rshim.Device) {
				fn.DPU().BadAll(bad, 5*time.Second)
				if err := push(r.ctx, d, image(t, g, 1000)); !errors.Is(err, rshim.ErrNotReady) {
					t.Errorf("push to a chip whose registers are all bad: %v", err)
				}
				time.Sleep(10 * time.Second)
				if err := push(r.ctx, d, image(t, g, 1000)); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// R26, as far as it is about USB: no device that goes, not even all of them,
// ends the daemon. The finder and the set run on, and take the next one.
func TestR26UnplugAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, rshim.Options{})
		time.Sleep(time.Minute) // with none at first
		fn := r.plug("1-1", bluefield.Config{}, usbdev.Options{})
		for range 3 {
			r.attached(0)
			fn.Unplug()
			time.Sleep(time.Minute)
			if n := len(r.set.Devices()); n != 0 {
				t.Fatalf("%d devices are still there", n)
			}
			fn.Plug()
		}
		r.attached(0)
	})
}

// R27: plugging and unplugging a thousand times leaves nothing behind.
func TestR27HotplugStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, rshim.Options{})
		rnd := rand.New(rand.NewPCG(27, 27))
		var fns []*usbdev.Function
		for i := range 4 {
			fns = append(fns, r.plug(usb.Location(fmt.Sprintf("1-%d", i+1)), bluefield.Config{}, usbdev.Options{}))
		}
		cycle := func(n int) {
			for range n {
				fn := fns[rnd.IntN(len(fns))]
				fn.Unplug()
				time.Sleep(time.Duration(rnd.IntN(50)) * time.Millisecond)
				fn.Plug()
				time.Sleep(time.Duration(rnd.IntN(1500)) * time.Millisecond)
			}
			for i := range fns {
				r.attached(i)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
		}
		cycle(20)
		before := runtime.NumGoroutine()
		cycle(1000)
		if after := runtime.NumGoroutine(); after > before {
			t.Errorf("%d goroutines, %d before the storm", after, before)
		}
	})
}
