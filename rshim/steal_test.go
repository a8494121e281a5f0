// SPDX-License-Identifier: Apache-2.0

package rshim_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
)

// R6: whatever a driver on the host does by the rules during a push, which is
// from the boot stream's opening to its closing with the reset in between: it
// does not get the RShim, and the push arrives.
func TestR6NoStealDuringPush(t *testing.T) {
	seeds := uint64(6)
	if testing.Short() {
		seeds = 2
	}
	for name, b := range map[string]bluefield.ResetBehaviour{
		"leaves the bus": {},
		"stays on it":    {Stay: true},
		"held back":      {Held: 4 * time.Second},
		"held, stays":    {Held: 4 * time.Second, Stay: true},
		"gets ready":     {Ready: 300 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			generations(t, func(t *testing.T, g reg.Generation) {
				for seed := range seeds {
					synctest.Test(t, func(t *testing.T) { noSteal(t, g, b, seed) })
					if t.Failed() {
						t.Fatalf("seed %d", seed)
					}
				}
			})
		})
	}
}

func noSteal(t *testing.T, g reg.Generation, b bluefield.ResetBehaviour, seed uint64) {
	r := sharedRig(t, g, bluefield.Config{Reset: b, DrainRate: 400_000}, rshim.Options{})
	r.plugIn()
	r.attached(0)
	rnd := rand.New(rand.NewPCG(6, seed))
	time.Sleep(time.Duration(rnd.IntN(1000)) * time.Millisecond)
	push := r.holdPush(300_000)
	var began sync.WaitGroup
	ctx, cancel := context.WithCancel(r.ctx)
	defer cancel()
	asked := 0
	for _, kind := range []string{"forces", "checks", "restarts"} {
		own := rand.New(rand.NewPCG(rnd.Uint64(), 6))
		began.Go(func() {
			drop := bluefield.HostOptions{Drop: kind == "forces"}
			for ctx.Err() == nil {
				h, kill := r.host(drop)
				if kind == "forces" {
					for ctx.Err() == nil {
						time.Sleep(time.Duration(1+own.IntN(2500)) * time.Millisecond)
						if ctx.Err() == nil && h.ForceCmd() == nil {
							asked++
						}
					}
					kill()
					return
				}
				time.Sleep(time.Duration(own.IntN(2500)) * time.Millisecond)
				if kind == "restarts" {
					h.Stop()
				}
				time.Sleep(time.Duration(own.IntN(300)) * time.Millisecond)
				kill()
			}
		})
	}
	time.Sleep(20 * time.Second)
	took := r.taken()
	if took > 0 {
		t.Errorf("drivers on the host have become the owner %d times during the push", took)
	}
	cancel()
	began.Wait()
	if n := push.finish(); n != int64(len(push.stream)) || push.err != nil {
		t.Errorf("%d of %d bytes: %v", n, len(push.stream), push.err)
	}
	if s, _ := r.d.State(); s != rshim.Attached && took == 0 {
		t.Errorf("it is %v", s)
	}
	if asked == 0 {
		t.Error("nobody has asked for it")
	}
	arrived(t, r.fn, push.stream)
}

// heldPush is a push that makes progress, and ends when it is told to.
type heldPush struct {
	stream []byte
	began  time.Time
	finish func() int64 // lets the rest of the stream pass
	wrote  int64        // what Write has said
	werr   error        // its error
	err    error        // that of all
}

