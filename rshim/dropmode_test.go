// SPDX-License-Identifier: Apache-2.0

package rshim_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
)

// busybodies read misc at all levels and use the ioctls, all the time, until the
// function that is returned is called.
func (r *shared) busybodies() (stop func()) {
	ctx, cancel := context.WithCancel(r.ctx)
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			for ctx.Err() == nil {
				r.d.Misc(ctx)
				_, _ = r.d.ReadReg(ctx, r.m.Uptime, 8)
				_ = r.d.WriteReg(ctx, r.m.Scratchpad2, 8, 1)
				time.Sleep(3 * time.Millisecond)
			}
		})
	}
	all.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			_ = r.d.WriteMisc(ctx, "DISPLAY_LEVEL "+string(rune('0'+i%3)))
			_ = r.d.WriteMisc(ctx, "PXE_ID 1")
			_ = r.d.WriteMisc(ctx, "BOOT_MODE 1")
			_ = r.d.SetBootMode(ctx, reg.BootEMMC)
			time.Sleep(10 * time.Millisecond)
		}
	})
	return func() { cancel(); all.Wait() }
}

// untouched checks that for some time nobody of us touches the chip.
func (r *shared) untouched(when string) {
	r.t.Helper()
	r.ours.forget()
	from := time.Now()
	time.Sleep(5 * time.Second)
	for _, x := range r.ours.all() {
		r.t.Errorf("%s: %v, after %v", when, x, x.begin.Sub(from))
		break
	}
}

// TestDropMode: in drop mode, from when DROP_MODE returns on, the chip is left
// alone, whoever wants something of it, also when it is plugged in anew.
func TestDropMode(t *testing.T) {
	sharedBy(t, bluefield.Config{Console: true}, rshim.Options{}, func(r *shared) {
		r.plugIn()
		r.attached(0)
		chatter(r)
		r.fn.SetLatency(2 * time.Millisecond) // so that most of the time some access is under way
		stop := r.busybodies()
		defer stop()
		for range 4 {
			time.Sleep(time.Second)
			if err := r.d.SetDrop(r.ctx, true); err != nil {
				r.t.Fatal(err)
			}
			r.is(rshim.Dropped)
			if v := r.sp1(); v != 0 {
				r.t.Errorf("scratchpad 1 is %#x: others wait for the keepalive to be missing", v)
			}
			r.untouched("DROP_MODE 1")
			if err := r.d.SetDrop(r.ctx, false); err != nil {
				r.t.Fatal(err)
			}
			r.is(rshim.Attached)
		}
		if err := r.d.SetDrop(r.ctx, true); err != nil {
			r.t.Fatal(err)
		}
		r.dpu.Reset()
		time.Sleep(2 * time.Second)
		r.is(rshim.Dropped)
		r.untouched("after a reset")
		r.fn.Unplug()
		time.Sleep(time.Second)
		r.fn.Plug()
		r.untouched("plugged in anew")
		r.is(rshim.Dropped)
		if _, err := r.d.OpenBoot(r.ctx); !errors.Is(err, rshim.ErrNotOwner) {
			r.t.Errorf("OpenBoot: %v", err)
		}
		if err := r.d.SetDrop(r.ctx, true); err != nil { // once more
			r.t.Error(err)
		}
	})
}

// TestDropModeBefore: DROP_MODE counts from the first moment on, be it in the
// configuration or written while the chip is off the bus.
func TestDropModeBefore(t *testing.T) {
	sharedBy(t, bluefield.Config{}, rshim.Options{Drop: true}, func(r *shared) {
		r.plugIn()
		stop := r.busybodies()
		time.Sleep(5 * time.Second)
		if n := len(r.ours.all()); n > 0 {
			r.t.Errorf("%d accesses", n)
		}
		r.is(rshim.Dropped)
		stop()
		if err := r.d.WriteMisc(r.ctx, "DROP_MODE 0\n"); err != nil {
			r.t.Error(err)
		}
		r.is(rshim.Attached)
		r.fn.Unplug()
		r.state(r.d, rshim.Gone)
		if err := r.d.WriteMisc(r.ctx, "DROP_MODE 1\n"); err != nil {
			r.t.Error(err)
		}
		time.Sleep(time.Second)
		r.ours.forget()
		r.fn.Plug()
		time.Sleep(10 * time.Second)
		r.is(rshim.Dropped)
		if n := len(r.ours.all()); n > 0 {
			r.t.Errorf("%d accesses", n)
		}
	})
}

