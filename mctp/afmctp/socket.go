// SPDX-License-Identifier: Apache-2.0

package afmctp

import (
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bluefield-go/bmc-rshim/mctp"
)

// socket is a datagram socket of AF_MCTP. It waits in the runtime's poller, so
// that deadlines work and no thread is blocked.
type socket struct{ *os.File }

func open() (socket, error) {
	fd, err := unix.Socket(unix.AF_MCTP, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return socket{}, err
	}
	return socket{os.NewFile(uintptr(fd), "mctp")}, nil
}

// reserveTag has the kernel keep a tag for this socket until it is closed, and
// returns what goes into an address. With a tag of the send's own, the kernel
// would be through with the request as soon as any message with that tag came:
// after a late response to an earlier request, the real one would be lost. A
// kernel without reservation (before 5.18) gives such a tag all the same.
func (s socket) reserveTag(network uint32, peer mctp.EID) (uint8, error) {
	if network != 0 {
		c := tagControl2{network: network, peer: uint8(peer), local: localAny}
		err := s.ioctl(siocAllocTag2, unsafe.Pointer(&c))
		if err == nil || errors.Is(err, unix.EBUSY) {
			return c.tag, err
		}
		// Before 6.9 a tag is for all networks.
	}
	c := tagControl{peer: uint8(peer)}
	err := s.ioctl(siocAllocTag, unsafe.Pointer(&c))
	if err == nil || errors.Is(err, unix.EBUSY) {
		return c.tag, err
	}
	return tagOwner, nil
}

func (s socket) ioctl(request uintptr, arg unsafe.Pointer) error {
	return s.do(false, func(fd uintptr) unix.Errno {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, request, uintptr(arg))
		return errno
	})
}

// send sends a message whose type stands in the address.
func (s socket) send(to sockaddr, data []byte) error {
	return s.do(true, func(fd uintptr) unix.Errno {
		_, _, errno := unix.Syscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(unsafe.SliceData(data))), uintptr(len(data)), 0,
			uintptr(unsafe.Pointer(&to)), sockaddrSize)
		return errno
	})
}

// receive returns the size of the next message, of which as much as fits is in
// buf, without its type.
func (s socket) receive(buf []byte) (n int, from sockaddr, err error) {
	err = s.do(false, func(fd uintptr) unix.Errno {
		size := uint32(sockaddrSize)
		r, _, errno := unix.Syscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(len(buf)),
			unix.MSG_TRUNC, uintptr(unsafe.Pointer(&from)), uintptr(unsafe.Pointer(&size)))
		n = int(r)
		return errno
	})
	return n, from, err
}

// do makes a system call until it does not want to wait.
func (s socket) do(write bool, call func(fd uintptr) unix.Errno) error {
	rc, err := s.SyscallConn()
	if err != nil {
		return err
	}
	var errno unix.Errno
	try := func(fd uintptr) bool {
		for {
			errno = call(fd)
			if errno != unix.EINTR {
				return errno != unix.EAGAIN
			}
		}
	}
	wait := rc.Read
	if write {
		wait = rc.Write
	}
	if err := wait(try); err != nil {
		return err
	}
	if errno != 0 {
		return errno
	}
	return nil
}
