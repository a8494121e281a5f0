// SPDX-License-Identifier: Apache-2.0

package rshim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

// Close ends the stream: what is left of the last word is padded with zeros,
// and the boot source is set back to eMMC. It returns how the push ended, which
// is an error when a write failed, when nothing was written, or when the
// stream is a BFB that ended before its last image had passed. A Write that is
// under way is cut short. A second Close fails with os.ErrClosed. Nil says
// nothing about the boot: see PushStatus.Outcome.
func (b *BootStream) Close(ctx context.Context) error {
	return b.d.opError("boot close", b.end(ctx, os.ErrClosed))
}

// Abort is Close for a writer that gives up: the push has failed, for a reason
// that the writer knows.
func (b *BootStream) Abort(ctx context.Context, reason error) error {
	return b.d.opError("boot close", b.end(ctx, fmt.Errorf("%w: %w", ErrIncomplete, reason)))
}

// end ends the stream: why is os.ErrClosed, or what has become of the push
// before its writer was done.
func (b *BootStream) end(ctx context.Context, why error) error {
	if !b.closed.CompareAndSwap(false, true) {
		<-b.open.Done() // the first is about to cut
		select {
		case <-b.done: // the device can be pushed to again
		case <-ctx.Done():
		}
		return context.Cause(b.open)
	}
	b.cut(why)
	b.turn <- struct{}{} // as fast as a Write can be interrupted
	defer func() { <-b.turn }()
	err := context.Cause(b.open)
	if err == os.ErrClosed {
		err = b.close(ctx)
	}
	if serr := b.setBack(ctx); err == nil {
		err = serr
	}
	if b.s != nil {
		b.s.b.BootEnd()
	}
	b.finish(err)
	close(b.done)
	return b.d.opError("boot close", err)
}

// close gets the last bytes to the chip.
func (b *BootStream) close(ctx context.Context) error {
	if b.err != nil {
		return b.err
	}
	if b.at == 0 && b.nrest == 0 {
		return fmt.Errorf("%w: nothing was written", ErrIncomplete)
	}
	if left := b.follow.Remaining(); left > 0 {
		return fmt.Errorf("%w: at least %d bytes are missing after %d", ErrIncomplete, left, b.follow.Offset())
	}
	if err := b.ready(ctx); err != nil {
		return err
	}
	ctx, cancel := b.whileHeld(ctx)
	defer cancel()
	var err error
	if b.nrest > 0 {
		clear(b.rest[b.nrest:])
		_, err = b.s.b.BootWrite(ctx, b.rest[:])
	}
	if err == nil {
		err = b.s.b.BootFlush(ctx)
	}
	if derr := b.undisturbed(); derr != nil {
		err = derr
	}
	if err != nil && b.s.left(ctx, err) {
		err = fmt.Errorf("%w: %w", ErrGone, err)
	}
	return err
}

// setBack makes eMMC the boot source again, however the stream ended and
// whoever gave up. When the chip is not there for it, that is done as soon as
// it is attached again: it would wait for a boot stream after every reset.
func (b *BootStream) setBack(ctx context.Context) error {
	if b.skip {
		return nil
	}
	var s *session
	b.d.update(func() {
		b.d.bootBack = true
		if b.d.state == Attached {
			s = b.d.sess
		}
	})
	if s == nil || s.ended() {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), bootBackLimit)
	defer cancel()
	if err := s.tryBootBack(ctx); err != nil && !s.ended() {
		if errors.Is(err, context.DeadlineExceeded) {
			err = os.ErrDeadlineExceeded
		}
		return fmt.Errorf("the boot source is not set back: %w", err)
	}
	return nil
}

// bootBackLimit bridges a machine that stands still for seconds: the push has
// arrived. A daemon that ends does not wait for it, its session is over first.
const (
	bootBackLimit = 5 * time.Second
	bootBackTry   = 500 * time.Millisecond
)

// tryBootBack is bootBack as often as it takes while ctx lasts. A try is short,
// as the ownership cannot be kept up meanwhile.
func (s *session) tryBootBack(ctx context.Context) error {
	for {
		try, cancel := context.WithTimeout(ctx, bootBackTry)
		err := s.bootBack(try)
		cancel()
		if err == nil || s.ended() || !sleep(ctx, checkPoll) {
			return err
		}
	}
}

// bootBack sets the boot source back to eMMC.
func (s *session) bootBack(ctx context.Context) error {
	err := s.set(ctx, s.regs.BootControl, uint64(reg.BootEMMC))
	if err == nil {
		s.d.update(func() { s.d.bootBack = false })
	}
	return err
}
