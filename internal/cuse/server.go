// SPDX-License-Identifier: Apache-2.0

package cuse

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Server serves one node from a Device.
type Server struct {
	o     Options
	d     Device
	log   *slog.Logger
	ready chan struct{}
}

// New returns a Server of d. It does nothing before Run.
func New(o Options, d Device) *Server {
	o.DevPath = cmp.Or(o.DevPath, "/dev/cuse")
	log := cmp.Or(o.Logger, slog.New(slog.DiscardHandler)).With("device", o.Name)
	return &Server{o: o, d: d, log: log, ready: make(chan struct{})}
}

// Ready returns a channel that is closed when the node exists and may be
// opened. If Run fails before, it never is.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Run creates the node and serves it until ctx ends (nil) or something fails
// (an *OpError, see the Err variables). It may be called once. When it
// returns, the node is gone, no call of the Device is in progress, all Files
// are released and no goroutine is left.
func (s *Server) Run(ctx context.Context) error {
	if !validName(s.o.Name) {
		return s.fail("open", fmt.Errorf("%q cannot name a node", s.o.Name))
	}
	f, err := os.OpenFile(s.o.DevPath, os.O_RDWR|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		return s.fail("open", fmt.Errorf("%w (%w)", ErrUnavailable, err))
	case err != nil:
		return s.fail("open", err)
	}
	return s.serve(ctx, f)
}

// serve is Run on an open channel to the kernel, which it closes.
func (s *Server) serve(ctx context.Context, f *os.File) error {
	// Closing the channel removes the node and fails every call in progress.
	// It comes before the contexts of these calls end, so that their callers
	// get one answer in all cases, and returns when it is done.
	closeFile := sync.OnceFunc(func() { f.Close() })
	defer context.AfterFunc(ctx, closeFile)()

	calls, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c := &conn{
		f: f, d: s.d, log: s.log, ctx: calls,
		files:   make(map[uint64]*file),
		running: make(map[uint64]context.CancelFunc),
	}
	err := s.start(c)
	if err == nil {
		err = s.fail("serve", c.loop())
	}
	closeFile()
	cancel()
	c.calls.Wait()
	c.releaseAll()
	if ctx.Err() != nil {
		return nil // whatever the closed channel made of it
	}
	return err
}

// start shakes hands with the kernel, which makes it create the node.
func (s *Server) start(c *conn) error {
	// Without the poller a read would hold a thread and outlast a Close.
	err := c.f.SetReadDeadline(time.Time{})
	if err != nil {
		return s.fail("open", fmt.Errorf("%s cannot be polled: %w", s.o.DevPath, err))
	}
	if c.raw, err = c.f.SyscallConn(); err != nil {
		return s.fail("open", err)
	}
	node := filepath.Join(filepath.Dir(s.o.DevPath), s.o.Name)
	if err := s.clear(node); err != nil {
		return s.fail("init", err)
	}
	if err := c.init(s.o); err != nil {
		return s.fail("init", err)
	}
	if err := taken(node); err != nil {
		return s.fail("init", err)
	}
	if s.o.GID != 0 {
		if err := os.Chown(node, -1, s.o.GID); err != nil {
			return s.fail("permit", err)
		}
		if err := os.Chmod(node, 0o660); err != nil {
			return s.fail("permit", err)
		}
	}
	close(s.ready)
	return nil
}

// clear removes a regular file that has the node's name. A shell makes one when
// something is redirected to a node that is not there; the kernel then creates
// the device without its node, and does not say so, and what is written goes
// to memory.
func (s *Server) clear(node string) error {
	st, err := os.Lstat(node)
	if err != nil || !st.Mode().IsRegular() {
		return nil
	}
	s.log.Warn("a file is where the node belongs, removing it", "op", "init", "bytes", st.Size())
	return os.Remove(node)
}

// taken fails when something else than a character device has the node's name:
// it has come just before the node, or clear does not remove its kind.
func taken(node string) error {
	st, err := os.Lstat(node)
	if err != nil || st.Mode()&fs.ModeCharDevice != 0 {
		return nil
	}
	return fmt.Errorf("%w (%s is %v)", ErrRefused, node, st.Mode())
}

func (s *Server) fail(op string, err error) error {
	return &OpError{Op: op, Device: s.o.Name, Err: err}
}

// validName keeps out what the kernel would read as something else: it trims
// spaces, and turns '!' into a slash.
func validName(name string) bool {
	odd := func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '!' }
	return fs.ValidPath(name) && name != "." && len(name) < 256 && !strings.ContainsFunc(name, odd)
}