// holdPush begins a push of about size bytes to a chip that stalls now and then,
// and stops reading altogether before the last quarter.
func (r *shared) holdPush(size int) *heldPush {
	r.t.Helper()
	p := &heldPush{stream: image(r.t, r.g, size), began: time.Now()}
	b, err := r.d.OpenBoot(r.ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	r.dpu.PauseDrain(int64(size)/4, 3*time.Second)
	r.dpu.PauseDrain(int64(size)/2, 3*time.Second)
	r.dpu.PauseDrain(int64(size)*3/4, time.Hour)
	over := make(chan struct{})
	go func() {
		defer close(over)
		for left := p.stream; len(left) > 0 && p.werr == nil; {
			var n int
			n, p.werr = b.Write(r.ctx, left[:min(len(left), 16<<10)])
			p.wrote += int64(n)
			left = left[n:]
		}
		p.err = errors.Join(p.werr, b.Close(r.ctx))
	}()
	p.finish = func() int64 {
		for {
			r.dpu.HoldDrain(false)
			select {
			case <-over:
				return p.wrote
			case <-time.After(100 * time.Millisecond): // a pause may be still to come
			}
		}
	}
	return p
}

// TestR6GrantedAfterPush: a request that still stands when the push has ended is
// granted at once; until then it is refused.
func TestR6GrantedAfterPush(t *testing.T) {
	sharedBy(t, bluefield.Config{DrainRate: 400_000}, rshim.Options{}, func(r *shared) {
		r.plugIn()
		r.attached(0)
		push := r.holdPush(200_000)
		time.Sleep(10 * time.Second)
		answered := r.ask()
		time.Sleep(5 * time.Second)
		if at, _ := answered(); !at.IsZero() {
			r.t.Fatal("the RShim was handed over during the push")
		}
		push.finish()
		closed := time.Now()
		if push.err != nil {
			r.t.Errorf("push: %v", push.err)
		}
		arrived(r.t, r.fn, push.stream)
		time.Sleep(time.Second)
		at, _ := answered()
		if at.IsZero() || at.Sub(closed) > 600*time.Millisecond {
			r.t.Errorf("granted %v after the push", at.Sub(closed))
		}
		if seen := r.seen(closed); at.Sub(seen) > 300*time.Millisecond {
			r.t.Errorf("granted %v after it was seen", at.Sub(seen))
		}
	})
}

// TestR6GrantDuringPush: with GRANT_DURING_PUSH a request ends the push. The
// writer is told how much the chip has taken, and nothing follows the answer.
func TestR6GrantDuringPush(t *testing.T) {
	for _, after := range []time.Duration{4 * time.Second, 5 * time.Second, 8 * time.Second, 15 * time.Second} {
		sharedBy(t, bluefield.Config{DrainRate: 100_000}, rshim.Options{GrantDuringPush: true}, func(r *shared) {
			r.plugIn()
			r.attached(0)
			push := r.holdPush(1 << 20)
			time.Sleep(after)
			answered := r.ask()
			asked := time.Now()
			time.Sleep(time.Second)
			at, had := answered()
			if at.IsZero() || at.Sub(asked) > 600*time.Millisecond {
				r.t.Fatalf("granted %v after it was asked for", at.Sub(asked))
			}
			if seen := r.seen(asked); at.Sub(seen) > 300*time.Millisecond {
				r.t.Errorf("granted %v after it was seen", at.Sub(seen))
			}
			n := push.finish()
			if !errors.Is(push.werr, rshim.ErrNotOwner) {
				r.t.Errorf("Write: %v", push.werr)
			}
			if p := r.d.Push(); p.Phase != rshim.PushFailed || !errors.Is(p.Err, rshim.ErrNotOwner) {
				r.t.Errorf("%+v", p)
			}
			time.Sleep(5 * time.Second)
			sent, _ := r.fn.BootSum()
			if sent != had {
				r.t.Errorf("%d bytes were sent to the chip after the answer", sent-had)
			}
			// Up to 128 KiB may be on their way, and the bytes of a word that is
			// not complete.
			if sent > n || sent+128<<10+7 < n {
				r.t.Errorf("the chip has %d bytes, Write has returned %d", sent, n)
			}
			if n == 0 {
				r.t.Error("the push had not begun")
			}
			r.onlyScratchpad1(at)
		})
	}
}

// TestR6RequestsHideNothing: one driver that asks again and again, at whatever
// moments, does not keep another one from finding that there is an owner.
func TestR6RequestsHideNothing(t *testing.T) {
	for phase := time.Duration(0); phase < 100*time.Millisecond; phase += 3 * time.Millisecond {
		synctest.Test(t, func(t *testing.T) {
			r := sharedRig(t, reg.BlueField3, bluefield.Config{DrainRate: 400_000}, rshim.Options{})
			r.plugIn()
			r.attached(0)
			push := r.holdPush(100_000)
			time.Sleep(5*time.Second + phase)
			r.ask()
			time.Sleep(505 * time.Millisecond) // so that it never looks just when the other one writes
			h, _ := r.host(bluefield.HostOptions{})
			time.Sleep(2 * time.Second)
			if h.State() != bluefield.HostUnattached {
				t.Errorf("phase %v: the host's driver is %v", phase, h.State())
			}
			push.finish()
		})
	}
}

// TestR6ReplugInReset: a chip that leaves the bus for a moment while its reset is
// held back has not reset, whatever others have written meanwhile.
func TestR6ReplugInReset(t *testing.T) {
	for _, written := range []uint64{reg.OwnershipRequest, 0, 0x1234} {
		cfg := bluefield.Config{Reset: bluefield.ResetBehaviour{Held: 8 * time.Second}}
		sharedBy(t, cfg, rshim.Options{}, func(r *shared) {
			r.plugIn()
			r.attached(0)
			b, err := r.d.OpenBoot(r.ctx)
			if err != nil {
				r.t.Fatal(err)
			}
			stream := image(r.t, r.g, 100_000)
			over := make(chan struct{})
			go func() {
				defer close(over)
				if n, err := b.Write(r.ctx, stream); n != len(stream) || err != nil {
					r.t.Errorf("%#x: Write: %d, %v", written, n, err)
				}
				if err := b.Close(r.ctx); err != nil {
					r.t.Errorf("%#x: Close: %v", written, err)
				}
			}()
			time.Sleep(time.Second)
			r.fn.Unplug()
			time.Sleep(time.Second)
			r.say(written)
			r.fn.Plug()
			<-over
			arrived(r.t, r.fn, stream)
		})
	}
}

// TestR6WriterIdle: what a writer that is busy elsewhere has left on its way is
// called back before the RShim is handed over.
func TestR6WriterIdle(t *testing.T) {
	sharedBy(t, bluefield.Config{}, rshim.Options{GrantDuringPush: true}, func(r *shared) {
		r.plugIn()
		r.attached(0)
		b, err := r.d.OpenBoot(r.ctx)
		if err != nil {
			r.t.Fatal(err)
		}
		stream := image(r.t, r.g, 1<<20)
		r.dpu.PauseDrain(50_000, time.Hour)
		if n, err := b.Write(r.ctx, stream[:120_000]); n != 120_000 || err != nil {
			r.t.Fatalf("Write: %d, %v", n, err)
		}
		time.Sleep(time.Second)
		if sent, _ := r.fn.BootSum(); sent >= 120_000 {
			r.t.Errorf("%d bytes have arrived, nothing is on its way", sent)
		}
		answered := r.ask()
		time.Sleep(2 * time.Second)
		at, had := answered()
		if at.IsZero() {
			r.t.Error("not granted")
		}
		r.dpu.HoldDrain(false)
		time.Sleep(5 * time.Second)
		if sent, _ := r.fn.BootSum(); sent != had {
			r.t.Errorf("%d bytes were sent to the chip after the answer", sent-had)
		}
		if n, err := b.Write(r.ctx, stream[120_000:]); n != 0 || !errors.Is(err, rshim.ErrNotOwner) {
			r.t.Errorf("Write: %d, %v", n, err)
		}
		if err := b.Close(r.ctx); !errors.Is(err, rshim.ErrNotOwner) {
			r.t.Errorf("Close: %v", err)
		}
	})
}

// TestR6Count: where Write does not return before the chip has taken all, what it
// returns when the RShim is handed over is exact.
func TestR6Count(t *testing.T) {
	sharedBy(t, bluefield.Config{NoFirmware: true, DrainRate: 50_000}, rshim.Options{GrantDuringPush: true}, func(r *shared) {
		r.plugIn()
		r.attached(0)
		b, err := r.d.OpenBoot(r.ctx)
		if err != nil {
			r.t.Fatal(err)
		}
		time.AfterFunc(10*time.Second, func() { r.ask() })
		stream, wrote := make([]byte, 1<<20), 0
		for err == nil && wrote < len(stream) {
			var n int
			n, err = b.Write(r.ctx, stream[wrote:][:40_008])
			wrote += n
		}
		sent, _ := r.fn.BootSum()
		if !errors.Is(err, rshim.ErrNotOwner) || int64(wrote) != sent {
			r.t.Errorf("Write has returned %d, %v; %d bytes have arrived", wrote, err, sent)
		}
		if n, err := b.Write(r.ctx, stream); n != 0 || !errors.Is(err, rshim.ErrNotOwner) {
			r.t.Errorf("another Write: %d, %v", n, err)
		}
		if err := b.Close(r.ctx); !errors.Is(err, rshim.ErrNotOwner) {
			r.t.Errorf("Close: %v", err)
		}
	})
}

// ask writes requests, as a driver on the host does but without a look at
// anything, until there is an answer, for 20 s at most. What it returns tells when
// that was, and how much of a boot stream had arrived by then.
func (r *shared) ask() (answered func() (at time.Time, sent int64)) {
	answered = r.first(reg.OwnershipAck)
	go func() {
		for range 200 {
			if at, _ := answered(); !at.IsZero() {
				return
			}
			r.say(reg.OwnershipRequest)
			select {
			case <-time.After(100 * time.Millisecond):
			case <-r.ctx.Done():
				return
			}
		}
	}()
	return answered
}

// seen is when we saw a request for the first time after a point in time.
func (r *shared) seen(after time.Time) time.Time {
	for _, x := range r.ours.all("read") {
		if x.addr == r.m.Scratchpad1 && x.value == reg.OwnershipRequest && !x.end.Before(after) {
			return x.end
		}
	}
	return time.Time{}
}

// onlyScratchpad1 checks that nothing else was touched from a point in time on.
func (r *shared) onlyScratchpad1(from time.Time) {
	r.t.Helper()
	for _, x := range r.ours.all() {
		if x.end.After(from) && x.addr != r.m.Scratchpad1 && x.what != "BootEnd" {
			r.t.Errorf("%v, %v later", x, x.end.Sub(from))
		}
	}
}
