// SPDX-License-Identifier: Apache-2.0

package bluefield_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
)

// hostRig is a DPU with one driver of the host, and what that does to it.
type hostRig struct {
	*bluefield.Host
	t    *testing.T
	dpu  *bluefield.DPU
	kill context.CancelFunc
	done chan struct{}
	err  error // of Run

	mu    sync.Mutex
	begin time.Time
	times []time.Time // two an access, of which the first is when it has its effect
	owns  []string    // "+" and "-" with the time
}

// drive runs a driver with o in the bubble, and records it. No one else may
// access the registers through WriteReg while the trace is looked at.
func drive(t *testing.T, d *bluefield.DPU, o bluefield.HostOptions) *hostRig {
	r := &hostRig{t: t, dpu: d, begin: time.Now(), done: make(chan struct{})}
	if o.Latency == nil {
		o.Latency = func() time.Duration {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.times = append(r.times, time.Now())
			return 0
		}
	}
	also := o.OnOwn
	o.OnOwn = func(owns bool) {
		if also != nil {
			also(owns)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.owns = append(r.owns, map[bool]string{true: "+", false: "-"}[owns]+time.Since(r.begin).String())
	}
	r.Host = bluefield.NewHost(d, o)
	d.Record(1 << 20)
	ctx, kill := context.WithCancel(t.Context())
	r.kill = kill
	go func() {
		defer close(r.done)
		r.err = r.Run(ctx)
	}()
	t.Cleanup(func() { kill(); <-r.done })
	return r
}

// end kills the driver and waits for its end.
func (r *hostRig) end() { r.kill(); <-r.done }

// until waits for a state, for an hour at most.
func (r *hostRig) until(s bluefield.HostState) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Hour)
	defer cancel()
	if err := r.WaitState(ctx, s); err != nil {
		r.t.Fatalf("it is %v, not %v: %v", r.State(), s, err)
	}
}

// restart begins a new trace, whose time 0 was so long ago.
func (r *hostRig) restart(ago time.Duration) {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.begin, r.times, r.owns = time.Now().Add(-ago), nil, nil
	r.dpu.Record(1 << 20)
}

// trace gives what was accessed since restart, as "time register" of a read and
// "time register=value" of a write.
func (r *hostRig) trace() []string {
	synctest.Wait()
	m := r.dpu.Map()
	names := map[reg.Addr]string{m.FabricDim: "DIM", m.Scratchpad1: "SP1", m.Scratchpad3: "SP3", m.Scratchpad6: "SP6",
		m.TmHostToTileSts: "HTT_STS", m.TmHostToTile: "HTT", m.TmTileToHostSts: "TTH_STS", m.TmTileToHost: "TTH"}
	r.mu.Lock()
	defer r.mu.Unlock()
	var lines []string
	for i, a := range r.dpu.Recorded() {
		line := fmt.Sprintf("%v %s", r.times[2*i].Sub(r.begin), names[a.Addr])
		if a.Write {
			line += "=" + value(a.Value)
		}
		lines = append(lines, line)
	}
	return lines
}

func value(v uint64) string {
	switch v {
	case reg.Keepalive:
		return "KEEPALIVE"
	case reg.OwnershipRequest:
		return "REQ"
	case reg.OwnershipAck:
		return "ACK"
	}
	return fmt.Sprintf("%#x", v)
}

// accesses writes lines of a trace: one for each step of times, or one.
func accesses(what string, from, step time.Duration, times int) (lines []string) {
	for i := range times {
		for _, w := range strings.Fields(what) {
			lines = append(lines, fmt.Sprintf("%v %s", from+time.Duration(i)*step, w))
		}
	}
	return lines
}

func (r *hostRig) wantTrace(want ...[]string) {
	r.t.Helper()
	got, all := r.trace(), slices.Concat(want...)
	if slices.Equal(got, all) {
		return
	}
	for i := range max(len(got), len(all)) {
		if i >= len(got) || i >= len(all) || got[i] != all[i] {
			r.t.Errorf("access %d of %d, want %d: got %q, want %q", i, len(got), len(all), got[min(i, len(got)):min(i+4, len(got))], all[min(i, len(all)):min(i+4, len(all))])
			return
		}
	}
}

func (r *hostRig) wantOwns(want ...string) {
	r.t.Helper()
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(r.owns, want) {
		r.t.Errorf("it owned at %q, want %q", r.owns, want)
	}
}

func (r *hostRig) wantSP1(want uint64) {
	r.t.Helper()
	if v := read(r.dpu, r.dpu.Map().Scratchpad1); v != want {
		r.t.Errorf("scratchpad 1 is %s, want %s", value(v), value(want))
	}
}

const ms = time.Millisecond

// check is the trace of an access check that begins at so many and passes.
func check(at time.Duration) []string {
	return slices.Concat(accesses("DIM SP1=0x0", at, 0, 1), accesses("SP1", at+10*ms, 10*ms, 100), accesses("SP1=KEEPALIVE SP1", at+1000*ms, 0, 1))
}

// generationsOf runs a test in a bubble for each generation.
func generationsOf(t *testing.T, test func(t *testing.T, d *bluefield.DPU)) {
	for _, g := range []reg.Generation{reg.BlueField1, reg.BlueField2, reg.BlueField3} {
		t.Run(g.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, bluefield.New(bluefield.Config{Generation: g})) })
		})
	}
}

