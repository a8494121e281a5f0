// SPDX-License-Identifier: Apache-2.0

package rshim_test

import (
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

// TestAttachTrace holds the register accesses of an attach to the protocol:
// nothing before the chip answers, then the access check, then the keepalive,
// whose only regular traffic is one read.
func TestAttachTrace(t *testing.T) {
	generations(t, func(t *testing.T, g reg.Generation) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, rshim.Options{})
			m := reg.For(g)
			dpu := bluefield.New(bluefield.Config{Generation: g})
			dpu.Record(1000)
			fn := usbdev.New(dpu, usbdev.Options{})
			r.start(fn)
			begin := time.Now()
			r.bus.Plug("1-1", fn)
			r.attached(0)
			if took := time.Since(begin); took < time.Second || took > 1200*time.Millisecond {
				t.Errorf("attached after %v, want the access check's second and at most 200 ms", took)
			}
			checkTrace(t, m, dpu.Recorded())

			time.Sleep(10 * time.Minute) // the boot log is quiet by then
			dpu.Record(10000)
			time.Sleep(time.Minute)
			counts := make(map[bluefield.Access]int)
			for _, a := range dpu.Recorded() {
				a.Value = 0
				counts[a]++
			}
			idle := map[bluefield.Access]int{
				{Addr: m.Scratchpad1, Size: 8}:   200,
				{Addr: m.ScratchBufCtl, Size: 8}: 30,
			}
			for a, n := range counts {
				if n > idle[a]+1 {
					t.Errorf("%d times %+v in an idle minute, want %d", n, a, idle[a])
				}
			}
		})
	})
}

// checkTrace holds the beginning of a trace, in which nobody else has written,
// to an access check of a chip that has just been reset: a claim; after a third
// of a second a keepalive, for a moment; the claim again, and at the end the
// keepalive. Only scratchpad 1 is touched, and it is looked at every 10 ms.
func checkTrace(t *testing.T, m *reg.Map, trace []bluefield.Access) {
	t.Helper()
	if len(trace) < 2 || trace[0].Addr != m.FabricDim || trace[1] != (bluefield.Access{Addr: m.Scratchpad1, Size: 8}) {
		t.Fatalf("it begins with %+v", trace[:min(len(trace), 2)])
	}
	var wrote []uint64
	reads := []int{0}
	for _, a := range trace[2:] {
		if a.Addr != m.Scratchpad1 {
			break
		}
		if a.Write {
			wrote, reads = append(wrote, a.Value), append(reads, 0)
			continue
		}
		reads[len(reads)-1]++
		if a.Value != wrote[len(wrote)-1] {
			t.Fatalf("nobody but us has written, and %#x was read after %#x", a.Value, wrote)
		}
	}
	if len(wrote) != 4 || !reg.IsOwnershipClaim(wrote[0]) || wrote[2] != wrote[0] || wrote[1] != reg.Keepalive || wrote[3] != reg.Keepalive {
		t.Fatalf("%#x was written", wrote)
	}
	for i, want := range []int{0, 35, 10, 60, 0} {
		if n := reads[i]; n < want-2 || n > want+2 {
			t.Errorf("%d looks after write %d, want %d", n, i, want)
		}
	}
}

// TestKeepalive: who clears scratchpad 1 to find out whether there is an owner
// gets an answer in time, and debug data in it are left alone.
func TestKeepalive(t *testing.T) {
	generations(t, func(t *testing.T, g reg.Generation) {
		bubble(t, bluefield.Config{Generation: g}, usbdev.Options{}, func(r *rig, fn *usbdev.Function, d *rshim.Device) {
			m, dpu := reg.For(g), fn.DPU()
			for range 50 {
				dpu.WriteReg(m.Scratchpad1, 8, 0)
				time.Sleep(350 * time.Millisecond)
				if v := dpu.ReadReg(m.Scratchpad1, 8); v != reg.Keepalive {
					t.Fatalf("scratchpad 1 is %#x, want the keepalive", v)
				}
			}
			dpu.WriteReg(m.Scratchpad3, 8, 1<<59)
			dpu.WriteReg(m.Scratchpad1, 8, 0x1234)
			time.Sleep(5 * time.Second)
			if v := dpu.ReadReg(m.Scratchpad1, 8); v != 0x1234 {
				t.Errorf("debug data in scratchpad 1 became %#x", v)
			}
		})
	})
}

// TestContended: with a live owner elsewhere the RShim is left alone.
func TestContended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, rshim.Options{})
		m := reg.For(reg.BlueField3)
		fn, _ := owned(r)
		dpu := fn.DPU()
		d := r.device(0)
		r.state(d, rshim.Contended)
		dpu.Record(1000)
		if _, err := d.OpenBoot(r.ctx); !errors.Is(err, rshim.ErrNotOwner) {
			t.Errorf("OpenBoot: %v", err)
		}
		if err := d.WriteMisc(r.ctx, "SW_RESET 1\n"); !errors.Is(err, rshim.ErrNotOwner) {
			t.Errorf("SW_RESET: %v", err)
		}
		if err := d.WriteReg(r.ctx, m.Scratchpad2, 8, 1); !errors.Is(err, rshim.ErrNotOwner) {
			t.Errorf("WriteReg: %v", err)
		}
		for _, a := range dpu.Recorded() {
			if a.Write {
				t.Errorf("%+v was written", a)
			}
		}
	})
}

