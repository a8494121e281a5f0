// SPDX-License-Identifier: Apache-2.0

// Package uevent listens to the kernel's announcements of devices that come
// and go, without udev.
package uevent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrLost is returned when the kernel had more to tell than fits into the
// socket, or told something too long: the caller should look for itself.
// Receive may be called again.
var ErrLost = errors.New("uevents were lost")

// maxMessage is more than the kernel sends: UEVENT_BUFFER_SIZE of
// include/linux/kobject.h is 2048, and the path of a device comes on top.
const maxMessage = 8192

// kernelGroup is the multicast group of the kernel's own messages; udevd sends
// its to another.
const kernelGroup = 1

// Conn is a socket that hears of events. Close ends a Receive.
type Conn struct {
	file       *os.File
	raw        syscall.RawConn
	subsystems []string
	trusted    func(unix.Sockaddr) bool
	buf        []byte
}

// Listen returns a Conn that hears of events of the given subsystems, or of
// all if there are none.
func Listen(subsystems ...string) (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, os.NewSyscallError("uevent socket", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: kernelGroup}); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("uevent bind", err)
	}
	return newConn(fd, fromKernel, subsystems)
}

// newConn takes over a non-blocking socket.
func newConn(fd int, trusted func(unix.Sockaddr) bool, subsystems []string) (*Conn, error) {
	f := os.NewFile(uintptr(fd), "uevent")
	raw, err := f.SyscallConn()
	if err == nil {
		err = f.SetReadDeadline(time.Time{}) // fails if the runtime's poller did not take it
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &Conn{file: f, raw: raw, subsystems: subsystems, trusted: trusted, buf: make([]byte, maxMessage)}, nil
}

// fromKernel tells whether a message is the kernel's. Any process may send to
// our socket, but not in the kernel's name.
func fromKernel(sa unix.Sockaddr) bool {
	nl, ok := sa.(*unix.SockaddrNetlink)
	return ok && nl.Pid == 0
}

// Receive waits for the next event until ctx ends. The error is ctx's, ErrLost,
// or os.ErrClosed after Close. It must not be called from several goroutines.
func (c *Conn) Receive(ctx context.Context) (Event, error) {
	if err := ctx.Err(); err != nil {
		return Event{}, err
	}
	if err := c.file.SetReadDeadline(time.Time{}); err != nil {
		return Event{}, os.ErrClosed
	}
	expired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		c.file.SetReadDeadline(time.Unix(1, 0))
		close(expired)
	})
	defer func() {
		if !stop() {
			<-expired // or it would expire the next Receive
		}
	}()
	for {
		e, err := c.receive()
		switch {
		case errors.Is(err, errFormat):
			continue
		case err != nil && ctx.Err() != nil:
			return Event{}, ctx.Err()
		case err != nil:
			return Event{}, err
		case len(c.subsystems) == 0 || slices.Contains(c.subsystems, e.Subsystem()):
			return e, nil
		}
	}
}

// receive waits for one message. The error is errFormat when it is of no
// interest.
func (c *Conn) receive() (Event, error) {
	var n, flags int
	var from unix.Sockaddr
	var err error
	waitErr := c.raw.Read(func(fd uintptr) (done bool) {
		n, _, flags, from, err = unix.Recvmsg(int(fd), c.buf, nil, 0)
		return err != unix.EAGAIN && err != unix.EINTR
	})
	switch {
	case errors.Is(waitErr, os.ErrDeadlineExceeded):
		return Event{}, waitErr
	case waitErr != nil:
		return Event{}, os.ErrClosed // what it says is internal to package os
	case err == unix.ENOBUFS:
		return Event{}, ErrLost
	case err != nil:
		return Event{}, fmt.Errorf("uevent: %w", err)
	case !c.trusted(from):
		return Event{}, errFormat
	case flags&unix.MSG_TRUNC != 0:
		return Event{}, ErrLost
	}
	return parse(c.buf[:n])
}

// Close closes the socket and ends a Receive with os.ErrClosed.
func (c *Conn) Close() error { return c.file.Close() }
