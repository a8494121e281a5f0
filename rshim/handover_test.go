// SPDX-License-Identifier: Apache-2.0

package rshim_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
)

// TestHandOver: a driver on the host that asks for the RShim gets it at once.
// From the first answer on nothing but scratchpad 1 is touched, all else has
// stopped before. When the driver has gone, in order or not, the RShim is ours
// again, unless AUTO_ATTACH is off.
func TestHandOver(t *testing.T) {
	for _, auto := range []bool{true, false} {
		for _, end := range []string{"killed", "stopped", "drops it"} {
			t.Run(fmt.Sprintf("%s, AUTO_ATTACH %v", end, auto), func(t *testing.T) {
				sharedBy(t, bluefield.Config{Console: true}, rshim.Options{NoAutoAttach: !auto}, func(r *shared) {
					handOver(r, end, auto)
				})
			})
		}
	}
}

func handOver(r *shared, end string, auto bool) {
	r.plugIn()
	r.attached(0)
	h, kill := r.host(bluefield.HostOptions{Drop: true})
	time.Sleep(5 * time.Second)
	chatter(r)
	time.Sleep(time.Second)
	busy := false // there is more to do than scratchpad 1
	answered := r.first(reg.OwnershipAck)
	asked := time.Now()
	if err := h.ForceCmd(); err != nil {
		r.t.Fatal(err)
	}
	r.within(time.Second, rshim.Granting)
	_ = h.WaitState(r.ctx, bluefield.HostAttached)
	at, _ := answered()
	if seen := r.seen(asked); at.IsZero() || at.Sub(seen) > 300*time.Millisecond {
		r.t.Errorf("granted %v after it was seen", at.Sub(seen))
	}
	if at.Sub(asked) > 700*time.Millisecond {
		r.t.Errorf("granted %v after it was asked for", at.Sub(asked))
	}
	time.Sleep(3 * time.Second)
	r.is(rshim.Contended)
	for _, x := range r.ours.all() {
		busy = busy || x.addr == r.m.ScratchBufCtl || x.what == "TMStart"
	}
	if !busy {
		r.t.Error("neither the boot log nor the TMFIFO was in use")
	}
	r.onlyScratchpad1(at)
	stopped := false
	for _, x := range r.ours.all("TMStop") {
		stopped = stopped || x.end.After(asked) && !x.end.After(at)
	}
	if !stopped {
		r.t.Error("the TMFIFO was not stopped before the answer")
	}
	time.Sleep(time.Minute)
	r.is(rshim.Contended) // its owner is left alone
	if !h.Owns() {
		r.t.Error("the host has lost it")
	}

	switch end {
	case "killed":
		kill()
	case "stopped":
		h.Stop()
	case "drops it":
		h.SetDrop(true)
	}
	if !auto {
		r.ours.forget()
		time.Sleep(time.Minute)
		r.is(rshim.Contended)
		if n := len(r.ours.all()); n > 0 {
			r.t.Errorf("%d accesses in a minute, to an RShim that is not to be looked at", n)
		}
		r.set.Configure(rshim.Options{})
	}
	r.within(20*time.Second, rshim.Attached)
}

// chatter keeps TMFIFO and boot log in use.
func chatter(r *shared) {
	go func() {
		for r.ctx.Err() == nil {
			r.dpu.Log(r.ctx, "INFO[UEFI]: chatter")
			select {
			case <-time.After(20 * time.Millisecond):
			case <-r.ctx.Done():
			}
		}
	}()
}

// TestHandOverNobody: an RShim that nobody takes after the answer is ours again;
// one whose requester dies in its check, too.
func TestHandOverNobody(t *testing.T) {
	for _, die := range []bluefield.HostStep{bluefield.HostDieAfterRequest, bluefield.HostDieAfterAck, bluefield.HostDieInCheck, bluefield.HostDieAfterCheck} {
		t.Run(fmt.Sprint(die), func(t *testing.T) {
			for _, auto := range []bool{true, false} {
				sharedBy(t, bluefield.Config{}, rshim.Options{NoAutoAttach: !auto}, func(r *shared) {
					r.plugIn()
					r.attached(0)
					h, _ := r.host(bluefield.HostOptions{Drop: true, DieAt: die})
					time.Sleep(3 * time.Second)
					if err := h.ForceCmd(); err != nil {
						r.t.Fatal(err)
					}
					_ = h.WaitState(r.ctx, bluefield.HostDead)
					if checked := die == bluefield.HostDieInCheck || die == bluefield.HostDieAfterCheck; checked && !auto {
						time.Sleep(time.Minute)
						r.is(rshim.Contended) // for all we know it is the owner
						return
					}
					r.within(25*time.Second, rshim.Attached)
				})
			}
		})
	}
}

