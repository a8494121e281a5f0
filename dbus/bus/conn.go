// SPDX-License-Identifier: Apache-2.0

package bus

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bluefield-go/bmc-rshim/dbus/wire"
)

// conn is a connection with its queue and the calls that wait for an answer:
// what services and clients have in common.
type conn struct {
	*link
	out   *outbox
	stuck time.Duration // how long the bus may leave what is sent to it unread

	// Called by the reader, which waits for them. They own the message.
	onCall, onSignal func(ctx context.Context, in *incoming)
	// refill is asked for more by the writer when the queue is empty. May be nil.
	refill func()

	serial atomic.Uint32

	mu      sync.Mutex
	pending map[uint32]chan *incoming // by serial number
	err     error                     // why it is dead
	cancel  context.CancelCauseFunc   // of run
	dead    chan struct{}             // closed when nothing is received any more
}

func newConn(l *link, stuck time.Duration) *conn {
	c := &conn{link: l, out: newOutbox(), stuck: stuck, pending: make(map[uint32]chan *incoming), dead: make(chan struct{})}
	c.serial.Store(1) // Hello
	return c
}

// run sends and receives until ctx is done or the connection breaks. The
// connection is closed then.
func (c *conn) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c.mu.Lock()
	c.cancel = cancel
	err := c.err
	c.mu.Unlock()
	if err != nil { // closed before
		return err
	}
	stop := context.AfterFunc(ctx, func() { c.sock.Close() })
	defer stop()

	var writer sync.WaitGroup
	writer.Go(func() { cancel(c.write(ctx)) })
	cancel(c.read(ctx))
	writer.Wait()
	err = context.Cause(ctx)
	c.fail(err)
	return err
}

// fail ends the connection for a reason; only the first counts.
func (c *conn) fail(err error) {
	c.mu.Lock()
	first, cancel := c.err == nil, c.cancel
	if first {
		c.err = err
		close(c.dead)
	}
	c.mu.Unlock()
	if cancel != nil {
		cancel(err)
	}
	if first {
		c.sock.Close()
		c.out.close()
	}
}

func (c *conn) read(ctx context.Context) error {
	for {
		in, err := c.receive()
		if err != nil {
			if gone(err) {
				err = ErrClosed
			}
			return &OpError{"receive", c.address, err}
		}
		switch in.Type {
		case wire.MethodReturn, wire.Error:
			c.answered(in)
		case wire.MethodCall:
			c.called(ctx, in)
		case wire.Signal:
			c.onSignal(ctx, in)
		default:
			in.discard()
		}
	}
}

// called passes a call on, unless it is too big or no valid one. No more is read
// while the answers to those before do not go away.
func (c *conn) called(ctx context.Context, in *incoming) {
	if c.out.waitRoom(ctx) != nil {
		in.discard()
		return
	}
	if in.err == nil {
		c.onCall(ctx, in)
		return
	}
	in.discard()
	name := ErrNameInvalidArgs
	if errors.Is(in.err, wire.ErrLimit) {
		name = ErrNameLimitsExceeded
	}
	c.refuse(in, &Error{name, in.err.Error()}, nil)
}

