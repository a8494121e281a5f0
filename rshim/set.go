// SPDX-License-Identifier: Apache-2.0

package rshim

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

// MaxDevices is how many devices there can be: indexes 0 to 63.
const MaxDevices = 64

// Errors of Set.Adopt.
var (
	// ErrTooMany means that all indexes are taken, or the only one that the
	// device may have.
	ErrTooMany = errors.New("no free index")
	// ErrBlocked means that the configuration keeps the device from being served.
	ErrBlocked = errors.New("not to be served")
)

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

	// Index has the devices, by name, that are to have a certain index, which
	// no other device gets then. Blocked has those that are not to be served.
	// What becomes of either later is Map's business.
	Index   map[string]int
	Blocked map[string]bool

	// OnlyName is the only device to be served; "": all are. OnlyIndex is the
	// index of whatever is served, before anything that Index says; nil: none.
	// They are rshim's options -d and -i. As there, one index is one device:
	// the second one is refused for as long as the first one has it.
	// Source: rshim 2.8.2, rshim_find_index.
	OnlyName  string
	OnlyIndex *int
}

// Set is all devices of a daemon, each with its index.
type Set struct {
	o     SetOptions
	log   *slog.Logger
	start chan *slot
	turn  chan struct{} // filled by who gives the devices up, or takes them again

	mu      sync.Mutex
	device  Options           // of devices to come
	index   map[string]int    // as in SetOptions
	blocked map[string]bool   // as in SetOptions
	slots   [MaxDevices]*slot // nil: never used
	refused map[string]string // why, as logged, by name
	off     bool              // the devices are given up
	changed chan struct{}     // closed at the next change; nil: nobody waits
}

// slot is an index and what it belongs to.
type slot struct {
	name    string // "": what it belonged to has another index since
	gen     reg.Generation
	device  *Device  // nil when there is none
	drop    bool     // DROP_MODE, as of when there was one last
	counts  Counters // as of then
	serving bool
}

// NewSet makes an empty set.
func NewSet(o SetOptions) *Set {
	o.Grace = orDefault(o.Grace, defaultGrace)
	set := &Set{
		o: o, log: o.Device.Logger, start: make(chan *slot), device: o.Device, refused: make(map[string]string),
		turn: make(chan struct{}, 1),
	}
	if set.log == nil {
		set.log = slog.New(slog.DiscardHandler)
	}
	set.Map(o.Index, o.Blocked)
	return set
}

// Configure gives the devices, those that are there and those to come, what
// Device.Configure takes of o. Where o says nothing else than what the set was
// made with, or configured with last, a device keeps what it has: that may be
// what was written into misc since.
func (set *Set) Configure(o Options) {
	set.mu.Lock()
	was := set.device
	set.device.BootTimeout, set.device.USBTimeout = o.BootTimeout, o.USBTimeout
	set.device.DisplayLevel = o.DisplayLevel
	set.device.NoAutoAttach, set.device.GrantDuringPush = o.NoAutoAttach, o.GrantDuringPush
	set.mu.Unlock()
	for _, d := range set.Devices() {
		d.Configure(d.keeping(was, o))
	}
}

// keeping returns o with what the device has wherever o is as it was.
func (d *Device) keeping(was, o Options) Options {
	d.mu.Lock()
	defer d.mu.Unlock()
	if orDefault(o.BootTimeout, DefaultBootTimeout) == orDefault(was.BootTimeout, DefaultBootTimeout) {
		o.BootTimeout = d.set.bootTimeout
	}
	if orDefault(o.USBTimeout, DefaultUSBTimeout) == orDefault(was.USBTimeout, DefaultUSBTimeout) {
		o.USBTimeout = d.set.usbTimeout
	}
	if o.DisplayLevel == was.DisplayLevel {
		o.DisplayLevel = d.set.displayLevel
	}
	return o
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
		d := s.device
		d.mu.Lock()
		s.drop, s.counts, s.device = d.drop, d.counts, nil
		d.mu.Unlock()
		wake(&set.changed)
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
	if d.state == Rebooting || d.push.Outcome == OutcomePending {
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
			d.state, d.reason, d.awaited = Gone, "did not come back after the reset", time.Time{}
		}
		d.judge(time.Now())
	})
	waitedFor := func() bool { return d.boot != nil || d.console.Stats().Openers > 0 }
	return d.await(ctx, func() bool { return d.sess != nil || !waitedFor() }) == nil && d.session() == nil
}

// Devices returns the devices that are there, by index.
func (set *Set) Devices() []*Device {
	set.mu.Lock()
	defer set.mu.Unlock()
	var ds []*Device
	for _, s := range set.slots {
		if s != nil && s.device != nil {
			ds = append(ds, s.device)
		}
	}
	return ds
}
