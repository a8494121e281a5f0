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
)

const forceLimit = 10 * time.Second

// counterpart is who else has to do with the RShim when FORCE is given.
type counterpart struct {
	name  string
	begin func(r *shared) // before our side finds the DPU
	r     rshim.ForceResult
	err   error
}

func hostIs(o bluefield.HostOptions) func(*shared) {
	return func(r *shared) {
		h, _ := r.host(o)
		if o.Attached {
			_ = h.WaitState(r.ctx, bluefield.HostAttached)
		}
		time.Sleep(400 * time.Millisecond)
	}
}

// counterparts are all that FORCE may meet.
var counterparts = []counterpart{
	{"alive", hostIs(bluefield.HostOptions{Attached: true}), rshim.ForceGranted, nil},
	{"deaf", hostIs(bluefield.HostOptions{Attached: true, Deaf: true}), 0, rshim.ErrNoAnswer},
	{"dead, its keepalive is still there", func(r *shared) { r.say(reg.Keepalive) }, rshim.ForceNoOwner, nil},
	{"dies at the keepalive", hostIs(bluefield.HostOptions{DieAt: bluefield.HostDieAttached, Attached: true}), rshim.ForceNoOwner, nil},
	{"dies before its answer", hostIs(bluefield.HostOptions{DieAt: bluefield.HostDieBeforeAck, Attached: true}), rshim.ForceNoOwner, nil},
	{"dies in its answer", hostIs(bluefield.HostOptions{DieAt: bluefield.HostDieInAck, Attached: true}), rshim.ForceGranted, nil},
	{"dies after its answer", hostIs(bluefield.HostOptions{DieAt: bluefield.HostDieAfterAcks, Attached: true}), rshim.ForceGranted, nil},
	{"dies in its check", func(r *shared) { go hostIs(bluefield.HostOptions{DieAt: bluefield.HostDieInCheck})(r) }, rshim.ForceNoOwner, nil},
	{"dies after its check", func(r *shared) {
		hostIs(bluefield.HostOptions{DieAt: bluefield.HostDieAfterCheck})(r)
		time.Sleep(time.Second)
	}, rshim.ForceNoOwner, nil},
	{"died after its request", func(r *shared) {
		r.say(reg.OwnershipRequest)
	}, rshim.ForceNoOwner, nil},
	{"died when it was answered", func(r *shared) {
		r.say(reg.OwnershipAck)
	}, rshim.ForceNoOwner, nil},
	{"never there", func(r *shared) {}, rshim.ForceNoOwner, nil},
	{"dropped", hostIs(bluefield.HostOptions{Drop: true}), rshim.ForceNoOwner, nil},
	{"ours, in a push", (*shared).pushingDaemon, 0, rshim.ErrNoAnswer},
}

// pushingDaemon is another daemon of ours, with a boot stream open.
func (r *shared) pushingDaemon() {
	d := rshim.New(7, rshim.Options{})
	b := &regBackend{dpu: r.dpu, latency: func() time.Duration { return 0 }, gone: make(chan struct{})}
	over := make(chan struct{})
	ctx, cancel := context.WithCancel(r.ctx)
	go func() {
		defer close(over)
		_ = d.Serve(ctx, b)
	}()
	r.t.Cleanup(func() { cancel(); <-over })
	r.state(d, rshim.Attached)
	if err := d.WriteMisc(r.ctx, "BOOT_RESET_SKIP 1"); err != nil {
		r.t.Fatal(err)
	}
	if _, err := d.OpenBoot(r.ctx); err != nil {
		r.t.Fatal(err)
	}
	time.Sleep(time.Second)
}

// forced gives FORCE and holds its outcome to what is wanted.
func (r *shared) forced(c counterpart, after rshim.State) {
	r.t.Helper()
	begin := time.Now()
	got, err := r.d.Force(r.ctx)
	took := time.Since(begin)
	if !errors.Is(err, c.err) || err == nil && got != c.r {
		r.t.Errorf("%s: Force: %v, %v; want %v, %v", c.name, got, err, c.r, c.err)
	}
	if took > forceLimit {
		r.t.Errorf("%s: Force took %v", c.name, took)
	}
	r.is(after)
	if err != nil && r.sp1() == reg.OwnershipRequest {
		r.t.Errorf("%s: a request is left behind", c.name)
	}
	if got := strings.Contains(r.d.Misc(r.ctx), "\nFORCE_CMD       0 "); !got {
		r.t.Errorf("%s: misc says that FORCE goes on", c.name)
	}
}

