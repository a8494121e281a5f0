// SPDX-License-Identifier: Apache-2.0

package rshim_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
	"github.com/bluefield-go/bmc-rshim/usbbackend"
	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

// setRig is a rig whose set has options.
type setRig struct {
	*rig
	log bytes.Buffer
}

func newSetRig(t *testing.T, o rshim.SetOptions) *setRig {
	r := &setRig{rig: &rig{t: t, bus: usbdev.NewBus()}}
	ctx, cancel := context.WithCancel(t.Context())
	r.ctx = ctx
	o.Device.Logger = slog.New(slog.NewTextHandler(&r.log, nil))
	r.set = rshim.NewSet(o)
	var wg sync.WaitGroup
	wg.Go(func() { _ = r.set.Run(ctx) })
	finder := usbbackend.Finder{Host: r.bus, Wake: r.bus.Changes(), Wants: r.set.Wants}
	wg.Go(func() {
		_ = finder.Run(ctx, func(d *usbbackend.Device) func(context.Context) error { return r.set.Adopt(d) })
	})
	r.stop = func() {
		cancel()
		wg.Wait()
	}
	t.Cleanup(r.stop)
	return r
}

// is checks which devices are there, "0:usb-1.1 3:usb-2.1", after some time.
func (r *setRig) is(want string) {
	r.t.Helper()
	time.Sleep(time.Minute)
	synctest.Wait()
	var got []string
	for _, d := range r.set.Devices() {
		got = append(got, fmt.Sprintf("%d:%s", d.Index(), d.Status().Name))
	}
	if s := strings.Join(got, " "); s != want {
		r.t.Errorf("devices are %q, want %q; the log:\n%s", s, want, &r.log)
	}
}

// leave unplugs a DPU once it has been seen, for less time than it keeps its
// device.
func (r *setRig) leave(fn *usbdev.Function) {
	time.Sleep(time.Minute)
	fn.Unplug()
	time.Sleep(time.Second)
}

// said checks that the log says something so many times.
func (r *setRig) said(times int, what string) {
	r.t.Helper()
	if n := strings.Count(r.log.String(), what); n != times {
		r.t.Errorf("the log says %q %d times, not %d:\n%s", what, n, times, &r.log)
	}
}

func TestSetIndex(t *testing.T) {
	const a, b, c = usb.Location("1-1"), usb.Location("2-1"), usb.Location("3-1") // usb-1.1, ...
	two := 2
	var cfg bluefield.Config
	for _, tc := range []struct {
		name string
		o    rshim.SetOptions
		run  func(r *setRig)
	}{
		{"in the order of places", rshim.SetOptions{}, func(r *setRig) {
			r.plug(b, cfg, usbdev.Options{})
			r.is("0:usb-2.1")
			r.plug(a, cfg, usbdev.Options{})
			r.is("0:usb-2.1 1:usb-1.1")
		}},
		{"mapped", rshim.SetOptions{Index: map[string]int{"usb-1.1": 3, "usb-2.1": 0}}, func(r *setRig) {
			// What is mapped to another is left free for it.
			r.plug(c, cfg, usbdev.Options{})
			r.is("1:usb-3.1")
			fn := r.plug(a, cfg, usbdev.Options{})
			r.is("1:usb-3.1 3:usb-1.1")
			r.plug(b, cfg, usbdev.Options{})
			r.is("0:usb-2.1 1:usb-3.1 3:usb-1.1")
			fn.Unplug()
			r.is("0:usb-2.1 1:usb-3.1")
			fn.Plug()
			r.is("0:usb-2.1 1:usb-3.1 3:usb-1.1")
		}},
		{"the same device elsewhere", rshim.SetOptions{}, func(r *setRig) {
			r.leave(r.plug(a, cfg, usbdev.Options{}))
			d := r.device(0)
			r.plug(b, cfg, usbdev.Options{})
			r.is("0:usb-2.1")
			if r.device(0) != d {
				r.t.Error("rshim0 is another device")
			}
		}},
		{"another device, as it is mapped", rshim.SetOptions{Index: map[string]int{"usb-2.1": 1}}, func(r *setRig) {
			r.leave(r.plug(a, cfg, usbdev.Options{}))
			r.plug(b, cfg, usbdev.Options{})
			r.is("1:usb-2.1")
		}},
		{"another device, as the old one is mapped", rshim.SetOptions{Index: map[string]int{"usb-1.1": 0}}, func(r *setRig) {
			r.leave(r.plug(a, cfg, usbdev.Options{}))
			r.plug(b, cfg, usbdev.Options{})
			r.is("1:usb-2.1")
		}},
		{"the same device, as it is mapped later", rshim.SetOptions{}, func(r *setRig) {
			r.leave(r.plug(a, cfg, usbdev.Options{}))
			d := r.device(0)
			r.set.Map(map[string]int{"usb-2.1": 0}, nil)
			r.plug(b, cfg, usbdev.Options{})
			r.is("0:usb-2.1")
			if r.device(0) != d {
				r.t.Error("rshim0 is another device")
			}
		}},
		{"mapped to another index and then to none", rshim.SetOptions{Index: map[string]int{"usb-1.1": 5}}, func(r *setRig) {
			fn := r.plug(a, cfg, usbdev.Options{})
			r.leave(fn)
			r.set.Map(map[string]int{"usb-1.1": 3}, nil)
			fn.Plug()
			r.is("3:usb-1.1")
			r.leave(fn)
			r.set.Map(nil, nil)
			fn.Plug()
			r.is("3:usb-1.1")
		}},
		{"mapped later to an index in use", rshim.SetOptions{}, func(r *setRig) {
			fn := r.plug(a, cfg, usbdev.Options{})
			r.plug(b, cfg, usbdev.Options{})
			r.is("0:usb-1.1 1:usb-2.1")
			r.set.Map(map[string]int{"usb-3.1": 0}, nil)
			r.plug(c, cfg, usbdev.Options{})
			r.is("0:usb-1.1 1:usb-2.1")
			r.said(1, "usb-3.1: no free index: it is to be rshim0, which usb-1.1 is")
			fn.Unplug()
			r.is("0:usb-3.1 1:usb-2.1")
			fn.Plug() // its index is another's now
			r.is("0:usb-3.1 1:usb-2.1 2:usb-1.1")
		}},
		{"mapped later to another index", rshim.SetOptions{}, func(r *setRig) {
			fn := r.plug(a, cfg, usbdev.Options{})
			r.is("0:usb-1.1")
			r.set.Map(map[string]int{"usb-1.1": 4}, nil)
			r.is("0:usb-1.1")
			r.leave(fn)
			fn.Plug() // before rshim0 is gone for good
			r.is("4:usb-1.1")
			r.plug(b, cfg, usbdev.Options{})
			r.is("1:usb-2.1 4:usb-1.1") // rshim0 has been used
		}},
		{"blocked", rshim.SetOptions{Blocked: map[string]bool{"usb-1.1": true}}, func(r *setRig) {
			r.plug(a, cfg, usbdev.Options{})
			r.plug(b, cfg, usbdev.Options{})
			r.is("0:usb-2.1")
			r.said(1, "usb-1.1: not to be served")
			r.said(1, "level=INFO msg=\"not served\"")
			r.set.Map(nil, map[string]bool{"usb-2.1": true}) // which goes on
			r.is("0:usb-2.1 1:usb-1.1")
		}},
		{"one name only", rshim.SetOptions{OnlyName: "usb-2.1"}, func(r *setRig) {
			r.plug(a, cfg, usbdev.Options{})
			r.is("")
			r.plug(b, cfg, usbdev.Options{})
			r.is("0:usb-2.1")
			r.said(1, "usb-1.1: not to be served: usb-2.1 alone is")
		}},
		{"one index only", rshim.SetOptions{OnlyIndex: &two, Index: map[string]int{"usb-1.1": 3}}, func(r *setRig) {
			fn := r.plug(a, cfg, usbdev.Options{})
			r.plug(b, cfg, usbdev.Options{})
			r.is("2:usb-1.1")
			r.said(1, "usb-2.1: no free index: it is to be rshim2, which usb-1.1 is")
			fn.Unplug()
			r.is("2:usb-2.1")
		}},
		{"no such index", rshim.SetOptions{Index: map[string]int{"usb-1.1": 64}}, func(r *setRig) {
			r.plug(a, cfg, usbdev.Options{})
			r.is("")
			r.said(1, "no free index: it is to be rshim64")
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newSetRig(t, tc.o)
				tc.run(r)
				r.stop()
			})
		})
	}
}

