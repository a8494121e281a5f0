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

// Timing of the ownership protocol. Source: rshim.c (access check, keepalive).
const (
	readyPoll      = 50 * time.Millisecond  // until the chip answers
	checkPoll      = 10 * time.Millisecond  // of the access check
	checkPolls     = 100                    // times that
	keepalivePause = 300 * time.Millisecond // between looks at scratchpad 1
	probePause     = time.Second            // after a probe that failed
	resetHush      = 500 * time.Millisecond // no register access after a reset
	resetPatience  = 20 * time.Second       // for a chip that stays on the bus
)

// live takes the device from probing to attached and keeps it there.
func (s *session) live(ctx context.Context) error {
	var told string // the failure that was logged last
	for {
		fresh, err := s.attach(ctx)
		switch {
		case err == nil:
			s.attached(ctx, fresh)
		case errors.Is(err, ErrNotOwner):
			s.d.log.Info("another backend already attached")
			s.d.update(func() { s.d.awaited = time.Time{} }) // whatever resets now, it is not ours
			s.d.enter(Contended, "another backend is attached")
			<-ctx.Done()
		case ctx.Err() == nil && err.Error() != told:
			told = err.Error()
			s.d.enter(Probing, told)
			s.d.log.Warn("not attached", "op", "attach", "err", err)
		}
		if err == nil {
			told = ""
		} else {
			sleep(ctx, probePause)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// attach makes sure that the chip answers and that nobody else owns the RShim.
// It reports whether the chip comes fresh from a reset of ours.
func (s *session) attach(ctx context.Context) (fresh bool, err error) {
	if err := s.ready(ctx); err != nil {
		return false, err
	}
	sp1, err := s.scratchpad1(ctx)
	if err != nil {
		return false, err
	}
	// When the reset was ours nobody else can have been the owner before, and
	// whoever is checking now will see us.
	fresh = s.hasReset(sp1)
	if !fresh || sp1 != 0 {
		if err := s.accessCheck(ctx); err != nil {
			return fresh, err
		}
	}
	if err := s.set(ctx, s.regs.Scratchpad1, reg.Keepalive); err != nil {
		return fresh, err
	}
	if _, err := s.scratchpad1(ctx); err != nil {
		return fresh, err
	}
	opn := s.readOPN(ctx)
	for !s.enterAttached(opn) {
		if err := s.bootBack(ctx); err != nil {
			return fresh, err
		}
	}
	return fresh, nil
}

// enterAttached makes the device ours, unless its boot source has to be set back
// before anybody may open a boot stream.
func (s *session) enterAttached(opn string) bool {
	back, state, reason := false, Attached, "access check passed"
	s.d.update(func() {
		if back = s.d.bootBack && s.d.boot == nil; back {
			return
		}
		if !s.d.awaited.IsZero() {
			state, reason = Rebooting, "reset"
		}
		s.opn, s.d.state, s.d.reason = opn, state, reason
		s.d.mux.setUp(true)
	})
	if !back {
		s.d.log.Info("state", "state", state.String(), "reason", reason)
		s.d.log.Info(fmt.Sprintf("rshim%d attached", s.d.index), "name", s.b.Name())
	}
	return !back
}

// scratchpad1 reads scratchpad 1; what is no value is an error.
func (s *session) scratchpad1(ctx context.Context) (uint64, error) {
	v, err := s.read(ctx, s.regs.Scratchpad1, 8)
	if err == nil && reg.Bad(v) {
		err = fmt.Errorf("scratchpad 1 reads %#x: %w", v, ErrNotReady)
	}
	return v, err
}

// hasReset reports whether the chip, which has sp1 in scratchpad 1, is back
// from a reset that we asked for. A reset clears the scratchpads: as long as
// our keepalive stands there, it is still to come.
func (s *session) hasReset(sp1 uint64) (ours bool) {
	s.d.update(func() {
		ours = !s.d.awaited.IsZero() && sp1 != reg.Keepalive
		if ours {
			s.d.resets++
			s.d.awaited, s.d.resetErr = time.Time{}, nil
		}
	})
	if ours || sp1 == 0 {
		s.d.logs.restart()
	}
	return ours
}

// ready waits until the chip's registers can be read: after a reset it may be
// on the bus before its boot ROM has opened access.
func (s *session) ready(ctx context.Context) error {
	pause := readyPoll
	for begin, told := time.Now(), false; ; told = true {
		v, err := s.read(ctx, s.regs.FabricDim, 8)
		if err == nil && v != 0 && !reg.Bad(v) {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !told {
			s.d.log.Info("waiting for the chip to answer", "value", fmt.Sprintf("%#x", v), "err", err)
		}
		if time.Since(begin) > s.d.back {
			pause = probePause // it is dead, or will take its time
		}
		if !sleep(ctx, pause) {
			return ctx.Err()
		}
	}
}

// accessCheck finds out whether another backend is alive: it clears scratchpad
// 1, which an owner sets to Keepalive again within 300 ms.
func (s *session) accessCheck(ctx context.Context) error {
	if err := s.set(ctx, s.regs.Scratchpad1, 0); err != nil {
		return err
	}
	good := 0
	tick := time.NewTicker(checkPoll) // which does not add up delays
	defer tick.Stop()
	for range checkPolls {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		switch v, err := s.read(ctx, s.regs.Scratchpad1, 8); {
		case err != nil || reg.Bad(v):
		case v == reg.Keepalive:
			return ErrNotOwner
		default:
			good++
		}
	}
	if good < checkPolls/2 {
		return fmt.Errorf("scratchpad 1 cannot be read: %w", ErrNotReady)
	}
	return nil
}

// attached is the life of a device that is ours. It returns when the session
// ends, or when the chip has reset without leaving the bus and is to be attached
// anew. fresh means that nobody else can have used its TMFIFO.
func (s *session) attached(ctx context.Context, fresh bool) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { s.follow(ctx) })
	wg.Go(func() { s.tmfifo(ctx, !fresh) })
	for sleep(ctx, keepalivePause) {
		s.d.mu.Lock()
		until := s.d.awaited
		s.d.mu.Unlock()
		if until.IsZero() {
			s.keepalive(ctx)
		} else if s.resetInPlace(ctx) {
			return
		}
	}
}

// keepalive tells others that the owner is alive. The register is only
// written when somebody changed it, and then not while it carries debug data.
func (s *session) keepalive(ctx context.Context) {
	v, err := s.read(ctx, s.regs.Scratchpad1, 8)
	if err != nil || v == reg.Keepalive || reg.Bad(v) {
		return
	}
	// Ownership requests are granted here once hand-over exists; until then
	// the owner is deaf, as one may be by the protocol.
	sp3, err := s.read(ctx, s.regs.Scratchpad3, 8)
	if err != nil || reg.Bad(sp3) || reg.DebugCommand(sp3) != 0 {
		return
	}
	_ = s.write(ctx, s.regs.Scratchpad1, 8, reg.Keepalive)
}

// Reset resets the chip (SW_RESET of misc). It returns when the reset has been
// asked for; the device is Rebooting until the chip is back.
func (d *Device) Reset(ctx context.Context) error {
	s, err := d.owner(ctx)
	if err == nil {
		d.log.Info(fmt.Sprintf("rshim%d SW RESET", d.index))
		err = s.reset(ctx)
	}
	return d.opError("reset", err)
}

// reset asks the chip to reset. Errors of the write itself do not count: the
// chip may be gone before it has answered.
func (s *session) reset(ctx context.Context) error {
	v, err := s.read(ctx, s.regs.ResetControl, 8)
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
	return ctx.Err()
}

// resetInPlace looks whether a chip that is still on the bus has reset all the
// same: then scratchpad 1 is no longer what we wrote.
func (s *session) resetInPlace(ctx context.Context) bool {
	if v, err := s.read(ctx, s.regs.Scratchpad1, 8); err == nil && v == 0 {
		s.d.log.Info("the chip has reset without leaving the bus")
		return true
	}
	s.d.mu.Lock()
	late := !s.d.awaited.IsZero() && time.Now().After(s.d.awaited)
	s.d.mu.Unlock()
	if late {
		s.d.log.Warn("the chip did not reset", "op", "reset", "elapsed", resetPatience)
		s.d.update(func() {
			s.d.awaited, s.d.resetErr = time.Time{}, ErrNoReset
			s.d.state, s.d.reason = Attached, "the chip did not reset"
		})
	}
	return false
}
