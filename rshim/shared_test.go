// SPDX-License-Identifier: Apache-2.0

package rshim_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
	"github.com/bluefield-go/bmc-rshim/usbbackend"
)

// done is what somebody did to a chip: what with, and when.
type done struct {
	what  string // "read", "write", or a method of rshim.Backend
	addr  reg.Addr
	value uint64
	begin time.Time
	end   time.Time
}

func (x done) String() string {
	return fmt.Sprintf("%s %+v %#x", x.what, x.addr, x.value)
}

// tap is a Backend, and keeps what is done to it.
type tap struct {
	rshim.Backend
	trace *trace
}

type trace struct {
	mu   sync.Mutex
	done []done
}

func (tr *trace) add(what string, a reg.Addr, f func() (uint64, error)) (uint64, error) {
	x := done{what: what, addr: a, begin: time.Now()}
	v, err := f()
	x.value, x.end = v, time.Now()
	tr.mu.Lock()
	tr.done = append(tr.done, x)
	tr.mu.Unlock()
	return v, err
}

// all returns what was done so far, of that kind if kinds are given.
func (tr *trace) all(kinds ...string) (xs []done) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, x := range tr.done {
		match := len(kinds) == 0
		for _, k := range kinds {
			match = match || x.what == k
		}
		if match {
			xs = append(xs, x)
		}
	}
	return xs
}

// forget begins anew.
func (tr *trace) forget() {
	tr.mu.Lock()
	tr.done = nil
	tr.mu.Unlock()
}

// said is how often a value was written to a register.
func (tr *trace) said(a reg.Addr, v uint64) (n int) {
	for _, x := range tr.all("write") {
		if x.addr == a && x.value == v {
			n++
		}
	}
	return n
}

func (t tap) ReadReg(ctx context.Context, a reg.Addr, size int) (uint64, error) {
	return t.trace.add("read", a, func() (uint64, error) { return t.Backend.ReadReg(ctx, a, size) })
}

func (t tap) WriteReg(ctx context.Context, a reg.Addr, size int, v uint64) error {
	_, err := t.trace.add("write", a, func() (uint64, error) { return v, t.Backend.WriteReg(ctx, a, size, v) })
	return err
}

func (t tap) note(what string, f func()) {
	t.trace.add(what, reg.Addr{}, func() (uint64, error) { f(); return 0, nil })
}

func (t tap) BootStart(stall, transfer time.Duration) {
	t.note("BootStart", func() { t.Backend.BootStart(stall, transfer) })
}

func (t tap) BootWrite(ctx context.Context, p []byte) (n int, err error) {
	t.note("BootWrite", func() { n, err = t.Backend.BootWrite(ctx, p) })
	return n, err
}

func (t tap) BootEnd() { t.note("BootEnd", t.Backend.BootEnd) }
func (t tap) TMStart() { t.note("TMStart", t.Backend.TMStart) }
func (t tap) TMStop()  { t.note("TMStop", t.Backend.TMStop) }

func (t tap) TMWrite(ctx context.Context, p []byte) (err error) {
	t.note("TMWrite", func() { err = t.Backend.TMWrite(ctx, p) })
	return err
}

// shared is a rig whose DPU has drivers on the host, too.
type shared struct {
	*rig
	g    reg.Generation
	m    *reg.Map
	dpu  *bluefield.DPU
	fn   *usbdev.Function
	d    *rshim.Device
	ours *trace // what our side does

	mu    sync.Mutex
	took  int
	wrote func(a reg.Addr, v uint64) // is told of writes of either side
}