// R7: FORCE against whoever there may be, in drop mode, which it ends, and while
// contended; and what becomes of it.
func TestR7ForceMatrix(t *testing.T) {
	for _, c := range counterparts {
		t.Run(c.name, func(t *testing.T) {
			end := rshim.Attached
			if c.err != nil {
				end = rshim.Contended
			}
			t.Run("dropped", func(t *testing.T) {
				sharedBy(t, bluefield.Config{}, rshim.Options{Drop: true}, func(r *shared) {
					c.begin(r)
					r.plugIn()
					r.state(r.d, rshim.Dropped)
					r.forced(c, end)
				})
			})
			t.Run("contended", func(t *testing.T) {
				sharedBy(t, bluefield.Config{}, rshim.Options{NoAutoAttach: true}, func(r *shared) {
					// Somebody has it when the device is found, and then c takes his place.
					ctx, gone := context.WithCancel(r.ctx)
					go hostDriver(ctx, r.dpu)
					r.plugIn()
					r.state(r.d, rshim.Contended)
					gone()
					time.Sleep(time.Second)
					c.begin(r)
					r.is(rshim.Contended)
					r.forced(c, end)
				})
			})
			t.Run("probing", func(t *testing.T) {
				sharedBy(t, bluefield.Config{}, rshim.Options{}, func(r *shared) {
					c.begin(r)
					r.plugIn()
					time.Sleep(100 * time.Millisecond)
					r.is(rshim.Probing)
					r.forced(c, end)
				})
			})
		})
	}
}