// TestHandOverNotInReset: who asks while a reset of ours is held back has to wait
// for the chip to be back.
func TestHandOverNotInReset(t *testing.T) {
	sharedBy(t, bluefield.Config{}, rshim.Options{}, func(r *shared) {
		r.plugIn()
		r.attached(0)
		h, _ := r.host(bluefield.HostOptions{Drop: true})
		time.Sleep(3 * time.Second)
		r.dpu.SetReset(bluefield.ResetBehaviour{Held: 8 * time.Second})
		if err := r.d.Reset(r.ctx); err != nil {
			r.t.Fatal(err)
		}
		for range 5 {
			time.Sleep(time.Second)
			if err := h.ForceCmd(); err != nil {
				r.t.Error(err)
			}
		}
		r.is(rshim.Rebooting)
		time.Sleep(10 * time.Second)
		r.is(rshim.Attached)
		if r.taken() > 0 || r.ours.said(r.m.Scratchpad1, reg.OwnershipAck) > 0 {
			r.t.Error("the host has been given the RShim")
		}
	})
}

// TestRecheckTramplesNothing: while two drivers on the host hand the RShim over
// to each other, and for as long as the new owner may take to show itself, a
// third one that waits for its owner to be gone writes over nothing of theirs,
// and they find that it is as if it were not there.
func TestRecheckTramplesNothing(t *testing.T) {
	seeds := uint64(150)
	if testing.Short() {
		seeds = 15
	}
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) {
			r := sharedRig(t, generationsOf[seed%2], bluefield.Config{}, rshim.Options{})
			rnd := rand.New(rand.NewPCG(seed, 3))
			lates := rand.New(rand.NewPCG(seed, 4))
			late := func(d time.Duration) time.Duration { return d + time.Duration(lates.Int64N(int64(d/3)+1)) }
			if seed%3 > 0 {
				late = nil
			}
			a, _ := r.host(bluefield.HostOptions{Attached: true})
			b, _ := r.host(bluefield.HostOptions{Drop: true, Stretch: late})
			time.Sleep(time.Second)
			r.plugIn()
			r.state(r.d, rshim.Contended)
			time.Sleep(10*time.Second + time.Duration(rnd.IntN(8000))*time.Millisecond)
			// One of ours may be under way when theirs comes.
			var mu sync.Mutex
			var last uint64
			var lastAt time.Time
			r.onWrite(func(a reg.Addr, v uint64) {
				mu.Lock()
				defer mu.Unlock()
				if a != r.m.Scratchpad1 {
					return
				}
				exchange := last == reg.OwnershipRequest || last == reg.OwnershipAck
				if exchange && reg.IsOwnershipClaim(v) && time.Since(lastAt) > time.Millisecond {
					t.Errorf("seed %d: %#x was written over %#x, %v later", seed, v, last, time.Since(lastAt))
				}
				last, lastAt = v, time.Now()
			})
			if err := b.ForceCmd(); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(r.ctx, 10*time.Second)
			defer cancel()
			if b.WaitState(ctx, bluefield.HostAttached) != nil || a.Owns() {
				t.Errorf("seed %d: they are %v and %v", seed, a.State(), b.State())
			}
			time.Sleep(30 * time.Second)
			if !b.Owns() {
				t.Errorf("seed %d: the new owner has lost it", seed)
			}
			r.is(rshim.Contended)
		})
		if t.Failed() {
			return
		}
	}
}

