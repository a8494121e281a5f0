// SPDX-License-Identifier: Apache-2.0

package rshim

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

// Timing of resets.
const (
	resetHush     = 500 * time.Millisecond // no register access after a reset
	resetLate     = 500 * time.Millisecond // for one that its caller does not wait for
	resetPatience = 20 * time.Second       // for a chip that stays on the bus
)

// Reset resets the chip (SW_RESET of misc). It returns when the reset has been
// asked for; the device is Rebooting until the chip is back.
func (d *Device) Reset(ctx context.Context) error {
	_, err := d.resetNow(ctx)
	return err
}

// ResetWait is Reset, and waits until the chip has been reset and is attached
// again, for up to 20 s and Options.ReturnTimeout. The error is ErrNoReset for
// one that stayed as it was, ErrGone for one that did not come back, ErrNotOwner
// or ErrLocked for one that is not ours since, os.ErrDeadlineExceeded for one
// that does not answer, or that of ctx.
func (d *Device) ResetWait(ctx context.Context) error {
	before, err := d.resetNow(ctx)
	if err != nil {
		return err
	}
	limit := resetPatience + d.back
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errReturn)
	defer cancel()
	werr := d.await(ctx, func() bool {
		err = nil
		switch {
		case d.state == Contended, d.state == Granting, d.state == Dropped:
			err = ErrNotOwner
		case d.state == Locked:
			err = ErrLocked
		case d.resetErr != nil:
			err = d.resetErr
		case d.state == Gone:
			err = ErrGone // for good, unless it is on the way
			return d.awaited.IsZero() && d.resets == before
		default:
			return d.state == Attached && d.resets > before
		}
		return true
	})
	switch {
	case werr == nil || err != nil && context.Cause(ctx) == errReturn:
	case context.Cause(ctx) == errReturn:
		err = fmt.Errorf("%w within %v: %w", errReturn, limit, os.ErrDeadlineExceeded)
	default:
		err = werr
	}
	return d.opError("reset", err)
}

// resetNow is Reset, and returns how many resets there had been.
func (d *Device) resetNow(ctx context.Context) (before int, err error) {
	s, err := d.owner(ctx)
	if err == nil {
		d.mu.Lock()
		before = d.resets
		d.mu.Unlock()
		d.log.Info(fmt.Sprintf("rshim%d SW RESET", d.index))
		err = s.reset(ctx)
	}
	if err == nil {
		d.update(func() { d.endPush(OutcomeFailed, errResetAgain, time.Now()) })
	}
	return before, d.opError("reset", err)
}

// reset asks the chip to reset. Errors of the write itself do not count: the
// chip may be gone before it has answered. Once the device is Rebooting, it is
// asked for even if caller ends.
func (s *session) reset(caller context.Context) error {
	ctx, cancel := context.WithCancel(context.WithoutCancel(caller))
	defer cancel()
	defer context.AfterFunc(caller, func() { time.AfterFunc(resetLate, cancel) })()
	v, err := s.read(caller, s.regs.ResetControl, 8)
	if err != nil {
		return err
	}
	if reg.Bad(v) {
		return fmt.Errorf("reset control reads %#x: %w", v, ErrNotReady)
	}
	over := false
	s.d.update(func() {
		if over = s.d.sess != s; !over {
			s.d.state, s.d.reason = Rebooting, "reset"
			s.d.awaited, s.d.resetErr = time.Now().Add(resetPatience), nil
		}
	})
	if over {
		return ErrGone
	}
	s.d.mux.hush(ctx, resetHush)
	s.d.console.flushInput()
	_, err = s.request(regOp{
		ctx: ctx, addr: s.regs.ResetControl, size: 8, write: true,
		value: v&^reg.ResetKeyMask | reg.ResetKey, hush: resetHush,
	})
	s.d.mux.hush(ctx, resetHush)
	if err != nil {
		s.d.log.Info("reset was not acknowledged", "op", "reset", "err", err)
	}
	return caller.Err()
}

// resetInPlace looks whether a chip that is still on the bus has reset all the
// same: then scratchpad 1 is no longer what we wrote. Until it has, the ownership
// is kept up.
func (s *session) resetInPlace(ctx context.Context) (next step) {
	s.d.mu.Lock()
	code := s.debugCode
	s.d.mu.Unlock()
	v, err := s.scratchpad1(ctx)
	if err == nil && v != reg.Keepalive && (code == 0 || v != code) {
		switch held, err := s.resetHeld(ctx); {
		case held:
			next = s.answer(ctx, v)
		case err == nil:
			s.d.log.Info("the chip has reset without leaving the bus")
			return s.probe
		}
	}
	s.d.mu.Lock()
	late := !s.d.awaited.IsZero() && time.Now().After(s.d.awaited)
	s.d.mu.Unlock()
	if !late {
		return next
	}
	back := false
	s.d.update(func() {
		back = s.d.bootBack && s.d.boot == nil && time.Since(s.d.awaited) < bootBackLimit
		if back {
			return // as in enterAttached: before anybody may open a boot stream
		}
		s.d.awaited, s.d.resetErr = time.Time{}, ErrNoReset
		s.d.state, s.d.reason = Attached, "the chip did not reset"
	})
	if back {
		ctx, cancel := context.WithTimeout(ctx, bootBackTry)
		defer cancel()
		_ = s.bootBack(ctx) // the next look finds that done
	} else {
		s.d.log.Warn("the chip did not reset", "op", "reset", "elapsed", resetPatience)
	}
	return next
}

// resetHeld reports whether the chip is certain to hold the reset that we asked
// for back: others may have written to scratchpad 1 what it would read after it.
// Pending is only to be seen while resets are disabled; a reset clears both.
// Source: EDK2's rsh.h for BlueField.
func (s *session) resetHeld(ctx context.Context) (bool, error) {
	control, err := s.read(ctx, s.regs.ResetControl, 8)
	if err == nil && reg.Bad(control) {
		err = ErrNotReady
	}
	const held = reg.ResetPending | reg.ResetDisable
	return err == nil && control&held == held, err
}
