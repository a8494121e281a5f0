// SPDX-License-Identifier: Apache-2.0

package bluefield

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

// ErrNotAttached is Run's error when the host's driver found that somebody
// else has the RShim, or that it cannot be read, and does not try again.
var ErrNotAttached = errors.New("bluefield: the host's driver is not attached")

// ErrNotDropped refuses a FORCE_CMD: only a driver in drop mode takes it.
var ErrNotDropped = errors.New("bluefield: the host's driver is not in drop mode")

// HostOptions say what driver the host has. The zero value is a healthy one
// that begins with its access check.
type HostOptions struct {
	// Latency is how long the next register access takes; nil: no time. It is
	// asked twice for each: half of the first answer passes before the access
	// has its effect, half of the second one after it.
	Latency func() time.Duration
	// Stretch makes of a time to sleep or between ticks what it takes in
	// fact, as on a machine with much to do; nil: no change.
	Stretch func(d time.Duration) time.Duration

	Attached bool // it has long been attached: no access check, KEEPALIVE at once
	Drop     bool // DROP_MODE 1 in its configuration
	Force    bool // -F: asks once for the ownership when it could not attach
	Deaf     bool // never looks for OSP_REQ, as while its boot file is open

	DieAt HostStep // it dies there, the first time it comes there

	// OnOwn is told when the driver begins and ends to regard the RShim as its
	// own, by the driver's own goroutine. It begins when the access check has
	// passed, which is after KEEPALIVE was written and scratchpad 1 read back
	// (with Attached: after the first KEEPALIVE). It ends before the first
	// OSP_ACK is written, before scratchpad 1 is cleared to drop it or to stop,
	// when the chip is found locked, and when the driver has died.
	OnOwn func(owns bool)

	Logger *slog.Logger // event "host", with state and owns; nil discards
}

// HostStep is a point at which the host's driver can be made to die. It writes
// nothing more then, and the registers stay as they are.
type HostStep int

// Steps. The zero value is a driver that lives.
const (
	HostLives           HostStep = iota
	HostDieInCheck               // half through the polls of an access check: SP1 is 0
	HostDieAfterCheck            // the access check has written KEEPALIVE, but not read it back
	HostDieAttached              // after the first KEEPALIVE of its timer
	HostDieAfterRequest          // after its first OSP_REQ
	HostDieAfterAck              // it has read an OSP_ACK and not begun its access check
	HostDieBeforeAck             // it has seen an OSP_REQ and written no OSP_ACK
	HostDieInAck                 // after its first OSP_ACK
	HostDieAfterAcks             // after its last OSP_ACK, in the second before it drops: SP1 stays OSP_ACK
)

// HostState is how the host's driver stands.
type HostState int

// States of the host's driver.
const (
	HostOff        HostState = iota // not yet running, or stopped in an orderly way
	HostChecking                    // in the access check
	HostAttached                    // it owns the RShim
	HostUnattached                  // the access check failed: gone for good
	HostDropped                     // drop mode: touches no register
	HostRequesting                  // FORCE: until the access check that follows an OSP_ACK
	HostGranting                    // 2 s from seeing OSP_REQ until drop mode
	HostLocked                      // scratchpad 1 says that the card is in secure NIC mode
	HostDead                        // killed, or died at a step
)

func (s HostState) String() string {
	return [...]string{"off", "checking", "attached", "unattached", "dropped", "requesting", "granting", "locked", "dead"}[s]
}

// Host is the driver on the host that has the DPU on its PCIe bus: the second
// caller of the DPU's ReadReg and WriteReg. It follows the ownership rules of
// the C daemon 2.8.2 with its PCIe backend, weaknesses included; what it reads
// and writes for other reasons (boot stream, network, console, boot log) is
// left out, but for the TMFIFO's resynchronisation that is part of a takeover,
// and so is the workaround for BlueField-1's boot mode.
//
// All methods are safe for concurrent use. What a user asks for takes effect
// when the driver's only thread has finished what it is at.
type Host struct {
	d *DPU
	o HostOptions

	ctx context.Context // of Run; when it has ended, nothing below has an effect
	die context.CancelFunc

	wake chan struct{} // something was asked for; holds one

	mu      sync.Mutex
	state   HostState
	stateCh bell
	deaf    bool
	force   bool  // FORCE is pending
	drop    *bool // DROP_MODE was written
	stop    bool
}

// NewHost returns a driver that does nothing until Run. It runs once; for
// another start make another one.
func NewHost(d *DPU, o HostOptions) *Host {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.OnOwn == nil {
		o.OnOwn = func(bool) {}
	}
	return &Host{d: d, o: o, wake: make(chan struct{}, 1), deaf: o.Deaf, force: o.Force}
}

// Run is the driver's life. When ctx ends it dies on the spot, which is not an
// error: in the middle of what it does, and without a write. Stop ends it in an
// orderly way.
func (h *Host) Run(ctx context.Context) error {
	h.ctx, h.die = context.WithCancel(ctx)
	defer h.die()
	attached := h.begin()
	if attached {
		h.serve()
	}
	if h.ctx.Err() != nil {
		h.set(HostDead)
		return nil
	}
	if !attached {
		return ErrNotAttached
	}
	return nil
}

// State returns how the driver stands.
func (h *Host) State() HostState {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.state
}

// Owns reports whether the driver regards the RShim as its own.
func (h *Host) Owns() bool { return h.State() == HostAttached }

// WaitState returns when the driver's state is s, or ctx has ended. A state
// that is passed through quickly may be missed.
func (h *Host) WaitState(ctx context.Context, s HostState) error {
	for {
		h.mu.Lock()
		at, ch := h.state, h.stateCh.wait()
		h.mu.Unlock()
		if at == s {
			return nil
		}
		select {
		case <-ch:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// ForceCmd is FORCE_CMD 1 in the host's misc: the driver requests the
// ownership at its next tick of 100 ms.
func (h *Host) ForceCmd() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s := h.state; s != HostDropped && s != HostRequesting {
		return ErrNotDropped
	}
	h.force = true
	return nil
}

// SetDrop is DROP_MODE 1 or 0 in the host's misc. Whether leaving drop mode
// succeeds is seen by State, 2 to 3 s later.
func (h *Host) SetDrop(drop bool) {
	h.mu.Lock()
	h.drop = &drop
	h.mu.Unlock()
	h.wakeUp()
}

// SetDeaf changes HostOptions.Deaf.
func (h *Host) SetDeaf(deaf bool) {
	h.mu.Lock()
	h.deaf = deaf
	h.mu.Unlock()
}

// Stop ends the driver as SIGTERM does: unless it is in drop mode it clears
// scratchpads 1 and 6. It does not wait; Run returns when it has happened.
func (h *Host) Stop() {
	h.mu.Lock()
	h.stop = true
	h.mu.Unlock()
	h.wakeUp()
}

func (h *Host) wakeUp() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// set changes the state. A dead driver can only be told dead.
func (h *Host) set(s HostState) {
	if s != HostDead && h.ctx.Err() != nil {
		return
	}
	owns := s == HostAttached
	h.mu.Lock()
	was := h.state
	h.state = s
	h.stateCh.ring()
	h.mu.Unlock()
	if owns != (was == HostAttached) {
		h.o.OnOwn(owns)
	}
	h.o.Logger.Info("host", "state", s.String(), "owns", owns)
}
