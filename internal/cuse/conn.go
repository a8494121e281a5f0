// SPDX-License-Identifier: Apache-2.0

package cuse

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxCalls bounds the calls in progress on one node, hence its goroutines and
// buffers. A call beyond fails with EBUSY: left waiting in the kernel it would
// hold up the interrupts of those in progress.
const maxCalls = 32

// A buffer holds one message: MaxIO bytes, and room for any header. (The
// kernel refuses to read into one of less than 80 bytes and MaxIO.)
type buffer [4096 + MaxIO]byte

// buffers are shared by all nodes of the process. While nothing happens none
// is in use, and the garbage collector empties the pool.
var buffers = sync.Pool{New: func() any { return new(buffer) }}

// conn is a connection to the kernel, which is a node.
type conn struct {
	f   *os.File
	raw syscall.RawConn // of f
	d   Device
	log *slog.Logger
	ctx context.Context // of all calls

	calls      sync.WaitGroup
	inProgress atomic.Int32

	mu      sync.Mutex
	files   map[uint64]*file // by handle
	lastFH  uint64
	running map[uint64]context.CancelFunc // by Unique of the request
}

// init answers the kernel's first message with a description of the node.
func (c *conn) init(o Options) error {
	buf, n, err := c.read()
	if err != nil {
		return err
	}
	defer buffers.Put(buf)
	h, body, ok := take[inHeader](buf[:n])
	in, _, ok2 := take[initIn](body)
	if !ok || !ok2 || h.Opcode != opCuseInit || h.Unique == 0 {
		return fmt.Errorf("first message is no CUSE_INIT (%d bytes, opcode %d)", n, h.Opcode)
	}
	if in.Major != protoMajor || in.Minor < protoMinorMin {
		return fmt.Errorf("kernel speaks FUSE %d.%d, need %d.%d or later", in.Major, in.Minor, protoMajor, protoMinorMin)
	}
	out := initOut{Major: protoMajor, Minor: min(in.Minor, protoMinor), MaxRead: MaxIO, MaxWrite: MaxIO}
	if o.UnrestrictedIoctl {
		if in.Flags&cuseUnrestrictedIoctl == 0 {
			return errors.New("kernel has no unrestricted ioctl")
		}
		out.Flags = cuseUnrestrictedIoctl
	}
	r := request{inHeader: h, c: c, buf: buf}
	size := put(r.payload(), out)
	size += copy(r.payload()[size:], "DEVNAME="+o.Name+"\x00")
	if err := r.answer(size, nil); err != nil {
		return err
	}
	// The kernel created the node, or did not, inside that write. If not,
	// it has ended the connection, which only poll tells yet.
	if c.dead() {
		return ErrRefused
	}
	return nil
}

func (c *conn) dead() bool {
	var n int
	err := c.raw.Control(func(fd uintptr) {
		n, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd)}}, 0) // POLLERR comes unasked
	})
	return err != nil || n > 0
}

// read waits for a message. While it waits it holds no thread and no buffer.
func (c *conn) read() (buf *buffer, n int, err error) {
	waitErr := c.raw.Read(func(fd uintptr) bool {
		buf = buffers.Get().(*buffer)
		for {
			n, err = syscall.Read(int(fd), buf[:])
			// ENOENT: the request was taken back while it was being copied.
			if err != unix.EINTR && err != unix.ENOENT {
				break
			}
		}
		if err != nil {
			buffers.Put(buf)
		}
		return err != unix.EAGAIN
	})
	switch {
	case waitErr != nil && !errors.Is(waitErr, os.ErrClosed) && c.dead():
		// The kernel has ended the connection while nobody read, which is an
		// error condition of the file: Go refuses to wait for such a one.
		return nil, 0, ErrGone
	case waitErr != nil: // closed
		return nil, 0, waitErr
	case err == unix.ENODEV || err == unix.ECONNABORTED || err == nil && n == 0:
		return nil, 0, ErrGone
	}
	return buf, n, err
}

// loop reads messages until the connection ends. It is the only reader, so
// that a request is always seen before its interrupt.
func (c *conn) loop() error {
	for {
		buf, n, err := c.read()
		if err != nil {
			return err
		}
		if !c.dispatch(buf, n) {
			buffers.Put(buf)
		}
	}
}

// dispatch starts what the message in buf asks for. It reports whether a call
// has taken the buffer, and will give it back.
func (c *conn) dispatch(buf *buffer, n int) (taken bool) {
	h, body, ok := take[inHeader](buf[:n])
	if !ok || h.Unique == 0 {
		c.log.Warn("message without a header", "bytes", n)
		return false
	}
	r := &request{inHeader: h, body: body, c: c, buf: buf}
	switch h.Opcode {
	case opOpen, opRead, opWrite, opIoctl, opPoll:
		return c.begin(r)
	case opRelease:
		c.calls.Go(r.serve)
		return true
	case opInterrupt:
		if in, _, ok := take[interruptIn](body); ok {
			c.interrupt(in.Unique)
		}
	case opForget, opBatchForget: // have no answer
	default:
		_ = r.answer(0, syscall.ENOSYS)
	}
	return false
}

// begin serves a request whose caller may be interrupted. (A release may not,
// nor is it bounded, lest files leak: a program that is killed closes its
// files with the signal still pending, so that each of these is interrupted.)
func (c *conn) begin(r *request) (taken bool) {
	if c.inProgress.Load() >= maxCalls {
		_ = r.answer(0, syscall.EBUSY)
		return false
	}
	c.inProgress.Add(1)
	var cancel context.CancelFunc
	r.ctx, cancel = context.WithCancel(c.ctx)
	c.mu.Lock()
	c.running[r.Unique] = cancel
	c.mu.Unlock()
	c.calls.Go(func() {
		r.serve()
		c.mu.Lock()
		delete(c.running, r.Unique)
		c.mu.Unlock()
		cancel()
		c.inProgress.Add(-1)
	})
	return true
}

// interrupt ends the context of a call. One that is not there has been
// answered: with one reader an interrupt never comes first, so it is never
// returned for later (EAGAIN) either. Interrupts have no answer.
func (c *conn) interrupt(unique uint64) {
	c.mu.Lock()
	cancel := c.running[unique]
	c.mu.Unlock()
	if cancel != nil {
		cancel()
	}
}

func (c *conn) addFile(f *file) (fh uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastFH++
	c.files[c.lastFH] = f
	return c.lastFH
}

func (c *conn) file(fh uint64) *file {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.files[fh]
}

func (c *conn) takeFile(fh uint64) *file {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.files[fh]
	delete(c.files, fh)
	return f
}

// releaseAll closes what is still open when all calls are over.
func (c *conn) releaseAll() {
	for _, f := range c.files {
		f.release()
	}
	clear(c.files)
}
