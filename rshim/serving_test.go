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

// serve switches, which takes no longer than an attach.
func (r *rig) serve(on bool) {
	r.t.Helper()
	began := time.Now()
	if err := r.set.Serve(r.ctx, on); err != nil {
		r.t.Errorf("Serve %v: %v", on, err)
	}
	if took := time.Since(began); took > 3*time.Second {
		r.t.Errorf("Serve %v took %v", on, took)
	}
	if r.set.Serving() != on {
		r.t.Errorf("Serving is %v", !on)
	}
}

// states checks the states of all devices.
func (r *rig) states(want ...rshim.State) {
	r.t.Helper()
	ds := r.set.Devices()
	if len(ds) != len(want) {
		r.t.Fatalf("%d devices, want %d", len(ds), len(want))
	}
	for i, d := range ds {
		if s, reason := d.State(); s != want[i] {
			r.t.Errorf("rshim%d is %v (%s), want %v", d.Index(), s, reason, want[i])
		}
	}
}

// TestServe: off, nothing is touched, whatever is plugged in or asked for; on,
// everything is as before.
func TestServe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, rshim.Options{})
		one := r.plug("1-1", bluefield.Config{}, usbdev.Options{})
		d := r.attached(0)
		r.plug("2-1", bluefield.Config{Generation: reg.BlueField2}, usbdev.Options{})
		r.attached(1)
		if err := r.set.Device(1).SetDrop(r.ctx, true); err != nil {
			t.Fatal(err)
		}
		r.serve(true) // is so already
		r.states(rshim.Attached, rshim.Dropped)

		changed := r.set.Changed()
		r.serve(false)
		select {
		case <-changed:
		default:
			t.Error("nobody was told")
		}
		r.states(rshim.Dropped, rshim.Dropped)
		if st := d.Status(); !st.Drop || st.Owner != rshim.OwnerUnknown || !st.Attached.IsZero() {
			t.Errorf("%+v", st)
		}
		r.serve(false)
		m := one.DPU().Map()
		if v := one.DPU().ReadReg(m.Scratchpad1, 8); v != 0 {
			t.Errorf("scratchpad 1 is %#x", v)
		}
		one.DPU().Record(1000)
		for what, err := range map[string]error{
			"SetDrop":   d.SetDrop(r.ctx, false),
			"DROP_MODE": d.WriteMisc(r.ctx, "DROP_MODE 0"),
			"Force":     func() error { _, err := d.Force(r.ctx); return err }(),
			"FORCE_CMD": d.WriteMisc(r.ctx, "FORCE_CMD 1"),
		} {
			if !errors.Is(err, rshim.ErrBlocked) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if _, err := d.OpenBoot(r.ctx); !errors.Is(err, rshim.ErrNotOwner) {
			t.Errorf("OpenBoot: %v", err)
		}
		_ = d.Misc(r.ctx)
		late := r.plug("3-1", bluefield.Config{}, usbdev.Options{})
		r.device(2)
		time.Sleep(time.Minute)
		r.states(rshim.Dropped, rshim.Dropped, rshim.Dropped)
		if acc := one.DPU().Recorded(); len(acc) != 0 {
			t.Errorf("it was not left alone: %v", acc)
		}
		if v := late.DPU().ReadReg(m.Scratchpad1, 8); v != 0 {
			t.Errorf("the one that was plugged in has %#x in scratchpad 1", v)
		}

		// One that goes and comes back, for good or not, stays what it was.
		one.Unplug()
		time.Sleep(time.Minute)
		if r.set.Device(0) != nil {
			t.Error("rshim0 is still there")
		}
		one.Plug()
		r.device(0)
		time.Sleep(time.Minute)
		r.states(rshim.Dropped, rshim.Dropped, rshim.Dropped)

		r.serve(true)
		r.states(rshim.Attached, rshim.Dropped, rshim.Attached)
		if st := r.set.Device(0).Status(); st.Drop || st.Owner != rshim.OwnerBMC || st.Attached.IsZero() {
			t.Errorf("%+v", st)
		}
		if err := r.set.Device(1).SetDrop(r.ctx, false); err != nil {
			t.Error(err)
		}
		r.states(rshim.Attached, rshim.Attached, rshim.Attached)
		for _, i := range []int{-1, 3, rshim.MaxDevices} {
			if r.set.Device(i) != nil {
				t.Errorf("there is an rshim%d", i)
			}
		}
	})
}

