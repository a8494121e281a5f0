// SPDX-License-Identifier: Apache-2.0

package rshim_test

import (
	"context"
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

// regBackend is the registers of a DPU, each access of which takes its time
// before it has its effect and after. There is nobody behind its FIFOs.
type regBackend struct {
	dpu     *bluefield.DPU
	latency func() time.Duration
	gone    chan struct{}
}

func (b *regBackend) Name() string               { return "usb-1.1" }
func (b *regBackend) Generation() reg.Generation { return b.dpu.Config().Generation }
func (b *regBackend) Revision() int              { return 0 }

func (b *regBackend) ReadReg(ctx context.Context, a reg.Addr, size int) (v uint64, err error) {
	err = b.access(ctx, func() { v = b.dpu.ReadReg(a, size) })
	return v, err
}

func (b *regBackend) WriteReg(ctx context.Context, a reg.Addr, size int, v uint64) error {
	return b.access(ctx, func() { b.dpu.WriteReg(a, size, v) })
}

func (b *regBackend) access(ctx context.Context, do func()) error {
	for _, part := range []func(){do, func() {}} {
		if d := b.latency() / 2; d > 0 {
			select {
			case <-time.After(d):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		part()
	}
	return nil
}

func (b *regBackend) BootStart(stall, transfer time.Duration)            {}
func (b *regBackend) BootWrite(_ context.Context, p []byte) (int, error) { return len(p), nil }
func (b *regBackend) BootFlush(context.Context) error                    { return nil }
func (b *regBackend) BootDrop(from int64) int64                          { return from }
func (b *regBackend) BootEnd()                                           {}
func (b *regBackend) TMStart()                                           {}
func (b *regBackend) TMWrite(context.Context, []byte) error              { return nil }
func (b *regBackend) TMIdle(context.Context) error                       { return nil }
func (b *regBackend) TMStop()                                            {}
func (b *regBackend) Gone() <-chan struct{}                              { return b.gone }
func (b *regBackend) Close() error                                       { return nil }
func (b *regBackend) TMRead(ctx context.Context, _ []byte) (int, error) {
	<-ctx.Done()
	return 0, ctx.Err()
}

// drivers are several drivers of one DPU, ours and the host's, and who of them
// regards its RShim as its own.
type drivers struct {
	t     *testing.T
	rnd   *rand.Rand
	fixed time.Duration // latency of each access; 0: random ones
	ctx   context.Context
	stop  context.CancelFunc
	dpu   *bluefield.DPU
	wg    sync.WaitGroup

	mu    sync.Mutex
	ours  []*rshim.Device
	hosts []*bluefield.Host
	log   []string
}

func newDrivers(t *testing.T, seed uint64, g reg.Generation) *drivers {
	r := &drivers{t: t, rnd: rand.New(rand.NewPCG(seed, 5)), dpu: bluefield.New(bluefield.Config{Generation: g, NoFirmware: true})}
	r.ctx, r.stop = context.WithCancel(t.Context())
	return r
}

// end ends all drivers.
func (r *drivers) end() {
	r.stop()
	r.wg.Wait()
}

// note keeps what happened, for who has to find out why.
func (r *drivers) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log = append(r.log, fmt.Sprintf("%v ", time.Duration(time.Now().UnixNano()%int64(time.Hour)))+fmt.Sprintf(format, args...))
}

// latency is how long the accesses of a driver take: none, or up to 12 ms.
func (r *drivers) latency() func() time.Duration {
	if r.fixed > 0 {
		return func() time.Duration { return r.fixed }
	}
	base := []time.Duration{0, 125 * time.Microsecond, time.Millisecond, 4 * time.Millisecond}[r.rnd.IntN(4)]
	rnd := rand.New(rand.NewPCG(r.rnd.Uint64(), 1))
	var mu sync.Mutex
	return func() time.Duration {
		if base == 0 {
			return 0
		}
		mu.Lock()
		defer mu.Unlock()
		return base/2 + time.Duration(rnd.Int64N(int64(base*5/2)))
	}
}

// stretch is how a busy host's timers are late, by up to a third.
func (r *drivers) stretch() func(time.Duration) time.Duration {
	if r.fixed > 0 || r.rnd.IntN(2) == 0 {
		return nil
	}
	rnd := rand.New(rand.NewPCG(r.rnd.Uint64(), 2))
	var mu sync.Mutex
	return func(d time.Duration) time.Duration {
		mu.Lock()
		defer mu.Unlock()
		return d + time.Duration(rnd.Int64N(int64(d/3)+1))
	}
}

// device starts one of ours.
func (r *drivers) device(o rshim.Options) *rshim.Device {
	d := rshim.New(len(r.ours), o)
	r.mu.Lock()
	r.ours = append(r.ours, d)
	r.mu.Unlock()
	b := &regBackend{dpu: r.dpu, latency: r.latency(), gone: make(chan struct{})}
	r.wg.Go(func() { _ = d.Serve(r.ctx, b) })
	r.wg.Go(func() {
		for last := rshim.Gone; r.ctx.Err() == nil; {
			changed := d.Changed()
			state, reason := d.State()
			if state != last {
				r.note("ours %d: %v (%s)", d.Index(), state, reason)
				r.alone()
			}
			last = state
			select {
			case <-changed:
			case <-r.ctx.Done():
			}
		}
	})
	return d
}

// host starts a driver on the host. The function that is returned kills it.
func (r *drivers) host(o bluefield.HostOptions) (*bluefield.Host, context.CancelFunc) {
	i := len(r.hosts)
	o.Latency, o.Stretch = r.latency(), r.stretch()
	o.OnOwn = func(owns bool) {
		r.note("host %d: owns %v", i, owns)
		r.alone()
	}
	h := bluefield.NewHost(r.dpu, o)
	r.mu.Lock()
	r.hosts = append(r.hosts, h)
	r.mu.Unlock()
	ctx, kill := context.WithCancel(r.ctx)
	r.wg.Go(func() { _ = h.Run(ctx) })
	return h, kill
}

// owns reports whether one of ours regards the RShim as its own.
func owns(d *rshim.Device) bool {
	s, _ := d.State()
	return s == rshim.Attached || s == rshim.Rebooting
}

// owners is how many there are.
func (r *drivers) owners() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range r.ours {
		if owns(d) {
			n++
		}
	}
	for _, h := range r.hosts {
		if h.Owns() {
			n++
		}
	}
	return n
}

// alone fails the test when there is more than one owner.
func (r *drivers) alone() {
	if n := r.owners(); n > 1 && !r.t.Failed() {
		r.note("%d OWNERS", n)
		r.t.Errorf("%d owners", n)
	}
}

// pass lets time pass, and looks all the time that there are not two owners.
func (r *drivers) pass(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end) && !r.t.Failed(); {
		time.Sleep(7 * time.Millisecond)
		r.alone()
	}
}

