// SPDX-License-Identifier: Apache-2.0

package bus

import (
	"context"
	"errors"
	"slices"

	"github.com/bluefield-go/bmc-rshim/dbus/wire"
)

// handler is what serves a call.
type handler func(ctx context.Context, c *Call) ([]any, error)

// answer is what there is to answer to a call: body, or what handle returns.
type answer struct {
	body   []any
	handle handler
	out    wire.Signature // of what handle returns
}

// dispatch serves a call: at once what needs no handler, else in a goroutine.
// The connection's reader waits for it.
func (s *Service) dispatch(ctx context.Context, c *conn, in *incoming) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, err := s.find(in)
	if err == nil && a.handle != nil {
		if err = s.begin(ctx, c, in, a); err == nil {
			return
		}
	}
	in.discard()
	if err == nil && in.Flags&wire.NoReplyExpected == 0 {
		// Queued with s.mu held: what changes later is told later.
		m := &wire.Message{Type: wire.MethodReturn, Flags: wire.NoReplyExpected, ReplySerial: in.Serial, Destination: in.Sender, Body: a.body}
		if e := c.post(m, nil, nil); e != nil && !errors.Is(e, ErrClosed) && !errors.Is(e, ErrFull) {
			err = s.busError(e)
		}
	}
	if err != nil {
		c.refuse(in, err, nil)
	}
}

// begin starts the goroutine of a handler, unless there are too many. s.mu is held.
func (s *Service) begin(ctx context.Context, c *conn, in *incoming, a answer) *Error {
	if s.atWork >= s.o.MaxCalls || s.callers[in.Sender] >= s.o.MaxCallsPerCaller {
		return Errorf(ErrNameLimitsExceeded, "too many calls are in progress")
	}
	s.atWork++
	s.callers[in.Sender]++
	s.calls.Go(func() {
		s.work(ctx, &Call{Path: in.Path, Sender: in.Sender, Args: in.Body, c: c, in: in}, a)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.atWork--
		if s.callers[in.Sender]--; s.callers[in.Sender] == 0 {
			delete(s.callers, in.Sender)
		}
	})
	return nil
}

// find returns the answer to a call. s.mu is held.
func (s *Service) find(in *incoming) (answer, *Error) {
	if a, found, err := s.standard(in); found || err != nil {
		return a, err
	}
	o := s.objects[in.Path]
	if o == nil {
		if !s.node(in.Path) {
			return answer{}, Errorf(ErrNameUnknownObject, "no object %s", in.Path)
		}
		return answer{}, Errorf(ErrNameUnknownInterface, "%s has no interface %q", in.Path, in.Interface)
	}
	known := false
	for _, e := range o.interfaces {
		if in.Interface != "" && in.Interface != e.Name {
			continue
		}
		known = true
		i := slices.IndexFunc(e.Methods, func(m Method) bool { return m.Name == in.Member })
		if i < 0 {
			continue
		}
		m := e.Methods[i]
		if m.In != in.Signature {
			return answer{}, Errorf(ErrNameInvalidArgs, "%s takes %q, not %q", m.Name, m.In, in.Signature)
		}
		return answer{handle: m.Handle, out: m.Out}, nil
	}
	if !known {
		return answer{}, Errorf(ErrNameUnknownInterface, "%s has no interface %q", in.Path, in.Interface)
	}
	return answer{}, Errorf(ErrNameUnknownMethod, "no method %s of %q at %s", in.Member, in.Interface, in.Path)
}

// node reports whether there is an object at path or below. s.mu is held.
func (s *Service) node(path wire.ObjectPath) bool {
	if path == "/" || s.objects[path] != nil || slices.Contains(s.managers, path) {
		return true
	}
	for p := range s.objects {
		if p.Below(path) {
			return true
		}
	}
	return slices.ContainsFunc(s.managers, func(m wire.ObjectPath) bool { return m.Below(path) })
}