// TestServeDuringPush: nothing is given up while a boot stream is open, not even
// the devices that have none.
func TestServeDuringPush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, rshim.Options{})
		r.plug("1-1", bluefield.Config{}, usbdev.Options{})
		r.attached(0)
		fn := r.plug("2-1", bluefield.Config{StageScale: 1}, usbdev.Options{})
		d := r.attached(1)
		r.plug("3-1", bluefield.Config{}, usbdev.Options{})
		r.attached(2)
		b, err := d.OpenBoot(r.ctx)
		if err != nil {
			t.Fatal(err)
		}
		stream := image(t, reg.BlueField3, 100_000)
		refused := func(when string) {
			t.Helper()
			changed := r.set.Changed()
			if err := r.set.Serve(r.ctx, false); !errors.Is(err, rshim.ErrBusy) || !strings.Contains(err.Error(), "rshim1") {
				t.Errorf("%s: %v", when, err)
			}
			select {
			case <-changed:
				t.Errorf("%s: something has changed", when)
			default:
			}
			if s, _ := r.set.Device(0).State(); s != rshim.Attached || !r.set.Serving() || d.Status().Drop || r.set.Device(0).Status().Drop {
				t.Errorf("%s: rshim0 is %v", when, s)
			}
		}
		refused("in the reset")
		if _, err := b.Write(r.ctx, stream[:50_000]); err != nil {
			t.Fatal(err)
		}
		refused("in the stream")
		_, err = b.Write(r.ctx, stream[50_000:])
		if err = errors.Join(err, b.Close(r.ctx)); err != nil {
			t.Fatal(err)
		}
		arrived(t, fn, stream)
		r.serve(false) // the DPU boots without us
		r.states(rshim.Dropped, rshim.Dropped, rshim.Dropped)
		if p := d.Push(); p.Outcome != rshim.OutcomeStreamed || !errors.Is(p.Err, rshim.ErrGivenUp) {
			t.Errorf("%+v", p)
		}
	})
}

// TestServeHung: devices that do not answer, are owned by others, or come and go
// meanwhile, do not keep the others from being given up and taken again.
func TestServeHung(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, rshim.Options{})
		hung := r.plug("1-1", bluefield.Config{}, usbdev.Options{})
		r.attached(0)
		fn := r.plug("2-1", bluefield.Config{}, usbdev.Options{})
		r.attached(1)
		gone := r.plug("3-1", bluefield.Config{}, usbdev.Options{})
		r.attached(2)
		hung.SetNAK(0, true)
		time.AfterFunc(10*time.Millisecond, gone.Unplug)
		r.serve(false)
		synctest.Wait()
		if s, _ := r.set.Device(1).State(); s != rshim.Dropped {
			t.Errorf("rshim1 is %v", s)
		}
		time.Sleep(time.Minute)
		ctx, kill := context.WithCancel(r.ctx)
		defer kill()
		go func() { _ = bluefield.NewHost(fn.DPU(), bluefield.HostOptions{}).Run(ctx) }()
		time.Sleep(time.Minute)

		began := time.Now()
		if err := r.set.Serve(r.ctx, true); err != nil || time.Since(began) > 15*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		if s, _ := r.set.Device(1).State(); s != rshim.Contended || r.set.Device(1).Status().Owner != rshim.OwnerOther {
			t.Errorf("rshim1 is %v", s)
		}
		hung.SetNAK(0, false)
		r.attached(0)
		gone.Plug()
		r.attached(2)
		kill()
		r.attached(1)
		if c := r.set.Device(1).Status().Counters; c.Attaches != 2 || c.Resets != 0 {
			t.Errorf("%+v", c)
		}
	})
}

// TestServeTogether: calls at the same time end with one of them being so.
func TestServeTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, rshim.Options{})
		r.plug("1-1", bluefield.Config{}, usbdev.Options{})
		d := r.attached(0)
		for i := range 20 {
			go func() { _ = r.set.Serve(r.ctx, i%2 == 0) }()
			time.Sleep(time.Duration(i) * 50 * time.Millisecond)
		}
		ctx, cancel := context.WithTimeout(r.ctx, 100*time.Millisecond)
		if err := r.set.Serve(ctx, true); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		cancel()
		time.Sleep(time.Minute)
		want := rshim.Dropped
		if r.set.Serving() {
			want = rshim.Attached
		}
		if s, _ := d.State(); s != want {
			t.Errorf("Serving is %v, and the device is %v", r.set.Serving(), s)
		}
	})
}

// TestOwnerAndCounters: who has the RShim, and how often it has changed hands.
func TestOwnerAndCounters(t *testing.T) {
	sharedBy(t, bluefield.Config{}, rshim.Options{}, func(r *shared) {
		owner := func(want rshim.Owner) {
			r.t.Helper()
			if st := r.d.Status(); st.Owner != want || st.Attached.IsZero() != (want != rshim.OwnerBMC) {
				r.t.Errorf("owner %v, attached at %v, want %v; %v", st.Owner, st.Attached, want, st.State)
			}
		}
		h, _ := r.host(bluefield.HostOptions{})
		time.Sleep(5 * time.Second)
		r.plugIn()
		r.state(r.d, rshim.Contended)
		owner(rshim.OwnerOther)
		if got, err := r.d.Force(r.ctx); got != rshim.ForceGranted || err != nil {
			r.t.Fatalf("Force: %v, %v", got, err)
		}
		owner(rshim.OwnerBMC)
		time.Sleep(10 * time.Second)
		if err := h.ForceCmd(); err != nil {
			r.t.Fatal(err)
		}
		_ = h.WaitState(r.ctx, bluefield.HostAttached)
		r.state(r.d, rshim.Contended)
		owner(rshim.OwnerOther)
		if c := r.d.Status().Counters; c.Attaches != 1 || c.Forced != 1 || c.Granted != 1 || c.Pushes != 0 {
			r.t.Errorf("%+v", c)
		}
		h.Stop()
		r.attached(0)
		owner(rshim.OwnerBMC)
		r.say(reg.Locked)
		r.state(r.d, rshim.Locked)
		owner(rshim.OwnerNone)
		r.fn.Unplug()
		r.state(r.d, rshim.Gone)
		owner(rshim.OwnerUnknown)
	})
}