// within waits for an owner, exactly one.
func (r *drivers) within(d time.Duration) bool {
	for end := time.Now().Add(d); time.Now().Before(end) && !r.t.Failed(); r.pass(50 * time.Millisecond) {
		if r.owners() == 1 {
			return true
		}
	}
	return false
}

// R5: two drivers that start within moments of each other, ask each other for
// the RShim, drop it, and die; with random latencies of each register access and
// timers that are late: never two owners, and one in the end.
func TestR5OneOwner(t *testing.T) {
	const seeds = uint64(1000 / seedShare)
	for _, kind := range []string{"ours against the C daemon's rules", "ours against ours"} {
		t.Run(kind, func(t *testing.T) {
			for seed := range seeds {
				synctest.Test(t, func(t *testing.T) {
					oneOwner(t, seed, kind == "ours against ours")
				})
				if t.Failed() {
					t.Fatalf("seed %d", seed)
				}
			}
		})
	}
}

// TestR5ChecksEndTogether: two checks by which two drivers come to their
// decisions within moments of each other, which is where the C daemon's rules
// alone make two owners.
func TestR5ChecksEndTogether(t *testing.T) {
	const ourCheck, ourBait, theirPolls = 1050 * time.Millisecond, 350 * time.Millisecond, 100
	const seeds = uint64(2000 / seedShare)
	taken := 0
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) {
			r := newDrivers(t, seed, generationsOf[seed%2])
			defer r.end()
			r.fixed = []time.Duration{0, 500 * time.Microsecond, time.Millisecond, 3 * time.Millisecond}[r.rnd.IntN(4)]
			r.dpu.WriteReg(reg.For(generationsOf[seed%2]).Scratchpad1, 8, []uint64{0, reg.Keepalive}[r.rnd.IntN(2)])
			// The host's takes 10 ms and an access for each poll.
			theirCheck := theirPolls * (10*time.Millisecond + r.fixed)
			jitter := time.Duration(r.rnd.Int64N(int64(16*time.Millisecond+8*r.fixed))) - 8*time.Millisecond - 4*r.fixed
			lead := jitter // of the host: they begin together,
			switch r.rnd.IntN(3) {
			case 0:
				lead += theirCheck - ourCheck // or end together,
			case 1:
				lead += theirCheck - ourBait // or theirs ends when we show our keepalive
			}
			ours := func() { r.device(rshim.Options{}) }
			theirs := func() { r.host(bluefield.HostOptions{}) }
			if lead > 0 {
				theirs()
				time.Sleep(lead)
				ours()
			} else {
				ours()
				time.Sleep(-lead)
				theirs()
			}
			r.pass(4 * time.Second)
			if n := r.owners(); n == 0 {
				r.within(20 * time.Second)
			}
			if n := r.owners(); n != 1 {
				t.Errorf("seed %d: %d owners", seed, n)
			}
			if r.hosts[0].Owns() {
				taken++
			}
			if t.Failed() {
				for _, l := range r.log {
					t.Log(l)
				}
			}
		})
		if t.Failed() {
			return
		}
	}
	t.Logf("the host had it in %d of %d", taken, seeds)
}

