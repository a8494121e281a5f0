// SPDX-License-Identifier: Apache-2.0

package usbbackend

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

const (
	minPoll  = 100 * time.Microsecond // between reads of a FIFO that stays full
	maxPoll  = 10 * time.Millisecond
	maxReads = 8 // of the fill level under way at once: a round trip's worth of small transfers
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
	tuner *tuner

	asked   int64         // value of taken when the last read was issued, -1 before
	drain   bool          // the FIFO was not empty when last read, so that it can drain further
	pause   time.Duration // before a read that can only tell of draining
	reads   int           // under way
	answers chan level
	ctx     context.Context // of the reads
	stop    context.CancelFunc
}

// level is a read of the FIFO's fill level.
type level struct {
	asked int64 // value of taken when it was issued
	bytes int64
	err   error
}

var errLevel = errors.New("not a fill level")

func (c *credits) start(d *Device) {
	*c = credits{d: d, asked: -1, answers: make(chan level, maxReads)}
	c.ctx, c.stop = context.WithCancel(d.open)
	if d.gen == reg.BlueField3 {
		n := d.regs.BootFIFODepth * 8
		c.depth, c.tuner = int64(n), newTuner(n/8, n/4, n/2, n)
	}
}

// end calls back the reads that are under way.
func (c *credits) end() {
	if c.stop != nil {
		c.stop()
	}
}

// segment is how much to send in one transfer.
func (c *credits) segment() int {
	if c.depth == 0 {
		return segmentSize
	}
	return c.tuner.size()
}

func (c *credits) allow(end int64) bool { return c.depth == 0 || end <= c.limit }

// poll returns where fill levels arrive, after asking for one if there is not
// all the room there can be, and something to be learned. The device has taken
// the stream up to taken, and has been sent up to sent.
func (c *credits) poll(taken, sent int64) <-chan level {
	switch {
	case c.depth == 0 || c.limit-sent >= c.depth:
	case taken > c.asked && c.reads < maxReads:
		c.ask(taken, 0)
	case taken == c.asked && c.drain && c.reads == 0:
		c.ask(taken, c.pause)
	}
	return c.answers
}

func (c *credits) ask(taken int64, pause time.Duration) {
	c.asked = taken
	c.reads++
	// The goroutine may outlive the stream, and so has its own of everything.
	d, ctx, answers := c.d, c.ctx, c.answers
	go func() {
		n, err := d.bootLevel(ctx, pause)
		answers <- level{taken, n, err}
	}()
}

// bootLevel reads how many bytes are in the boot FIFO, after a pause.
func (d *Device) bootLevel(ctx context.Context, pause time.Duration) (int64, error) {
	if err := sleep(ctx, pause); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	v, err := d.ReadReg(ctx, d.regs.BootFIFOCount, 8)
	if err != nil {
		return 0, err
	}
	words, ok := d.regs.BootFIFOWords(v)
	if !ok {
		return 0, fmt.Errorf("boot FIFO count %#x: %w", v, errLevel)
	}
	return int64(words) * 8, nil
}

// grant takes a level in, and reports whether there is more room. One that cannot be read now (the chip may be busy, or
// in reset) is asked for again later; the stream's own timeout bounds that.
func (c *credits) grant(l level) (more bool, err error) {
	c.reads--
	if lost(l.err) {
		return false, l.err
	}
	limit := l.asked - l.bytes + c.depth
	if more = l.err == nil && limit > c.limit; more {
		c.limit = limit
	}
	if l.asked == c.asked { // not overtaken by a later read
		c.drain = l.err != nil || l.bytes > 0
		c.pause = min(max(2*c.pause, minPoll), maxPoll)
		if more {
			c.pause = 0
		}
	}
	return more, nil
}

// took tells that the device has taken the stream up to taken.
func (c *credits) took(taken int64) {
	if c.tuner != nil {
		c.tuner.took(taken)
	}
}

// idled tells that the stream did not get on for reasons of its own.
func (c *credits) idled(taken int64) {
	if c.tuner != nil {
		c.tuner.restart(taken)
	}
}
