// SPDX-License-Identifier: Apache-2.0

package i2c

import (
	"context"
	"math/rand/v2"
	"sync/atomic"

	"github.com/bluefield-go/bmc-rshim/mctp"
)

// Message is an MCTP message on a bus.
type Message struct {
	Addr uint8 // whom it goes to, or comes from
	mctp.Message
}

// Endpoint sends and receives MCTP messages at an address of a bus. It answers
// control messages by itself.
type Endpoint struct {
	o     Options
	bus   writer
	queue reader
	seq   atomic.Uint32 // of the next message's first packet
	asm   mctp.Assembler
	buf   [4096]byte // as much as sysfs gives
}

// writer is a Bus, reader a Queue.
type writer interface {
	Write(ctx context.Context, addr uint8, data []byte) error
	Close() error
}

type reader interface {
	Next(buf []byte) (int, error)
	Wait(ctx context.Context) error
	Close() error
}

// OpenEndpoint opens the node of the bus and the queue of our address. Errors
// are *OpError, of ErrNoBus, ErrNoQueue or ErrInUse among others.
func OpenEndpoint(o Options) (*Endpoint, error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	bus, err := OpenBus(o.Dev, o.Bus)
	if err != nil {
		return nil, err
	}
	queue, err := OpenQueue(o.Root, o.Bus, o.Own)
	if err != nil {
		bus.Close()
		return nil, err
	}
	return newEndpoint(o, bus, queue), nil
}

func newEndpoint(o Options, bus writer, queue reader) *Endpoint {
	e := &Endpoint{o: o, bus: bus, queue: queue}
	e.seq.Store(rand.Uint32())
	return e
}

// Close ends the endpoint.
func (e *Endpoint) Close() error {
	e.bus.Close()
	return e.queue.Close()
}

// Send sends a message in as many frames as it takes.
func (e *Endpoint) Send(ctx context.Context, m Message) error {
	for p := range m.Packets(mctp.BaselineUnit, uint8(e.seq.Add(1))) {
		f, err := Frame{Dest: m.Addr, Src: e.o.Own, Packet: p}.Append(nil)
		if err != nil {
			return err
		}
		e.o.Logger.Debug("i2c: frame sent", "frame", hexBytes(f))
		if err := e.bus.Write(ctx, m.Addr, f[1:]); err != nil {
			return err
		}
	}
	return nil
}

// Receive waits for the next message to our endpoint that is not a control
// message. Errors are ctx's and *OpError. One goroutine at a time may receive.
func (e *Endpoint) Receive(ctx context.Context) (Message, error) {
	for {
		n, err := e.queue.Next(e.buf[:])
		if err != nil {
			return Message{}, err
		}
		if n == 0 {
			if err := e.queue.Wait(ctx); err != nil {
				return Message{}, err
			}
			continue
		}
		if err := ctx.Err(); err != nil { // somebody may never stop talking to us
			return Message{}, err
		}
		m, ok := e.take(e.buf[:n])
		switch {
		case !ok:
		case m.Type() == mctp.Control:
			e.control(ctx, m)
		default:
			return m, nil
		}
	}
}

// flush forgets what was received.
func (e *Endpoint) flush() error {
	e.asm = mctp.Assembler{}
	for range 1000 { // more than any queue holds
		switch n, err := e.queue.Next(e.buf[:]); {
		case err != nil:
			return err
		case n == 0:
			return nil
		}
		e.o.Logger.Debug("i2c: dropped what came before the request")
	}
	return nil
}

// take returns the message that a frame completes, if it is to us.
func (e *Endpoint) take(b []byte) (Message, bool) {
	f, err := ParseFrame(b)
	if err != nil {
		e.drop(b, err)
		return Message{}, false
	}
	p := f.Packet
	switch {
	case f.Dest != e.o.Own:
		e.drop(b, errOtherAddress)
		return Message{}, false
	case p.Dest != mctp.Null && p.Dest != e.o.EID:
		e.drop(b, errOtherEndpoint)
		return Message{}, false
	case e.o.Addr != 0 && f.Src != e.o.Addr && !control(p):
		e.drop(b, errOtherSource)
		return Message{}, false
	}
	m, ok, err := e.asm.Add(p)
	if err != nil {
		e.drop(b, err)
		return Message{}, false
	}
	e.o.Logger.Debug("i2c: frame received", "frame", hexBytes(b))
	return Message{Addr: f.Src, Message: m}, ok
}

// control reports whether a packet is a whole control message: they all fit
// into one.
func control(p mctp.Packet) bool {
	return p.SOM && p.EOM && mctp.Type(p.Payload[0]) == mctp.Control
}

// control answers a control message, if we are somebody.
func (e *Endpoint) control(ctx context.Context, m Message) {
	if !m.TO {
		return
	}
	var answer []byte
	if e.o.EID != mctp.Null {
		answer = mctp.AnswerControl(m.Body, e.o.EID)
	}
	e.o.Logger.Debug("i2c: MCTP control message", "addr", m.Addr, "eid", uint8(m.Src), "body", hexBytes(m.Body), "answer", hexBytes(answer))
	if answer == nil {
		return
	}
	err := e.Send(ctx, Message{m.Addr, mctp.Message{Dest: m.Src, Src: e.o.EID, Tag: m.Tag, Body: answer}})
	if err != nil {
		e.o.Logger.Warn("i2c: an MCTP control message was not answered", "err", err)
	}
}
