// SPDX-License-Identifier: Apache-2.0

package rshim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

// How the RShim is claimed. Scratchpad 1 is all that drivers share, and it can
// only be read and written. By the C daemon's rules a driver clears it, and the
// RShim is free if no owner has written its keepalive there within a second:
// then it writes its own. Two that do so at the same time both win if each looks
// for the last time just before the other writes.
//
// So a check here does three things more. It writes a claim with a random number
// in place of the zero: of two such checks the later claim stands, and who does
// not find its own has lost. It sees the zero of a check by the C daemon's rules
// that begins meanwhile, and so knows how long that must take. And before a
// decision that could coincide with such a check, it shows a keepalive for a
// moment: the other one gives up, or, if it had looked for the last time, begins
// to write keepalives of its own, which are seen before anything is decided.

var (
	// errUnsettled means that somebody else is about to become the owner.
	errUnsettled = fmt.Errorf("%w, or is about to", ErrNotOwner)
	errUnread    = fmt.Errorf("scratchpad 1 cannot be read: %w", ErrNotReady)
	errLate      = fmt.Errorf("the check took too long to count: %w", ErrNotReady)
)

// claim is a check under way.
type claim struct {
	s    *session
	id   uint64
	poll time.Duration

	// keep means that it is ours to lose: who asks for it, or begins a check,
	// meanwhile does so in vain.
	keep bool
	// answered means that the ownership was granted: its former owner may go on
	// saying so.
	answered bool

	looked  time.Time // when the last look began
	good    int       // looks with a result
	rival   bool      // a check by the C daemon's rules may be under way,
	rivalAt time.Time // which has begun then, or later
}

func (s *session) newClaim(poll time.Duration) *claim {
	return &claim{s: s, id: reg.OwnershipClaim(rand.Uint32()), poll: poll}
}

// claim makes the RShim ours, whose scratchpad 1 reads sp1, unless another
// backend owns it (ErrNotOwner), may do so soon (errUnsettled), or it is locked
// (ErrLocked).
func (s *session) claim(ctx context.Context, sp1 uint64) error {
	c := s.newClaim(checkPoll)
	if sp1 != reg.Keepalive && sp1 != 0 {
		if err := s.settled(ctx, sp1); err != nil {
			return err
		}
	}
	// A check of before would have left a zero.
	c.rival = sp1 == 0
	return c.run(ctx, checkTime)
}

// claimGranted is claim after its owner has granted the RShim.
func (s *session) claimGranted(ctx context.Context) error {
	c := s.newClaim(checkPoll)
	c.answered = true
	return c.run(ctx, checkTime)
}

// reclaim is attach for an RShim that had an owner: a check in which the owner
// may be a little late, and which is put off while others exchange something.
func (s *session) reclaim(ctx context.Context) (fresh bool, err error) {
	if err := s.ready(ctx); err != nil {
		return false, err
	}
	sp1, err := s.scratchpad1(ctx)
	if err != nil {
		return false, err
	}
	c := s.newClaim(recheckPoll)
	if sp1 != reg.Keepalive {
		if err := s.settled(ctx, sp1); err != nil {
			return false, err
		}
		c.rival = true
	}
	if err := c.run(ctx, recheckTime); err != nil {
		return false, err
	}
	return false, s.finishAttach(ctx, "its owner is gone")
}

// settled waits until what others have written to scratchpad 1 has stood there
// for so long that nobody can be behind it any more.
func (s *session) settled(ctx context.Context, sp1 uint64) error {
	if sp1 == reg.Locked {
		return ErrLocked
	}
	for end := time.Now().Add(settleTime); time.Now().Before(end); {
		if !sleep(ctx, readyPoll) {
			return ctx.Err()
		}
		switch v, err := s.scratchpad1(ctx); {
		case err != nil:
			return err
		case v == reg.Keepalive:
			return ErrNotOwner
		case v != sp1:
			return errUnsettled
		}
	}
	return nil
}

