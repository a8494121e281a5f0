// SPDX-License-Identifier: Apache-2.0

package bluefield_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
)

// TestHostDies: it leaves the registers as they are at the step, and touches
// nothing from then on.
func TestHostDies(t *testing.T) {
	for _, c := range []struct {
		o    bluefield.HostOptions
		sp1  uint64
		owns []string
	}{
		{bluefield.HostOptions{DieAt: bluefield.HostDieInCheck}, 0, nil},
		{bluefield.HostOptions{DieAt: bluefield.HostDieAfterCheck}, reg.Keepalive, nil},
		{bluefield.HostOptions{DieAt: bluefield.HostDieAttached}, reg.Keepalive, []string{"+1s", "-1.303s"}},
		{bluefield.HostOptions{DieAt: bluefield.HostDieAfterRequest, Drop: true, Force: true}, reg.OwnershipRequest, nil},
		{bluefield.HostOptions{DieAt: bluefield.HostDieAfterAck, Drop: true, Force: true}, reg.OwnershipAck, nil},
		{bluefield.HostOptions{DieAt: bluefield.HostDieBeforeAck, Attached: true}, reg.OwnershipRequest, []string{"+0s", "-100ms"}},
		{bluefield.HostOptions{DieAt: bluefield.HostDieInAck, Attached: true}, reg.OwnershipAck, []string{"+0s", "-100ms"}},
		{bluefield.HostOptions{DieAt: bluefield.HostDieAfterAcks, Attached: true}, reg.OwnershipAck, []string{"+0s", "-100ms"}},
	} {
		t.Run(fmt.Sprint(c.o.DieAt), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var d *bluefield.DPU
				d = bluefield.New(bluefield.Config{OnWrite: func(_ reg.Addr, v uint64) {
					if v == reg.OwnershipRequest && c.o.DieAt == bluefield.HostDieAfterAck {
						d.WriteReg(d.Map().Scratchpad1, 8, reg.OwnershipAck)
					}
				}})
				r := drive(t, d, c.o)
				if c.o.Attached {
					time.Sleep(50 * ms)
					write(d, d.Map().Scratchpad1, reg.OwnershipRequest)
				}
				<-r.done
				if r.err != nil || r.State() != bluefield.HostDead || r.Owns() {
					t.Errorf("%v, %v", r.err, r.State())
				}
				r.wantOwns(c.owns...)
				d.Record(10)
				time.Sleep(time.Hour)
				if got := d.Recorded(); len(got) != 0 {
					t.Errorf("after its death: %v", got)
				}
				r.wantSP1(c.sp1)
			})
		})
	}
}

// TestHostEnds: SIGTERM clears scratchpads 1 and 6, after what is under way; a
// crash leaves them.
func TestHostEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := bluefield.New(bluefield.Config{})
		r := drive(t, d, bluefield.HostOptions{Attached: true})
		time.Sleep(350 * ms)
		write(d, d.Map().Scratchpad1, reg.OwnershipRequest)
		r.until(bluefield.HostGranting) // at 400 ms
		r.Stop()
		<-r.done
		if got := time.Since(r.begin); r.err != nil || r.State() != bluefield.HostOff || got != 2400*ms {
			t.Errorf("stopped in a grant: %v, %v after %v", r.err, r.State(), got)
		}
		r.wantSP1(0)

		r = drive(t, d, bluefield.HostOptions{Attached: true})
		time.Sleep(350 * ms)
		r.restart(0)
		r.Stop()
		<-r.done
		r.wantTrace(accesses("SP1=0x0 SP6=0x0", 0, 0, 1))
		r.wantOwns("-0s")

		r = drive(t, d, bluefield.HostOptions{Drop: true})
		time.Sleep(2350 * ms)
		r.Stop()
		<-r.done
		r.wantTrace()

		r = drive(t, d, bluefield.HostOptions{Attached: true})
		time.Sleep(350 * ms)
		r.kill()
		<-r.done
		if r.err != nil || r.State() != bluefield.HostDead {
			t.Errorf("killed: %v, %v", r.err, r.State())
		}
		r.wantSP1(reg.Keepalive)
		r.wantOwns("+0s", "-350ms")
	})
}

// TestHostDropMode: DROP_MODE 1 is at once, DROP_MODE 0 takes an access check,
// and in between no register is touched.
func TestHostDropMode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := bluefield.New(bluefield.Config{})
		r := drive(t, d, bluefield.HostOptions{Attached: true, Force: true})
		time.Sleep(150 * ms) // the owner has forgotten FORCE by now
		if err := r.ForceCmd(); !errors.Is(err, bluefield.ErrNotDropped) {
			t.Errorf("FORCE_CMD: %v", err)
		}
		r.restart(0)
		r.SetDrop(true)
		time.Sleep(time.Hour)
		r.SetDrop(true)
		time.Sleep(time.Hour)
		r.wantTrace(accesses("SP1=0x0 SP6=0x0", 0, 0, 1))
		r.wantOwns("-0s")

		// Somebody else has it meanwhile.
		other := drive(t, d, bluefield.HostOptions{Attached: true})
		r.SetDrop(false)
		r.until(bluefield.HostChecking)
		r.until(bluefield.HostDropped)
		other.kill()
		<-other.done
		r.wantOwns("-0s")
		r.SetDrop(false)
		r.until(bluefield.HostAttached)
	})
}

