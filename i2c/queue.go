// SPDX-License-Identifier: Apache-2.0

package i2c

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Queue receives what others write to one of our own addresses, from the
// kernel's slave-mqueue backend. One Queue at a time can be open for an
// address. It is for one goroutine.
type Queue struct {
	f     *os.File
	ready *os.File // an epoll instance, which the runtime's poller waits for
}

// OpenQueue opens the queue of an address on a bus; root is sysfs', "" means
// /sys. Errors are *OpError, of ErrNoQueue if the kernel does not listen there
// and of ErrInUse if another program does.
func OpenQueue(root string, bus int, own uint8) (*Queue, error) {
	if root == "" {
		root = "/sys"
	}
	dir := filepath.Join(root, "bus/i2c/devices")
	path := filepath.Join(dir, fmt.Sprintf("%d-%04x", bus, ownOffset|uint16(own)), "slave-mqueue")
	q, err := openQueue(path)
	if errors.Is(err, unix.ENOENT) {
		err = fmt.Errorf("%w: %w: %s", ErrNoQueue, err, queueHint(dir, filepath.Dir(path), bus, own))
	}
	if err != nil {
		return nil, &OpError{Op: "open", Device: path, Err: err}
	}
	return q, nil
}

// queueHint says how to get a queue.
func queueHint(dir, device string, bus int, own uint8) string {
	if name, err := os.ReadFile(filepath.Join(device, "name")); err == nil {
		return fmt.Sprintf("the address is taken by %q; if that is a kernel with MCTP, use its sockets, else another own address",
			strings.TrimSpace(string(name)))
	}
	return fmt.Sprintf("echo slave-mqueue 0x%04x > %s/i2c-%d/new_device, on a kernel with CONFIG_I2C_SLAVE_MQUEUE", ownOffset|uint16(own), dir, bus)
}

func openQueue(path string) (_ *Queue, err error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	q := &Queue{f: os.NewFile(uintptr(fd), path)}
	defer func() {
		if err != nil {
			q.Close()
		}
	}()
	// Two readers would take each other's messages.
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrInUse
		}
		return nil, err
	}
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	unix.SetNonblock(ep, true) // for NewFile, which asks for this
	q.ready = os.NewFile(uintptr(ep), path)
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLPRI}); err != nil {
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	return q, nil
}

// Next takes the oldest message from the queue and returns its size; 0 if the
// queue is empty. The message begins with the byte of our own address. One that
// does not fit is EOVERFLOW.
func (q *Queue) Next(buf []byte) (n int, err error) {
	rc, err := q.f.SyscallConn()
	if err != nil {
		return 0, q.fail(err)
	}
	// ReadAt would go on reading behind a message, and take the next one.
	if cerr := rc.Control(func(fd uintptr) { n, err = unix.Pread(int(fd), buf, 0) }); cerr != nil {
		err = cerr
	}
	if err != nil {
		return 0, q.fail(err)
	}
	return n, nil
}

// Wait returns nil when there may be a message that came after the last call of
// Next. Otherwise the error is ctx's, or a final one.
func (q *Queue) Wait(ctx context.Context) error {
	rc, err := q.ready.SyscallConn()
	if err != nil {
		return q.fail(err)
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		q.ready.SetReadDeadline(time.Unix(1, 0))
		close(ended)
	})
	defer func() {
		if !stop() {
			<-ended
		}
		q.ready.SetReadDeadline(time.Time{})
	}()
	var events [1]unix.EpollEvent
	var n int
	var werr error
	err = rc.Read(func(fd uintptr) bool {
		n, werr = unix.EpollWait(int(fd), events[:], 0)
		return n != 0
	})
	switch {
	case ctx.Err() != nil:
		return q.fail(ctx.Err())
	case err != nil:
		return q.fail(err)
	case errors.Is(werr, unix.EINTR):
		return nil
	}
	return q.fail(werr)
}

func (q *Queue) fail(err error) error {
	if err == nil {
		return nil
	}
	return &OpError{Op: "receive", Device: q.f.Name(), Err: err}
}

// Close closes the queue. The kernel goes on listening.
func (q *Queue) Close() error {
	if q.ready != nil {
		q.ready.Close()
	}
	return q.f.Close()
}
