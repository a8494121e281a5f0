// SPDX-License-Identifier: Apache-2.0

package rshim

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/tmfifo"
)

const (
	netOut      = 16          // frames that wait for the DPU
	netIn       = 64          // frames that wait for Receive
	netPatience = time.Second // of Send, with a DPU that does not read
	minFrame    = 14          // bytes: an Ethernet header
)

// Net is the network that a device has with its DPU: Ethernet frames without
// their checksum, at most tmfifo.MaxFrame bytes. It is there for as long as
// its Device, whatever becomes of the chip; while there is nobody to talk to,
// frames are dropped.
type Net struct {
	sending chan struct{} // filled by the Send whose turn it is
	room    chan struct{} // filled when a frame has left out
	queued  chan struct{} // filled when one has come to out
	arrived chan struct{} // filled when one has come to in

	// mu guards all below. Frames are copied under it.
	mu       sync.Mutex
	up       bool // somebody sends what is in out
	out, in  frames
	progress time.Time // when the DPU, as far as out shows, was last seen reading
	toDPU    Traffic
	fromDPU  Traffic
}

func newNet() *Net {
	return &Net{
		sending: make(chan struct{}, 1), room: make(chan struct{}, 1),
		queued: make(chan struct{}, 1), arrived: make(chan struct{}, 1),
		out: frames{slots: make([][]byte, netOut)}, in: frames{slots: make([][]byte, netIn)},
	}
}

// Net returns the device's network, always the same.
func (d *Device) Net() *Net { return d.net }

// Send queues a frame for the DPU, which it copies. It waits for room in the
// queue until the DPU has not read for a second; then the oldest frame is
// dropped for it. While the device is not ours the frame is dropped itself, at
// once. All that is counted, none of it an error. The error is ErrInvalid for
// what is no Ethernet frame, or that of ctx.
func (n *Net) Send(ctx context.Context, frame []byte) error {
	if len(frame) < minFrame || len(frame) > tmfifo.MaxFrame {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.toDPU.drop(len(frame))
		return fmt.Errorf("%w: a frame of %d bytes", ErrInvalid, len(frame))
	}
	select {
	case n.sending <- struct{}{}:
		defer func() { <-n.sending }()
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		left := n.offer(frame)
		if left <= 0 {
			return nil
		}
		t := time.NewTimer(left)
		select {
		case <-n.room:
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// offer queues or drops a frame. If it did neither, it returns how long to wait
// for room.
func (n *Net) offer(frame []byte) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case !n.up:
		n.toDPU.drop(len(frame))
		return 0
	case !n.out.full():
		n.progress = time.Now()
	default:
		if left := time.Until(n.progress.Add(netPatience)); left > 0 {
			return left
		}
		n.toDPU.drop(len(n.out.pop()))
	}
	n.out.push(frame)
	signal(n.queued)
	return 0
}

// Receive waits for the next frame from the DPU and copies it to p. If p, which
// is big enough for all frames with tmfifo.MaxFrame bytes, is too small, the
// frame stays and the error is io.ErrShortBuffer. The other error is that of
// ctx. It is for one goroutine.
func (n *Net) Receive(ctx context.Context, p []byte) (int, error) {
	for {
		if size, err := n.fetch(p); size > 0 || err != nil {
			return size, err
		}
		select {
		case <-n.arrived:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

func (n *Net) fetch(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.in.n == 0:
		return 0, nil
	case len(n.in.first()) > len(p):
		return 0, io.ErrShortBuffer
	}
	return copy(p, n.in.pop()), nil
}

// deliver queues a frame from the DPU, or drops it when nobody fetches them.
func (n *Net) deliver(frame []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(frame) < minFrame || n.in.full() {
		n.fromDPU.drop(len(frame))
		return
	}
	n.fromDPU.pass(len(frame))
	n.in.push(frame)
	signal(n.arrived)
}

// next appends the next frame for the DPU to dst, as a message, if that takes
// at most room bytes. size is that of the frame, 0 if there is none; more means
// that there is one which did not fit.
func (n *Net) next(dst []byte, room int) (_ []byte, size int, more bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.out.n == 0 {
		return dst, 0, false
	}
	if tmfifo.Size(len(n.out.first())) > room {
		return dst, 0, true
	}
	frame := n.out.pop()
	n.progress = time.Now()
	signal(n.room)
	return tmfifo.Append(dst, tmfifo.Message{Type: tmfifo.Net, Payload: frame}), len(frame), false
}

// sent counts frames that next has returned.
func (n *Net) sent(t Traffic) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.toDPU.add(t)
}

// setUp tells whether there is somebody who sends the frames, or about to be.
func (n *Net) setUp(up bool) {
	n.mu.Lock()
	n.up = up
	n.mu.Unlock()
	if !up {
		n.flush()
	}
}

// flush drops the frames that wait for the DPU: it is no longer what they were
// meant for.
func (n *Net) flush() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for n.out.n > 0 {
		n.toDPU.drop(len(n.out.pop()))
	}
	signal(n.room)
}

// frames is a bounded queue whose memory is used again.
type frames struct {
	slots [][]byte
	at, n int
}

func (q *frames) full() bool    { return q.n == len(q.slots) }
func (q *frames) first() []byte { return q.slots[q.at] }

// push queues a copy of a frame; there must be room.
func (q *frames) push(frame []byte) {
	i := (q.at + q.n) % len(q.slots)
	q.slots[i] = append(q.slots[i][:0], frame...)
	q.n++
}

// pop returns the oldest frame, which stands there until the next push.
func (q *frames) pop() []byte {
	frame := q.first()
	q.at, q.n = (q.at+1)%len(q.slots), q.n-1
	return frame
}

// signal fills a channel that holds one.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
