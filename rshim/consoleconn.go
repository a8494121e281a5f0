// SPDX-License-Identifier: Apache-2.0

package rshim

import (
	"context"
	"math"
	"os"
	"time"
)

// ConsoleConn is one opener of a Console. Its methods may be called from
// several goroutines at once.
type ConsoleConn struct {
	c      *Console
	closed chan struct{}

	// Guarded by c.mu.
	pos      int64 // of all output, the first byte not read
	lost     int64
	patience time.Duration
	watch    func()
}

// Open opens the console. The first byte read is the next that the DPU sends
// or, with replay, the oldest that is kept.
func (c *Console) Open(replay bool) *ConsoleConn {
	cc := &ConsoleConn{c: c, closed: make(chan struct{}), patience: consolePatience}
	c.mu.Lock()
	defer c.mu.Unlock()
	cc.pos = c.end
	if replay {
		cc.pos = c.oldest()
	}
	c.conns[cc] = struct{}{}
	return cc
}

// OpenInput opens the console for somebody who only writes: there never is
// output to read, none is lost, and none waits.
func (c *Console) OpenInput() *ConsoleConn {
	cc := &ConsoleConn{c: c, closed: make(chan struct{}), pos: nowhere}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conns[cc] = struct{}{}
	return cc
}

// nowhere is the position of an opener that only writes.
const nowhere = math.MaxInt64

