// SPDX-License-Identifier: Apache-2.0

package rshim_test

import (
	"errors"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
)

// R21: a chip that locks drivers out is left alone until it lets them in again,
// and says so.
func TestR21Locked(t *testing.T) {
	for _, when := range []string{"attached", "contended", "found so", "back from a reset", "back and locked at once", "granting", "asked for"} {
		t.Run(when, func(t *testing.T) {
			sharedBy(t, bluefield.Config{}, rshim.Options{}, func(r *shared) { locked(r, when) })
		})
	}
}

func locked(r *shared, when string) {
	switch when {
	case "attached":
		r.plugIn()
		r.attached(0)
		time.Sleep(time.Second)
		r.say(reg.Locked)
	case "contended":
		r.say(reg.Keepalive)
		h, kill := r.host(bluefield.HostOptions{Attached: true})
		r.plugIn()
		r.state(r.d, rshim.Contended)
		kill()
		_ = h.WaitState(r.ctx, bluefield.HostDead)
		r.say(reg.Locked)
	case "found so":
		r.say(reg.Locked)
		r.plugIn()
	case "back from a reset":
		r.plugIn()
		r.attached(0)
		if err := r.d.Reset(r.ctx); err != nil {
			r.t.Fatal(err)
		}
		for r.sp1() == reg.Keepalive || r.sp1() == bluefield.BadRegister {
			time.Sleep(time.Millisecond)
		}
		r.insist()
	case "back and locked at once":
		r.plugIn()
		r.attached(0)
		if err := r.d.Reset(r.ctx); err != nil {
			r.t.Fatal(err)
		}
		r.dpu.BadReads(r.m.FabricDim, bluefield.BadRegister, 0, 20) // before we get to look
		for r.sp1() == reg.Keepalive || r.sp1() == bluefield.BadRegister {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(10 * time.Millisecond)
		r.say(reg.Locked)
	case "granting":
		r.plugIn()
		r.attached(0)
		r.say(reg.OwnershipRequest)
		r.state(r.d, rshim.Granting)
		time.Sleep(200 * time.Millisecond)
		r.say(reg.Locked)
	case "asked for":
		r.host(bluefield.HostOptions{Attached: true, Deaf: true})
		time.Sleep(time.Second)
		r.plugIn()
		r.state(r.d, rshim.Contended)
		go func() { _, _ = r.d.Force(r.ctx) }()
		time.Sleep(300 * time.Millisecond)
		r.insist() // its owner does not care
	}
	if took := r.within(15*time.Second, rshim.Locked); (when == "attached" || when == "granting") && took > 400*time.Millisecond {
		r.t.Errorf("it took %v", took)
	}
	r.ours.forget()
	begin := time.Now()
	if _, err := r.d.OpenBoot(r.ctx); !errors.Is(err, rshim.ErrLocked) {
		r.t.Errorf("OpenBoot: %v", err)
	}
	if err := r.d.WriteReg(r.ctx, r.m.Scratchpad2, 8, 1); !errors.Is(err, rshim.ErrLocked) {
		r.t.Errorf("WriteReg: %v", err)
	}
	for _, cmd := range []string{"SW_RESET 1", "BOOT_MODE 1", "OPN_STR x", "DEBUG_CODE 0x1", "FORCE_CMD 1"} {
		if err := r.d.WriteMisc(r.ctx, cmd); !errors.Is(err, rshim.ErrLocked) {
			r.t.Errorf("%s: %v", cmd, err)
		}
	}
	if took := time.Since(begin); took > 2*time.Second {
		r.t.Errorf("being refused took %v", took)
	}
	time.Sleep(10 * time.Second)
	r.is(rshim.Locked)
	for _, x := range r.ours.all("write") {
		r.t.Errorf("%v", x)
	}
	if nic := strings.Contains(r.d.Misc(r.ctx), "\nSECURE_NIC_MODE 1 (0:no, 1:yes)\n"); nic != (r.g == reg.BlueField3) {
		r.t.Errorf("misc:\n%s", r.d.Misc(r.ctx))
	}
	if when == "asked for" {
		return
	}
	r.onWrite(nil)
	r.say(0)
	r.within(10*time.Second, rshim.Attached)
}

// insist locks the chip, which sees to it that it stays so, whatever is written.
func (r *shared) insist() {
	r.onWrite(func(a reg.Addr, v uint64) {
		if a == r.m.Scratchpad1 && v != reg.Locked {
			r.say(reg.Locked)
		}
	})
	r.say(reg.Locked)
}

// TestR21LockFlips: a chip that locks drivers out and lets them in again at
// random: both a driver on the host and we want it whenever it does, and exactly
// one gets it.
func TestR21LockFlips(t *testing.T) {
	for _, g := range generationsOf {
		flips := 100
		if testing.Short() {
			flips = 10
		}
		synctest.Test(t, func(t *testing.T) {
			r := newDrivers(t, uint64(g), g)
			defer r.end()
			var lock atomic.Bool
			var sp1 func(v uint64)
			m := reg.For(g)
			r.dpu = bluefield.New(bluefield.Config{Generation: g, NoFirmware: true, OnWrite: func(a reg.Addr, v uint64) {
				if a == m.Scratchpad1 && v != reg.Locked && lock.Load() {
					sp1(reg.Locked) // the chip insists
				}
			}})
			sp1 = func(v uint64) { r.dpu.WriteReg(m.Scratchpad1, 8, v) }
			d := r.device(rshim.Options{})
			rnd := rand.New(rand.NewPCG(21, uint64(g)))
			ours, theirs := 0, 0
			for i := range flips {
				h, kill := r.host(bluefield.HostOptions{Drop: true})
				r.pass(time.Duration(rnd.IntN(5000)) * time.Millisecond)
				h.SetDrop(false) // or loses against us
				r.pass(time.Duration(rnd.IntN(3000)) * time.Millisecond)
				r.note("locked")
				lock.Store(true)
				sp1(reg.Locked)
				r.pass(time.Duration(rnd.IntN(8000)) * time.Millisecond)
				r.note("unlocked")
				lock.Store(false)
				sp1(0)
				r.pass(time.Duration(rnd.IntN(100)) * time.Millisecond)
				if !r.within(30 * time.Second) {
					t.Errorf("flip %d: %d owners, ours is %v, theirs %v", i, r.owners(), d.Status(), h.State())
				}
				switch {
				case owns(d):
					ours++
				default:
					theirs++
				}
				kill()
				if rnd.IntN(2) == 0 {
					sp1(0)
				}
				if t.Failed() {
					for _, l := range r.log[max(0, len(r.log)-40):] {
						t.Log(l)
					}
					return
				}
			}
			t.Logf("ours %d, theirs %d", ours, theirs)
		})
	}
}
