// SPDX-License-Identifier: Apache-2.0

package rshim

import (
	"context"
	"sync"
	"time"
)

const (
	// consoleRing is how much of the DPU's output is kept: bytes.
	consoleRing = 256 << 10
	// consoleQueue is how much input may wait for the DPU: bytes.
	consoleQueue = 16 << 10
	// consolePatience is how long, in all, output waits for an opener that is
	// a whole ring behind: the network waits too. An opener that has caught up
	// has it anew, and reading a ring earns it back. So one that takes 1.3 MB/s
	// loses nothing, however fast the DPU, and one that has stopped holds up
	// nobody for longer.
	consolePatience = 200 * time.Millisecond
)

// Console is the DPU's serial console. It has no owner: everybody who opens it
// sees all output from then on, and writes in turn with the others. It stays
// the same whatever happens to the chip, and keeps the last 256 KiB of output
// even with nobody there.
//
// Nothing runs in it. The session calls deliver, next and flushInput.
type Console struct {
	d     *Device
	turn  chan struct{} // filled by who writes
	token chan struct{} // filled when there may be input for next

	mu    sync.Mutex
	conns map[*ConsoleConn]struct{}
	stats ConsoleStats

	ring []byte        // nil before the first byte; byte n of all output is at n % consoleRing
	end  int64         // bytes of output so far
	more chan struct{} // closed when output comes; nil: nobody waits
	read chan struct{} // closed when an opener has read; nil: nobody waits

	input   []consoleInput
	queued  int           // bytes of input
	put     int64         // bytes ever queued
	gone    int64         // of these, bytes sent or dropped
	taken   chan struct{} // closed when input was taken; nil: nobody waits
	flushes int           // calls of flushInput
}

// consoleInput is input of one opener that has not been sent.
type consoleInput struct {
	from *ConsoleConn
	p    []byte
}

// ConsoleStats are counters of bytes since the device is known.
type ConsoleStats struct {
	Openers int   // now
	Output  int64 // from the DPU
	Lost    int64 // output that an opener was too slow for, summed over openers
	Input   int64 // handed to the TMFIFO
	Dropped int64 // input that was typed before a reset
}

func newConsole(d *Device) *Console {
	return &Console{
		d:     d,
		turn:  make(chan struct{}, 1),
		token: make(chan struct{}, 1),
		conns: make(map[*ConsoleConn]struct{}),
	}
}

// Console returns the device's console.
func (d *Device) Console() *Console { return d.console }

// Stats returns the counters.
func (c *Console) Stats() ConsoleStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.stats
	st.Openers, st.Output = len(c.conns), c.end
	for cc := range c.conns {
		st.Lost += cc.lost + cc.behind()
	}
	return st
}

// deliver is output of the DPU, which every opener gets. It waits for openers
// that would lose bytes, but not for long (consolePatience), and not once ctx
// has ended. One call at a time.
func (c *Console) deliver(ctx context.Context, p []byte) {
	for len(p) > 0 {
		n := min(len(p), consoleRing)
		c.awaitReaders(ctx, n)
		c.append(p[:n])
		p = p[n:]
	}
}

func (c *Console) append(p []byte) {
	c.mu.Lock()
	if c.ring == nil {
		c.ring = make([]byte, consoleRing)
	}
	at := c.end % consoleRing
	copy(c.ring, p[copy(c.ring[at:], p):])
	c.end += int64(len(p))
	wake(&c.more)
	calls := c.watchers()
	c.mu.Unlock()
	calls.run()
}

// awaitReaders waits until n bytes of output cost no opener any that it has
// not read, or its patience is used up.
func (c *Console) awaitReaders(ctx context.Context, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for ctx.Err() == nil {
		late, wait := c.late(n)
		if late == nil {
			return
		}
		read := waitFor(&c.read)
		c.mu.Unlock()
		start, t := time.Now(), time.NewTimer(wait)
		select {
		case <-read:
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
		waited := time.Since(start)
		c.mu.Lock()
		for _, cc := range late {
			if cc.pos < c.end { // else it has caught up
				cc.patience -= waited
			}
		}
	}
}

// late returns the openers that n more bytes of output would cost some, and
// that may be waited for, and how long until the first of them may not.
func (c *Console) late(n int) (late []*ConsoleConn, wait time.Duration) {
	wait = consolePatience
	for cc := range c.conns {
		if cc.patience > 0 && cc.pos < c.end+int64(n)-consoleRing {
			late = append(late, cc)
			wait = min(wait, cc.patience)
		}
	}
	return late, wait
}

// oldest is where the ring starts.
func (c *Console) oldest() int64 { return max(0, c.end-consoleRing) }

// pending returns a channel that has a token whenever there may be input for
// next.
func (c *Console) pending() <-chan struct{} { return c.token }

// next takes at most limit bytes of input to be sent, nil if there is none.
// The bytes are the caller's.
func (c *Console) next(limit int) []byte {
	c.mu.Lock()
	if c.queued == 0 {
		c.mu.Unlock()
		return nil
	}
	head := &c.input[0]
	n := min(limit, len(head.p))
	p := head.p[:n:n]
	if head.p = head.p[n:]; len(head.p) == 0 {
		c.input[0] = consoleInput{}
		c.input = c.input[1:]
	}
	c.stats.Input += int64(n)
	calls := c.took(n)
	if c.queued > 0 {
		c.signal()
	}
	c.mu.Unlock()
	calls.run()
	return p
}

// flushInput drops the input that waits: the chip has been reset, and what was
// typed was meant for what ran before. A write in progress is dropped to its
// end; later ones wait for the chip that comes back.
func (c *Console) flushInput() {
	c.mu.Lock()
	c.flushes++
	c.stats.Dropped += int64(c.queued)
	c.input = nil
	calls := c.took(c.queued)
	c.mu.Unlock()
	calls.run()
}

// took accounts for n bytes of input that have left the queue, and returns
// whom to tell.
func (c *Console) took(n int) watchers {
	full := !c.writable()
	c.queued -= n
	c.gone += int64(n)
	wake(&c.taken)
	if full && c.writable() {
		return c.watchers()
	}
	return nil
}

// writable leaves a margin, so that those who poll do not write byte by byte.
func (c *Console) writable() bool { return c.queued <= consoleQueue/2 }

func (c *Console) signal() {
	select {
	case c.token <- struct{}{}:
	default:
	}
}

// watchers are functions to be called once the lock is released.
type watchers []func()

func (w watchers) run() {
	for _, f := range w {
		f()
	}
}

// watchers takes the functions of all openers that asked to be told.
func (c *Console) watchers() (w watchers) {
	for cc := range c.conns {
		if cc.watch != nil {
			w = append(w, cc.watch)
			cc.watch = nil
		}
	}
	return w
}

// waitFor returns the channel that the next wake of the same closes.
func waitFor(ch *chan struct{}) <-chan struct{} {
	if *ch == nil {
		*ch = make(chan struct{})
	}
	return *ch
}

func wake(ch *chan struct{}) {
	if *ch != nil {
		close(*ch)
		*ch = nil
	}
}
