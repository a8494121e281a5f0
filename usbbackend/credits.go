// SPDX-License-Identifier: Apache-2.0

package usbbackend

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

const (
	minPoll = 250 * time.Microsecond // between reads of a FIFO that stays full
	maxPoll = 5 * time.Millisecond
)

// credits is how much of the boot stream may be sent to a device that must
// never be offered more than its boot FIFO has room for: BlueField-3. The
// others NAK when they are full, and get all they can.
//
// The only register to go by is the FIFO's fill level, and data may be on its
// way while it is read. Whatever the moment at which the device samples it,
// all bytes taken before the read was issued have arrived by then, so at
// least taken - level bytes have been drained, and taken - level + depth is
// an offset of the stream that can be sent up to without overflow, now and
// forever. The level is read while transfers are in flight; nothing waits
// for a read unless there is no room left.
type credits struct {
	d     *Device
	depth int64 // bytes; 0: no limit
	limit int64 // offset of the stream that may be sent up to

	asked  int64         // value of taken when the last read was issued, -1 before
	drain  bool          // the FIFO was not empty then, so that it can drain further
	pause  time.Duration // before a read that can only tell of draining
	answer chan level    // of a read under way
	stop   context.CancelFunc
}

// level is a read of the FIFO's fill level.
type level struct {
	bytes int64
	err   error
}

var errLevel = errors.New("not a fill level")

func (c *credits) start(d *Device) {
	*c = credits{d: d, asked: -1}
	if d.gen == reg.BlueField3 {
		c.depth = int64(d.regs.BootFIFODepth) * 8
	}
}

// segment is the largest transfer worth waiting for room for.
func (c *credits) segment() int {
	if c.depth == 0 {
		return segmentSize
	}
	return int(c.depth / 2)
}

func (c *credits) allow(end int64) bool { return c.depth == 0 || end <= c.limit }

// poll returns where the fill level will arrive, after asking for it if nobody
// has, and if there is something to be learned from it. taken is how much of
// the stream the device has.
func (c *credits) poll(taken int64) <-chan level {
	if c.depth == 0 || c.answer != nil {
		return c.answer
	}
	pause := c.pause
	switch {
	case taken > c.asked:
		pause, c.pause = 0, minPoll
	case !c.drain:
		return nil
	}
	var ctx context.Context
	ctx, c.stop = context.WithCancel(context.Background())
	c.answer, c.asked = make(chan level, 1), taken
	go c.read(ctx, c.answer, pause)
	return c.answer
}

func (c *credits) read(ctx context.Context, answer chan<- level, pause time.Duration) {
	if err := sleep(ctx, pause); err != nil {
		answer <- level{err: err}
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	v, err := c.d.ReadReg(ctx, c.d.regs.BootFIFOCount, 8)
	words, ok := c.d.regs.BootFIFOWords(v)
	if err == nil && !ok {
		err = fmt.Errorf("boot FIFO count %#x: %w", v, errLevel)
	}
	answer <- level{int64(words) * 8, err}
}

// grant takes an answer from poll. A level that cannot be read now (the chip
// may be busy, or in reset) is asked for again later; the stream's own
// timeout bounds that.
func (c *credits) grant(l level) error {
	c.end()
	if errors.Is(l.err, usb.ErrNoDevice) || errors.Is(l.err, usb.ErrClosed) {
		return l.err
	}
	limit := c.asked - l.bytes + c.depth
	c.drain = l.err != nil || l.bytes > 0
	if l.err != nil || limit <= c.limit {
		c.pause = min(2*c.pause, maxPoll)
		return nil
	}
	c.limit, c.pause = limit, minPoll
	return nil
}

// end forgets the answer that was asked for.
func (c *credits) end() {
	if c.answer != nil {
		c.stop()
		c.answer = nil
	}
}