// Read reads output, and waits while there is none. With ctx ended it reads
// what is there, and returns the context's error if that is nothing.
func (cc *ConsoleConn) Read(ctx context.Context, p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		n, more, err := cc.tryRead(p)
		if n > 0 || err != nil {
			return n, err
		}
		select {
		case <-more:
		case <-cc.closed:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// tryRead reads what is there. If that is nothing, more is closed when it is
// worth another try.
func (cc *ConsoleConn) tryRead(p []byte) (n int, more <-chan struct{}, err error) {
	c := cc.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if cc.isClosed() {
		return 0, nil, os.ErrClosed
	}
	cc.skip()
	if cc.pos >= c.end {
		return 0, waitFor(&c.more), nil
	}
	p = p[:min(int64(len(p)), c.end-cc.pos)]
	n = copy(p, c.ring[cc.pos%consoleRing:])
	n += copy(p[n:], c.ring)
	cc.patience += consolePatience * time.Duration(n) / consoleRing
	cc.moveTo(cc.pos + int64(n))
	return n, nil, nil
}

// behind is how many bytes the opener has lost since it last read.
func (cc *ConsoleConn) behind() int64 {
	if cc.isClosed() {
		return 0
	}
	return max(0, cc.c.oldest()-cc.pos)
}

// skip goes past what was lost.
func (cc *ConsoleConn) skip() {
	n := cc.behind()
	cc.lost += n
	cc.pos += n
}

func (cc *ConsoleConn) moveTo(pos int64) {
	if cc.pos == nowhere {
		return
	}
	cc.pos = pos
	if pos == cc.c.end || cc.patience > consolePatience {
		cc.patience = consolePatience
	}
	wake(&cc.c.read)
}

// Write queues input for the DPU, waiting for room, and returns when all of it
// is queued. What one call writes is sent in one piece. With ctx ended it
// queues what there is room for, and returns the context's error if that is
// less than all.
func (cc *ConsoleConn) Write(ctx context.Context, p []byte) (n int, err error) {
	c := cc.c
	select {
	case c.turn <- struct{}{}:
	default:
		select {
		case c.turn <- struct{}{}:
		case <-cc.closed:
			return 0, os.ErrClosed
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	defer func() { <-c.turn }()
	flushes := -1
	for n < len(p) {
		queued, taken, err := cc.tryWrite(p[n:], &flushes)
		n += queued
		if err != nil {
			return n, err
		}
		if queued > 0 {
			continue
		}
		select {
		case <-taken:
		case <-cc.closed:
		case <-ctx.Done():
			return n, ctx.Err()
		}
	}
	return n, nil
}

// tryWrite queues what there is room for. If that is nothing, taken is closed
// when it is worth another try. It remembers in flushes how often the input
// was flushed when the call began.
func (cc *ConsoleConn) tryWrite(p []byte, flushes *int) (n int, taken <-chan struct{}, err error) {
	c := cc.c
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case cc.isClosed():
		return 0, nil, os.ErrClosed
	case *flushes < 0:
		*flushes = c.flushes
	case *flushes != c.flushes:
		c.stats.Dropped += int64(len(p))
		return len(p), nil, nil
	}
	p = p[:min(len(p), consoleQueue-c.queued)]
	if len(p) == 0 {
		return 0, waitFor(&c.taken), nil
	}
	if last := len(c.input) - 1; last >= 0 && c.input[last].from == cc {
		c.input[last].p = append(c.input[last].p, p...)
	} else {
		c.input = append(c.input, consoleInput{from: cc, p: append([]byte(nil), p...)})
	}
	c.queued += len(p)
	c.put += int64(len(p))
	c.signal()
	return len(p), nil, nil
}

// Buffered is how many bytes of output can be read at once.
func (cc *ConsoleConn) Buffered() int {
	c := cc.c
	c.mu.Lock()
	defer c.mu.Unlock()
	return int(max(0, c.end-max(cc.pos, c.oldest())))
}

// Queued is how many bytes of input wait for the DPU, of all openers.
func (cc *ConsoleConn) Queued() int {
	cc.c.mu.Lock()
	defer cc.c.mu.Unlock()
	return cc.c.queued
}

// Readable reports whether there is output to read.
func (cc *ConsoleConn) Readable() bool { return cc.Buffered() > 0 }

// Writable reports whether there is ample room for input.
func (cc *ConsoleConn) Writable() bool {
	cc.c.mu.Lock()
	defer cc.c.mu.Unlock()
	return cc.c.writable()
}

// Watch has f called once: when output comes, or there is room for input again,
// after the call. It replaces the function of the last Watch. F must not block.
func (cc *ConsoleConn) Watch(f func()) {
	cc.c.mu.Lock()
	defer cc.c.mu.Unlock()
	cc.watch = f
}

// Replay goes back to the oldest output that is kept.
func (cc *ConsoleConn) Replay() {
	c := cc.c
	c.mu.Lock()
	cc.skip()
	cc.moveTo(c.oldest())
	wake(&c.more)
	calls := c.watchers()
	c.mu.Unlock()
	calls.run()
}

// DiscardOutput skips the output that has come and was not read.
func (cc *ConsoleConn) DiscardOutput() {
	c := cc.c
	c.mu.Lock()
	defer c.mu.Unlock()
	cc.skip()
	cc.moveTo(c.end)
}

// DiscardInput takes back what this opener has written and the DPU was not
// sent yet.
func (cc *ConsoleConn) DiscardInput() {
	c := cc.c
	c.mu.Lock()
	var kept []consoleInput
	n := 0
	for _, in := range c.input {
		if in.from == cc {
			n += len(in.p)
		} else {
			kept = append(kept, in)
		}
	}
	c.input = kept
	calls := c.took(n)
	c.mu.Unlock()
	calls.run()
}

// Drain waits until the input that is queued now, of all openers, has been
// sent.
func (cc *ConsoleConn) Drain(ctx context.Context) error {
	c := cc.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for until := c.put; c.gone < until; {
		taken := waitFor(&c.taken)
		c.mu.Unlock()
		select {
		case <-taken:
		case <-cc.closed:
		case <-ctx.Done():
		}
		c.mu.Lock()
		if cc.isClosed() {
			return os.ErrClosed
		}
		if c.gone < until && ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// Lost is how many bytes of output were overwritten before they were read.
func (cc *ConsoleConn) Lost() int64 {
	cc.c.mu.Lock()
	defer cc.c.mu.Unlock()
	return cc.lost + cc.behind()
}

// Close ends the calls in progress. What was written is sent all the same.
func (cc *ConsoleConn) Close() {
	if cc.close() {
		cc.c.d.update(func() {}) // a Set may wait for it
	}
}

func (cc *ConsoleConn) close() bool {
	c := cc.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if cc.isClosed() {
		return false
	}
	cc.skip()
	close(cc.closed)
	c.stats.Lost += cc.lost
	delete(c.conns, cc)
	wake(&c.read)
	return true
}

func (cc *ConsoleConn) isClosed() bool {
	select {
	case <-cc.closed:
		return true
	default:
		return false
	}
}
