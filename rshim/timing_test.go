// SPDX-License-Identifier: Apache-2.0

package rshim_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
)

// trouble is what a DPU may be up to while a push is interrupted.
var trouble = map[string]func(fn *usbdev.Function){
	"none":              func(fn *usbdev.Function) {},
	"slow to reset":     func(fn *usbdev.Function) { fn.DPU().SetReset(bluefield.ResetBehaviour{Drop: 30 * time.Second}) },
	"slow to get ready": func(fn *usbdev.Function) { fn.DPU().SetReset(bluefield.ResetBehaviour{Ready: 30 * time.Second}) },
	"held reset":        func(fn *usbdev.Function) { fn.DPU().SetReset(bluefield.ResetBehaviour{Held: 15 * time.Second}) },
	"stays":             func(fn *usbdev.Function) { fn.DPU().SetReset(bluefield.ResetBehaviour{Stay: true}) },
	"never back":        func(fn *usbdev.Function) { fn.DPU().SetReset(bluefield.ResetBehaviour{Never: true}) },
	"slow drain":        func(fn *usbdev.Function) { fn.DPU().SetDrainRate(20_000) },
	"control hangs":     func(fn *usbdev.Function) { time.AfterFunc(2*time.Second, func() { fn.SetNAK(0, true) }) },
	"bulk hangs":        func(fn *usbdev.Function) { fn.SetNAK(1, true) },
	"stalls": func(fn *usbdev.Function) {
		for n := range 200 {
			fn.Inject(usbdev.Fault{Endpoint: 1, Nth: n + 1, Kind: usbdev.Stall, After: 512 * (n % 2)})
		}
	},
	"stall and hang": func(fn *usbdev.Function) {
		fn.Inject(usbdev.Fault{Endpoint: 1, Nth: 3, Kind: usbdev.Stall})
		time.AfterFunc(1700*time.Millisecond, func() { fn.SetNAK(0, true) })
	},
	"faults": func(fn *usbdev.Function) {
		for n := range 200 {
			fn.Inject(usbdev.Fault{Endpoint: 1, Nth: n + 1, Kind: usbdev.Protocol, After: 512 * (n % 2)})
		}
	},
	"pause": func(fn *usbdev.Function) { fn.DPU().PauseDrain(50_000, time.Hour) },
}

// moments are after the opening of the boot stream.
var moments = []time.Duration{
	0, 7 * time.Millisecond, 300 * time.Millisecond, 600 * time.Millisecond,
	1600 * time.Millisecond, 1750 * time.Millisecond, 2500 * time.Millisecond, 25 * time.Second,
}

// TestInterrupt: whatever a Write waits for, it returns within 100 ms of its
// context's end.
func TestInterrupt(t *testing.T) {
	generations(t, func(t *testing.T, g reg.Generation) {
		for name, begin := range trouble {
			for _, after := range moments {
				bubble(t, bluefield.Config{Generation: g}, usbdev.Options{Latency: time.Millisecond}, func(r *rig, fn *usbdev.Function, d *rshim.Device) {
					begin(fn)
					b, err := d.OpenBoot(r.ctx)
					if err != nil {
						return
					}
					ctx, cancel := context.WithTimeout(r.ctx, after)
					defer cancel()
					stream := image(t, g, 1<<20)
					for len(stream) > 0 && err == nil {
						var n int
						n, err = b.Write(ctx, stream[:min(len(stream), 128<<10)])
						stream = stream[n:]
					}
					deadline, _ := ctx.Deadline()
					if late := time.Since(deadline); late > 100*time.Millisecond {
						t.Errorf("%s: Write returned %v after it was interrupted at %v: %v", name, late, after, err)
					}
					// The program that is killed waits for Close.
					begin := time.Now()
					err = b.Close(r.ctx)
					if took := time.Since(begin); len(stream) > 0 && took > 600*time.Millisecond {
						t.Errorf("%s: Close took %v after an interruption at %v: %v", name, took, after, err)
					}
					if len(stream) > 0 && err == nil {
						t.Errorf("%s: Close after an interruption at %v: nil", name, after)
					}
				})
			}
		}
	})
}

