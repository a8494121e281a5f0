// SPDX-License-Identifier: Apache-2.0

package usbdev_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

func TestEnumeration(t *testing.T) {
	for g, product := range map[reg.Generation]uint16{
		reg.BlueField1: reg.USBProductBlueField1, reg.BlueField2: reg.USBProductBlueField2, reg.BlueField3: reg.USBProductBlueField3,
	} {
		synctest.Test(t, func(t *testing.T) {
			b, _ := plug(t, bluefield.Config{Generation: g, Revision: 3}, usbdev.Options{TMFIFOFirst: true, Reversed: true, Boot: 0x05})
			d, info := open(t, b)
			if info.Location != where || info.Product != product || info.Release != 3 || info.Speed != usb.SpeedHigh {
				t.Errorf("info %+v", info)
			}
			ifs := d.Interfaces()
			if len(ifs) != 2 || ifs[0].Subclass != reg.USBSubclassTMFIFO || ifs[0].Number != 0 || ifs[1].Endpoints[0].Address != 5 {
				t.Errorf("interfaces %+v", ifs)
			}
			if e := ifs[0].Endpoints; len(e) != 3 || e[0].Address != 0x02 || e[2].Type != usb.Interrupt {
				t.Errorf("endpoints %+v", e)
			}
			if others, err := b.Devices(t.Context(), 0x1234); len(others) != 0 || err != nil {
				t.Errorf("other vendor: %v, %v", others, err)
			}
		})
	}
}

func TestRegisters(t *testing.T) {
	for _, g := range []reg.Generation{reg.BlueField1, reg.BlueField2, reg.BlueField3} {
		synctest.Test(t, func(t *testing.T) {
			b, f := plug(t, bluefield.Config{Generation: g}, usbdev.Options{})
			d, _ := open(t, b)
			m := reg.For(g)
			for _, a := range []reg.Addr{m.Scratchpad1, m.WatchdogControl} {
				if err := writeReg(t.Context(), d, g, a, 0x1122334455667788); err != nil {
					t.Fatal(err)
				}
				if v, err := readReg(t.Context(), d, g, a); v != 0x1122334455667788 || err != nil {
					t.Errorf("%v reads %#x, %v", a, v, err)
				}
				if v := f.DPU().ReadReg(a, 8); v != 0x1122334455667788 {
					t.Errorf("%v is %#x in the DPU", a, v)
				}
			}
			v, i := g.USB(m.Scratchpad1)
			half := make([]byte, 4)
			n, err := d.Control(t.Context(), usb.Setup{RequestType: reg.USBRequestRead, Value: v, Index: i}, half)
			if g == reg.BlueField3 && (n != 4 || err != nil || half[0] != 0x88) {
				t.Errorf("read of 4 bytes: %d % x, %v", n, half, err)
			}
			if g != reg.BlueField3 && !errors.Is(err, usb.ErrStall) {
				t.Errorf("read of 4 bytes: %d, %v; want a stall", n, err)
			}
		})
	}
}

func TestReplugGivesNewAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, f := plug(t, bluefield.Config{}, usbdev.Options{})
		<-b.Changes()
		d, info := open(t, b)
		x := submit(t, d, 0x81, make([]byte, 8))
		f.Unplug()
		want(t, x, 0, usb.ErrNoDevice)
		<-d.Gone()
		<-b.Changes()
		if infos, _ := b.Devices(t.Context(), reg.USBVendor); len(infos) != 0 {
			t.Errorf("unplugged, but listed: %v", infos)
		}
		f.Plug()
		<-b.Changes()
		for _, err := range []error{
			func() error { _, err := b.Open(t.Context(), info); return err }(),
			func() error { _, err := d.Submit(1, nil); return err }(),
			func() error { _, err := readReg(t.Context(), d, reg.BlueField3, reg.Addr{}); return err }(),
			d.Claim(0), d.ClearHalt(t.Context(), 1), b.Reset(t.Context(), info),
		} {
			if !errors.Is(err, usb.ErrNoDevice) {
				t.Errorf("old device: %v", err)
			}
		}
		if _, again := open(t, b); again.Address == info.Address {
			t.Errorf("same address %d after a replug", info.Address)
		}
		b.Unplug(where)
		if infos, _ := b.Devices(t.Context(), reg.USBVendor); len(infos) != 0 {
			t.Errorf("taken away, but listed: %v", infos)
		}
	})
}

func TestLowSpeedThenReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := plug(t, bluefield.Config{}, usbdev.Options{LowSpeed: 2})
		for _, speed := range []usb.Speed{usb.SpeedLow, usb.SpeedLow, usb.SpeedHigh, usb.SpeedHigh} {
			_, info := open(t, b)
			if info.Speed != speed {
				t.Errorf("speed %v, want %v", info.Speed, speed)
			}
			if err := b.Reset(t.Context(), info); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestChipResetReenumerates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, f := plug(t, bluefield.Config{}, usbdev.Options{})
		d, info := open(t, b)
		begun := time.Now()
		if err := writeReg(t.Context(), d, reg.BlueField3, f.DPU().Map().ResetControl, reg.ResetKey); err != nil {
			t.Fatal(err)
		}
		<-d.Gone()
		if took := time.Since(begun); took != 5*time.Millisecond {
			t.Errorf("left the bus after %v", took)
		}
		for st, changed := f.State(); !st.Present; st, changed = f.State() {
			<-changed
		}
		if took := time.Since(begun); took != 505*time.Millisecond {
			t.Errorf("back after %v", took)
		}
		if _, again := open(t, b); again.Address == info.Address {
			t.Error("same address after a reset")
		}
	})
}

func TestClaimAndClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := plug(t, bluefield.Config{}, usbdev.Options{})
		d1, _ := open(t, b)
		d2, _ := open(t, b)
		if err := errors.Join(d1.Claim(0), d1.Claim(0)); err != nil {
			t.Error(err)
		}
		if err := d2.Claim(0); !errors.Is(err, usb.ErrBusy) {
			t.Errorf("claimed twice: %v", err)
		}
		if d1.Claim(7) == nil {
			t.Error("claimed what is not there")
		}
		x, y := submit(t, d1, 0x81, make([]byte, 8)), submit(t, d2, 0x81, make([]byte, 8))
		d1.Close()
		want(t, x, 0, usb.ErrClosed)
		if isDone(y) {
			t.Error("closing one device ended the other's transfer")
		}
		if err := d2.Claim(0); err != nil {
			t.Errorf("claim after close: %v", err)
		}
		if _, err := d1.Submit(1, nil); !errors.Is(err, usb.ErrClosed) {
			t.Errorf("submit to a closed device: %v", err)
		}
		if err := d1.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestControlIsCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, f := setup(t, usbdev.Options{})
		f.SetNAK(0, true)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begun := time.Now()
		_, err := readReg(ctx, d, reg.BlueField3, f.DPU().Map().FabricDim)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) != time.Second {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
		f.SetNAK(0, false)
		if v, err := readReg(t.Context(), d, reg.BlueField3, f.DPU().Map().FabricDim); v != 0x22 || err != nil {
			t.Errorf("then %#x, %v", v, err)
		}
	})
}

// An idle device sets no timers: the fake clock would not get a year ahead
// otherwise.
func TestIdleIsFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _ := setup(t, usbdev.Options{Latency: time.Millisecond, LinkRate: 1_000_000})
		x, y := submit(t, d, 0x81, make([]byte, 8)), submit(t, d, 0x82, make([]byte, 8))
		time.Sleep(365 * 24 * time.Hour)
		if isDone(x) || isDone(y) {
			t.Error("something came from nothing")
		}
	})
}

// Whoever is told of a register write may pull the cable.
func TestUnplugFromOnWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f *usbdev.Function
		unplug := func(reg.Addr, uint64) { f.Unplug() }
		b, f := plug(t, bluefield.Config{OnWrite: unplug}, usbdev.Options{})
		d, _ := open(t, b)
		if err := writeReg(t.Context(), d, reg.BlueField3, f.DPU().Map().Scratchpad1, 1); !errors.Is(err, usb.ErrNoDevice) {
			t.Errorf("%v, want no device", err)
		}
		f.Plug()
		d, _ = open(t, b)
		if v, err := readReg(t.Context(), d, reg.BlueField3, f.DPU().Map().Scratchpad1); v != 1 || err != nil {
			t.Errorf("read %#x, %v", v, err)
		}
	})
}