// TestHostSyncs: leaving drop mode takes as long as the DPU sends, 1 to 2 s
// more, and eats it; when the FIFO cannot be read it takes no time.
func TestHostSyncs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := start(t, bluefield.Config{Console: true})
		r := drive(t, d, bluefield.HostOptions{Drop: true})
		time.Sleep(2500 * ms)
		r.SetDrop(false)
		time.Sleep(700 * ms) // at 3.2 s
		d.InjectTM([]uint64{1, 2, 3})
		r.until(bluefield.HostChecking)
		if got := time.Since(r.begin); got != 5*time.Second {
			t.Errorf("it checks after %v", got)
		}
		if n := read(d, d.Map().TmTileToHostSts); n != 0 {
			t.Errorf("%d words are left", n)
		}
		r.until(bluefield.HostAttached)
		for i, a := range []reg.Addr{d.Map().TmHostToTileSts, d.Map().TmTileToHostSts} {
			r.SetDrop(true)
			r.until(bluefield.HostDropped)
			d.BadReads(a, bluefield.BadRegister, 0, 1)
			r.restart(0)
			r.SetDrop(false)
			r.until(bluefield.HostChecking)
			if got, want := time.Since(r.begin), []time.Duration{10 * ms, 0}[i]; got != want {
				t.Errorf("it checks after %v, want %v", got, want)
			}
			r.until(bluefield.HostAttached)
		}
	})
}

// TestHostBadReads: a chip that cannot be read has no owner; one that answers 0
// is taken; and one that fails as late as in the last poll is left with the
// KEEPALIVE that nobody renews.
func TestHostBadReads(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault func(d *bluefield.DPU)
		state bluefield.HostState
		after time.Duration
		sp1   uint64
	}{
		{"unreadable", func(d *bluefield.DPU) { d.BadAll(bluefield.BadRegister, time.Hour) }, bluefield.HostUnattached, time.Second, 0x77},
		{"ready late", func(d *bluefield.DPU) { d.BadReads(d.Map().FabricDim, ^uint64(0), 0, 9) }, bluefield.HostAttached, 1900 * ms, reg.Keepalive},
		{"zero", func(d *bluefield.DPU) { d.BadReads(d.Map().FabricDim, 0, 0, 100) }, bluefield.HostAttached, 2 * time.Second, reg.Keepalive},
		{"bad polls", func(d *bluefield.DPU) { d.BadReads(d.Map().Scratchpad1, 0xbadacce55, 0, 99) }, bluefield.HostAttached, time.Second, reg.Keepalive},
		{"bad last poll", func(d *bluefield.DPU) { d.BadReads(d.Map().Scratchpad1, 0xbadacce55, 99, 1) }, bluefield.HostUnattached, time.Second, reg.Keepalive},
		{"bad read back", func(d *bluefield.DPU) { d.BadReads(d.Map().Scratchpad1, 0xbadacce55, 100, 1) }, bluefield.HostUnattached, time.Second, reg.Keepalive},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := bluefield.New(bluefield.Config{})
				write(d, d.Map().Scratchpad1, 0x77)
				c.fault(d)
				r := drive(t, d, bluefield.HostOptions{})
				r.until(c.state)
				if got := time.Since(r.begin); got != c.after {
					t.Errorf("after %v, want %v", got, c.after)
				}
				r.end()
				time.Sleep(2 * time.Hour)
				r.wantSP1(c.sp1)
			})
		})
	}
}

// TestHostKeepsItThroughReset: a reset clears scratchpad 1, and the keepalive
// restores it.
func TestHostKeepsItThroughReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := start(t, bluefield.Config{})
		r := drive(t, d, bluefield.HostOptions{Attached: true})
		bootRShim(t, d)
		r.wantSP1(0)
		time.Sleep(302 * ms)
		r.wantSP1(reg.Keepalive)
		r.wantOwns("+0s")
	})
}

// TestHostLocked: after secure NIC mode the owner checks whether the RShim is
// still its own.
func TestHostLocked(t *testing.T) {
	for _, taken := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			d := bluefield.New(bluefield.Config{})
			r := drive(t, d, bluefield.HostOptions{Attached: true})
			time.Sleep(50 * ms)
			write(d, d.Map().Scratchpad1, reg.Locked)
			r.until(bluefield.HostLocked)
			write(d, d.Map().Scratchpad1, 0)
			r.until(bluefield.HostChecking)
			if !taken {
				r.until(bluefield.HostAttached)
				r.wantOwns("+0s", "-100ms", "+1.2s")
				return
			}
			time.Sleep(45 * ms)
			write(d, d.Map().Scratchpad1, reg.Keepalive)
			r.until(bluefield.HostDropped)
			r.wantOwns("+0s", "-100ms")
			r.wantSP1(0) // of whoever has it
		})
	}
}