func oneOwner(t *testing.T, seed uint64, both bool) {
	g := generationsOf[seed%uint64(len(generationsOf))]
	r := newDrivers(t, seed, g)
	defer func() {
		r.end()
		if t.Failed() {
			for _, l := range r.log {
				t.Log(l)
			}
		}
	}()
	r.dpu.WriteReg(reg.For(g).Scratchpad1, 8, []uint64{0, reg.Keepalive, reg.OwnershipAck, 0x1234}[r.rnd.IntN(4)])

	// Half of the starts are close to each other, or to the other's decision.
	offset := time.Duration(r.rnd.Int64N(int64(2 * time.Second)))
	if r.rnd.IntN(2) == 0 {
		offset = time.Duration(r.rnd.IntN(3))*500*time.Millisecond + time.Duration(r.rnd.Int64N(int64(60*time.Millisecond)))
	}
	var a, b *rshim.Device
	var h *bluefield.Host
	kill := func() {}
	start := []func(){
		func() { a = r.device(rshim.Options{}) },
		func() {
			if both {
				b = r.device(rshim.Options{})
			} else {
				h, kill = r.host(bluefield.HostOptions{Force: r.rnd.IntN(4) == 0})
			}
		},
	}
	first := r.rnd.IntN(2)
	start[first]()
	time.Sleep(offset)
	start[1-first]()

	// A user of each, who does not wait for anything.
	user := func(f func(ctx context.Context)) {
		ctx := r.ctx
		r.wg.Go(func() { f(ctx) })
	}
	died := false
	for range 2 + r.rnd.IntN(5) {
		r.pass(time.Duration(r.rnd.Int64N(int64(4 * time.Second))))
		act := func(name string, d *rshim.Device, f func(ctx context.Context, d *rshim.Device)) {
			r.note("user: %s %d", name, d.Index())
			user(func(ctx context.Context) { f(ctx, d) })
		}
		one := a
		if both && r.rnd.IntN(2) == 0 {
			one = b
		}
		switch n := r.rnd.IntN(8); {
		case n < 2:
			act("FORCE", one, func(ctx context.Context, d *rshim.Device) { _, _ = d.Force(ctx) })
		case n == 2:
			act("DROP 1", one, func(ctx context.Context, d *rshim.Device) { _ = d.SetDrop(ctx, true) })
		case n == 3:
			act("DROP 0", one, func(ctx context.Context, d *rshim.Device) { _ = d.SetDrop(ctx, false) })
		case both || died:
		case n == 4:
			r.note("user: host FORCE: %v", h.ForceCmd())
		case n == 5:
			drop := r.rnd.IntN(2) == 0
			r.note("user: host drop %v", drop)
			h.SetDrop(drop)
		case n == 6:
			died = true
			r.note("user: host dies")
			kill()
		}
	}
	r.pass(time.Second)
	// Who is left, and wants it, has it in the end.
	for _, d := range r.ours {
		if s, _ := d.State(); s == rshim.Dropped {
			d := d
			user(func(ctx context.Context) { _ = d.SetDrop(ctx, false) })
		}
	}
	if !r.within(time.Minute) && !t.Failed() {
		t.Errorf("%d owners after a minute", r.owners())
	}
	r.pass(15 * time.Second)
	if n := r.owners(); n != 1 && !t.Failed() {
		// A hand-over may be under way.
		if !r.within(30 * time.Second) {
			t.Errorf("%d owners at the end", n)
		}
	}
}

var generationsOf = []reg.Generation{reg.BlueField2, reg.BlueField3}

// TestSlowIsNotLost: register accesses that take seconds now and then, so that
// neither keepalive nor check is in time, are no reason to give the RShim up
// when nobody else wants it.
func TestSlowIsNotLost(t *testing.T) {
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			r := newDrivers(t, seed, generationsOf[seed%2])
			defer r.end()
			var slow atomic.Bool
			rnd := rand.New(rand.NewPCG(seed, 6))
			d := rshim.New(0, rshim.Options{})
			b := &regBackend{dpu: r.dpu, gone: make(chan struct{}), latency: func() time.Duration {
				if slow.Load() && rnd.IntN(20) == 0 {
					return time.Duration(rnd.Int64N(int64(3 * time.Second)))
				}
				return time.Millisecond
			}}
			r.wg.Go(func() { _ = d.Serve(r.ctx, b) })
			for s, _ := d.State(); s != rshim.Attached; s, _ = d.State() {
				time.Sleep(100 * time.Millisecond)
			}
			slow.Store(true)
			for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); {
				changed := d.Changed()
				if s, why := d.State(); s != rshim.Attached {
					t.Fatalf("seed %d: it is %v (%s)", seed, s, why)
				}
				select {
				case <-changed:
				case <-time.After(time.Second):
				}
			}
		})
	}
}