// TestTerminate: the daemon ends in less than a second, at any moment of a push
// to whatever DPU, and a push that it cuts short has failed.
func TestTerminate(t *testing.T) {
	generations(t, func(t *testing.T, g reg.Generation) {
		for name, begin := range trouble {
			for _, after := range moments {
				synctest.Test(t, func(t *testing.T) {
					r := newRig(t, rshim.Options{})
					fn := r.plug("1-1", bluefield.Config{Generation: g}, usbdev.Options{Latency: time.Millisecond})
					d := r.attached(0)
					begin(fn)
					stream := image(t, g, 1<<20)
					pushed := make(chan error, 1)
					go func() { pushed <- push(r.ctx, d, stream) }()
					time.Sleep(after)
					begin := time.Now()
					r.stop()
					err := <-pushed
					if took := time.Since(begin); took > 900*time.Millisecond {
						t.Errorf("%s: the daemon took %v to end at %v", name, took, after)
					}
					n, _ := fn.BootSum()
					if done := d.Push().Phase == rshim.PushDone; done != (err == nil) || done && n < int64(len(stream)) {
						t.Errorf("%s: ended at %v: %v, %+v, %d bytes arrived", name, after, err, d.Push(), n)
					}
				})
			}
		}
	})
}

// TestMiscDuringPush is R12: who reads misc ten times a second during a push at
// full speed is answered within 50 ms, and slows the push by less than 5 %.
func TestMiscDuringPush(t *testing.T) {
	generations(t, func(t *testing.T, g reg.Generation) {
		for _, level := range []string{"0", "1", "2"} {
			timed := func(readers bool) (took time.Duration, reads []time.Duration) {
				bubble(t, bluefield.Config{Generation: g}, usbdev.Options{Latency: time.Millisecond, LinkRate: 40_000_000}, func(r *rig, fn *usbdev.Function, d *rshim.Device) {
					if err := d.WriteMisc(r.ctx, "DISPLAY_LEVEL "+level); err != nil {
						t.Fatal(err)
					}
					stream := image(t, g, map[reg.Generation]int{reg.BlueField2: 24 << 20, reg.BlueField3: 4 << 20}[g])
					ctx, cancel := context.WithCancel(r.ctx)
					done := make(chan struct{})
					go func() {
						defer close(done)
						for readers {
							select {
							case <-time.After(100 * time.Millisecond):
							case <-ctx.Done():
								return
							}
							begin := time.Now()
							d.Misc(r.ctx)
							if d.Push().Phase == rshim.PushStreaming {
								reads = append(reads, time.Since(begin))
							}
						}
					}()
					begin := time.Now()
					if err := push(r.ctx, d, stream); err != nil {
						t.Error(err)
					}
					took = time.Since(begin)
					cancel()
					<-done
					arrived(t, fn, stream)
				})
				return took, reads
			}
			alone, _ := timed(false)
			took, reads := timed(true)
			if took > alone*105/100 {
				t.Errorf("level %s: the push took %v, alone %v", level, took, alone)
			}
			slices.Sort(reads)
			if len(reads) < 5 {
				t.Fatalf("level %s: misc was read %d times", level, len(reads))
			}
			if p99 := reads[len(reads)*99/100]; p99 >= 50*time.Millisecond {
				t.Errorf("level %s: misc took up to %v, %v at the 99th percentile", level, reads[len(reads)-1], p99)
			}
			t.Logf("level %s: push %v, alone %v; %d reads of misc, median %v, slowest %v", level, took, alone, len(reads), reads[len(reads)/2], reads[len(reads)-1])
		}
	})
}

// TestMiscWithoutOwner: misc is quick also where nobody may read the boot log.
func TestMiscWithoutOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, rshim.Options{DisplayLevel: 2})
		fn, _ := owned(r)
		d := r.device(0)
		r.state(d, rshim.Contended)
		begin := time.Now()
		d.Misc(r.ctx)
		if took := time.Since(begin); took > 100*time.Millisecond {
			t.Errorf("misc took %v", took)
		}
		fn.Unplug()
		r.state(d, rshim.Gone)
		begin = time.Now()
		d.Misc(r.ctx)
		if took := time.Since(begin); took > 100*time.Millisecond {
			t.Errorf("misc took %v", took)
		}
	})
}

// TestRegisterTimeout: a register that does not answer fails after USB_TIMEOUT.
func TestRegisterTimeout(t *testing.T) {
	bubble(t, bluefield.Config{}, usbdev.Options{}, func(r *rig, fn *usbdev.Function, d *rshim.Device) {
		if err := d.WriteMisc(r.ctx, "USB_TIMEOUT 3"); err != nil {
			t.Fatal(err)
		}
		fn.SetNAK(0, true)
		time.Sleep(time.Second) // the keepalive waits by now
		_, err := d.ReadReg(r.ctx, fn.DPU().Map().Uptime, 8)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read: %v", err)
		}
		fn.SetNAK(0, false)
		time.Sleep(5 * time.Second)
		if _, err := d.ReadReg(r.ctx, fn.DPU().Map().Uptime, 8); err != nil {
			t.Errorf("read afterwards: %v", err)
		}
	})
}
