// SPDX-License-Identifier: Apache-2.0

package bus

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/bluefield-go/bmc-rshim/dbus/wire"
)

// Call is a method call, or the writing of a property, being served. It is for
// its handler's goroutine, and for as long as that runs.
type Call struct {
	Path   wire.ObjectPath
	Sender string // the caller's unique name
	Args   []any

	c        *conn
	in       *incoming
	attached []int // file descriptors of the reply
	after    []func(sent bool)
}

// UID asks the bus for the caller's user id.
func (c *Call) UID(ctx context.Context) (uint32, error) { return c.c.uid(ctx, c.Sender) }

// TakeFile returns the file that an argument of type h stands for. It is the
// handler's to close; those that no handler takes are closed after it has
// returned. A file may be taken once. It is blocking or not as the caller has
// made it.
func (c *Call) TakeFile(i wire.FD) (*os.File, error) {
	if int64(i) >= int64(len(c.in.fds)) || c.in.fds[i] < 0 {
		return nil, Errorf(ErrNameInvalidArgs, "there is no file descriptor %d", i)
	}
	f := os.NewFile(uintptr(c.in.fds[i]), fmt.Sprintf("fd %d of %s", i, c.Sender))
	c.in.fds[i] = -1
	return f, nil
}

// AttachFile sends a duplicate of f with the reply and returns the value of type
// h that stands for it. f remains the handler's.
func (c *Call) AttachFile(f *os.File) (wire.FD, error) {
	if len(c.attached) == wire.MaxFDs {
		return 0, fmt.Errorf("%w: more than %d files", wire.ErrLimit, wire.MaxFDs)
	}
	fd, err := duplicate(f)
	if err != nil {
		return 0, err
	}
	c.attached = append(c.attached, fd)
	return wire.FD(len(c.attached) - 1), nil
}

// AfterReply has f called when the reply has been handed to the bus, or can be
// no more (sent is false). It runs in the handler's goroutine, and Run waits for
// it.
func (c *Call) AfterReply(f func(sent bool)) { c.after = append(c.after, f) }

// work is what a handler's goroutine does: its work, the reply, and what comes after it.
func (s *Service) work(ctx context.Context, call *Call, a answer) {
	body, err := a.handle(ctx, call)
	call.in.discard()
	sent := make(chan bool, 1)
	if err == nil {
		err = s.reply(call, a.out, body, sent)
	}
	if err != nil {
		closeFDs(call.attached)
		call.attached = nil
		call.c.refuse(call.in, s.busError(err), func(ok bool) { sent <- ok })
	}
	if call.after != nil {
		ok := <-sent
		for _, f := range call.after {
			f(ok)
		}
	}
}

// reply queues a handler's answer. An error means that there is none yet. What there is of
// file descriptors is closed then, or sent.
func (s *Service) reply(call *Call, out wire.Signature, body []any, sent chan<- bool) error {
	sig, err := wire.SignatureOf(body...)
	if err == nil && sig != out {
		err = fmt.Errorf("handler answers %q, not %q", sig, out)
	}
	if err != nil {
		s.o.Log.Error("reply", "path", call.Path, "member", call.in.Member, "err", err)
		return err
	}
	fds := call.attached
	call.attached = nil
	if call.in.Flags&wire.NoReplyExpected != 0 {
		closeFDs(fds)
		sent <- true
		return nil
	}
	m := &wire.Message{Type: wire.MethodReturn, Flags: wire.NoReplyExpected, ReplySerial: call.in.Serial, Destination: call.Sender, Body: body}
	err = call.c.post(m, fds, func(ok bool) { sent <- ok })
	if errors.Is(err, wire.ErrInvalid) || errors.Is(err, wire.ErrLimit) {
		s.o.Log.Error("reply", "path", call.Path, "member", call.in.Member, "err", err)
		return err
	}
	return nil
}

// busError gives an error its name on the bus.
func (s *Service) busError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if s.o.MapError != nil {
		if e := s.o.MapError(err); e != nil {
			return e
		}
	}
	if errors.Is(err, wire.ErrLimit) {
		return &Error{ErrNameLimitsExceeded, err.Error()}
	}
	return &Error{ErrNameInternalFailure, err.Error()}
}
