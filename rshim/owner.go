// SPDX-License-Identifier: Apache-2.0

package rshim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

// The ownership of an RShim. Drivers on the host and on the BMC can all reach
// it, one may use it. They agree by the values of scratchpad 1, see claim.go and
// handover.go for how; this file has the states, what leads from one to the
// other, and the times.
//
//	             found on the bus
//	                    |
//	                    v           nobody objects
//	  +------------> Probing -------------------------> Attached <---> Rebooting
//	  |                 | somebody owns it               ^ ^   |   reset asked for;
//	  |                 v           its owner is gone    | |   |   the chip is back
//	  |             Contended ---------------------------+ |   |
//	  | unlocked      | ^  ^                               |   | OSP_REQ
//	  |         FORCE | |  |         taken                 |   v
//	  |               | |  +-------------------------------|-- Granting
//	  |               v | no answer                        |
//	  |            Requesting -----------------------------+ granted, or no owner
//	  |                 ^
//	  |                 | FORCE
//	Locked           Dropped ------> Probing (DROP_MODE 0)
//	  ^                 ^
//	  | LOCK is read    | DROP_MODE 1
//	  |                 |
//	any state        any state, but not in a push
//
// Gone is every device that is not on the bus; one that was Contended comes back
// as that, one that was Dropped as that, any other as Probing. In all states but
// Attached and Rebooting nothing but scratchpad 1 is written; in Dropped nothing
// is read either.

// State says what a device is doing.
type State int

// States of a device.
const (
	Gone       State = iota // not on the bus
	Probing                 // on the bus, being checked
	Attached                // ours
	Contended               // another backend owns the RShim
	Requesting              // its owner is being asked for it (FORCE)
	Granting                // it is being handed over to who has asked for it
	Dropped                 // not used, by request (DROP_MODE)
	Locked                  // the chip keeps everybody out (secure NIC mode)
	Rebooting               // ours; reset was asked for, gone from the bus or about to go
)

func (s State) String() string {
	return [...]string{"gone", "probing", "attached", "contended", "requesting", "granting",
		"dropped", "locked", "rebooting"}[s]
}

// Timing of the ownership protocol. The C daemon's rules are: an owner writes
// its keepalive every 300 ms and looks for a request every 100 ms; a check
// clears scratchpad 1 and polls it 100 times at 10 ms; a request is made 10
// times at 100 ms; who grants one writes its answer for 1 s and drops off a
// second later; who got the answer may take 2 s before its own check begins.
// Source: rshim.c.
const (
	readyPoll      = 50 * time.Millisecond  // until the chip answers
	keepalivePause = 300 * time.Millisecond // between looks at scratchpad 1
	lostSight      = 900 * time.Millisecond // without a look: somebody may have checked in vain
	refusePause    = 25 * time.Millisecond  // between looks once a request was refused,
	refuseTime     = 150 * time.Millisecond // until none has come for so long
	probePause     = time.Second            // after a probe that failed

	checkTime   = 1050 * time.Millisecond // of an access check, in which an owner would show
	checkPoll   = 10 * time.Millisecond   // of scratchpad 1 meanwhile
	theirCheck  = time.Second             // what a check by the C daemon takes at least
	clearance   = 100 * time.Millisecond  // between our decision and theirs
	baitAfter   = 350 * time.Millisecond  // into the check: an owner has shown by then
	baitHold    = 100 * time.Millisecond  // for them to see it, however slowly they poll
	baitWatch   = 600 * time.Millisecond  // afterwards, for who missed it
	decideLimit = 500 * time.Millisecond  // from the last look to the keepalive, at most
	holdWatch   = 400 * time.Millisecond  // for somebody else's keepalive while it is ours
	settleTime  = 2500 * time.Millisecond // for what others are doing to come to its end

	recheckPause = 5 * time.Second        // between looks whether an owner is gone
	recheckTime  = 2 * time.Second        // of silence, to believe it
	recheckPoll  = 25 * time.Millisecond  // of scratchpad 1 meanwhile
	handedPause  = 10 * time.Second       // before the first look after a hand-over
	dropLimit    = time.Second            // for a chip to be told that it is given up
	lockedPause  = time.Second            // between looks whether it is still locked
	requestTry   = 100 * time.Millisecond // from a request to the look for an answer
	requestTries = 12                     // untouched: nobody is there
	requestLimit = 5 * time.Second        // for an owner to answer,
	requestLate  = 7 * time.Second        // if it takes so long to look
	requestLooks = 25                     // as often, half of what fits into it
	retractTime  = 500 * time.Millisecond // for an answer that crosses the withdrawal
	commandLimit = 10 * time.Second       // of all of it, and of every command
	grantPoll    = 50 * time.Millisecond
	grantLimit   = 4 * time.Second // for a requester to go on
)

