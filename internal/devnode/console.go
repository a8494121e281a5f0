// SPDX-License-Identifier: Apache-2.0

package devnode

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"syscall"
	"time"

	"github.com/bluefield-go/bmc-rshim/internal/cuse"
	"github.com/bluefield-go/bmc-rshim/rshim"
)

// ConsoleReplay is the ioctl, without an argument, that has an open console
// begin anew with the oldest output that is kept.
const ConsoleReplay = 0x5210 // _IO('R', 16)

// consoleDevice is /dev/rshimN/console: a terminal to programs, and bytes as
// they come and go to the DPU, whatever the terminal's settings say. Any number
// may have it open, also after TIOCEXCL, and while there is no DPU.
//
// A signal ends a read or write that waits with EINTR, even where the handler
// has SA_RESTART: CUSE has no way to restart a call.
type consoleDevice struct {
	c   *rshim.Console
	tty *tty
	log *slog.Logger
}

func (d consoleDevice) Open(_ context.Context, flags uint32) (cuse.File, error) {
	if flags&syscall.O_ACCMODE == syscall.O_WRONLY {
		return &consoleFile{d, d.c.OpenInput()}, nil
	}
	return &consoleFile{d, d.c.Open(false)}, nil
}

type consoleFile struct {
	consoleDevice
	cc *rshim.ConsoleConn
}

// ended is the context of calls that must not wait.
var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

func (f *consoleFile) Read(ctx context.Context, p []byte, off int64) (int, error) {
	switch {
	case off > 0: // the first piece was full: this one must not wait
		n, _ := f.cc.Read(ended, p)
		if n == 0 {
			return 0, io.EOF
		}
		return n, nil
	case cuse.Nonblocking(ctx):
		return now(f.cc.Read(ended, p))
	}
	return f.cc.Read(ctx, p)
}

func (f *consoleFile) Write(ctx context.Context, p []byte, _ int64) (int, error) {
	if cuse.Nonblocking(ctx) {
		return now(f.cc.Write(ended, p))
	}
	return f.cc.Write(ctx, p)
}

// now turns the result of a call that did not wait into that of O_NONBLOCK.
func now(n int, err error) (int, error) {
	if n == 0 && errors.Is(err, context.Canceled) {
		return 0, syscall.EAGAIN
	}
	return n, nil
}

// The bits of poll(2), which are the same on all machines that have a BMC.
const (
	pollIn  = 0x001 | 0x040 // POLLIN, POLLRDNORM
	pollOut = 0x004 | 0x100 // POLLOUT, POLLWRNORM
)

func (f *consoleFile) Poll(events uint32, wake func()) (ready uint32) {
	f.cc.Watch(wake) // first, so that nothing that comes meanwhile is missed
	if f.cc.Readable() {
		ready |= pollIn
	}
	if f.cc.Writable() {
		ready |= pollOut
	}
	return ready & events
}

func (f *consoleFile) Release(context.Context) {
	f.cc.Close()
	if n := f.cc.Lost(); n > 0 {
		f.log.Warn("a reader was too slow, and lost output", "op", "console read", "bytes", n)
	}
}

// drainLimit is how long tcdrain waits for a DPU that takes no input.
const drainLimit = 30 * time.Second

// drain waits until all input has been sent.
func (f *consoleFile) drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, drainLimit)
	defer cancel()
	return f.cc.Drain(ctx)
}
