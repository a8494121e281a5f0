// SPDX-License-Identifier: Apache-2.0

package rshim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

// session is a device while one Backend lasts.
type session struct {
	d    *Device
	b    Backend
	gen  reg.Generation
	regs *reg.Map
	ops  chan regOp
	life context.Context // that of the session
	over <-chan struct{} // closed when it ends

	commands chan command       // of operators
	drain    chan chan struct{} // asks the log follower to look now
	quiet    time.Time          // owned by own: no register access before
	seen     time.Time          // owned by live: scratchpad 1, last, while it is ours
	inherits bool               // owned by live: scratchpad 1 was a keepalive when first read by attach
	looked   bool               // owned by live: it has been
	opnRead  bool               // owned by live: the part number was read
	opnBusy  chan struct{}      // filled by who uses the part number
	denied   time.Time          // owned by live: when a request was refused, last
	leftZero bool               // owned by live: what we wrote to scratchpad 1 last is a zero

	// Guarded by d.mu.
	opn       string
	mine      bool               // the chip may be written to
	held      context.Context    // ends with the ownership,
	release   context.CancelFunc // by this
	debugCode uint64             // stands in scratchpad 1 in place of the keepalive
}

// Serve runs the device on b until b has gone or ctx ends, and closes b.
// Only one at a time; Set sees to that.
func (d *Device) Serve(parent context.Context, b Backend) error {
	g, ctx := errgroup.WithContext(parent)
	s := &session{
		d: d, b: b, life: ctx, over: ctx.Done(),
		gen:      b.Generation(),
		regs:     reg.For(b.Generation()),
		ops:      make(chan regOp),
		commands: make(chan command),
		drain:    make(chan chan struct{}),
		opnBusy:  make(chan struct{}, 1),
	}
	d.update(func() {
		d.sess, d.name, d.state, d.reason = s, b.Name(), Probing, "found on the bus"
		if d.leftAlone() {
			d.state = Dropped // from the first moment on
		}
		d.verdict.lost = time.Time{}
	})
	d.log.Info("probing", "name", b.Name(), "generation", s.gen.String(), "revision", b.Revision())

	g.Go(func() (err error) {
		select {
		case <-b.Gone():
			err = ErrGone
		case <-ctx.Done():
			s.farewell()
			err = ctx.Err()
		}
		_ = b.Close() // makes whatever waits in it return
		return err
	})
	g.Go(func() error { return s.own(ctx) })
	g.Go(func() error { return s.live(ctx) })
	err := g.Wait()

	d.mu.Lock()
	asked := !d.awaited.IsZero()
	d.mu.Unlock()
	if !asked {
		// Before anybody sees that it is gone: what is typed from then on, or
		// since a reset of ours, is for the chip that comes back.
		d.console.flushInput()
	}
	now := time.Now()
	d.update(func() {
		d.sess, d.since = nil, time.Time{}
		if d.state != Rebooting {
			d.state, d.reason = Gone, "left the bus"
		}
		if parent.Err() != nil {
			d.endPush(OutcomeStreamed, givenUp("the daemon ends"), now)
		}
		d.verdict.lost = now.Add(d.back)
		d.judge(now)
	})
	s.letGo()
	d.log.Info("disconnected", "err", err)
	return errors.Join(err, b.Close())
}

// farewell sets the boot source back if the daemon ends during a push, and
// withdraws a request for the RShim: nobody will be there to do it later. It does
// without the register owner, whose context has ended.
func (s *session) farewell() {
	s.d.mu.Lock()
	pushing := s.mine && (s.d.bootBack || s.d.boot != nil && !s.d.boot.skip)
	asking := s.d.state == Requesting
	s.d.mu.Unlock()
	if !pushing && !asking {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), farewellLimit)
	defer cancel()
	if pushing {
		_ = s.b.WriteReg(ctx, s.regs.BootControl, 8, uint64(reg.BootEMMC))
		return
	}
	if v, err := s.b.ReadReg(ctx, s.regs.Scratchpad1, 8); err == nil && v == reg.OwnershipRequest {
		_ = s.b.WriteReg(ctx, s.regs.Scratchpad1, 8, 0)
	}
}