// TestRecheckWaits: what an exchange of others leaves in scratchpad 1 is no
// invitation. Who got an answer writes nothing for up to 2 s, and has its
// keepalive there up to 3.2 s after the answer, or a little more when it is busy.
func TestRecheckWaits(t *testing.T) {
	for _, left := range []uint64{reg.OwnershipAck, 0} {
		for offset := time.Duration(0); offset < 8*time.Second; offset += 133 * time.Millisecond {
			synctest.Test(t, func(t *testing.T) {
				r := sharedRig(t, reg.BlueField3, bluefield.Config{}, rshim.Options{})
				ctx, gone := context.WithCancel(r.ctx)
				go hostDriver(ctx, r.dpu)
				r.plugIn()
				r.state(r.d, rshim.Contended)
				time.Sleep(10*time.Second + offset)
				gone()
				time.Sleep(time.Millisecond)
				var changed time.Time
				for _, v := range []uint64{reg.OwnershipRequest, reg.OwnershipAck} {
					changed = time.Now()
					for range 10 { // by one that insists, and one that answers
						r.say(v)
						time.Sleep(100 * time.Millisecond)
					}
				}
				if left != reg.OwnershipAck {
					changed = time.Now()
					r.say(left)
				}
				r.state(r.d, rshim.Attached)
				if after := time.Since(changed); after < 4400*time.Millisecond || after > 15*time.Second {
					t.Errorf("%#x, offset %v: ours after %v", left, offset, after)
				}
				for _, x := range r.ours.all("write") {
					if after := x.begin.Sub(changed); after > 0 && after < 2400*time.Millisecond {
						t.Errorf("%#x, offset %v: %v after %v", left, offset, x, after)
						break
					}
				}
			})
			if t.Failed() {
				return
			}
		}
	}
}

// TestForceStalled: on a machine that stands still for seconds, an owner that is
// not there is not taken for one that does not answer, and nothing is said of one
// that there was no time to look for.
func TestForceStalled(t *testing.T) {
	for name, c := range map[string]struct {
		runs, stalls time.Duration // in turn, for 8 s
		owner        bool
		want         error
	}{
		"nobody":                         {300 * time.Millisecond, 1700 * time.Millisecond, false, nil},
		"nobody, and no time":            {150 * time.Millisecond, 3 * time.Second, false, rshim.ErrNotReady},
		"a deaf owner":                   {600 * time.Millisecond, 600 * time.Millisecond, true, rshim.ErrNoAnswer},
		"a deaf owner, and no time":      {150 * time.Millisecond, 3 * time.Second, true, rshim.ErrNotReady},
		"a deaf owner, and all the time": {time.Hour, 0, true, rshim.ErrNoAnswer},
	} {
		t.Run(name, func(t *testing.T) {
			generations(t, func(t *testing.T, g reg.Generation) {
				synctest.Test(t, func(t *testing.T) {
					ctx, stop := context.WithCancel(t.Context())
					dpu := bluefield.New(bluefield.Config{Generation: g, NoFirmware: true})
					dpu.WriteReg(dpu.Map().Scratchpad1, 8, reg.Keepalive)
					var began atomic.Int64
					b := &regBackend{dpu: dpu, gone: make(chan struct{}), latency: func() time.Duration {
						since := time.Duration(time.Now().UnixNano() - began.Load())
						at := since % (c.runs + c.stalls)
						if began.Load() == 0 || since > 8*time.Second || at < c.runs {
							return 0
						}
						return 2 * (c.runs + c.stalls - at)
					}}
					d := rshim.New(0, rshim.Options{Drop: true})
					var wg sync.WaitGroup
					wg.Go(func() { _ = d.Serve(ctx, b) })
					if c.owner {
						wg.Go(func() { hostDriver(ctx, dpu) })
					}
					time.Sleep(time.Second)
					start := time.Now()
					began.Store(start.UnixNano())
					r, err := d.Force(ctx)
					if !errors.Is(err, c.want) || err == nil && r != rshim.ForceNoOwner {
						t.Errorf("%v, %v; want %v", r, err, c.want)
					}
					if took := time.Since(start); took > forceLimit {
						t.Errorf("it took %v", took)
					}
					stop()
					wg.Wait()
				})
			})
		})
	}
}
