// SPDX-License-Identifier: Apache-2.0

// Package rshim is the core: one Device is one DPU as seen through its RShim.
// It attaches to it, keeps the ownership, pushes boot streams, carries console
// and network, follows the boot log, resets the chip, and answers what
// /dev/rshimN/misc shows. It reaches the chip through a Backend and opens
// nothing itself.
//
// A Device outlives what is plugged in: a chip that resets drops off the bus
// and comes back as a new Backend, which a session (session.go) serves for as
// long as it lasts. Nothing waits for anything else: registers have one owner
// goroutine per session, the boot stream has the boot FIFO, and every wait has
// a deadline and ends with its context. Console and network are there for as
// long as the Device, and share the TMFIFO of the Backend (tm.go).
package rshim

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/bootlog"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

// Options of a device. The zero value has the defaults.
type Options struct {
	BootTimeout  time.Duration // without progress of a boot stream; 0 means 300 s
	USBTimeout   time.Duration // of one transfer; 0 means 40 s
	DisplayLevel int           // of misc: 0 basic, 1 advanced, 2 log
	// ReturnTimeout is how long the chip may take to come back on the bus and
	// answer after a reset; 0 means 60 s.
	ReturnTimeout time.Duration
	// ReadyTimeout is how long the DPU may take to be ready once it has a
	// whole boot stream; 0 means 30 min.
	ReadyTimeout time.Duration

	NoAutoAttach    bool // AUTO_ATTACH 0: a device that another backend owns is not looked at again by itself
	GrantDuringPush bool // GRANT_DURING_PUSH 1: an ownership request is granted even during a push
	Drop            bool // DROP_MODE 1: begin with the device left alone
	Force           bool // FORCE_MODE 1: should there be an owner, ask it once for the RShim

	Logger *slog.Logger
}

// Defaults as the C daemon has them.
const (
	DefaultBootTimeout   = 300 * time.Second
	DefaultUSBTimeout    = 40 * time.Second
	defaultReturnTimeout = 60 * time.Second
	defaultReadyTimeout  = 30 * time.Minute
)

// settings is what misc can change.
type settings struct {
	displayLevel  int
	bootTimeout   time.Duration
	usbTimeout    time.Duration
	clearOnRead   bool
	bootResetSkip bool

	noAutoAttach    bool
	grantDuringPush bool
}

// Device is one DPU, rshimN.
type Device struct {
	index int
	log   *slog.Logger
	back  time.Duration // Options.ReturnTimeout
	ripe  time.Duration // Options.ReadyTimeout

	logs    logStore
	console *Console
	net     *Net
	mux     *mux // of the TMFIFO

	mu       sync.Mutex
	changed  chan struct{} // closed when anything below changes
	name     string
	state    State
	reason   string   // why, in words
	sess     *session // nil while Gone, and in a reboot
	set      settings
	drop     bool      // it is to be left alone: DROP_MODE
	off      bool      // it is to be left alone: its Set does not serve
	others   bool      // another backend owns it, or did when it was last on the bus
	force    bool      // its owner is to be asked for it, should there be one
	resets   int       // of ours that the chip has come back from
	awaited  time.Time // until when a reset of ours may take; zero: none
	resetErr error     // how the last reset of ours failed
	boot     *BootStream
	bootBack bool // the boot source is to be set back to eMMC
	push     PushStatus
	verdict  verdict
	watch    bootlog.Watch // of the current boot
	counts   Counters
	since    time.Time // when the RShim became ours; zero: it is not
	resetAt  time.Time // as in Status.Reset
}

// New makes the device rshim<index>, which is Gone until Serve is called.
func New(index int, o Options) *Device {
	log := o.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	d := &Device{
		index:   index,
		log:     log.With("device", fmt.Sprintf("rshim%d", index)),
		back:    orDefault(o.ReturnTimeout, defaultReturnTimeout),
		ripe:    orDefault(o.ReadyTimeout, defaultReadyTimeout),
		changed: make(chan struct{}),
		drop:    o.Drop,
		force:   o.Force,
	}
	d.Configure(o)
	d.logs.changed = make(chan struct{})
	d.console, d.net = newConsole(d), newNet()
	d.mux = &mux{d: d, console: d.console, net: d.net, peer: newPeer()}
	return d
}

// Configure changes what can be changed while a device runs: BootTimeout,
// USBTimeout, DisplayLevel, NoAutoAttach and GrantDuringPush.
func (d *Device) Configure(o Options) {
	d.update(func() {
		d.set.displayLevel = o.DisplayLevel
		d.set.bootTimeout = orDefault(o.BootTimeout, DefaultBootTimeout)
		d.set.usbTimeout = orDefault(o.USBTimeout, DefaultUSBTimeout)
		d.set.noAutoAttach, d.set.grantDuringPush = o.NoAutoAttach, o.GrantDuringPush
	})
}

func orDefault(v, def time.Duration) time.Duration {
	if v == 0 {
		return def
	}
	return v
}

// Index is N of rshimN.
func (d *Device) Index() int { return d.index }

// update changes the device's fields under its lock and wakes who waits.
func (d *Device) update(f func()) {
	d.mu.Lock()
	f()
	close(d.changed)
	d.changed = make(chan struct{})
	over := d.verdict.over
	d.verdict.over = nil
	d.mu.Unlock()
	for _, p := range over {
		d.logOutcome(p)
	}
}

// await waits until done, which is called with the lock held, says so.
func (d *Device) await(ctx context.Context, done func() bool) error {
	for {
		d.mu.Lock()
		ok, changed := done(), d.changed
		d.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Changed returns a channel that is closed at the next change of the status.
func (d *Device) Changed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.changed
}

// State returns the state and its reason in words.
func (d *Device) State() (State, string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state, d.reason
}

// skipsReset reports whether a boot stream is to begin without a reset.
func (d *Device) skipsReset() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.set.bootResetSkip
}

// session returns the current session, nil while the device is absent.
func (d *Device) session() *session {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sess
}

// ReadReg reads a register of size bytes, 4 or 8, as the ioctls of
// /dev/rshimN/rshim do.
func (d *Device) ReadReg(ctx context.Context, a reg.Addr, size int) (uint64, error) {
	s := d.session()
	if s == nil {
		return 0, d.opError("read register", ErrGone)
	}
	v, err := s.read(ctx, a, size)
	return v, d.opError("read register", err)
}

// WriteReg writes a register of size bytes, 4 or 8, which only an owner may.
func (d *Device) WriteReg(ctx context.Context, a reg.Addr, size int, v uint64) error {
	s, err := d.owner(ctx)
	if err == nil {
		err = s.write(ctx, a, size, v)
	}
	return d.opError("write register", err)
}

// ownerPatience is how long an operation waits for a device that is being
// checked, or off the bus for the moment: a chip that has just rebooted is
// attached in two or three seconds.
const ownerPatience = 5 * time.Second

// owner returns the session once the device is attached, otherwise why it is
// not.
func (d *Device) owner(ctx context.Context) (s *session, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, ownerPatience, ErrNotReady)
	defer cancel()
	d.await(ctx, func() bool {
		switch d.state {
		case Attached:
			s, err = d.sess, nil
		case Contended, Granting, Dropped:
			err = ErrNotOwner
		case Locked:
			err = ErrLocked
		case Gone:
			err = ErrGone
			return false
		default:
			err = ErrNotReady
			return false
		}
		return true
	})
	if err != nil && context.Cause(ctx) == context.Canceled {
		err = context.Canceled
	}
	return s, err
}
