// SPDX-License-Identifier: Apache-2.0

package rshim

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

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
	for {
		err := s.attach(ctx)
		switch {
		case err == nil:
			err = s.attached(ctx)
		case errors.Is(err, ErrNotOwner):
			s.d.log.Info("another backend already attached")
			s.d.enter(Contended, "another backend is attached")
			<-ctx.Done()
		case ctx.Err() == nil:
			s.d.enter(Probing, err.Error())
			sleep(ctx, probePause)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			s.d.log.Warn("not attached", "op", "attach", "err", err)
		}
	}
}

// attach makes sure that the chip answers and that nobody else owns the RShim.
func (s *session) attach(ctx context.Context) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	sp1, err := s.read(ctx, s.regs.Scratchpad1, 8)
	if err != nil {
		return err
	}
	// A reset clears the scratchpads. When it was ours nobody else can have
	// been the owner before, and whoever is checking now will see us.
	s.d.mu.Lock()
	ours := !s.d.awaited.IsZero()
	s.d.mu.Unlock()
	if !ours || sp1 != 0 {
		if err := s.accessCheck(ctx); err != nil {
			return err
		}
	}
	if err := s.set(ctx, s.regs.Scratchpad1, reg.Keepalive); err != nil {
		return err
	}
	v, err := s.read(ctx, s.regs.Scratchpad1, 8)
	if err != nil {
		return err
	}
	if reg.Bad(v) {
		return fmt.Errorf("scratchpad 1 reads %#x: %w", v, ErrNotReady)
	}
	opn := s.readOPN(ctx)
	if sp1 == 0 {
		s.d.logs.restart()
	}
	s.d.update(func() {
		if !s.d.awaited.IsZero() {
			s.d.resets++
		}
		s.d.awaited, s.d.resetErr = time.Time{}, nil
		s.opn = opn
	})
	s.d.enter(Attached, "access check passed")
	s.d.log.Info(fmt.Sprintf("rshim%d attached", s.d.index), "name", s.b.Name())
	return nil
}

// ready waits until the chip's registers can be read: after a reset it may be
// on the bus before its boot ROM has opened access.
func (s *session) ready(ctx context.Context) error {
	for told := false; ; told = true {
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
		if !sleep(ctx, readyPoll) {
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
	for range checkPolls {
		if !sleep(ctx, checkPoll) {
			return ctx.Err()
		}
		if v, err := s.read(ctx, s.regs.Scratchpad1, 8); err == nil && v == reg.Keepalive {
			return ErrNotOwner
		}
	}
	return nil
}

// attached is the life of a device that is ours. It returns nil when the chip
// has reset without leaving the bus, and is to be attached anew.
func (s *session) attached(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g.Go(func() error { return s.follow(ctx) })
	g.Go(func() error {
		defer cancel()
		for sleep(ctx, keepalivePause) {
			s.d.mu.Lock()
			until := s.d.awaited
			s.d.mu.Unlock()
			if until.IsZero() {
				s.keepalive(ctx)
				continue
			}
			if reset, err := s.resetInPlace(ctx); reset || err != nil {
				return err
			}
		}
		return nil
	})
	err := g.Wait()
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return err
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
	s.d.update(func() {
		s.d.state, s.d.reason = Rebooting, "reset"
		s.d.awaited, s.d.resetErr = time.Now().Add(resetPatience), nil
	})
	_, err = s.request(regOp{
		ctx: ctx, addr: s.regs.ResetControl, size: 8, write: true,
		value: v&^reg.ResetKeyMask | reg.ResetKey, hush: resetHush,
	})
	if err != nil {
		s.d.log.Info("reset was not acknowledged", "op", "reset", "err", err)
	}
	return ctx.Err()
}

// resetInPlace looks whether a chip that is still on the bus has reset all the
// same: then scratchpad 1 is no longer what we wrote.
func (s *session) resetInPlace(ctx context.Context) (bool, error) {
	if v, err := s.read(ctx, s.regs.Scratchpad1, 8); err == nil && v == 0 {
		s.d.log.Info("the chip has reset without leaving the bus")
		return true, nil
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
	return false, nil
}
