// SPDX-License-Identifier: Apache-2.0

package rshim

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

// MaxDevices is how many devices there can be: indexes 0 to 63.
const MaxDevices = 64

// ErrTooMany means that all indexes are taken.
var ErrTooMany = errors.New("no free index")

// defaultGrace is how long a device that left the bus keeps its files: a DPU
// that reboots by itself is back in a few seconds.
const defaultGrace = 10 * time.Second

// SetOptions of a Set.
type SetOptions struct {
	Device Options
	// Present runs for as long as a device is there: from when it is first
	// served until it has been off the bus for Grace with neither a boot
	// stream nor the console open, and no reset under way. It must return
	// when its context ends.
	Present func(ctx context.Context, d *Device)
	Grace   time.Duration // 0 means 10 s
}

// Set is all devices of a daemon, each with its index.
type Set struct {
	o     SetOptions
	start chan *slot

	mu    sync.Mutex
	slots []*slot // by index
}

// slot is an index and what it belongs to, for good.
type slot struct {
	name    string
	gen     reg.Generation
	device  *Device // nil when there is none
	serving bool
}

// NewSet makes an empty set.
func NewSet(o SetOptions) *Set {
	o.Grace = orDefault(o.Grace, defaultGrace)
	return &Set{o: o, start: make(chan *slot)}
}

// Run keeps the devices present until ctx ends, and returns when all are gone.
func (set *Set) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		select {
		case s := <-set.start:
			wg.Go(func() { set.present(ctx, s) })
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// present runs a slot's device until it is gone for good.
func (set *Set) present(ctx context.Context, s *slot) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d := s.device
	var wg sync.WaitGroup
	if set.o.Present != nil {
		wg.Go(func() { set.o.Present(ctx, d) })
	}
	for ctx.Err() == nil && !(d.settle(ctx, set.o.Grace) && set.retire(s)) {
	}
	cancel()
	wg.Wait()
}

// retire takes the device out of its slot, unless it is being served again.
func (set *Set) retire(s *slot) bool {
	set.mu.Lock()
	defer set.mu.Unlock()
	if !s.serving {
		s.device = nil
	}
	return !s.serving
}

// settle waits until the device has left the bus, and then for it to come
// back. It reports true when it has stayed away for grace and nobody waits for
// it.
func (d *Device) settle(ctx context.Context, grace time.Duration) bool {
	if d.await(ctx, func() bool { return d.sess == nil }) != nil {
		return false
	}
	d.mu.Lock()
	if d.state == Rebooting {
		grace = max(grace, d.back)
	}
	d.mu.Unlock()
	away, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	if d.await(away, func() bool { return d.sess != nil }) == nil || ctx.Err() != nil {
		return false
	}
	d.update(func() {
		if d.sess == nil && d.state == Rebooting {
			d.state, d.reason, d.awaited = Absent, "did not come back after the reset", time.Time{}
		}
	})
	waitedFor := func() bool { return d.boot != nil || d.console.Stats().Openers > 0 }
	return d.await(ctx, func() bool { return d.sess != nil || !waitedFor() }) == nil && d.session() == nil
}

// Adopt finds the device that b belongs to, and returns a function that runs b
// as this device until b has gone or its context ends; Run must be running.
//
// A device that comes back under its name gets its index back. When just one
// device has ever been seen, one of its kind under another name is taken for the
// same device on another host controller, which happens to the DPU of a BMC;
// otherwise a new name gets the lowest index that never was used, and when all
// were, one that nobody uses now.
func (set *Set) Adopt(b Backend) func(context.Context) error {
	s, fresh, err := set.claim(b.Name(), b.Generation())
	return func(ctx context.Context) error {
		if err != nil {
			return errors.Join(err, b.Close())
		}
		defer func() {
			set.mu.Lock()
			s.serving = false
			set.mu.Unlock()
		}()
		if fresh {
			select {
			case set.start <- s:
			case <-ctx.Done():
				return errors.Join(ctx.Err(), b.Close())
			}
		}
		return s.device.Serve(ctx, b)
	}
}

// claim finds the slot for a name; fresh means that its device is new.
func (set *Set) claim(name string, gen reg.Generation) (_ *slot, fresh bool, err error) {
	set.mu.Lock()
	defer set.mu.Unlock()
	i, err := set.find(name, gen)
	if err != nil {
		return nil, false, err
	}
	s := set.slots[i]
	s.name, s.gen, s.serving = name, gen, true
	if s.device == nil {
		s.device, fresh = New(i, set.o.Device), true
	}
	return s, fresh, nil
}

func (set *Set) find(name string, gen reg.Generation) (int, error) {
	for i, s := range set.slots {
		if s.name == name {
			if s.serving {
				return 0, fmt.Errorf("%s: %w", name, ErrBusy)
			}
			return i, nil
		}
	}
	if len(set.slots) == 1 && !set.slots[0].serving && set.slots[0].gen == gen {
		return 0, nil
	}
	if len(set.slots) < MaxDevices {
		set.slots = append(set.slots, new(slot))
		return len(set.slots) - 1, nil
	}
	for i, s := range set.slots {
		if s.device == nil {
			return i, nil
		}
	}
	return 0, fmt.Errorf("%s: %w", name, ErrTooMany)
}

// Devices returns the devices that are there, by index.
func (set *Set) Devices() []*Device {
	set.mu.Lock()
	defer set.mu.Unlock()
	var ds []*Device
	for _, s := range set.slots {
		if s.device != nil {
			ds = append(ds, s.device)
		}
	}
	return ds
}