// TestReset goes through the ways in which chips reset: pushes wait for the
// chip to be ready, however long that takes, and not longer, and nothing of the
// stream is sent to one that is not.
func TestReset(t *testing.T) {
	for name, tc := range map[string]struct {
		b     bluefield.ResetBehaviour
		err   error
		after time.Duration // to the stream's begin, or to the error
	}{
		"healthy":             {after: 505 * time.Millisecond},
		"slow":                {b: bluefield.ResetBehaviour{Drop: 15 * time.Second}, after: 15 * time.Second},
		"back but not ready":  {b: bluefield.ResetBehaviour{Ready: 7 * time.Second}, after: 7500 * time.Millisecond},
		"back but reads zero": {b: bluefield.ResetBehaviour{Ready: 7 * time.Second, ReadZero: true}, after: 7500 * time.Millisecond},
		"held back":           {b: bluefield.ResetBehaviour{Held: 12 * time.Second}, after: 12505 * time.Millisecond},
		"held back for good":  {b: bluefield.ResetBehaviour{Held: time.Hour}, err: rshim.ErrNoReset, after: 20 * time.Second},
		"stays on the bus":    {b: bluefield.ResetBehaviour{Stay: true}, after: 505 * time.Millisecond},
		"never back":          {b: bluefield.ResetBehaviour{Never: true}, err: os.ErrDeadlineExceeded, after: 60 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			generations(t, func(t *testing.T, g reg.Generation) {
				bubble(t, bluefield.Config{Generation: g, Reset: tc.b}, usbdev.Options{}, func(r *rig, fn *usbdev.Function, d *rshim.Device) {
					stream := image(t, g, 50_000)
					begin := time.Now()
					b, err := d.OpenBoot(r.ctx)
					if err != nil {
						t.Fatal(err)
					}
					n, err := b.Write(r.ctx, stream)
					took := time.Since(begin)
					if !errors.Is(err, tc.err) {
						t.Errorf("Write: %d, %v; want %v", n, err, tc.err)
					}
					if took < tc.after || took > tc.after+time.Second {
						t.Errorf("took %v, want %v", took, tc.after)
					}
					if err := b.Close(r.ctx); !errors.Is(err, tc.err) {
						t.Errorf("Close: %v, want %v", err, tc.err)
					}
					if err == nil {
						arrived(t, fn, stream)
						return
					}
					if n, _ := fn.BootSum(); n != 0 {
						t.Errorf("%d bytes were sent to a chip that did not reset", n)
					}
				})
			})
		})
	}
}

// TestSWReset: SW_RESET of misc resets the chip, which is attached again.
func TestSWReset(t *testing.T) {
	generations(t, func(t *testing.T, g reg.Generation) {
		for _, b := range []bluefield.ResetBehaviour{{}, {Stay: true}, {Held: 3 * time.Second}} {
			bubble(t, bluefield.Config{Generation: g, Reset: b}, usbdev.Options{}, func(r *rig, fn *usbdev.Function, d *rshim.Device) {
				dpu := fn.DPU()
				dpu.WriteReg(reg.For(g).Scratchpad2, 8, 0xff)
				dpu.Record(100)
				if err := d.WriteMisc(r.ctx, "BOOT_MODE 1\nSW_RESET 1\n"); err != nil {
					t.Fatal(err)
				}
				// No register is touched while the chip goes down.
				trace := dpu.Recorded()
				if last := trace[len(trace)-1]; !last.Write || last.Addr != reg.For(g).ResetControl {
					t.Errorf("the last access is %+v, want the reset", last)
				}
				time.Sleep(400 * time.Millisecond)
				if b.Stay || b.Held > 0 {
					if more := len(dpu.Recorded()) - len(trace); more > 0 {
						t.Errorf("%d accesses within 400 ms of the reset", more)
					}
				}
				time.Sleep(10 * time.Second)
				r.state(d, rshim.Attached)
				if v := dpu.ReadReg(reg.For(g).Scratchpad2, 8); v == 0xff {
					t.Error("the chip has not reset")
				}
			})
		}
	})
}

// TestShapes: endpoints are found whatever their addresses and order.
func TestShapes(t *testing.T) {
	for _, o := range []usbdev.Options{
		{TMFIFOFirst: true},
		{Reversed: true},
		{TMFIFOFirst: true, Reversed: true, Boot: 0x05, TMOut: 0x03, TMIn: 0x86, TMInt: 0x84},
	} {
		bubble(t, bluefield.Config{}, o, func(r *rig, fn *usbdev.Function, d *rshim.Device) {
			stream := image(t, reg.BlueField3, 50_000)
			if err := push(r.ctx, d, stream); err != nil {
				t.Fatal(err)
			}
			arrived(t, fn, stream)
		})
	}
}

// TestManyDevices: eight devices attach in parallel, and one that does not
// answer slows no other.
func TestManyDevices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, rshim.Options{})
		begin := time.Now()
		for i := range 8 {
			fn := usbdev.New(bluefield.New(bluefield.Config{}), usbdev.Options{})
			r.start(fn)
			fn.SetNAK(0, i == 3) // hung
			r.bus.Plug(usb.Location([]string{"1-1", "1-2", "1-3", "1-4", "2-1", "2-2.1", "2-2.2", "2-2.3"}[i]), fn)
		}
		for i := range 8 {
			if i != 3 {
				r.attached(i)
			}
		}
		if took := time.Since(begin); took > 1200*time.Millisecond {
			t.Errorf("seven devices attached after %v", took)
		}
		if s, _ := r.device(3).State(); s != rshim.Probing {
			t.Errorf("the hung device is %v", s)
		}
	})
}