// sharedRig makes a DPU with which nobody has begun anything.
func sharedRig(t *testing.T, g reg.Generation, cfg bluefield.Config, o rshim.Options) *shared {
	r := &shared{rig: &rig{t: t, bus: usbdev.NewBus()}, g: g, m: reg.For(g), ours: &trace{}}
	ctx, cancel := context.WithCancel(t.Context())
	r.ctx = ctx
	cfg.Generation = g
	cfg.OnWrite = func(a reg.Addr, v uint64) {
		r.mu.Lock()
		f := r.wrote
		r.mu.Unlock()
		if f != nil {
			f(a, v)
		}
	}
	r.dpu = bluefield.New(cfg)
	r.fn = usbdev.New(r.dpu, usbdev.Options{Latency: 125 * time.Microsecond})
	if testing.Verbose() && os.Getenv("RSHIM_TEST_LOG") != "" {
		o.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	r.set = rshim.NewSet(rshim.SetOptions{Device: o})
	var wg sync.WaitGroup
	wg.Go(func() { _ = r.set.Run(ctx) })
	finder := usbbackend.Finder{Host: r.bus, Wake: r.bus.Changes()}
	wg.Go(func() {
		_ = finder.Run(ctx, func(d *usbbackend.Device) func(context.Context) error {
			return r.set.Adopt(tap{d, r.ours})
		})
	})
	r.stop = func() {
		cancel()
		wg.Wait()
	}
	t.Cleanup(r.stop)
	r.start(r.fn)
	return r
}

// onWrite has f told of each register write of either side.
func (r *shared) onWrite(f func(a reg.Addr, v uint64)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wrote = f
}

// first has a look at when, from now on, a value is first written to scratchpad
// 1 by whomever, and at how much of a boot stream had arrived by then.
func (r *shared) first(value uint64) func() (at time.Time, sent int64) {
	var mu sync.Mutex
	var at time.Time
	var sent int64
	r.onWrite(func(a reg.Addr, v uint64) {
		mu.Lock()
		defer mu.Unlock()
		if a == r.m.Scratchpad1 && v == value && at.IsZero() {
			at = time.Now()
			sent, _ = r.fn.BootSum()
		}
	})
	return func() (time.Time, int64) {
		mu.Lock()
		defer mu.Unlock()
		return at, sent
	}
}

// plugIn puts the DPU on our bus and waits for its device.
func (r *shared) plugIn() *rshim.Device {
	r.bus.Plug("1-1", r.fn)
	r.d = r.device(0)
	return r.d
}

// host starts a driver on the host. The function that is returned kills it.
func (r *shared) host(o bluefield.HostOptions) (*bluefield.Host, context.CancelFunc) {
	o.OnOwn = func(owns bool) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if owns {
			r.took++
		}
	}
	h := bluefield.NewHost(r.dpu, o)
	ctx, kill := context.WithCancel(r.ctx)
	over := make(chan struct{})
	go func() {
		defer close(over)
		_ = h.Run(ctx)
	}()
	r.t.Cleanup(func() {
		kill()
		<-over
	})
	return h, kill
}

// sp1 is what scratchpad 1 reads.
func (r *shared) sp1() uint64 { return r.dpu.ReadReg(r.m.Scratchpad1, 8) }

// say writes to scratchpad 1, as somebody else.
func (r *shared) say(v uint64) { r.dpu.WriteReg(r.m.Scratchpad1, 8, v) }

// is checks the state.
func (r *shared) is(want rshim.State) {
	r.t.Helper()
	if s, reason := r.d.State(); s != want {
		r.t.Errorf("it is %v (%s), want %v", s, reason, want)
	}
}

// within waits for a state, and returns how long that took.
func (r *shared) within(limit time.Duration, want rshim.State) time.Duration {
	r.t.Helper()
	begin := time.Now()
	for time.Since(begin) < limit {
		if s, _ := r.d.State(); s == want {
			return time.Since(begin)
		}
		time.Sleep(time.Millisecond)
	}
	s, reason := r.d.State()
	r.t.Errorf("it is %v (%s) after %v, want %v", s, reason, limit, want)
	return limit
}

// sharedBy runs a test with a DPU of each generation that drivers on the host
// share with us.
func sharedBy(t *testing.T, cfg bluefield.Config, o rshim.Options, f func(r *shared)) {
	t.Helper()
	generations(t, func(t *testing.T, g reg.Generation) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) { f(sharedRig(t, g, cfg, o)) })
	})
}

// taken is how often a driver on the host has become the owner.
func (r *shared) taken() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.took
}
