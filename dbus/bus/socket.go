// SPDX-License-Identifier: Apache-2.0

package bus

import (
	"context"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxRights is how many file descriptors the kernel passes at a time (SCM_MAX_FD).
const maxRights = 253

// socket is a connected unix stream socket, in the runtime's poller.
type socket struct {
	f   *os.File
	raw syscall.RawConn
	oob []byte // of the only reader
}

// dialSocket connects to a socket. One whose backlog is full is tried again until ctx is done.
func dialSocket(ctx context.Context, name string) (*socket, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	for {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: name})
		if err != unix.EAGAIN && err != unix.EINTR {
			break
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			unix.Close(fd)
			return nil, ctx.Err()
		}
	}
	if err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("connect", err)
	}
	return newSocket(fd, name)
}

func newSocket(fd int, name string) (*socket, error) {
	f := os.NewFile(uintptr(fd), name)
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &socket{f: f, raw: raw, oob: make([]byte, unix.CmsgSpace(4*maxRights))}, nil
}

func (s *socket) Close() error { return s.f.Close() }

// read reads some bytes and appends the file descriptors that came with them
// to fds. cut reports that there were more of these than the process may
// have open.
func (s *socket) read(p []byte, fds []int) (n int, _ []int, cut bool, err error) {
	var oobn, flags int
	waitErr := s.raw.Read(func(fd uintptr) bool {
		for {
			n, oobn, flags, _, err = unix.Recvmsg(int(fd), p, s.oob, unix.MSG_CMSG_CLOEXEC)
			if err != unix.EINTR {
				return err != unix.EAGAIN
			}
		}
	})
	if waitErr != nil {
		return 0, fds, false, waitErr
	}
	if err != nil {
		return 0, fds, false, os.NewSyscallError("recvmsg", err)
	}
	if oobn > 0 {
		messages, err := unix.ParseSocketControlMessage(s.oob[:oobn])
		if err != nil {
			return n, fds, false, err
		}
		for _, m := range messages {
			if rights, err := unix.ParseUnixRights(&m); err == nil {
				fds = append(fds, rights...)
			}
		}
	}
	if n == 0 {
		return 0, fds, false, io.EOF
	}
	return n, fds, flags&unix.MSG_CTRUNC != 0, nil
}

// readFull fills p. It is what read returns otherwise.
func (s *socket) readFull(p []byte, fds []int) (_ []int, cut bool, err error) {
	for at := 0; at < len(p); {
		var n int
		var c bool
		n, fds, c, err = s.read(p[at:], fds)
		cut = cut || c
		if err != nil {
			return fds, cut, err
		}
		at += n
	}
	return fds, cut, nil
}

// write writes all of p, the file descriptors with the first byte. It fails when
// nothing could be written for patience.
func (s *socket) write(p []byte, fds []int, patience time.Duration) error {
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	for len(p) > 0 {
		if err := s.f.SetWriteDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		var n int
		var err error
		waitErr := s.raw.Write(func(fd uintptr) bool {
			for {
				n, err = unix.SendmsgN(int(fd), p, oob, nil, unix.MSG_NOSIGNAL)
				if err != unix.EINTR {
					return err != unix.EAGAIN
				}
			}
		})
		if waitErr != nil {
			return waitErr
		}
		if err != nil {
			return os.NewSyscallError("sendmsg", err)
		}
		p, oob = p[n:], nil
	}
	// No timer is left behind that would wake the process for nothing.
	return s.f.SetWriteDeadline(time.Time{})
}

// duplicate returns a file descriptor of its own for f, without any effect on f.
func duplicate(f *os.File) (int, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	var dup int
	var dupErr error
	if err := raw.Control(func(fd uintptr) {
		dup, dupErr = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
	}); err != nil {
		return -1, err
	}
	return dup, os.NewSyscallError("fcntl", dupErr)
}

func closeFDs(fds []int) {
	for _, fd := range fds {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}
