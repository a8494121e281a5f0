// SPDX-License-Identifier: Apache-2.0

package usbbackend

import (
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

// maxPoll is the longest time between reads of a boot FIFO that stays full.
const maxPoll = 10 * time.Millisecond

// credits is how much of a stream may be sent to a FIFO that must never be
// offered more than it has room for: the boot FIFO of a BlueField-3, and the
// TMFIFO of all. The other boot FIFOs NAK when they are full, and get all they
// can.
//
// The only register to go by is the FIFO's fill level, and data may be on its
// way while it is read. Whatever the moment at which the device samples it,
// all bytes taken before the read was issued have arrived by then, so at
// least taken - level bytes have been drained, and taken - level + depth is
// an offset of the stream that can be sent up to without overflow, now and
// forever. The level is read while transfers are in flight; nothing waits
// for a read unless there is no room left.
type credits struct {
	levels
	depth int64         // bytes; 0: no limit
	least int64         // known room below which the level is worth a read
	slow  time.Duration // longest pause between reads of a FIFO that stays full
	limit int64         // offset of the stream that may be sent up to
	tuner *tuner

	asked int64         // value of taken when the last read was issued, -1 before
	drain bool          // the FIFO was not empty when last read, so that it can drain further
	pause time.Duration // before a read that can only tell of draining
}

// startBoot begins a boot stream.
func (c *credits) startBoot(d *Device) {
	*c = credits{asked: -1, slow: maxPoll}
	c.start(d, d.bootLevel)
	if d.gen == reg.BlueField3 {
		n := d.regs.BootFIFODepth * 8
		c.depth, c.least, c.tuner = int64(n), int64(n), newTuner(n/8, n/4, n/2, n)
	}
}

// segment is how much to send in one transfer.
func (c *credits) segment() int {
	if c.tuner == nil {
		return segmentSize
	}
	return c.tuner.size()
}

func (c *credits) allow(end int64) bool { return c.depth == 0 || end <= c.limit }

// poll returns where fill levels arrive, after asking for one if less room is
// known than is worth it, and there is something to be learned. The device has taken
// the stream up to taken, and has been sent up to sent.
func (c *credits) poll(taken, sent int64) <-chan level {
	switch {
	case c.depth == 0 || c.limit-sent >= c.least:
	case taken > c.asked && c.reads < maxReads:
		c.query(taken, 0)
	case taken == c.asked && c.drain && c.reads == 0:
		c.query(taken, c.pause)
	}
	return c.answers
}

func (c *credits) query(taken int64, pause time.Duration) {
	c.asked = taken
	c.ask(taken, pause)
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
		c.pause = min(max(2*c.pause, minPoll), c.slow)
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
