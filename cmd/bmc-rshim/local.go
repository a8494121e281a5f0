// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim"
	corepush "github.com/bluefield-go/bmc-rshim/rshim/push"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

// attachPatience is how long a simulated device may take to attach.
const attachPatience = 30 * time.Second

// local is a device in this process.
type local struct {
	d    *rshim.Device
	stop func()
}

// newLocal brings up a simulated DPU and what the daemon would run for it.
func newLocal(ctx context.Context, bus *usbBus, name string) (*local, error) {
	set := rshim.NewSet(rshim.SetOptions{})
	// It outlives an interrupted command, which has to leave things tidy.
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { _ = bus.serve(life, set, nil) })
	l := &local{stop: func() { cancel(); wg.Wait() }}

	ctx, done := context.WithTimeout(ctx, attachPatience)
	defer done()
	err := l.attach(ctx, set, name)
	if err != nil {
		l.stop()
		return nil, err
	}
	return l, nil
}

// attach waits for the set's device, and until it is known whether it is ours.
func (l *local) attach(ctx context.Context, set *rshim.Set, name string) error {
	for len(set.Devices()) == 0 {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	l.d = set.Devices()[0]
	if have := l.name(); name != "" && name != have {
		return exitWith(exitDevice, "no %s: the simulated device is %s", name, have)
	}
	for {
		changed := l.d.Changed()
		state, reason := l.d.State()
		switch state {
		case rshim.Attached, rshim.Contended, rshim.Locked:
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return ctx.Err()
			}
			return exitWith(exitDevice, "%s is %v: %s", l.name(), state, reason)
		}
	}
}

func (l *local) close()       { l.stop() }
func (l *local) name() string { return fmt.Sprintf("rshim%d", l.d.Index()) }

func (l *local) misc(ctx context.Context) (string, error) { return l.d.Misc(ctx), ctx.Err() }

func (l *local) setMisc(ctx context.Context, commands string) error {
	return l.d.WriteMisc(ctx, commands)
}

func (l *local) readReg(ctx context.Context, addr uint32, size int) (uint64, error) {
	v, err := l.d.ReadReg(ctx, reg.Linear(addr), size)
	return v, unavailable(err)
}

func (l *local) writeReg(ctx context.Context, addr uint32, size int, v uint64) error {
	return unavailable(l.d.WriteReg(ctx, reg.Linear(addr), size, v))
}

func (l *local) force(ctx context.Context) (rshim.ForceResult, error) {
	r, err := l.d.Force(ctx)
	return r, unavailable(err)
}

func (l *local) release(ctx context.Context) error {
	return unavailable(l.setMisc(ctx, "DROP_MODE 1\n"))
}

func (l *local) reset(ctx context.Context) (bool, error) { return true, l.d.ResetWait(ctx) }

func (l *local) openBoot(ctx context.Context) (corepush.Stream, error) {
	b, err := l.d.OpenBoot(ctx)
	if err != nil {
		return nil, unavailable(err)
	}
	return b, nil
}

func (l *local) status(ctx context.Context) (status, error) {
	s := parseMisc(l.d.Misc(ctx)).status(l.name())
	st := l.d.Status()
	s.State, s.Reason = st.State.String(), st.Reason
	if p := st.Push; p.Phase != rshim.PushNone {
		s.Push = &pushStatus{Phase: string(p.Phase), Bytes: p.Bytes, Seconds: seconds(p.Elapsed)}
		if p.Err != nil {
			s.Push.Error = p.Err.Error()
		}
		if p.Outcome.Final() {
			s.Push.Outcome, s.Push.Seconds = coreOutcomes[p.Outcome], seconds(p.Ended.Sub(p.Started))
		}
	}
	return s, ctx.Err()
}

// coreOutcomes are the outcomes of a push as commands have them.
var coreOutcomes = map[rshim.Outcome]string{
	rshim.OutcomeReady: outcomeReady, rshim.OutcomeStreamed: outcomeStreamed, rshim.OutcomeDPUError: "dpu_error",
	rshim.OutcomeTimeout: "timed_out", rshim.OutcomeCancelled: "cancelled", rshim.OutcomeDeviceLost: "device_lost",
	rshim.OutcomeFailed: "failed",
}
