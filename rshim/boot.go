// SPDX-License-Identifier: Apache-2.0

package rshim

import (
	"context"
	"encoding/binary"
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
	d       *Device
	skip    bool // BOOT_RESET_SKIP was set: neither reset nor boot mode
	resets  int  // of the device, when the stream was opened
	opened  time.Time
	writing atomic.Bool

	// Of whoever writes.
	s      *session // nil until the chip is ready for the stream
	follow bfb.Follower
	at     int64   // bytes handed to the boot FIFO
	rest   [8]byte // bytes accepted that do not fill a word yet
	nrest  int
	err    error // the stream has failed
}

// OpenBoot opens the boot stream: it makes RShim the boot source, stops the
// watchdog and resets the chip. The first Write waits for the chip to be back.
// Close must be called.
func (d *Device) OpenBoot(ctx context.Context) (*BootStream, error) {
	b, err := d.openBoot(ctx)
	return b, d.opError("boot open", err)
}

func (d *Device) openBoot(ctx context.Context) (*BootStream, error) {
	s, err := d.owner(ctx)
	if err != nil {
		return nil, err
	}
	b := &BootStream{d: d, opened: time.Now(), follow: bfb.Follower{SkipCRC: true}}
	busy := false
	d.update(func() {
		if busy = d.boot != nil; !busy {
			d.boot, b.skip, b.resets = b, d.set.bootResetSkip, d.resets
			d.push = PushStatus{Phase: PushResetting, Started: b.opened}
		}
	})
	if busy {
		return nil, ErrBusy
	}
	d.log.Info(fmt.Sprintf("rshim%d boot open", d.index), "skip_reset", b.skip)
	if err := b.begin(ctx, s); err != nil {
		b.finish(err)
		return nil, err
	}
	return b, nil
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
// stream can go on from there. Any other error ends the stream.
func (b *BootStream) Write(ctx context.Context, p []byte) (int, error) {
	if !b.writing.CompareAndSwap(false, true) {
		return 0, b.d.opError("boot write", ErrBusy)
	}
	defer b.writing.Store(false)
	n, err := b.write(ctx, p)
	if err != nil && ctx.Err() == nil {
		b.err = err
	}
	b.report(b.state())
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
		n, err := b.queue(ctx, p)
		// A chip that goes before it has taken a byte had not reset yet.
		if err == nil || !b.s.ended() {
			return n, err
		}
		if b.at > 0 || b.skip {
			return n, fmt.Errorf("%w: %w", ErrGone, err)
		}
		b.s = nil
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
	var s *session
	var failed error
	err := d.await(ctx, func() bool {
		s, failed = d.sess, d.resetErr
		if d.state == Contended {
			failed = ErrNotOwner
		}
		return failed != nil || d.state == Attached && s != nil && (b.skip || d.resets > b.resets)
	})
	if err == nil {
		err = failed
	}
	for err == nil {
		n, rerr := s.read(ctx, s.regs.BootFIFOCount, 8)
		if _, ok := s.regs.BootFIFOWords(n); rerr == nil && ok {
			break
		}
		if s.ended() { // it had not reset yet
			return b.ready(ctx)
		}
		sleep(ctx, readyPoll)
		err = ctx.Err()
	}
	if err != nil {
		if context.Cause(ctx) == errReturn {
			err = fmt.Errorf("%w within %v: %w", errReturn, d.back, os.ErrDeadlineExceeded)
		}
		return err
	}
	d.mu.Lock()
	stall, transfer := d.set.bootTimeout, d.set.usbTimeout
	d.mu.Unlock()
	s.b.BootStart(stall, transfer)
	b.s = s
	d.log.Info("boot stream begins", "op", "boot", "elapsed", time.Since(b.opened).Round(time.Millisecond))
	return nil
}

var errReturn = errors.New("the chip was not back after the reset")

// Close ends the stream: what is left of the last word is padded with zeros,
// and the boot source is set back to eMMC. It returns how the push ended, which
// is an error when a write failed, or when the stream is a BFB that ended
// before its last image had passed.
func (b *BootStream) Close(ctx context.Context) error {
	err := b.close(ctx)
	b.finish(err)
	return b.d.opError("boot close", err)
}

func (b *BootStream) close(ctx context.Context) error {
	err := b.err
	if err == nil {
		err = b.ready(ctx)
	}
	if b.s == nil {
		return err
	}
	defer b.s.b.BootEnd()
	if left := b.follow.Remaining(); err == nil && left > 0 {
		err = fmt.Errorf("%w: at least %d bytes are missing after %d", ErrIncomplete, left, b.follow.Offset())
	}
	if err == nil {
		err = b.s.b.BootFlush(ctx)
	}
	if err == nil && b.nrest > 0 {
		err = b.tail(ctx)
	}
	if b.skip || b.s.ended() {
		return err
	}
	// The boot source is set back however the stream ended and whoever gave up.
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if serr := b.s.set(late, b.s.regs.BootControl, uint64(reg.BootEMMC)); err == nil {
		err = serr
	}
	return err
}

// tail writes the last, incomplete word.
func (b *BootStream) tail(ctx context.Context) error {
	clear(b.rest[b.nrest:])
	b.d.mu.Lock()
	ctx, cancel := context.WithTimeout(ctx, b.d.set.bootTimeout)
	b.d.mu.Unlock()
	defer cancel()
	for {
		// A register write does not wait for room as a bulk transfer does.
		v, err := b.s.read(ctx, b.s.regs.BootFIFOCount, 8)
		if err != nil {
			return err
		}
		if n, ok := b.s.regs.BootFIFOWords(v); ok && n < b.s.regs.BootFIFODepth {
			return b.s.write(ctx, b.s.regs.BootFIFOData, 8, binary.LittleEndian.Uint64(b.rest[:]))
		}
		if !sleep(ctx, readyPoll) {
			return ctx.Err()
		}
	}
}
