// SPDX-License-Identifier: Apache-2.0

package uevent

import (
	"testing"

	"golang.org/x/sys/unix"
)

// NewConn is Listen on a socket of the test's own, whose other end is trusted.
func NewConn(fd int, subsystems ...string) (*Conn, error) {
	return newConn(fd, func(unix.Sockaddr) bool { return true }, subsystems)
}

// Parse is parse.
var Parse = parse

// PortID returns the socket's netlink address.
func (c *Conn) PortID(t *testing.T) (id uint32) {
	t.Helper()
	c.raw.Control(func(fd uintptr) {
		sa, err := unix.Getsockname(int(fd))
		if err != nil {
			t.Fatal(err)
		}
		id = sa.(*unix.SockaddrNetlink).Pid
	})
	return id
}

// SetReadBuffer makes room for n bytes of events, rounded up by the kernel.
func (c *Conn) SetReadBuffer(t *testing.T, n int) {
	t.Helper()
	c.raw.Control(func(fd uintptr) {
		if err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, n); err != nil {
			t.Fatal(err)
		}
	})
}
