// SPDX-License-Identifier: Apache-2.0

// Package fdread reads from a file descriptor that came from elsewhere, standard
// input or over D-Bus, so that a Read that waits for the other side of a pipe
// ends with a context.
package fdread

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Reader reads from a file of any kind. Its methods are for one goroutine at a
// time, but for Close.
type Reader struct {
	f    *os.File
	kind kind
}

type kind uint8

const (
	regular kind = iota // never waits
	poller              // Go's poller interrupts it
	polled              // it can only be asked whether there is something to read
)

// New makes a reader of fd, which stays the caller's: it may be closed at once.
// The file's offset is shared with the caller, its flags are left alone. name is
// for errors.
func New(fd uintptr, name string) (*Reader, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(fd), &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: name, Err: err}
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return nil, &os.PathError{Op: "read", Path: name, Err: unix.EISDIR}
	case unix.S_IFIFO:
		// The flag that makes it interruptible belongs to whoever shares the
		// open file. A pipe can be opened anew, and is private then.
		own, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err == nil {
			return &Reader{os.NewFile(uintptr(own), name), poller}, nil
		}
	}
	own, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "dup", Path: name, Err: err}
	}
	r := &Reader{os.NewFile(uintptr(own), name), polled}
	if k := st.Mode & unix.S_IFMT; k == unix.S_IFREG || k == unix.S_IFBLK {
		r.kind = regular
	}
	return r, nil
}

// Regular returns the file if it is a regular one, or a disk, so that it can be
// read twice; otherwise nil. It is closed by Close.
func (r *Reader) Regular() *os.File {
	if r.kind != regular {
		return nil
	}
	return r.f
}

// Read reads what there is, at most len(p) bytes, and waits for the first of
// them until ctx ends, whose error it returns then; nothing is lost by that. The
// end of the file is io.EOF.
func (r *Reader) Read(ctx context.Context, p []byte) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	switch r.kind {
	case poller:
		return r.readDeadline(ctx, p)
	case polled:
		if err := r.wait(ctx); err != nil {
			return 0, err
		}
	}
	return r.f.Read(p)
}

func (r *Reader) readDeadline(ctx context.Context, p []byte) (int, error) {
	set := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(set)
		_ = r.f.SetReadDeadline(time.Unix(1, 0))
	})
	n, err := r.f.Read(p)
	if !stop() {
		<-set
		_ = r.f.SetReadDeadline(time.Time{}) // for the next Read
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = ctx.Err()
		}
	}
	return n, err
}

// pollPause is how long an end of the context may go unnoticed.
const pollPause = 100 * time.Millisecond

// wait waits until a Read would not. Should somebody else who has the file open
// be quicker to read, then it waits after all.
func (r *Reader) wait(ctx context.Context) error {
	c, err := r.f.SyscallConn()
	if err != nil {
		return err
	}
	for {
		n, perr := 0, error(nil)
		err := c.Control(func(fd uintptr) {
			n, perr = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(pollPause.Milliseconds()))
		})
		switch {
		case err != nil:
			return err
		case perr != nil && perr != unix.EINTR:
			return &os.PathError{Op: "poll", Path: r.f.Name(), Err: perr}
		case n > 0:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		}
	}
}

// Close closes the reader. A Read that waits returns.
func (r *Reader) Close() error { return r.f.Close() }