// step is a state as it is lived: it returns when it is over, with what comes
// next. When its context ends it returns soon, and what it returns is of no
// interest.
type step func(ctx context.Context) step

// command is what an operator wants: it ends the current step.
type command struct {
	take   func(ctx context.Context) step // the step that carries it out
	unless []State                        // in these there is nothing to do
	done   chan error                     // gets the outcome; holds one
}

// Reasons of states that are entered from several places.
const (
	ownedReason  = "another backend is attached"
	dropReason   = "DROP_MODE is set"
	lockedReason = "the chip keeps drivers out (secure NIC mode)"
)

// errOvertaken is the outcome of a command that another one has ended.
var errOvertaken = errors.New("another command has come before it was done")

// live goes from state to state until ctx ends.
func (s *session) live(ctx context.Context) error {
	s.d.mu.Lock()
	drop, others := s.d.leftAlone(), s.d.others
	s.d.mu.Unlock()
	next := s.probe
	switch {
	case drop:
		next = s.dropped
	case others:
		// Its owner may have reset it, for a push, and be silent for a moment.
		s.enter(Contended, "another backend owned it before")
		next = s.contended(settleTime, true)
	}
	for ctx.Err() == nil {
		next = s.take(ctx, next)
	}
	return ctx.Err()
}

// take takes a step. A command ends it and determines the next one.
func (s *session) take(ctx context.Context, now step) (next step) {
	inner, end := context.WithCancel(ctx)
	defer end()
	over := make(chan step, 1)
	go func() { over <- now(inner) }()
	for {
		select {
		case next = <-over:
			return next
		case c := <-s.commands:
			if state, _ := s.d.State(); slices.Contains(c.unless, state) {
				c.done <- nil
				continue
			}
			end()
			<-over
			return c.take
		}
	}
}

// command has a command carried out, unless the state is one of some in which
// there is nothing to do, and waits for its outcome, for 10 s.
func (s *session) command(ctx context.Context, unless []State, take func(ctx context.Context) (step, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, commandLimit, ErrNotReady)
	defer cancel()
	c := command{unless: unless, done: make(chan error, 1)}
	c.take = func(ctx context.Context) step {
		next, err := take(ctx)
		c.done <- err
		return next
	}
	select {
	case s.commands <- c:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-s.over:
		return ErrGone
	}
	select {
	case err := <-c.done:
		if errors.Is(err, context.Canceled) && ctx.Err() == nil && !s.ended() {
			err = errOvertaken
		}
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-s.over:
		return ErrGone
	}
}

// probe finds out whether the RShim can be ours.
func (s *session) probe(ctx context.Context) step {
	next, _ := s.tryAttach(ctx)
	return next
}

// tryAttach attaches, or tells why not and what to do instead.
func (s *session) tryAttach(ctx context.Context) (next step, err error) {
	fresh, err := s.attach(ctx)
	switch {
	case err == nil:
		return s.attached(fresh), nil
	case ctx.Err() != nil:
		return s.probe, err
	}
	if !errors.Is(err, errUnsettled) && errors.Is(err, ErrNotOwner) {
		s.d.log.Info("another backend already attached")
		s.d.update(func() { s.d.awaited = time.Time{} }) // whatever resets now, it is not ours
		if s.d.forceOnce() {
			s.enter(Contended, ownedReason)
			return s.forceStep, err
		}
	}
	return s.refused(err), err
}

// refused is the step after an attempt to attach that has failed.
func (s *session) refused(err error) step {
	switch {
	case errors.Is(err, errUnsettled):
		s.enter(Contended, err.Error())
		return s.contended(settleTime, true)
	case errors.Is(err, ErrNotOwner):
		s.enter(Contended, ownedReason)
		return s.contended(recheckPause, false)
	case errors.Is(err, ErrLocked):
		s.enter(Locked, lockedReason)
		return s.locked
	}
	if s.enter(Probing, err.Error()) {
		s.d.log.Warn("not attached", "op", "attach", "err", err)
	}
	return func(ctx context.Context) step {
		sleep(ctx, probePause)
		return s.probe
	}
}

// attached is the life of a device that is ours. It ends when the chip has reset
// without leaving the bus, when somebody else has, or is to have, the RShim, or
// with ctx. fresh means that nobody else can have used its TMFIFO.
func (s *session) attached(fresh bool) step {
	return func(ctx context.Context) step {
		ctx, cancel := context.WithCancel(ctx)
		var wg sync.WaitGroup
		defer wg.Wait()
		defer cancel()
		wg.Go(func() { s.follow(ctx) })
		wg.Go(func() { s.tmfifo(ctx, !fresh) })
		if !s.opnRead {
			wg.Go(func() { s.completeOPN(ctx) })
		}
		return s.keep(ctx)
	}
}