// TestHostAttaches: the access check and what an owner does then, access by
// access, as the C daemon's own code and the traces taken of it say.
func TestHostAttaches(t *testing.T) {
	generationsOf(t, func(t *testing.T, d *bluefield.DPU) {
		r := drive(t, d, bluefield.HostOptions{})
		r.until(bluefield.HostAttached)
		r.wantTrace(check(0))
		r.wantOwns("+1s")
		if !r.Owns() {
			t.Error("it does not own")
		}
		r.restart(0)
		time.Sleep(699 * ms)
		r.wantTrace(
			accesses("SP1 SP1", 100*ms, 100*ms, 3),
			accesses("SP1 SP6 SP6=0x8000000000000000 SP3 SP1=KEEPALIVE", 303*ms, 0, 1),
			accesses("SP1 SP1", 400*ms, 100*ms, 3),
			accesses("SP1 SP6 SP3 SP1=KEEPALIVE", 604*ms, 0, 1))
	})
}

// TestHostSparesDebugData: while scratchpad 1 carries debug data it is not
// overwritten.
func TestHostSparesDebugData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := bluefield.New(bluefield.Config{})
		r := drive(t, d, bluefield.HostOptions{Attached: true})
		synctest.Wait()
		write(d, d.Map().Scratchpad3, 1<<59)
		write(d, d.Map().Scratchpad1, 0x1234)
		time.Sleep(time.Second)
		r.wantSP1(0x1234)
		write(d, d.Map().Scratchpad3, 0)
		time.Sleep(time.Second)
		r.wantSP1(reg.Keepalive)
	})
}

// TestHostFindsOwner: one KEEPALIVE during the polls and it is gone, or with -F
// in drop mode, from which it requests once.
func TestHostFindsOwner(t *testing.T) {
	for _, force := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			d := bluefield.New(bluefield.Config{})
			r := drive(t, d, bluefield.HostOptions{Force: force})
			time.Sleep(995 * ms)
			write(d, d.Map().Scratchpad1, reg.Keepalive)
			time.Sleep(10 * ms)
			r.restart(5 * ms) // when it found it
			if !force {
				<-r.done
				if !errors.Is(r.err, bluefield.ErrNotAttached) || r.State() != bluefield.HostUnattached {
					t.Errorf("%v, %v", r.err, r.State())
				}
				if err := r.ForceCmd(); !errors.Is(err, bluefield.ErrNotDropped) {
					t.Errorf("FORCE_CMD: %v", err)
				}
				time.Sleep(time.Hour)
				r.wantTrace()
				r.wantSP1(reg.Keepalive)
				return
			}
			time.Sleep(time.Hour)
			r.wantTrace(accesses("SP1=REQ", 100*ms, 0, 1), accesses("SP1 SP1=REQ", 200*ms, 100*ms, 9), accesses("SP1", 1100*ms, 0, 1))
			if s := r.State(); s != bluefield.HostDropped {
				t.Errorf("it is %v", s)
			}
			r.wantOwns()
			r.wantSP1(reg.OwnershipRequest)
		})
	}
}

// TestHostGrants: ten OSP_ACK, a second, and scratchpads 1 and 6 are cleared.
// Nothing else is done meanwhile, and nothing at all after it.
func TestHostGrants(t *testing.T) {
	generationsOf(t, func(t *testing.T, d *bluefield.DPU) {
		r := drive(t, d, bluefield.HostOptions{Attached: true})
		time.Sleep(50 * ms)
		write(d, d.Map().Scratchpad1, reg.OwnershipRequest)
		r.restart(0)
		time.Sleep(time.Hour)
		r.wantTrace(
			accesses("SP1 SP1", 50*ms, 0, 1),
			accesses("SP1=ACK", 50*ms, 100*ms, 10),
			accesses("SP1=0x0 SP6=0x0", 2050*ms, 0, 1))
		r.wantOwns("-50ms")
		if s := r.State(); s != bluefield.HostDropped {
			t.Errorf("it is %v", s)
		}
	})
}

// TestHostRequests: after an OSP_ACK it resynchronises the TMFIFO, for 1 to 2 s
// of the clock on the wall, and goes through the access check.
func TestHostRequests(t *testing.T) {
	generationsOf(t, func(t *testing.T, d *bluefield.DPU) {
		r := drive(t, d, bluefield.HostOptions{Drop: true})
		time.Sleep(2250 * ms) // the access check that it only thinks it does
		r.wantTrace()
		if err := r.ForceCmd(); err != nil {
			t.Fatal(err)
		}
		r.restart(0)
		time.Sleep(250*ms + 70*ms)
		d.WriteReg(d.Map().Scratchpad1, 8, reg.OwnershipAck)
		r.restart(320 * ms)
		r.until(bluefield.HostAttached)
		r.wantTrace(
			accesses("SP1 HTT_STS", 350*ms, 0, 1),
			accesses("HTT=0xff00000000000001", 350*ms, 0, 253),
			accesses("TTH_STS", 350*ms, 10*ms, 140),
			check(1750*ms))
		r.wantOwns("+2.75s")
	})
}