// TestR7ForceStates: FORCE in the states in which it does something else.
func TestR7ForceStates(t *testing.T) {
	alive := bluefield.HostOptions{Attached: true}
	for name, run := range map[string]func(r *shared){
		"attached": func(r *shared) {
			r.plugIn()
			r.attached(0)
			r.forced(counterpart{r: rshim.ForceNotNeeded}, rshim.Attached)
			if err := r.d.WriteMisc(r.ctx, "FORCE_CMD 1\n"); !errors.Is(err, rshim.ErrInvalid) {
				r.t.Errorf("FORCE_CMD 1: %v", err)
			}
		},
		"rebooting": func(r *shared) {
			r.dpu.SetReset(bluefield.ResetBehaviour{Held: 3 * time.Second})
			r.plugIn()
			r.attached(0)
			if err := r.d.Reset(r.ctx); err != nil {
				r.t.Fatal(err)
			}
			r.forced(counterpart{r: rshim.ForceNotNeeded}, rshim.Rebooting)
			for st, _ := r.fn.State(); st.Present; st, _ = r.fn.State() {
				time.Sleep(10 * time.Millisecond)
			}
			time.Sleep(10 * time.Millisecond)
			r.forced(counterpart{err: rshim.ErrGone}, rshim.Rebooting)
			r.attached(0)
		},
		"gone": func(r *shared) {
			r.plugIn()
			r.attached(0)
			r.fn.Unplug()
			r.state(r.d, rshim.Gone)
			r.forced(counterpart{err: rshim.ErrGone}, rshim.Gone)
		},
		"locked": func(r *shared) {
			r.say(reg.Locked)
			r.plugIn()
			r.state(r.d, rshim.Locked)
			r.forced(counterpart{err: rshim.ErrLocked}, rshim.Locked)
			if r.sp1() != reg.Locked {
				r.t.Errorf("scratchpad 1 is %#x", r.sp1())
			}
		},
		"granting": func(r *shared) {
			r.plugIn()
			r.attached(0)
			h, _ := r.host(bluefield.HostOptions{Drop: true})
			time.Sleep(3 * time.Second)
			if err := h.ForceCmd(); err != nil {
				r.t.Fatal(err)
			}
			r.state(r.d, rshim.Granting)
			r.forced(counterpart{r: rshim.ForceGranted}, rshim.Attached)
			if r.taken() != 1 {
				r.t.Errorf("the host had it %d times", r.taken())
			}
		},
		"requesting": func(r *shared) {
			hostIs(bluefield.HostOptions{Attached: true, Deaf: true})(r)
			r.plugIn()
			r.state(r.d, rshim.Contended)
			first := make(chan error, 1)
			go func() {
				_, err := r.d.Force(r.ctx)
				first <- err
			}()
			r.state(r.d, rshim.Requesting)
			if text := r.d.Misc(r.ctx); !strings.Contains(text, "\nFORCE_CMD       1 ") {
				r.t.Errorf("misc:\n%s", text)
			}
			time.Sleep(2 * time.Second)
			begin := time.Now()
			go func() {
				time.Sleep(100 * time.Millisecond)
				select {
				case err := <-first:
					if err == nil || errors.Is(err, context.Canceled) {
						r.t.Errorf("the FORCE before: %v", err)
					}
				default:
					r.t.Errorf("the FORCE before has not ended %v later", time.Since(begin))
				}
			}()
			r.forced(counterpart{err: rshim.ErrNoAnswer}, rshim.Contended)
		},
		"answer and withdrawal cross": func(r *shared) {
			ctx, gone := context.WithCancel(r.ctx)
			go hostDriver(ctx, r.dpu)
			r.plugIn()
			r.state(r.d, rshim.Contended)
			time.AfterFunc(4900*time.Millisecond, func() {
				gone()
				// It has seen the last of the requests, and is slow.
				r.onWrite(func(a reg.Addr, v uint64) {
					if a == r.m.Scratchpad1 && v == 0 {
						go func() {
							time.Sleep(100 * time.Millisecond)
							r.say(reg.OwnershipAck)
						}()
						r.onWrite(nil)
					}
				})
			})
			r.forced(counterpart{r: rshim.ForceGranted}, rshim.Attached)
		},
		"its caller has gone": func(r *shared) {
			hostIs(alive)(r)
			r.plugIn()
			r.state(r.d, rshim.Contended)
			ctx, cancel := context.WithTimeout(r.ctx, 50*time.Millisecond)
			defer cancel()
			if _, err := r.d.Force(ctx); !errors.Is(err, context.DeadlineExceeded) {
				r.t.Errorf("Force: %v", err)
			}
			r.within(forceLimit, rshim.Attached) // it goes on
		},
		"dropped meanwhile": func(r *shared) {
			hostIs(bluefield.HostOptions{Attached: true, Deaf: true})(r)
			r.plugIn()
			r.state(r.d, rshim.Contended)
			first := make(chan error, 1)
			go func() {
				_, err := r.d.Force(r.ctx)
				first <- err
			}()
			time.Sleep(time.Second)
			if err := r.d.SetDrop(r.ctx, true); err != nil {
				r.t.Error(err)
			}
			if err := <-first; err == nil || errors.Is(err, context.Canceled) {
				r.t.Errorf("Force: %v", err)
			}
			r.is(rshim.Dropped)
			if r.sp1() == reg.OwnershipRequest {
				r.t.Error("a request is left behind")
			}
		},
		"the daemon ends meanwhile": func(r *shared) {
			r.say(reg.Keepalive)
			go hostIs(bluefield.HostOptions{Drop: true})(r) // writes nothing
			r.set.Configure(rshim.Options{NoAutoAttach: true})
			ctx, gone := context.WithCancel(r.ctx)
			go hostDriver(ctx, r.dpu)
			r.plugIn()
			r.state(r.d, rshim.Contended)
			gone()
			time.Sleep(time.Second)
			go func() { _, _ = r.d.Force(r.ctx) }()
			time.Sleep(500 * time.Millisecond)
			if r.sp1() != reg.OwnershipRequest {
				r.t.Errorf("scratchpad 1 is %#x", r.sp1())
			}
			r.stop()
			if r.sp1() == reg.OwnershipRequest {
				r.t.Error("a request is left behind")
			}
		},
	} {
		t.Run(name, func(t *testing.T) { sharedBy(t, bluefield.Config{}, rshim.Options{}, run) })
	}
}

