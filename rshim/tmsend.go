// SPDX-License-Identifier: Apache-2.0

package rshim

import (
	"context"

	"github.com/bluefield-go/bmc-rshim/rshim/tmfifo"
)

const (
	// tmBatch is up to how many bytes messages are sent together.
	tmBatch = 1024
	// tmPiece is how many of these bytes are written at a time, messages or
	// not. It is a quarter of what the FIFO holds, so that it is kept filled
	// while it is read from: a write waits for room for all of it.
	tmPiece = 512
	// consoleChunk is up to how many bytes of console input make a message: a
	// batch, and so less than a frame of the network, which waits for it.
	consoleChunk = tmBatch - tmfifo.HeaderSize
	consoleLeast = 64 // of the room in a batch, to be worth a message

	// A previous owner may have left half a message in the FIFO, of up to 4 KiB
	// if it was the C daemon. So many words fill it up, in such pieces.
	resyncWords = 520
	resyncPiece = 253
)

// batch is messages that are sent together.
type batch struct {
	bytes    []byte
	net      Traffic
	console  Traffic
	control  int
	settings []*setting
	network  bool // it has the turn, not the console
	turn     int  // bytes that it has had of its turn
}

// send sends what there is, and waits for more when there is nothing.
func (m *mux) send(ctx context.Context, b Backend, resync bool) error {
	var out batch
	for words := resyncWords; resync && words > 0; words -= resyncPiece {
		if err := m.write(ctx, b, fill(min(words, resyncPiece))); err != nil {
			return err
		}
	}
	for {
		m.gather(&out)
		if len(out.bytes) == 0 {
			select {
			case <-m.console.pending():
			case <-m.net.queued:
			case <-m.peer.queued:
			case <-ctx.Done():
				return ctx.Err()
			}
			continue
		}
		var err error
		for p := out.bytes; len(p) > 0 && err == nil; {
			n := min(len(p), tmPiece)
			err = m.write(ctx, b, p[:n])
			p = p[n:]
		}
		m.settle(&out, err)
		if err != nil {
			return err
		}
	}
}

// fill returns headers of nothing, which the DPU skips, or takes for the rest
// of the message that it waits for. Should that be console input, ^A and zeros
// do least harm: there is no checksum.
func fill(words int) []byte {
	b := make([]byte, words*tmfifo.WordSize)
	for i := 0; i < len(b); i += tmfifo.WordSize {
		b[i] = byte(tmfifo.Net)
	}
	return b
}

// gather makes a batch of what there is to send. Console and network have turns
// of about the same size: a message of the console, or a frame, or several if
// they are small.
func (m *mux) gather(out *batch) {
	out.bytes, out.net, out.console = out.bytes[:0], Traffic{}, Traffic{}
	out.bytes, out.control, out.settings = m.peer.next(out.bytes)
	for idle := 0; idle < 2; {
		before := len(out.bytes)
		if full := m.add(out); full {
			return // and the next batch begins with what is next here
		}
		size := len(out.bytes) - before
		out.turn += size
		if size > 0 {
			idle = 0
		} else {
			idle++
		}
		if size == 0 || out.turn >= consoleChunk {
			out.network, out.turn = !out.network, 0
		}
	}
}

// add adds a message of whose turn it is to a batch, if there is one. full
// means that the batch has no room for it.
func (m *mux) add(out *batch) (full bool) {
	room := tmBatch - len(out.bytes)
	if out.network {
		if room == tmBatch {
			room = tmfifo.Size(tmfifo.MaxFrame) // the longest are sent alone
		}
		var size int
		if out.bytes, size, full = m.net.next(out.bytes, room); size > 0 {
			out.net.pass(size)
		}
		return full
	}
	if room < consoleLeast {
		return true
	}
	if p := m.console.next(min(room-tmfifo.HeaderSize, consoleChunk)); len(p) > 0 {
		out.bytes = tmfifo.Append(out.bytes, tmfifo.Message{Type: tmfifo.Console, Payload: p})
		out.console.pass(len(p))
	}
	return false
}

// settle takes note of what has become of a batch.
func (m *mux) settle(out *batch, err error) {
	if err != nil {
		out.net, out.console = out.net.dropped(), out.console.dropped()
	}
	m.net.sent(out.net)
	m.count(func(st *TMFIFOStats) {
		st.ConsoleToDPU.add(out.console)
		if err == nil {
			st.ControlToDPU.Messages += int64(out.control)
		} else {
			st.ControlToDPU.DroppedMessages += int64(out.control)
		}
	})
	for _, s := range out.settings {
		s.sent <- err
	}
}

// write is TMWrite; but while a reset is awaited it waits for the outcome. Should
// the chip come back, then in another run.
func (m *mux) write(ctx context.Context, b Backend, p []byte) error {
	if err := m.d.await(ctx, func() bool { return m.d.awaited.IsZero() }); err != nil {
		return err
	}
	return b.TMWrite(ctx, p)
}
