// SPDX-License-Identifier: Apache-2.0

package netlink

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPort proves that no socket gets the port of one before it, to which the
// kernel may still send.
func TestPort(t *testing.T) {
	seen := make(map[uint32]bool)
	for range 20 {
		c, err := dial()
		if err != nil {
			t.Fatal(err)
		}
		raw, err := c.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var sa unix.Sockaddr
		if err2 := raw.Control(func(fd uintptr) { sa, err = unix.Getsockname(int(fd)) }); err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		c.Close()
		port := sa.(*unix.SockaddrNetlink).Pid
		if seen[port] || port == uint32(os.Getpid()) {
			t.Errorf("port %d again, or this process's ID", port)
		}
		seen[port] = true
	}
}
