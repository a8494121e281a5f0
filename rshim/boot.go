// SPDX-License-Identifier: Apache-2.0

package rshim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/bfb"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

// BootStream is a push: what a writer of /dev/rshimN/boot has open. Opening it
// resets the chip, which then boots from what is written.
//
// Write returns when the chip has taken the bytes. Only while the stream itself
// tells that more must come (it is a BFB, and its last image has not passed)
// Write returns earlier, with up to 128 KiB on their way: should they fail, a
// later Write says so, and a writer that stops before the end has failed
// anyway. So the pipeline stays full, and no success is reported that is not.
type BootStream struct {
	d      *Device
	id     int64
	skip   bool // BOOT_RESET_SKIP was set: neither reset nor boot mode
	resets int  // of the device, when the stream was opened
	opened time.Time

	closed atomic.Bool
	lost   atomic.Bool     // the RShim has been taken from it
	open   context.Context // ends when Close is called, or the push is over before
	cut    context.CancelCauseFunc
	done   chan struct{} // closed when the device has let go of it
	turn   chan struct{} // filled by whoever uses what is below

	s      *session        // nil until the chip is ready for the stream
	held   context.Context // ends when the RShim is no longer ours
	began  int             // resets of the device, when it was
	follow bfb.Follower
	at     int64   // bytes handed to the boot FIFO
	rest   [8]byte // bytes accepted that do not fill a word yet
	nrest  int
	err    error // the stream has failed

	on *session // guarded by d.mu: s, since it has been used
}

// OpenBoot opens the boot stream: it makes RShim the boot source, stops the
// watchdog and resets the chip. The first Write waits for the chip to be back.
// Close must be called.
func (d *Device) OpenBoot(ctx context.Context) (*BootStream, error) {
	return d.OpenPush(ctx, PushOptions{})
}

// OpenPush is OpenBoot for who knows more about the push.
func (d *Device) OpenPush(ctx context.Context, o PushOptions) (*BootStream, error) {
	b, err := d.openBoot(ctx, o)
	return b, d.opError("boot open", err)
}

func (d *Device) openBoot(ctx context.Context, o PushOptions) (*BootStream, error) {
	s, err := d.owner(ctx)
	if err != nil {
		return nil, err
	}
	b := &BootStream{d: d, turn: make(chan struct{}, 1), done: make(chan struct{}), follow: bfb.Follower{SkipCRC: true}}
	b.open, b.cut = context.WithCancelCause(context.Background())
	if d.skipsReset() {
		// What the chip has written before is not about this push.
		d.refreshLog(ctx, logFresh)
	}
	d.update(func() {
		switch {
		case d.boot != nil:
			err = ErrBusy
		case d.leftAlone():
			err = ErrNotOwner
		default:
			b.opened, b.skip, b.resets = time.Now(), d.set.bootResetSkip, d.resets
			b.id = d.beginPush(o, b.skip, b.opened)
			d.boot, d.bootBack = b, d.bootBack && b.skip
		}
	})
	if err != nil {
		return nil, err
	}
	d.log.Info(fmt.Sprintf("rshim%d boot open", d.index), "push", b.id, "skip_reset", b.skip)
	if o.Begun != nil {
		o.Begun(b.id)
	}
	if err := b.start(ctx, s); err != nil {
		_ = b.end(ctx, err)
		return nil, err
	}
	return b, nil
}

// start begins the stream, unless the push is over by then: who ends it sets the
// boot source back, and nothing may come after that.
func (b *BootStream) start(ctx context.Context, s *session) error {
	b.turn <- struct{}{} // as fast as the boot source is set back
	defer func() { <-b.turn }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(b.open, cancel)()
	err := context.Cause(b.open)
	if err == nil {
		err = b.begin(ctx, s)
	}
	if err != nil && b.open.Err() != nil {
		err = context.Cause(b.open)
	}
	return err
}

// begin does what the boot stream's opening does to the chip.
func (b *BootStream) begin(ctx context.Context, s *session) error {
	if !b.skip {
		if err := s.set(ctx, s.regs.BootControl, uint64(reg.BootRShim)); err != nil {
			return err
		}
	}
	if err := s.set(ctx, s.regs.WatchdogControl, 0); err != nil {
		return err
	}
	if b.skip {
		return nil
	}
	return s.reset(ctx)
}

