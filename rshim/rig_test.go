// SPDX-License-Identifier: Apache-2.0

package rshim_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/rshim/bfb"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
	"github.com/bluefield-go/bmc-rshim/usbbackend"
	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

// rig is a simulated BMC: a USB bus with DPUs on it, and the devices that the
// core makes of them. It runs in a synctest bubble, so that time is virtual.
type rig struct {
	t   *testing.T
	ctx context.Context
	bus *usbdev.Bus
	set *rshim.Set

	stop func() // ends the daemon and waits until it has

	wrap func(rshim.Backend) rshim.Backend // nil: Backends are served as they are
}

// generations runs a test for both generations that have everything.
func generations(t *testing.T, f func(t *testing.T, g reg.Generation)) {
	for _, g := range []reg.Generation{reg.BlueField2, reg.BlueField3} {
		t.Run(g.String(), func(t *testing.T) { f(t, g) })
	}
}

// bubble runs f with a rig that has one DPU, rshim0 at 1-1, attached.
func bubble(t *testing.T, cfg bluefield.Config, o usbdev.Options, f func(r *rig, fn *usbdev.Function, d *rshim.Device)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, rshim.Options{})
		fn := r.plug("1-1", cfg, o)
		f(r, fn, r.attached(0))
	})
}

func newRig(t *testing.T, o rshim.Options) *rig {
	ctx, cancel := context.WithCancel(t.Context())
	if testing.Verbose() && os.Getenv("RSHIM_TEST_LOG") != "" {
		o.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	r := &rig{t: t, ctx: ctx, bus: usbdev.NewBus(), set: rshim.NewSet(rshim.SetOptions{Device: o})}
	var wg sync.WaitGroup
	wg.Go(func() { _ = r.set.Run(ctx) })
	finder := usbbackend.Finder{Host: r.bus, Wake: r.bus.Changes(), Logger: o.Logger}
	wg.Go(func() {
		_ = finder.Run(ctx, func(d *usbbackend.Device) func(context.Context) error {
			if r.wrap != nil {
				return r.set.Adopt(r.wrap(d))
			}
			return r.set.Adopt(d)
		})
	})
	r.stop = func() {
		cancel()
		wg.Wait()
	}
	t.Cleanup(r.stop)
	return r
}

// plug plugs a DPU in and runs it.
func (r *rig) plug(at usb.Location, cfg bluefield.Config, o usbdev.Options) *usbdev.Function {
	fn := usbdev.New(bluefield.New(cfg), o)
	r.start(fn)
	r.bus.Plug(at, fn)
	return fn
}

// start runs a function until the end of the test.
func (r *rig) start(fn *usbdev.Function) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = fn.Run(ctx)
	}()
	r.t.Cleanup(func() {
		cancel()
		<-done
	})
}

// device waits until there is a device rshim<index>.
func (r *rig) device(index int) *rshim.Device {
	r.t.Helper()
	for range 1000 {
		for _, d := range r.set.Devices() {
			if d.Index() == index {
				return d
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	r.t.Fatalf("no rshim%d", index)
	return nil
}

// state waits until the device is in a state.
func (r *rig) state(d *rshim.Device, want rshim.State) {
	r.t.Helper()
	deadline := time.After(5 * time.Minute)
	for {
		changed := d.Changed()
		got, reason := d.State()
		if got == want {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			r.t.Fatalf("rshim%d is %v (%s), want %v", d.Index(), got, reason, want)
		}
	}
}

func (r *rig) attached(index int) *rshim.Device {
	r.t.Helper()
	d := r.device(index)
	r.state(d, rshim.Attached)
	return d
}

// image makes a BFB for a generation that is about size bytes long.
func image(t testing.TB, g reg.Generation, size int) []byte {
	t.Helper()
	rnd := rand.New(rand.NewPCG(1, uint64(size)))
	data := func(n int) io.ReadSeeker {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		return bytes.NewReader(b)
	}
	v := bfb.VersionOf(g)
	var b bytes.Buffer
	err := bfb.Write(&b,
		bfb.Part{ID: bfb.IDBL2R, Version: v, Data: data(1000)},
		bfb.Part{ID: bfb.IDBL2, Version: v, Data: data(3001)},
		bfb.Part{ID: bfb.IDBL31, Version: v, Data: data(2000)},
		bfb.Part{ID: bfb.IDBL33, Version: v, Data: data(5000)},
		bfb.Part{ID: bfb.IDImage, Version: 0, Data: data(size / 4)},
		bfb.Part{ID: bfb.IDInitramfs, Version: 0, Data: data(size - size/4)},
	)
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// push writes a stream as cat does, in pieces of 128 KiB, and closes it.
func push(ctx context.Context, d *rshim.Device, stream []byte) error {
	b, err := d.OpenBoot(ctx)
	if err != nil {
		return err
	}
	for len(stream) > 0 && err == nil {
		var n int
		n, err = b.Write(ctx, stream[:min(len(stream), 128<<10)])
		stream = stream[n:]
	}
	return errors.Join(err, b.Close(ctx))
}