// confirm finds out whether the RShim, which is ours, is not somebody else's as
// well: after a reset, in which others cannot see a keepalive, or when it could
// not be kept up for too long.
func (s *session) confirm(ctx context.Context) error {
	c := s.newClaim(recheckPoll)
	c.keep = true
	if err := c.bait(ctx); err != nil {
		return err
	}
	return c.run(ctx, holdWatch)
}

// run claims the RShim and waits for so long for an objection.
func (c *claim) run(ctx context.Context, span time.Duration) error {
	begin := time.Now()
	c.looked = begin
	end, bait := begin.Add(span), begin.Add(baitAfter)
	if err := c.s.say(ctx, c.id); err != nil {
		return err
	}
	tick := time.NewTicker(c.poll) // which does not add up delays
	defer tick.Stop()
	for looks := 0; ; looks++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := c.look(ctx, c.id); err != nil {
			return err
		}
		now := time.Now()
		conflict := c.rival && c.rivalAt.Add(theirCheck-clearance).Before(later(end, now))
		switch {
		case conflict && !now.Before(bait):
			if err := c.bait(ctx); err != nil {
				return err
			}
			if err := c.s.say(ctx, c.id); err != nil {
				return err
			}
			end = later(end, time.Now().Add(baitWatch))
		case conflict || now.Before(end):
		case c.good < int(span/c.poll)/2 && looks < int(2*span/c.poll):
		case c.good < int(span/c.poll)/4:
			return errUnread
		default:
			return c.decide(ctx, now)
		}
	}
}

// decide writes the keepalive. If that takes so long that others may have
// decided meanwhile, it counts for nothing.
func (c *claim) decide(ctx context.Context, at time.Time) error {
	if err := c.s.say(ctx, reg.Keepalive); err != nil {
		return err
	}
	now := time.Now()
	if now.Sub(at) > decideLimit || c.rival && now.After(c.rivalAt.Add(theirCheck)) {
		return errLate
	}
	c.s.seen = now
	return nil
}

// bait shows a keepalive to whoever is checking.
func (c *claim) bait(ctx context.Context) error {
	c.rival = false
	if err := c.s.say(ctx, reg.Keepalive); err != nil {
		return err
	}
	for end := time.Now().Add(baitHold); time.Now().Before(end); {
		if !sleep(ctx, c.poll) {
			return ctx.Err()
		}
		if err := c.look(ctx, reg.Keepalive); err != nil {
			return err
		}
	}
	return nil
}

// look looks at scratchpad 1, which should read as ours. What others have to say
// for less than an objection is answered by writing ours again.
func (c *claim) look(ctx context.Context, ours uint64) error {
	before := c.looked
	c.looked = time.Now()
	v, err := c.s.read(ctx, c.s.regs.Scratchpad1, 8)
	switch {
	case err != nil || reg.Bad(v):
		return ctx.Err()
	case v == ours:
		c.good++
		return nil
	case v == reg.Locked:
		return ErrLocked
	case v == reg.Keepalive:
		return ErrNotOwner
	case v == 0:
		if !c.rival {
			c.rival, c.rivalAt = true, before
		}
	case c.keep:
		// Whoever is checking gives up when it does not find its own claim. One
		// that does not is sure of its ownership, too.
		c.keep = !reg.IsOwnershipClaim(v)
	case v == reg.OwnershipAck && c.answered:
	default:
		return errUnsettled
	}
	c.good++
	return c.s.say(ctx, ours)
}

// say writes to scratchpad 1, which drivers may that do not own the RShim.
func (s *session) say(ctx context.Context, v uint64) error {
	s.leftZero = s.leftZero || v == 0 // it may get there whatever becomes of the answer
	for tries := 1; ; tries++ {
		_, err := s.request(regOp{ctx: ctx, addr: s.regs.Scratchpad1, size: 8, write: true, value: v, anybody: true})
		if err == nil {
			s.leftZero = v == 0
			return nil
		}
		if tries == 3 || s.ended() || errors.Is(err, context.Canceled) || !sleep(ctx, checkPoll) {
			return err
		}
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// jitter keeps drivers that wait for the same from doing it at the same time.
func jitter(d time.Duration) time.Duration { return d + rand.N(d/4) }
