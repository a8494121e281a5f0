// SPDX-License-Identifier: Apache-2.0

package bus

import (
	"context"
	"sync"
)

// Bounds of an outbox. Beyond the soft one nobody should put more in; beyond
// the hard one the connection is given up.
const (
	softBytes = 256 << 10
	hardBytes = 4 << 20
)

// parcelOverhead is what a message counts for beside its bytes.
const parcelOverhead = 512

// parcel is an encoded message on its way out.
type parcel struct {
	b    []byte
	fds  []int           // closed when it is sent, or never will be
	done func(sent bool) // called once, must not wait; may be nil
}

func (p parcel) finish(sent bool) {
	closeFDs(p.fds)
	if p.done != nil {
		p.done(sent)
	}
}

// outbox is the queue in front of a connection's writer.
type outbox struct {
	wake chan struct{} // something is in it

	mu     sync.Mutex
	queue  []parcel
	bytes  int
	closed bool
	room   chan struct{} // closed when there is room again
}

func newOutbox() *outbox {
	return &outbox{wake: make(chan struct{}, 1), room: make(chan struct{})}
}

// put queues a parcel. It is finished unsent if the outbox is closed, or too
// full even for the hard bound.
func (o *outbox) put(p parcel) error {
	o.mu.Lock()
	var err error
	switch {
	case o.closed:
		err = ErrClosed
	case o.bytes > hardBytes:
		err = ErrFull
	default:
		o.queue = append(o.queue, p)
		o.bytes += len(p.b) + parcelOverhead
	}
	o.mu.Unlock()
	if err != nil {
		p.finish(false)
		return err
	}
	o.poke()
	return nil
}

// poke makes the writer look.
func (o *outbox) poke() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// full reports whether the soft bound is exceeded.
func (o *outbox) full() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.bytes > softBytes
}

// waitRoom waits until the soft bound is not exceeded, or the outbox closed.
func (o *outbox) waitRoom(ctx context.Context) error {
	for {
		o.mu.Lock()
		room, full := o.room, o.bytes > softBytes && !o.closed
		o.mu.Unlock()
		if !full {
			return nil
		}
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// take removes the oldest parcel.
func (o *outbox) take() (p parcel, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.queue) == 0 {
		return parcel{}, false
	}
	p = o.queue[0]
	o.queue[0] = parcel{}
	o.queue = o.queue[1:]
	if len(o.queue) == 0 {
		o.queue = nil // so that a burst's memory is given back
	}
	before := o.bytes
	o.bytes -= len(p.b) + parcelOverhead
	if before > softBytes && o.bytes <= softBytes {
		close(o.room)
		o.room = make(chan struct{})
	}
	return p, true
}

// close finishes all that is left.
func (o *outbox) close() {
	o.mu.Lock()
	left := o.queue
	o.queue, o.bytes = nil, 0
	if !o.closed {
		o.closed = true
		close(o.room)
	}
	o.mu.Unlock()
	for _, p := range left {
		p.finish(false)
	}
}