// TestDropModeEnds: leaving drop mode tells the truth about who owns the RShim.
func TestDropModeEnds(t *testing.T) {
	sharedBy(t, bluefield.Config{}, rshim.Options{}, func(r *shared) {
		r.plugIn()
		r.attached(0)
		if err := r.d.SetDrop(r.ctx, true); err != nil {
			r.t.Fatal(err)
		}
		h, kill := r.host(bluefield.HostOptions{})
		_ = h.WaitState(r.ctx, bluefield.HostAttached)
		time.Sleep(time.Second)
		begin := time.Now()
		if err := r.d.SetDrop(r.ctx, false); !errors.Is(err, rshim.ErrNotOwner) {
			r.t.Errorf("DROP_MODE 0: %v", err)
		}
		if took := time.Since(begin); took > 2*time.Second {
			r.t.Errorf("it took %v", took)
		}
		r.is(rshim.Contended)
		if !h.Owns() {
			r.t.Error("the host has lost it")
		}
		kill()
		time.Sleep(time.Second)
		if err := r.d.SetDrop(r.ctx, false); err != nil { // asks to look again
			r.t.Errorf("DROP_MODE 0 when the owner has gone: %v", err)
		}
		r.is(rshim.Attached)
	})
}

// TestDropModeDuringPush: a push is not given up.
func TestDropModeDuringPush(t *testing.T) {
	sharedBy(t, bluefield.Config{DrainRate: 400_000}, rshim.Options{}, func(r *shared) {
		r.plugIn()
		r.attached(0)
		push := r.holdPush(200_000)
		for range 30 { // in the reset, and in the stream
			if err := r.d.SetDrop(r.ctx, true); !errors.Is(err, rshim.ErrBusy) {
				r.t.Fatalf("DROP_MODE 1: %v", err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if text := r.d.Misc(r.ctx); !strings.Contains(text, "\nDROP_MODE       0 ") {
			r.t.Errorf("misc:\n%s", text)
		}
		if push.finish(); push.err != nil {
			r.t.Errorf("push: %v", push.err)
		}
		arrived(r.t, r.fn, push.stream)
		if err := r.d.SetDrop(r.ctx, true); err != nil {
			r.t.Error(err)
		}
		r.is(rshim.Dropped)
	})
}

// TestDropModeHung: a chip that does not answer is given up all the same, soon.
func TestDropModeHung(t *testing.T) {
	bubble(t, bluefield.Config{}, usbdev.Options{}, func(r *rig, fn *usbdev.Function, d *rshim.Device) {
		fn.SetNAK(0, true)
		time.Sleep(time.Second)
		begin := time.Now()
		if err := d.SetDrop(r.ctx, true); err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("it took %v", took)
		}
		r.state(d, rshim.Dropped)
	})
}

// TestOwnerInMisc: misc says in every state whether the RShim can be used, and
// whether FORCE is under way.
func TestOwnerInMisc(t *testing.T) {
	sharedBy(t, bluefield.Config{}, rshim.Options{}, func(r *shared) {
		check := func(state rshim.State, drop, force string) {
			r.t.Helper()
			text := r.d.Misc(r.ctx)
			r.is(state)
			if !strings.Contains(text, "\nDROP_MODE       "+drop+" (") || !strings.Contains(text, "\nFORCE_CMD       "+force+" (") {
				r.t.Errorf("%v: misc:\n%s", state, text)
			}
		}
		r.plugIn()
		check(rshim.Probing, "0", "0")
		r.attached(0)
		check(rshim.Attached, "0", "0")
		if err := r.d.Reset(r.ctx); err != nil {
			r.t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
		check(rshim.Rebooting, "0", "0")
		r.attached(0)

		h, _ := r.host(bluefield.HostOptions{Drop: true})
		time.Sleep(3 * time.Second)
		if err := h.ForceCmd(); err != nil {
			r.t.Fatal(err)
		}
		r.state(r.d, rshim.Granting)
		check(rshim.Granting, "1", "0")
		r.state(r.d, rshim.Contended)
		_ = h.WaitState(r.ctx, bluefield.HostAttached)
		check(rshim.Contended, "1", "0")
		h.SetDeaf(true)
		go func() { _, _ = r.d.Force(r.ctx) }()
		r.state(r.d, rshim.Requesting)
		check(rshim.Requesting, "1", "1")
		r.state(r.d, rshim.Contended)
		if err := r.d.SetDrop(r.ctx, true); err != nil {
			r.t.Fatal(err)
		}
		check(rshim.Dropped, "1", "0")
		h.Stop()
		time.Sleep(time.Second)
		if err := r.d.SetDrop(r.ctx, false); err != nil {
			r.t.Fatal(err)
		}
		r.say(reg.Locked)
		r.state(r.d, rshim.Locked)
		check(rshim.Locked, "1", "0")
		r.fn.Unplug()
		r.state(r.d, rshim.Gone)
		check(rshim.Gone, "0", "0")
	})
}