// TestHostLatency: an access takes its time before and after its effect, and
// timers stretch.
func TestHostLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := bluefield.New(bluefield.Config{})
		r := drive(t, d, bluefield.HostOptions{
			Latency: func() time.Duration { return 4 * ms },
			Stretch: func(d time.Duration) time.Duration { return 2 * d },
		})
		write(d, d.Map().Scratchpad1, 0x77)
		time.Sleep(6*ms - time.Microsecond)
		r.wantSP1(0x77)
		time.Sleep(2 * time.Microsecond) // the second access has its effect
		r.wantSP1(0)
		r.until(bluefield.HostAttached)
		if got, want := time.Since(r.begin), 104*4*ms+100*20*ms; got != want {
			t.Errorf("attached after %v, want %v", got, want)
		}
	})
}

// TestHostDeaf: a deaf owner's keepalive overwrites the requests, and who
// requested gives up after a second.
func TestHostDeaf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := bluefield.New(bluefield.Config{})
		owner := drive(t, d, bluefield.HostOptions{Attached: true, Deaf: true})
		time.Sleep(37 * ms)
		r := drive(t, d, bluefield.HostOptions{Force: true})
		r.until(bluefield.HostRequesting)
		began := time.Now()
		r.until(bluefield.HostDropped)
		if took := time.Since(began); took != time.Second {
			t.Errorf("it requested for %v", took)
		}
		time.Sleep(time.Minute)
		owner.wantOwns("+0s")
		owner.wantSP1(reg.Keepalive)
		owner.SetDeaf(false)
		time.Sleep(time.Second) // no request is left
		owner.wantOwns("+0s")
		if err := r.ForceCmd(); err != nil {
			t.Fatal(err)
		}
		r.until(bluefield.HostAttached)
		if s := owner.State(); s != bluefield.HostDropped {
			t.Errorf("the owner is %v", s)
		}
	})
}

// owners counts how many drivers own the RShim at a time.
type owners struct{ now, most atomic.Int32 }

func (o *owners) told(owns bool) {
	if !owns {
		o.now.Add(-1)
		return
	}
	if n := o.now.Add(1); n > o.most.Load() {
		o.most.Store(n)
	}
}

// TestHostsStartTogether: who begins first gets it, if the other one begins
// later by more than an access takes. When both write KEEPALIVE before either
// looks, both own it, and it stays so: the C daemon never finds out. This test
// asks for no more than that one of them owns it then.
func TestHostsStartTogether(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		offset := time.Duration(rnd.Int64N(int64(2500 * ms)))
		if rnd.IntN(10) == 0 {
			offset = 0
		}
		slowest := time.Duration(rnd.Int64N(int64(2 * ms)))
		seed := rnd.Uint64()
		synctest.Test(t, func(t *testing.T) {
			d := bluefield.New(bluefield.Config{})
			var n owners
			options := func(i uint64) bluefield.HostOptions {
				rnd := rand.New(rand.NewPCG(seed, i))
				return bluefield.HostOptions{OnOwn: n.told, Latency: func() time.Duration { return time.Duration(rnd.Int64N(int64(slowest) + 1)) }}
			}
			first := drive(t, d, options(0))
			time.Sleep(offset)
			second := drive(t, d, options(1))
			time.Sleep(5 * time.Second)
			late := offset > 210*slowest // both checks have drifted apart by at most so much
			if most := n.most.Load(); most < 1 || late && (most != 1 || !first.Owns()) {
				t.Errorf("offset %v, latency up to %v: %d owned it at a time; %v and %v", offset, slowest, most, first.State(), second.State())
			}
		})
	}
}

// TestHostsForce: FORCE against an owner that listens succeeds, whatever the
// time at which it comes, and there is never more than one owner.
func TestHostsForce(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		offset := time.Duration(rnd.Int64N(int64(2 * time.Second)))
		synctest.Test(t, func(t *testing.T) {
			d := bluefield.New(bluefield.Config{})
			var n owners
			owner := drive(t, d, bluefield.HostOptions{Attached: true, OnOwn: n.told})
			time.Sleep(offset)
			r := drive(t, d, bluefield.HostOptions{Force: true, OnOwn: n.told})
			r.until(bluefield.HostAttached)
			time.Sleep(time.Second)
			if n.most.Load() != 1 || !r.Owns() || owner.State() != bluefield.HostDropped {
				t.Errorf("offset %v: %d owned it at a time; %v and %v", offset, n.most.Load(), owner.State(), r.State())
			}
			r.wantSP1(reg.Keepalive)
		})
	}
}
