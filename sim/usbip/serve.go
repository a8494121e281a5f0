// SPDX-License-Identifier: Apache-2.0

package usbip

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
)

// maxPending bounds how many transfers a peer can have under way.
const maxPending = 4096

// errorPause is how long an endpoint rests after a failed transfer, so that
// the kernel can unlink what it has queued behind. A real host controller has
// no such need: it stops until the kernel has seen the failure.
const errorPause = 50 * time.Millisecond

// flushLimit is how long a peer may take to read the last replies.
const flushLimit = 2 * time.Second

// session is one attachment: a connection on which the kernel submits
// transfers, from one enumeration to the end of the device.
type session struct {
	f    *usbdev.Function
	conn io.ReadWriteCloser

	mu      sync.Mutex
	pending map[uint32]*request
	replies [][]byte
	closing bool
	changed chan struct{} // closed, and made anew, when any of these changes
}

// request is a transfer under way.
type request struct {
	urb     usbdev.URB
	seq     uint32
	in      bool
	unlinks []uint32 // CMD_UNLINKs to be answered after it
}

// Serve carries out the transfers that come in on conn, for as long as the
// function stays on the bus as it is in st. When the function leaves, or ctx
// ends, it answers what is under way and closes conn. The error is nil then,
// and also when the peer hangs up.
func Serve(ctx context.Context, conn io.ReadWriteCloser, f *usbdev.Function, st usbdev.State) error {
	s := &session{f: f, conn: conn, pending: map[uint32]*request{}, changed: make(chan struct{})}
	f.SetErrorPause(errorPause)
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(s.write)
	wg.Go(func() { s.guard(ctx, st) })

	err := s.read()
	conn.Close()
	cancel()
	wg.Wait()
	if errors.Is(err, errProtocol) {
		return err
	}
	return nil // hung up, by either side
}

// read takes commands until the connection ends.
func (s *session) read() error {
	var hdr [headerSize]byte
	for {
		if _, err := io.ReadFull(s.conn, hdr[:]); err != nil {
			return err
		}
		c, err := decode(hdr[:])
		if err != nil {
			return err
		}
		if c.Command == cmdUnlink {
			s.unlink(c)
			continue
		}
		data := make([]byte, c.Length)
		if !c.In {
			if _, err := io.ReadFull(s.conn, data); err != nil {
				return err
			}
		}
		if err := s.submit(c, data); err != nil {
			return err
		}
	}
}

func (s *session) submit(c command, data []byte) error {
	r := &request{seq: c.Seq, in: c.In}
	r.urb = usbdev.URB{Endpoint: c.address(), Setup: c.Setup, Data: data, Complete: func(*usbdev.URB) { s.complete(r) }}
	s.mu.Lock()
	if s.pending[c.Seq] != nil || len(s.pending) >= maxPending {
		s.mu.Unlock()
		return fmt.Errorf("%w: sequence number %d with %d transfers pending", errProtocol, c.Seq, len(s.pending))
	}
	s.pending[c.Seq] = r
	s.mu.Unlock()
	if err := s.f.Submit(&r.urb); err != nil {
		r.urb.Err = err
		s.complete(r)
	}
	return nil
}

// complete answers a transfer that has ended, and then those who wanted it
// unlinked. The order matters: RET_UNLINK gives a transfer back without a byte
// count, so that the count must be there before.
func (s *session) complete(r *request) {
	status := status(r.urb.Err)
	b := submitReply(r.seq, status, r.urb.Actual)
	if r.in {
		b = append(b, r.urb.Data[:r.urb.Actual]...)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.pending, r.seq)
	s.replies = append(s.replies, b)
	for _, seq := range r.unlinks {
		s.replies = append(s.replies, unlinkReply(seq, status))
	}
	s.ring()
}

// unlink ends a transfer early. One that is not pending has been answered.
func (s *session) unlink(c command) {
	s.mu.Lock()
	r := s.pending[c.Victim]
	if r == nil {
		s.replies = append(s.replies, unlinkReply(c.Seq, 0))
		s.ring()
		s.mu.Unlock()
		return
	}
	r.unlinks = append(r.unlinks, c.Seq)
	s.mu.Unlock()
	s.f.Unlink(&r.urb)
}

// write sends replies until the session is closing and all has been said, or
// the connection fails. Then it closes the connection.
func (s *session) write() {
	defer s.conn.Close()
	for {
		s.mu.Lock()
		replies, done, changed := s.replies, s.closing, s.changed
		s.replies = nil
		s.mu.Unlock()
		for _, b := range replies {
			if _, err := s.conn.Write(b); err != nil {
				return
			}
		}
		if len(replies) > 0 {
			continue
		}
		if done {
			return
		}
		<-changed
	}
}

// guard ends the session when ctx ends or the function is not what it was.
// Nothing stays pending.
func (s *session) guard(ctx context.Context, st usbdev.State) {
	for {
		now, changed := s.f.State()
		if !now.Present || now.Epoch != st.Epoch {
			break
		}
		select {
		case <-changed:
			continue
		case <-ctx.Done():
		}
		break
	}
	s.mu.Lock()
	var left []*request
	for _, r := range s.pending {
		left = append(left, r)
	}
	s.mu.Unlock()
	for _, r := range left {
		s.f.Unlink(&r.urb)
	}
	s.mu.Lock()
	for len(s.pending) > 0 {
		changed := s.changed
		s.mu.Unlock()
		<-changed
		s.mu.Lock()
	}
	s.closing = true
	s.ring()
	s.mu.Unlock()
	time.AfterFunc(flushLimit, func() { s.conn.Close() })
}

// ring tells of a change. The caller holds mu.
func (s *session) ring() {
	close(s.changed)
	s.changed = make(chan struct{})
}
