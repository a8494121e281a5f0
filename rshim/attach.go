// SPDX-License-Identifier: Apache-2.0

package rshim

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

// attach makes sure that the chip answers, and that the RShim is ours alone. It
// reports whether the chip comes fresh from a reset of ours.
func (s *session) attach(ctx context.Context) (fresh bool, err error) {
	if err := s.ready(ctx); err != nil {
		return false, err
	}
	sp1, err := s.scratchpad1(ctx)
	if err != nil {
		return false, err
	}
	if !s.looked {
		s.looked, s.inherits = true, sp1 == reg.Keepalive
	}
	switch fresh = s.hasReset(ctx, sp1); {
	case sp1 == reg.Locked:
		err = ErrLocked
	case fresh:
		// It was ours before, but the reset has cleared the keepalive.
		err = s.confirm(ctx)
	default:
		err = s.claim(ctx, sp1)
	}
	switch {
	case err == nil:
		if s.inherits {
			s.inherits = false // it is ours from now on
			s.d.logs.succeed()
		}
		err = s.finishAttach(ctx, "access check passed")
	case errors.Is(err, ErrNotOwner):
		s.inherits = false // its owner lives, and is not we
	}
	return fresh, err
}

// finishAttach begins the ownership that a check has given us.
func (s *session) finishAttach(ctx context.Context, reason string) error {
	s.d.update(func() {
		s.mine, s.debugCode, s.d.force = true, 0, false
		if s.release == nil {
			s.held, s.release = context.WithCancel(context.Background())
		}
	})
	opn, err := s.readOPN(ctx, opnPatience)
	if s.opnRead = err == nil; !s.opnRead {
		s.d.log.Info("cannot read the part number", "op", "opn", "err", err)
	}
	for !s.enterAttached(opn, reason) {
		if err := s.bootBack(ctx); err != nil {
			s.letGo()
			return err
		}
	}
	return nil
}

// enterAttached makes the device usable, unless its boot source has to be set
// back before anybody may open a boot stream.
func (s *session) enterAttached(opn, reason string) bool {
	back, state := false, Attached
	s.d.update(func() {
		if back = s.d.bootBack && s.d.boot == nil; back {
			return
		}
		if !s.d.awaited.IsZero() {
			state, reason = Rebooting, "reset"
		}
		s.opn, s.d.state, s.d.reason = opn, state, reason
		s.d.others = false
		if s.d.since.IsZero() {
			s.d.since = time.Now()
			s.d.counts.Attaches++
		}
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
func (s *session) hasReset(ctx context.Context, sp1 uint64) (ours bool) {
	s.d.mu.Lock()
	awaited := !s.d.awaited.IsZero()
	s.d.mu.Unlock()
	held, fresh := false, false
	if awaited && sp1 != reg.Keepalive {
		held, _ = s.resetHeld(ctx)
	}
	s.d.update(func() {
		if ours = !s.d.awaited.IsZero() && sp1 != reg.Keepalive && !held; ours {
			s.d.resets++
			s.d.awaited, s.d.resetErr = time.Time{}, nil
			s.d.counts.Resets++
		}
		// A zero is also what we have left there ourselves.
		if fresh = ours || sp1 == 0 && !s.leftZero; fresh {
			s.d.freshBoot(ours, time.Now())
		}
	})
	if fresh {
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

// keep keeps the ownership up, and returns what comes after it; nil when ctx has
// ended.
func (s *session) keep(ctx context.Context) step {
	for pause := keepalivePause; sleep(ctx, pause); {
		s.d.mu.Lock()
		until := s.d.awaited
		s.d.mu.Unlock()
		var next step
		if !until.IsZero() {
			s.seen = time.Now() // nobody sees a keepalive anyhow
			next = s.resetInPlace(ctx)
		} else {
			next = s.keepalive(ctx)
		}
		if next != nil {
			return next
		}
		// A request that is written again and again leaves the keepalive little
		// time to be seen by somebody else who is checking.
		if pause = keepalivePause; time.Since(s.denied) < refuseTime {
			pause = refusePause
		}
	}
	return nil
}

// keepalive tells others that the owner is alive, and looks what they have to
// say. The register is only written when somebody changed it.
func (s *session) keepalive(ctx context.Context) step {
	v, err := s.scratchpad1(ctx)
	if err != nil {
		return nil
	}
	return s.answer(ctx, v)
}

// answer is keepalive for a scratchpad 1 that reads v.
func (s *session) answer(ctx context.Context, v uint64) step {
	s.d.mu.Lock()
	debug := s.debugCode != 0
	s.d.mu.Unlock()
	last := s.seen
	s.seen = time.Now()
	switch {
	case v == reg.Locked:
		s.d.log.Info(fmt.Sprintf("rshim%d set to locked mode", s.d.index))
		return s.locked
	case debug && v != reg.OwnershipRequest:
		return nil
	case v == reg.OwnershipRequest:
		if s.d.grantable() {
			return s.grant
		}
		if time.Since(s.denied) > refuseTime {
			s.d.log.Info(fmt.Sprintf("rshim%d refuses an ownership transfer request during a push", s.d.index))
		}
		s.denied = time.Now()
	case s.seen.Sub(last) > lostSight:
		return s.reassure(ctx, s.seen.Sub(last))
	case v == reg.Keepalive:
		return nil
	}
	// Not while scratchpad 1 carries debug data.
	sp3, err := s.read(ctx, s.regs.Scratchpad3, 8)
	if err == nil && !reg.Bad(sp3) && reg.DebugCommand(sp3) == 0 {
		_ = s.say(ctx, reg.Keepalive)
	}
	return nil
}

// reassure finds out whether another backend has checked in vain for an owner
// while there was no way to tell it.
func (s *session) reassure(ctx context.Context, gap time.Duration) step {
	s.d.log.Info("could not keep the ownership up for a while, checking it", "op", "keepalive", "elapsed", gap)
	switch err := s.confirm(ctx); {
	case ctx.Err() != nil:
		return nil
	case errors.Is(err, ErrNotOwner):
		s.d.log.Warn("the ownership was lost", "op", "keepalive", "err", err)
		return s.refused(err)
	case errors.Is(err, ErrLocked):
		return s.locked
	case err != nil: // nothing is known: it is to be checked again
		s.seen = time.Now().Add(-lostSight)
	}
	return nil
}