// contended waits for the owner to be gone, first for a while. With again it
// looks even if nobody has asked for that, since it is not known that there is
// an owner.
func (s *session) contended(pause time.Duration, again bool) step {
	return func(ctx context.Context) step {
		for {
			s.d.mu.Lock()
			auto, changed := !s.d.set.noAutoAttach, s.d.changed
			s.d.mu.Unlock()
			if !auto && !again {
				select {
				case <-changed:
					continue
				case <-ctx.Done():
					return nil
				}
			}
			if !sleep(ctx, jitter(pause)) {
				return nil
			}
			fresh, err := s.reclaim(ctx)
			switch {
			case err == nil:
				return s.attached(fresh)
			case ctx.Err() != nil:
				return nil
			case errors.Is(err, ErrLocked):
				return s.locked
			case errors.Is(err, errUnsettled):
				pause = settleTime
				continue
			case errors.Is(err, ErrNotOwner):
				s.enter(Contended, ownedReason)
				if again = false; s.d.forceOnce() {
					return s.forceStep
				}
			}
			pause = recheckPause
		}
	}
}

// locked waits for the chip to let drivers in again. Then it is probed: others
// wait for that, too.
func (s *session) locked(ctx context.Context) step {
	s.enter(Locked, lockedReason)
	for sleep(ctx, lockedPause) {
		if v, err := s.scratchpad1(ctx); err == nil && v != reg.Locked {
			s.enter(Probing, "unlocked")
			return s.probe
		}
	}
	return nil
}

// dropped leaves the RShim alone.
func (s *session) dropped(ctx context.Context) step {
	s.enter(Dropped, dropReason)
	return idle(ctx)
}

// idle waits for a command.
func idle(ctx context.Context) step {
	<-ctx.Done()
	return nil
}

// enter changes the state, if it is not the state already with that reason. Any
// state but Attached ends the ownership: nobody uses the chip when it returns.
// Attached is entered by enterAttached alone.
func (s *session) enter(state State, reason string) (changed bool) {
	s.d.update(func() {
		changed = s.d.state != state || s.d.reason != reason
		s.d.state, s.d.reason, s.d.since = state, reason, time.Time{}
		s.d.others = state == Contended || state == Locked && s.d.others
		if state != Probing {
			s.d.released(reason, time.Now())
		}
	})
	s.letGo()
	if changed {
		s.d.log.Info("state", "state", state.String(), "reason", reason)
	}
	return changed
}

// letGo ends the ownership, if it is ours: from when it returns on nobody writes
// to the chip, or moves the boot stream.
func (s *session) letGo() {
	s.d.mu.Lock()
	held, b := s.release, s.d.boot
	s.mine, s.release = false, nil
	s.d.since = time.Time{}
	s.d.mu.Unlock()
	if held == nil {
		return
	}
	held()
	if b != nil && !s.ended() {
		b.evict(s)
	}
}

// SetDrop sets the drop mode: with drop, the RShim is given up and the chip not
// touched any more; without, it is attached again, and the error is ErrNotOwner
// when somebody else owns it by then. It cannot be given up during a push, which
// is ErrBusy.
func (d *Device) SetDrop(ctx context.Context, drop bool) error {
	return d.opError("drop mode", d.setDrop(ctx, drop))
}

func (d *Device) setDrop(ctx context.Context, drop bool) error {
	var err error
	d.update(func() {
		switch {
		case drop && d.boot != nil:
			err = fmt.Errorf("%w: it would be lost", ErrBusy)
		case !drop && d.off:
			err = errOff
		default:
			d.drop = drop
		}
	})
	if err != nil {
		return err
	}
	return d.followDrop(ctx, drop)
}

// followDrop gives the RShim up or takes it again, as has been decided.
func (d *Device) followDrop(ctx context.Context, drop bool) error {
	s := d.session()
	if s == nil {
		return nil // it counts when the device comes
	}
	if drop {
		d.log.Info(fmt.Sprintf("rshim%d entering drop mode", d.index))
		return s.command(ctx, []State{Dropped}, s.giveUp)
	}
	return s.command(ctx, []State{Attached, Rebooting, Probing, Locked}, func(ctx context.Context) (step, error) {
		s.enter(Probing, "DROP_MODE was cleared")
		return s.tryAttach(ctx)
	})
}

// giveUp gives the RShim up, in whatever state it is.
func (s *session) giveUp(ctx context.Context) (step, error) {
	s.d.mu.Lock()
	mine := s.mine
	s.d.mu.Unlock()
	s.letGo()
	ctx, cancel := context.WithTimeout(ctx, dropLimit)
	defer cancel()
	if mine {
		_ = s.say(ctx, 0) // others need not wait for the keepalive to be missing
	}
	s.enter(Dropped, dropReason)
	_, _ = s.scratchpad1(ctx) // refused, after what is under way
	return s.dropped, nil
}

// forceOnce reports, once, whether an owner that is found is to be asked for the
// RShim.
func (d *Device) forceOnce() (force bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	force, d.force = d.force, false
	return force
}