const farewellLimit = 200 * time.Millisecond

// regOp is a request to the register owner.
type regOp struct {
	ctx   context.Context
	addr  reg.Addr
	size  int
	write bool
	value uint64

	anybody bool          // a write that takes no ownership
	hush    time.Duration // no register access for so long afterwards
	reply   chan regReply
}

type regReply struct {
	value uint64
	err   error
}

// own is the sole user of the device's registers, other than the boot FIFO's
// fill level. It serves one request after the other.
func (s *session) own(ctx context.Context) error {
	for {
		select {
		case op := <-s.ops:
			op.reply <- s.do(op)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *session) do(op regOp) (r regReply) {
	if time.Now().Before(s.quiet) {
		return regReply{err: ErrNotReady}
	}
	s.d.mu.Lock()
	timeout, mine, dropped := s.d.set.usbTimeout, s.mine, s.d.state == Dropped
	s.d.mu.Unlock()
	if dropped || op.write && !mine && !op.anybody {
		return regReply{err: ErrNotOwner}
	}
	ctx, cancel := context.WithTimeout(op.ctx, timeout)
	defer cancel()
	if op.write {
		r.err = s.b.WriteReg(ctx, op.addr, op.size, op.value)
	} else {
		r.value, r.err = s.b.ReadReg(ctx, op.addr, op.size)
	}
	s.quiet = time.Now().Add(op.hush)
	switch {
	case r.err == nil:
	case s.ended():
		r.err = fmt.Errorf("%w: %w", ErrGone, r.err)
	case ctx.Err() != nil && op.ctx.Err() == nil:
		r.err = fmt.Errorf("no answer within %v: %w", timeout, os.ErrDeadlineExceeded)
	}
	return r
}

// request hands an operation to the owner and waits for its result.
func (s *session) request(op regOp) (uint64, error) {
	op.reply = make(chan regReply, 1)
	select {
	case s.ops <- op:
	case <-op.ctx.Done():
		return 0, op.ctx.Err()
	case <-s.over:
		return 0, ErrGone
	}
	select {
	case r := <-op.reply:
		return r.value, r.err
	case <-op.ctx.Done():
		return 0, op.ctx.Err()
	}
}

func (s *session) read(ctx context.Context, a reg.Addr, size int) (uint64, error) {
	return s.request(regOp{ctx: ctx, addr: a, size: size})
}

func (s *session) write(ctx context.Context, a reg.Addr, size int, v uint64) error {
	_, err := s.request(regOp{ctx: ctx, addr: a, size: size, write: true, value: v})
	return err
}

// set is write for a register that can be written twice without harm: a
// transfer that failed on the bus is tried again.
func (s *session) set(ctx context.Context, a reg.Addr, v uint64) error {
	for tries := 1; ; tries++ {
		err := s.write(ctx, a, 8, v)
		if err == nil || tries == 3 || s.ended() || !sleep(ctx, checkPoll) {
			return err
		}
	}
}

// ended reports whether the session is over, or about to be.
func (s *session) ended() bool {
	select {
	case <-s.over:
	case <-s.b.Gone():
	default:
		return false
	}
	return true
}

// left reports whether err came about because the device has left the bus.
// A transfer may know a moment before everybody else does.
func (s *session) left(ctx context.Context, err error) bool {
	if s.ended() || ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, ErrIncomplete) {
		return s.ended()
	}
	t := time.NewTimer(leftLimit)
	defer t.Stop()
	select {
	case <-s.over:
	case <-s.b.Gone():
	case <-t.C:
	case <-ctx.Done():
	}
	return s.ended()
}

const leftLimit = 100 * time.Millisecond

// sleep waits, and reports false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