func (c *conn) write(ctx context.Context) error {
	for {
		p, ok := c.out.take()
		if ok {
			err := c.sock.write(p.b, p.fds, c.stuck)
			p.finish(err == nil)
			if err != nil {
				if os.IsTimeout(err) {
					err = ErrFull
				}
				return &OpError{"send", c.address, err}
			}
			continue
		}
		if c.refill != nil {
			c.refill()
		}
		select {
		case <-c.out.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// answered gives a reply to who waits for it.
func (c *conn) answered(in *incoming) {
	c.mu.Lock()
	reply := c.pending[in.ReplySerial]
	delete(c.pending, in.ReplySerial)
	if reply != nil {
		reply <- in // has room for it
	}
	c.mu.Unlock()
	if reply == nil {
		in.discard()
	}
}

// post encodes and queues a message. The file descriptors are closed in any
// case. done, which may be nil, is called unless the message does not encode.
func (c *conn) post(m *wire.Message, fds []int, done func(sent bool)) error {
	if m.Serial == 0 {
		m.Serial = c.nextSerial()
	}
	m.FDs = uint32(len(fds))
	b, err := m.Append(nil, binary.LittleEndian)
	if err != nil {
		closeFDs(fds)
		return err // done is not called: something else may be sent instead
	}
	err = c.out.put(parcel{b, fds, done})
	if err == ErrFull {
		c.fail(&OpError{"send", c.address, err})
	}
	return err
}

func (c *conn) nextSerial() uint32 {
	for {
		if n := c.serial.Add(1); n != 0 {
			return n
		}
	}
}

// call sends a method call and waits for the answer, which may be an error.
func (c *conn) call(ctx context.Context, m *wire.Message, fds []int) (*incoming, error) {
	if err := c.out.waitRoom(ctx); err != nil {
		closeFDs(fds)
		return nil, &OpError{"call " + m.Member, c.address, err}
	}
	m.Type, m.Serial = wire.MethodCall, c.nextSerial()
	if m.Flags&wire.NoReplyExpected != 0 {
		if err := c.post(m, fds, nil); err != nil {
			return nil, &OpError{"call " + m.Member, c.address, err}
		}
		return nil, nil
	}
	reply := make(chan *incoming, 1)
	c.mu.Lock()
	c.pending[m.Serial] = reply
	c.mu.Unlock()
	err := c.post(m, fds, nil)
	if err == nil {
		select {
		case in := <-reply:
			if err := in.remote(); err != nil {
				in.discard()
				return nil, err
			}
			return in, nil
		case <-ctx.Done():
			err = ctx.Err()
		case <-c.dead:
			err = c.closed()
		}
	}
	c.mu.Lock()
	delete(c.pending, m.Serial)
	c.mu.Unlock()
	select {
	case in := <-reply: // it came all the same, but too late
		in.discard()
	default:
	}
	return nil, &OpError{"call " + m.Member, c.address, err}
}

// closed returns ErrClosed with what has closed the connection.
func (c *conn) closed() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil || errors.Is(c.err, ErrClosed) || errors.Is(c.err, context.Canceled) {
		return ErrClosed
	}
	return fmt.Errorf("%w: %w", ErrClosed, c.err)
}

// ask calls a method of the bus itself.
func (c *conn) ask(ctx context.Context, member string, args ...any) (any, error) {
	in, err := c.call(ctx, &wire.Message{Destination: driver, Path: driverPath, Interface: driver, Member: member, Body: args}, nil)
	if err != nil {
		return nil, err
	}
	in.discard()
	return in.single(), nil
}

// owner returns the unique name of a name's owner, or "".
func (c *conn) owner(ctx context.Context, name string) (string, error) {
	v, err := c.ask(ctx, "GetNameOwner", name)
	if e, ok := err.(*Error); ok && e.Name == ErrNameNameHasNoOwner {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	owner, ok := v.(string)
	if !ok {
		return "", &OpError{"call GetNameOwner", c.address, fmt.Errorf("bus answers %v", v)}
	}
	return owner, nil
}

// refuse answers a call with an error, unless no answer is wanted; done is
// called in any case, and may be nil.
func (c *conn) refuse(in *incoming, e *Error, done func(sent bool)) {
	if in.Flags&wire.NoReplyExpected != 0 {
		parcel{done: done}.finish(true)
		return
	}
	name, text := e.Name, e.Message
	if !wire.ValidInterface(name) {
		name = ErrNameFailed
	}
	if !wire.ValidString(text) {
		text = fmt.Sprintf("%q", text)
	}
	m := &wire.Message{Type: wire.Error, Flags: wire.NoReplyExpected, ReplySerial: in.Serial, Destination: in.Sender, ErrorName: name, Body: []any{clip(text)}}
	// It is valid. If it is not sent for other reasons, nothing will be any more.
	_ = c.post(m, nil, done)
}

// clip shortens a text that is too long for an error.
func clip(s string) string {
	const most = 8 << 10
	if len(s) <= most {
		return s
	}
	n := most
	for n > 0 && s[n]&0xc0 == 0x80 {
		n--
	}
	return s[:n] + "..."
}
