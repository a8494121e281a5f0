// SPDX-License-Identifier: Apache-2.0

package cuse_test

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bluefield-go/bmc-rshim/internal/cuse"
)

func ioctl(fd int, cmd uint32, arg uintptr) (int, error) {
	n, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(cmd), arg)
	if e != 0 {
		return -1, e
	}
	return int(n), nil
}

func ioctlBytes(fd int, cmd uint32, arg []byte) (int, error) {
	n, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(cmd), uintptr(unsafe.Pointer(&arg[0])))
	if e != 0 {
		return -1, e
	}
	return int(n), nil
}

// registers answers RShim's ioctls by adding 1 to each byte, and TCGETS.
type registers struct{ echo }

func (r *registers) Open(context.Context, uint32) (cuse.File, error) { return r, nil }

func (*registers) IoctlSize(cmd uint32) (in, out int, err error) {
	switch cmd {
	case unix.TCGETS:
		return 0, 36, nil
	case 0xc00c5200, 0xc00d5200, unix.TCFLSH:
		in, out = cuse.IOCSize(cmd)
		return in, out, nil
	}
	return 0, 0, unix.ENOTTY
}

func (*registers) Ioctl(_ context.Context, c cuse.Ioctl) (int32, error) {
	if c.Long32 != (unsafe.Sizeof(uintptr(0)) == 4) {
		return 0, unix.EPROTO
	}
	switch c.Cmd {
	case unix.TCGETS:
		copy(c.Out, "abc")
		return 0, nil
	case unix.TCFLSH:
		return int32(c.Arg) * 2, nil
	}
	for i, b := range c.In {
		c.Out[i] = b + 1
	}
	return 0, nil
}

func TestKernelIoctl(t *testing.T) {
	for _, unrestricted := range []bool{false, true} {
		t.Run(fmt.Sprint("unrestricted=", unrestricted), func(t *testing.T) {
			path, _ := serve(t, cuse.Options{UnrestrictedIoctl: unrestricted}, &registers{})
			fd := open(t, path, unix.O_RDWR)
			for cmd, size := range map[uint32]int{0xc00c5200: 12, 0xc00d5200: 13} {
				arg := []byte("0123456789abcdef") // must stay as it is beyond size
				want := append([]byte("123456789:bcdefg")[:size], arg[size:]...)
				if n, err := ioctlBytes(fd, cmd, arg); n != 0 || err != nil || !bytes.Equal(arg, want) {
					t.Errorf("ioctl of %d bytes: %d, %v, %q, want %q", size, n, err, arg, want)
				}
			}
			if n, err := ioctl(fd, unix.TCFLSH, 21); n != 42 || err != nil {
				t.Errorf("ioctl of a number: %d, %v", n, err)
			}
			if _, err := ioctl(fd, 0xc00c5200, 8); err != unix.EFAULT {
				t.Errorf("ioctl of a bad address: %v", err)
			}
			if _, err := ioctl(fd, 0x5678, 0); err != unix.ENOTTY {
				t.Errorf("unknown ioctl: %v", err)
			}
			termios := make([]byte, 40)
			n, err := ioctlBytes(fd, unix.TCGETS, termios)
			switch {
			case !unrestricted && err != unix.ENOTTY:
				t.Errorf("TCGETS, restricted: %d, %v", n, err)
			case unrestricted && (err != nil || string(termios[:4]) != "abc\x00"):
				t.Errorf("TCGETS: %d, %v, %q", n, err, termios)
			}
		})
	}
	path, _ := serve(t, cuse.Options{Name: "cusetest/plain"}, &echo{})
	if _, err := ioctl(open(t, path, unix.O_RDWR), unix.TCGETS, 0); err != unix.ENOTTY {
		t.Errorf("File that is no Ioctler: %v", err)
	}
}

// terminal is a Poller that becomes readable when fed.
type terminal struct {
	echo
	polled chan bool
	wakeMu sync.Mutex
	wake   func()
}

func (c *terminal) Open(context.Context, uint32) (cuse.File, error) { return c, nil }

func (c *terminal) Poll(events uint32, wake func()) uint32 {
	c.wakeMu.Lock()
	c.wake = wake
	c.wakeMu.Unlock()
	c.mu.Lock()
	ready := uint32(unix.POLLOUT)
	if c.stored.Len() > 0 {
		ready |= unix.POLLIN
	}
	c.mu.Unlock()
	select {
	case c.polled <- true:
	default:
	}
	return ready & events
}

func (c *terminal) feed(s string) {
	c.mu.Lock()
	c.stored.WriteString(s)
	c.mu.Unlock()
	c.wakeMu.Lock()
	wake := c.wake
	c.wakeMu.Unlock()
	wake()
}

func TestKernelPoll(t *testing.T) {
	d := &terminal{polled: make(chan bool, 1)}
	path, stop := serve(t, cuse.Options{}, d)
	fd := open(t, path, unix.O_RDWR|unix.O_NONBLOCK)
	p := make([]byte, 100)
	if n, err := unix.Read(fd, p); err != unix.EAGAIN {
		t.Errorf("nonblocking read: %d, %v, want EAGAIN", n, err)
	}
	poll := func(events int16) chan string {
		select {
		case <-d.polled: // by a nonblocking read
		default:
		}
		res := make(chan string, 1)
		go func() {
			fds := []unix.PollFd{{Fd: int32(fd), Events: events}}
			n, err := unix.Poll(fds, 20000)
			for err == unix.EINTR { // Go's own signals
				n, err = unix.Poll(fds, 20000)
			}
			res <- fmt.Sprintf("%d %#x %v", n, fds[0].Revents, err)
		}()
		return res
	}
	if got := <-poll(unix.POLLIN | unix.POLLOUT); got != "1 0x4 <nil>" {
		t.Errorf("writable: %s", got)
	}
	for range 3 { // each sleep wants its own wake-up
		res := poll(unix.POLLIN)
		<-d.polled
		d.feed("x")
		if got := <-res; got != "1 0x1 <nil>" {
			t.Errorf("readable: %s", got)
		}
		if n, err := unix.Read(fd, p); n != 1 || err != nil {
			t.Errorf("read: %d, %v", n, err)
		}
	}
	// A Go program, whose poller uses epoll.
	h := startHelper(t, "read", path, "100")
	<-d.polled
	d.feed("x")
	if got := h.line(t); got != "1 <nil>" {
		t.Errorf("epoll: %s", got)
	}
	res := poll(unix.POLLIN)
	<-d.polled
	stop()
	if got, want := <-res, fmt.Sprintf("1 %#x <nil>", unix.POLLERR); got != want {
		t.Errorf("poll at the end: %s, want %s", got, want)
	}
}