// TestSetRefuses: what a device that is not wanted gets from Adopt, if it comes
// so far.
func TestSetRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newSetRig(t, rshim.SetOptions{OnlyName: "usb-2.1"})
		fn := usbdev.New(bluefield.New(bluefield.Config{}), usbdev.Options{})
		r.start(fn)
		bus := usbdev.NewBus()
		bus.Plug("1-1", fn)
		infos, err := bus.Devices(r.ctx, 0x22dc)
		if err != nil || len(infos) != 1 {
			t.Fatal(infos, err)
		}
		d, err := usbbackend.Open(r.ctx, bus, infos[0], nil)
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		if err := r.set.Adopt(d)(r.ctx); !errors.Is(err, rshim.ErrBlocked) || time.Since(begin) > 0 {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
		// It has been let go of.
		again, err := usbbackend.Open(r.ctx, bus, infos[0], nil)
		if err != nil {
			t.Fatal(err)
		}
		again.Close()
		r.stop()
	})
}

// TestSetConfigure: devices present and to come get what has changed, and just
// that.
func TestSetConfigure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newSetRig(t, rshim.SetOptions{Device: rshim.Options{BootTimeout: 7 * time.Second}})
		r.plug("1-1", bluefield.Config{}, usbdev.Options{})
		d := r.attached(0)
		check := func(d *rshim.Device, lines ...string) {
			t.Helper()
			text := d.Misc(r.ctx)
			for _, l := range lines {
				if !strings.Contains(text, l+" ") {
					t.Errorf("rshim%d: no %q in misc:\n%s", d.Index(), l, text)
				}
			}
		}
		if err := d.WriteMisc(r.ctx, "BOOT_TIMEOUT 9\nDISPLAY_LEVEL 1"); err != nil {
			t.Fatal(err)
		}
		r.set.Configure(rshim.Options{BootTimeout: 7 * time.Second, USBTimeout: 50 * time.Second})
		check(d, "BOOT_TIMEOUT    9", "USB_TIMEOUT     50", "DISPLAY_LEVEL   1")
		r.plug("2-1", bluefield.Config{}, usbdev.Options{})
		check(r.attached(1), "BOOT_TIMEOUT    7", "USB_TIMEOUT     50", "DISPLAY_LEVEL   0")
		r.set.Configure(rshim.Options{DisplayLevel: 2})
		check(d, "BOOT_TIMEOUT    300", "USB_TIMEOUT     40", "DISPLAY_LEVEL   2")
		check(r.attached(1), "BOOT_TIMEOUT    300", "USB_TIMEOUT     40", "DISPLAY_LEVEL   2")
		r.stop()
	})
}
