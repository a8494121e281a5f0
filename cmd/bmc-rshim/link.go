// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bluefield-go/bmc-rshim/internal/devnode"
)

// sending is what is to be sent: bytes, then a break, then a wait until the DPU
// has taken all.
type sending struct {
	data       []byte
	brk, drain bool
}

// link is an open console, until it goes away. The zero value is none.
type link struct {
	f       *os.File
	input   chan sending
	drained chan struct{} // after a drain
	heard   chan struct{} // the DPU has printed something
	done    chan struct{} // closed at the end; then
	err     error         // why, and
	unsent  sending       // what remains of the last
}

// consoleSource is where consoles are opened.
type consoleSource interface {
	openConsole(ctx context.Context, replay bool) (f *os.File, unkept, err error)
}

// openConsole opens the console for nonblocking calls, with the output that was
// kept before if replay is set. A daemon that keeps none is no error, but
// reported.
func (n nodes) openConsole(ctx context.Context, replay bool) (f *os.File, unkept, err error) {
	type opened struct {
		f      *os.File
		unkept error
	}
	o, err := blocking(ctx, func() (o opened, err error) {
		o.f, err = os.OpenFile(filepath.Join(n.root, n.name, "console"), os.O_RDWR|syscall.O_NOCTTY|syscall.O_NONBLOCK, 0)
		if err != nil {
			return o, explain(err)
		}
		// A file is what a shell makes of "echo > console" while there is none.
		if st, err := o.f.Stat(); err != nil || st.Mode()&os.ModeCharDevice == 0 {
			o.f.Close()
			return o, exitWith(exitDevice, "%s is not a device", o.f.Name())
		}
		if replay {
			o.unkept = control(o.f, func(fd int) error { return unix.IoctlSetInt(fd, devnode.ConsoleReplay, 0) })
		}
		return o, nil
	})
	return o.f, o.unkept, err
}

// connect links the session to an open console until ctx ends or the console
// goes away.
func (s *session) connect(ctx context.Context, f *os.File) *link {
	l := &link{
		f: f, input: make(chan sending),
		drained: make(chan struct{}, 1), heard: make(chan struct{}, 1), done: make(chan struct{}),
	}
	ctx, end := context.WithCancelCause(ctx)
	// Close ends calls in progress. It may have to wait for the daemon.
	context.AfterFunc(ctx, func() { f.Close() })
	var both sync.WaitGroup
	both.Add(2)
	s.term.guard(func() {
		defer both.Done()
		end(s.receive(l))
	})
	s.term.guard(func() {
		defer both.Done()
		end(s.transmit(ctx, l))
	})
	go func() {
		both.Wait()
		l.err = context.Cause(ctx)
		close(l.done)
	}()
	return l
}

// receive prints and logs what comes from the DPU.
func (s *session) receive(l *link) error {
	p := make([]byte, 32<<10)
	for {
		n, err := l.f.Read(p)
		if n > 0 {
			s.record(p[:n])
			if _, err := s.stdout.Write(p[:n]); err != nil {
				err = fmt.Errorf("output: %w", err)
				s.end(err)
				return err
			}
			s.midLine.Store(p[n-1] != '\n')
			select {
			case l.heard <- struct{}{}:
			default:
			}
		}
		if err != nil {
			return whyGone(err)
		}
	}
}

// whyGone explains the error of a call on a console. Its node goes with the
// daemon, and with a DPU that has been off the bus for some time.
func whyGone(err error) error {
	err = explain(err)
	if err == io.EOF || errors.Is(err, errDaemonGone) {
		return errors.New("the daemon has ended, or the DPU has left the bus")
	}
	return err
}

// record appends p to the log. A log that cannot be written, as on a full disk,
// is tried on, and told of once.
func (s *session) record(p []byte) {
	if s.log == nil {
		return
	}
	if _, err := s.log.Write(p); err != nil && !s.logFailed {
		s.logFailed = true
		s.say("the log is incomplete: %v", err)
	}
}

// transmit sends what comes in over l.input.
func (s *session) transmit(ctx context.Context, l *link) error {
	for {
		select {
		case x := <-l.input:
			if err := s.put(ctx, l, x); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *session) put(ctx context.Context, l *link, x sending) error {
	if s.term == nil && s.o.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.o.timeout)
		defer cancel()
		_ = l.f.SetWriteDeadline(time.Now().Add(s.o.timeout))
	}
	var err error
	if len(x.data) > 0 {
		var n int
		n, err = l.f.Write(x.data)
		x.data = x.data[n:]
	}
	if err == nil && x.brk {
		if err := sendBreak(ctx, l.f, 0); err != nil {
			s.say("%s cannot send a break: %v", s.name, err)
		}
	}
	if err == nil && x.drain {
		err = sendBreak(ctx, l.f, 1)
		if errors.Is(err, syscall.ENOTTY) || errors.Is(err, syscall.ENOSYS) {
			err = nil // there is no telling
		}
	}
	switch {
	case err == nil:
		if x.drain {
			l.drained <- struct{}{}
		}
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		err = exitWith(exitTimeout, "the DPU has taken no input for %v", s.o.timeout)
		s.end(err)
	default:
		l.unsent, err = x, whyGone(err)
	}
	return err
}

// sendBreak waits until the DPU has taken all input and then, if nobreak is 0,
// sends a break: tcsendbreak and tcdrain of the C library.
func sendBreak(ctx context.Context, f *os.File, nobreak int) error {
	for {
		_, err := blocking(ctx, func() (struct{}, error) {
			return struct{}{}, control(f, func(fd int) error { return unix.IoctlSetInt(fd, unix.TCSBRK, nobreak) })
		})
		// The daemon has a limit of its own.
		if !errors.Is(err, syscall.ETIMEDOUT) && !errors.Is(err, syscall.EINTR) || ctx.Err() != nil {
			return err
		}
	}
}