// TestR7TwoAsk: of two that ask an owner at the same time, and take its one answer
// each for his, one gets it.
func TestR7TwoAsk(t *testing.T) {
	seeds := uint64(200)
	if testing.Short() {
		seeds = 40
	}
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) {
			r := newDrivers(t, seed, generationsOf[seed%2])
			defer r.end()
			r.host(bluefield.HostOptions{Attached: true})
			r.pass(time.Second)
			d := r.device(rshim.Options{})
			var other func()
			if seed%4 < 2 {
				h, _ := r.host(bluefield.HostOptions{Drop: true})
				other = func() { _ = h.ForceCmd() }
			} else {
				d := r.device(rshim.Options{})
				other = func() { r.wg.Go(func() { _, _ = d.Force(r.ctx) }) }
			}
			r.pass(5 * time.Second)
			r.wg.Go(func() { _, _ = d.Force(r.ctx) })
			r.pass(time.Duration(r.rnd.IntN(300)) * time.Millisecond)
			other()
			r.pass(8 * time.Second)
			if !r.within(time.Minute) {
				t.Errorf("seed %d: %d owners", seed, r.owners())
			}
			if t.Failed() {
				for _, l := range r.log {
					t.Log(l)
				}
			}
		})
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// TestR7ForceOnce: FORCE_MODE asks once in the life of a daemon, when the device
// is found for the first time, and FORCE once for each command: never after a
// reset, a replug or another look at who the owner is.
func TestR7ForceOnce(t *testing.T) {
	for name, deaf := range map[string]bool{"granted": false, "not answered": true} {
		t.Run(name, func(t *testing.T) {
			sharedBy(t, bluefield.Config{}, rshim.Options{Force: true}, func(r *shared) {
				h, kill := r.host(bluefield.HostOptions{Attached: true, Deaf: deaf})
				time.Sleep(time.Second)
				r.plugIn()
				time.Sleep(15 * time.Second)
				want := rshim.Attached
				if deaf {
					want = rshim.Contended
				}
				r.is(want)
				asked := r.ours.said(r.m.Scratchpad1, reg.OwnershipRequest)
				if asked == 0 || asked > 60 {
					r.t.Errorf("%d requests were written", asked)
				}
				if !deaf {
					if err := h.ForceCmd(); err != nil {
						r.t.Fatal(err)
					}
					r.state(r.d, rshim.Contended)
				}
				time.Sleep(time.Minute) // and looks at it several times
				for _, away := range []time.Duration{time.Second, time.Minute} {
					r.fn.Unplug()
					time.Sleep(away)
					r.fn.Plug()
					time.Sleep(20 * time.Second)
					r.d = r.device(0)
					r.is(rshim.Contended)
				}
				r.dpu.Reset()
				time.Sleep(20 * time.Second)
				kill()
				time.Sleep(30 * time.Second)
				r.is(rshim.Attached)
				if err := r.d.Reset(r.ctx); err != nil {
					r.t.Error(err)
				}
				time.Sleep(20 * time.Second)
				r.is(rshim.Attached)
				if n := r.ours.said(r.m.Scratchpad1, reg.OwnershipRequest); n != asked {
					r.t.Errorf("%d more requests were written", n-asked)
				}
			})
		})
	}
	t.Run("nobody at first", func(t *testing.T) {
		sharedBy(t, bluefield.Config{}, rshim.Options{Force: true}, func(r *shared) {
			r.plugIn()
			r.attached(0)
			h, _ := r.host(bluefield.HostOptions{Drop: true})
			time.Sleep(3 * time.Second)
			if err := h.ForceCmd(); err != nil {
				r.t.Fatal(err)
			}
			r.state(r.d, rshim.Contended)
			r.fn.Unplug()
			time.Sleep(time.Second)
			r.fn.Plug()
			time.Sleep(20 * time.Second)
			r.is(rshim.Contended)
			if n := r.ours.said(r.m.Scratchpad1, reg.OwnershipRequest); n > 0 {
				r.t.Errorf("%d requests were written", n)
			}
		})
	})
	t.Run("an owner that is just starting", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := sharedRig(t, reg.BlueField3, bluefield.Config{}, rshim.Options{Force: true})
			r.say(reg.OwnershipAck) // it was granted, and is about to be taken
			time.AfterFunc(1500*time.Millisecond, func() { r.say(0) })
			time.AfterFunc(2500*time.Millisecond, func() { r.host(bluefield.HostOptions{Attached: true}) })
			r.plugIn()
			r.within(20*time.Second, rshim.Attached)
			if r.taken() != 1 || r.ours.said(r.m.Scratchpad1, reg.OwnershipRequest) == 0 {
				t.Error("it was not asked for")
			}
		})
	})
}