// Write pushes p. It returns how many bytes of it the chip has taken, or is
// certain to be asked to take, see BootStream; less than all only with an
// error. When ctx ends, the bytes not taken yet are called back, and the
// stream can go on from there; so it is when Close is called, and the error is
// os.ErrClosed. Any other error ends the stream: ErrCancelled and ErrDPU tell
// that the push is over. A Write during another fails with ErrBusy.
func (b *BootStream) Write(ctx context.Context, p []byte) (int, error) {
	select {
	case b.turn <- struct{}{}:
	default:
		err := ErrBusy
		if b.open.Err() != nil {
			err = context.Cause(b.open)
		} else if b.lost.Load() {
			err = ErrNotOwner
		}
		return 0, b.d.opError("boot write", err)
	}
	defer func() { <-b.turn }()
	if b.open.Err() != nil {
		return 0, b.d.opError("boot write", context.Cause(b.open))
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(b.open, cancel)()
	n, err := b.write(ctx, p)
	switch {
	case err == nil:
	case ctx.Err() == nil:
		b.err = err
	case b.open.Err() != nil:
		err = context.Cause(b.open)
	}
	b.report()
	return n, b.d.opError("boot write", err)
}

func (b *BootStream) write(ctx context.Context, p []byte) (int, error) {
	for {
		if b.err != nil {
			return 0, b.err
		}
		if err := b.ready(ctx); err != nil {
			return 0, err
		}
		n, err := 0, b.undisturbed()
		if err == nil {
			ours, cancel := b.whileHeld(ctx)
			n, err = b.queue(ours, p)
			cancel()
		}
		if derr := b.undisturbed(); derr != nil && (err == nil || b.held.Err() != nil) {
			if err == nil {
				n = 0
			}
			return n, derr
		}
		if err == nil || !b.s.left(ctx, err) {
			return n, err
		}
		// A chip that goes before it has taken a byte had not reset yet.
		if b.at > 0 || b.skip {
			return n, fmt.Errorf("%w: %w", ErrGone, err)
		}
		b.s = nil
	}
}

// undisturbed fails when the chip has been reset since the stream began, which
// one that stays on the bus does not show otherwise.
func (b *BootStream) undisturbed() error {
	b.d.mu.Lock()
	defer b.d.mu.Unlock()
	switch {
	case b.d.sess != b.s:
	case b.d.resets != b.began || b.d.state == Rebooting:
		return fmt.Errorf("%w: the chip was reset", ErrIncomplete)
	case b.held.Err() != nil:
		return ErrNotOwner
	}
	return nil
}

// whileHeld returns a context that ends with the ownership, too.
func (b *BootStream) whileHeld(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(b.held, cancel)
	return ctx, func() { stop(); cancel() }
}

// evict takes the stream off a session's chip, which is no longer ours. What is
// on its way and was not taken is called back.
func (b *BootStream) evict(s *session) {
	b.d.mu.Lock()
	using := b.on == s
	b.d.mu.Unlock()
	if !using {
		return
	}
	b.lost.Store(true)
	select {
	case b.turn <- struct{}{}: // as fast as a Write can be interrupted
		defer func() { <-b.turn }()
	case <-s.over:
		return
	}
	s.b.BootEnd()
	if b.err == nil {
		b.err = ErrNotOwner
	}
}

// queue hands the whole words of p to the boot FIFO and keeps the rest.
func (b *BootStream) queue(ctx context.Context, p []byte) (int, error) {
	back, had, in := b.s.b, b.nrest, p
	if had > 0 {
		n := copy(b.rest[had:], in)
		if had+n < len(b.rest) {
			b.nrest += n
			_, _ = b.follow.Write(p)
			return len(p), nil
		}
		in = in[n:]
	}
	whole := len(in) &^ 7
	after := b.follow
	_, _ = after.Write(p)

	var err error
	if had > 0 {
		_, err = back.BootWrite(ctx, b.rest[:])
	}
	if err == nil {
		_, err = back.BootWrite(ctx, in[:whole])
	}
	if err == nil && after.Remaining() == 0 {
		err = back.BootFlush(ctx)
	}
	if err == nil {
		b.follow = after
		b.nrest = copy(b.rest[:], in[whole:])
		b.at += int64(len(p) + had - b.nrest)
		return len(p), nil
	}

	at := back.BootDrop(b.at)
	if at == b.at {
		return 0, err // b.rest still begins with what was kept
	}
	n := int(at-b.at) - had
	b.at, b.nrest = at, 0
	_, _ = b.follow.Write(p[:max(n, 0)])
	if at%8 != 0 {
		b.err = fmt.Errorf("the chip took part of a word, at %d bytes: %w", at, err)
	}
	return max(n, 0), err
}

// ready waits until the chip is back from the reset and its boot FIFO can be
// used.
func (b *BootStream) ready(ctx context.Context) error {
	if b.s != nil {
		return nil
	}
	d := b.d
	ctx, cancel := context.WithTimeoutCause(ctx, d.back, errReturn)
	defer cancel()
	s, err := b.session(ctx)
	for err == nil {
		n, rerr := s.read(ctx, s.regs.BootFIFOCount, 8)
		if _, ok := s.regs.BootFIFOWords(n); rerr == nil && ok {
			break
		}
		if s.ended() { // it had not reset yet
			s, err = b.session(ctx)
		} else if !sleep(ctx, readyPoll) {
			err = ctx.Err()
		}
	}
	if err != nil {
		if context.Cause(ctx) == errReturn {
			err = fmt.Errorf("%w within %v: %w", errReturn, d.back, os.ErrDeadlineExceeded)
		}
		return err
	}
	d.mu.Lock()
	stall, transfer := d.set.bootTimeout, d.set.usbTimeout
	b.began, b.held, b.on = d.resets, s.held, s
	d.mu.Unlock()
	s.b.BootStart(stall, transfer)
	b.s = s
	d.log.Info("boot stream begins", "op", "boot", "elapsed", time.Since(b.opened).Round(time.Millisecond))
	return nil
}

// session waits until the device is attached, after the stream's reset.
func (b *BootStream) session(ctx context.Context) (s *session, err error) {
	d := b.d
	var failed error
	err = d.await(ctx, func() bool {
		s, failed = d.sess, nil
		switch {
		case d.state == Contended, d.state == Granting, d.state == Dropped:
			failed = ErrNotOwner
		case d.state == Locked:
			failed = ErrLocked
		case !b.skip && d.resetErr != nil:
			failed = d.resetErr
		default:
			return d.state == Attached && !s.ended() && (b.skip || d.resets > b.resets)
		}
		return true
	})
	return s, cmp.Or(err, failed)
}

var errReturn = errors.New("the chip was not back after the reset")
