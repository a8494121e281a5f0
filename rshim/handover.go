// SPDX-License-Identifier: Apache-2.0

package rshim

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

// ForceResult is how a Force has succeeded.
type ForceResult int

// Results of Force.
const (
	ForceNotNeeded ForceResult = iota // it was ours already
	ForceGranted                      // the owner has handed it over
	ForceNoOwner                      // there was no owner
)

func (r ForceResult) String() string {
	return [...]string{"not needed", "granted", "no owner"}[r]
}

// Force takes the RShim over from its owner: it asks once, for up to 10 s. The
// error is ErrNoAnswer when there is an owner that does not answer, or refuses,
// ErrNotReady when this machine or the chip was too slow to tell, and ErrNotOwner
// when another backend has taken it meanwhile; everything is as before then, but
// for the drop mode, which ends in any case.
func (d *Device) Force(ctx context.Context) (ForceResult, error) {
	r, err := d.forceNow(ctx)
	return r, d.opError("force", err)
}

func (d *Device) forceNow(ctx context.Context) (r ForceResult, err error) {
	s := d.session()
	if s == nil {
		return r, ErrGone
	}
	d.update(func() {
		if d.off {
			err = errOff
		} else {
			d.drop = false
		}
	})
	if err != nil {
		return r, err
	}
	d.log.Info(fmt.Sprintf("rshim%d executing Force command", d.index))
	result := make(chan ForceResult, 1)
	err = s.command(ctx, []State{Attached, Rebooting}, func(ctx context.Context) (step, error) {
		next, r, err := s.force(ctx)
		result <- r
		return next, err
	})
	select {
	case r = <-result:
	default: // there was nothing to do
	}
	return r, err
}

// forceStep is force without anybody who waits for its outcome.
func (s *session) forceStep(ctx context.Context) step {
	next, _, _ := s.force(ctx)
	return next
}

// force asks the owner for the RShim and takes it.
func (s *session) force(ctx context.Context) (next step, r ForceResult, err error) {
	s.enter(Requesting, "asking its owner (FORCE)")
	whole := ctx
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	r = ForceNoOwner
	granted, err := s.ask(ctx)
	switch {
	case err != nil:
	case granted:
		s.d.log.Info(fmt.Sprintf("rshim%d received ownership transfer ack", s.d.index))
		r, err = ForceGranted, s.claimGranted(ctx)
	default:
		err = s.claim(ctx, reg.Keepalive) // which is what an owner that died has left
	}
	if err == nil {
		err = s.finishAttach(ctx, "by FORCE: "+r.String())
	}
	switch {
	case err == nil:
		if granted {
			s.d.update(func() { s.d.counts.Forced++ })
		}
		s.d.log.Info(fmt.Sprintf("rshim%d regained ownership successfully", s.d.index), "result", r.String())
		return s.attached(false), r, nil
	case whole.Err() != nil:
		return nil, r, err
	case errors.Is(err, ErrNoAnswer), errors.Is(err, errUnseen):
		s.d.log.Warn(fmt.Sprintf("rshim%d failed to receive ownership transfer ack", s.d.index), "op", "force", "err", err)
		s.enter(Contended, err.Error())
		return s.contended(recheckPause, false), r, err
	}
	s.d.log.Warn("not taken over", "op", "force", "err", err)
	return s.refused(err), r, err
}

// ask asks the owner for the RShim. granted is false when there is none.
func (s *session) ask(ctx context.Context) (granted bool, err error) {
	if err := s.ready(ctx); err != nil {
		return false, err
	}
	if v, err := s.scratchpad1(ctx); err == nil && v == reg.Locked {
		return false, ErrLocked
	}
	defer func() {
		if err != nil {
			s.retract()
		}
	}()
	// Time counts only if it was used: to whom it stands still for seconds, an
	// owner that is not there looks as one that does not answer.
	looks, untouched := 0, 0
	for begin, passed := time.Now(), time.Duration(0); passed < requestLimit || looks < requestLooks && passed < requestLate; passed = time.Since(begin) {
		if err := s.say(ctx, reg.OwnershipRequest); err != nil {
			return false, err
		}
		if !sleep(ctx, requestTry) {
			return false, ctx.Err()
		}
		switch v, err := s.scratchpad1(ctx); {
		case err != nil && ctx.Err() != nil:
			return false, ctx.Err()
		case err != nil:
			continue
		case v == reg.OwnershipAck:
			return true, nil
		case v == reg.Locked:
			return false, ErrLocked
		case v != reg.OwnershipRequest:
			untouched = 0
		default:
			if untouched++; untouched == requestTries {
				return false, nil
			}
		}
		looks++
	}
	s.retract()
	for end := time.Now().Add(retractTime); time.Now().Before(end) && sleep(ctx, checkPoll); {
		if v, err := s.scratchpad1(ctx); err == nil && v == reg.OwnershipAck {
			return true, nil
		}
	}
	if looks < requestLooks {
		return false, errUnseen
	}
	return false, ErrNoAnswer
}

// errUnseen means that nobody can say whether the owner has answered.
var errUnseen = fmt.Errorf("too few looks for the owner's answer: %w", ErrNotReady)

// retract withdraws a request: the owner must not grant what nobody waits for any
// more.
func (s *session) retract() {
	ctx, cancel := context.WithTimeout(s.life, retractTime)
	defer cancel()
	if v, err := s.scratchpad1(ctx); err == nil && v == reg.OwnershipRequest {
		_ = s.say(ctx, 0)
	}
}

// grantable reports whether a request may be granted now.
func (d *Device) grantable() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.awaited.IsZero() && (d.boot == nil && !d.bootBack || d.set.grantDuringPush)
}

// grant hands the RShim over to who has asked for it. Nothing interrupts that
// but the end of the session.
func (s *session) grant(context.Context) step {
	ctx := s.life
	s.d.log.Info(fmt.Sprintf("rshim%d received ownership transfer request", s.d.index))
	s.enter(Granting, "another backend has asked for it")
	for end := time.Now().Add(grantLimit); time.Now().Before(end); {
		v, err := s.scratchpad1(ctx)
		switch {
		case err != nil || v == reg.OwnershipAck:
		case v == reg.Locked:
			return s.locked
		case v == reg.OwnershipRequest:
			if err := s.say(ctx, reg.OwnershipAck); err != nil {
				s.d.log.Info("the answer was not written", "op", "grant", "err", err)
			}
		default:
			s.d.log.Info(fmt.Sprintf("rshim%d entering drop mode", s.d.index))
			s.d.log.Info(fmt.Sprintf("rshim%d passed to the requester successfully", s.d.index))
			s.d.update(func() { s.d.counts.Granted++ })
			s.enter(Contended, "handed over on request")
			return s.contended(handedPause, false)
		}
		if !sleep(ctx, grantPoll) {
			return nil
		}
	}
	s.enter(Contended, "handed over on request, but nobody has taken it")
	return s.contended(recheckPause, true)
}
