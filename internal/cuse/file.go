// SPDX-License-Identifier: Apache-2.0

package cuse

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// file is an open File.
type file struct {
	File
	c  *conn
	kh atomic.Uint64 // the kernel's name for it, known once it is polled

	mu   sync.Mutex
	owed error // by an earlier write to the next one
}

func (f *file) release() {
	f.File.Release(f.c.ctx)
	if err := f.takeOwed(false); err != nil {
		f.c.log.Warn("file closed before it could be told", "op", "write", "err", err)
	}
}

func (f *file) read(ctx context.Context, in ioIn, out []byte) (int, error) {
	if f.wouldBlock(in.Flags, unix.POLLIN) {
		return 0, syscall.EAGAIN
	}
	p := out[:min(in.Size, MaxIO)]
	n, err := f.Read(callContext(ctx, in.Flags), p, int64(in.Offset))
	switch {
	case n < 0 || n > len(p):
		return 0, errCount
	case n > 0 || errors.Is(err, io.EOF):
		return n, nil
	}
	return 0, err
}

func (f *file) write(ctx context.Context, in ioIn, p, out []byte) (int, error) {
	later := in.Offset > 0 // bytes of its system call were taken: it will tell no error
	if err := f.takeOwed(later); err != nil {
		return 0, err
	}
	if f.wouldBlock(in.Flags, unix.POLLOUT) {
		return 0, syscall.EAGAIN
	}
	n, err := f.Write(callContext(ctx, in.Flags), p, int64(in.Offset))
	if n < 0 || n > len(p) {
		n, err = 0, errCount
	}
	if err != nil && (n > 0 || later) {
		f.owe(err)
	}
	if err != nil && n == 0 {
		return 0, err
	}
	return put(out, writeOut{Size: uint32(n)}), nil
}

func callContext(ctx context.Context, flags uint32) context.Context {
	if flags&unix.O_NONBLOCK == 0 {
		return ctx
	}
	return WithNonblocking(ctx)
}

var errCount = errors.New("device returned an impossible count")

func (f *file) owe(err error) {
	if e, _ := errno(err); e == syscall.EINTR || e == syscall.EAGAIN {
		return
	}
	f.mu.Lock()
	f.owed = err
	f.mu.Unlock()
}

func (f *file) takeOwed(keep bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.owed
	if !keep {
		f.owed = nil
	}
	return err
}

// wouldBlock reports whether a call has to fail with EAGAIN.
func (f *file) wouldBlock(flags, event uint32) bool {
	p, ok := f.File.(Poller)
	return ok && flags&unix.O_NONBLOCK != 0 &&
		p.Poll(event, f.wake)&(event|unix.POLLERR|unix.POLLHUP) == 0
}

// poll answers for every File: ENOSYS would switch poll off for all of the node.
func (f *file) poll(in pollIn, out []byte) (int, error) {
	events := uint32(unix.POLLIN | unix.POLLOUT)
	if p, ok := f.File.(Poller); ok {
		f.kh.Store(in.KH)
		events = p.Poll(in.Events, f.wake)
	}
	return put(out, pollOut{REvents: events}), nil
}

// wake is what a Poller gets.
func (f *file) wake() {
	kh := f.kh.Load()
	if kh == 0 {
		return // never polled
	}
	var msg [24]byte
	n := put(msg[:], outHeader{Len: uint32(len(msg)), Error: notifyPoll})
	put(msg[n:], notifyPollOut{KH: kh})
	_, _ = f.c.f.Write(msg[:]) // fails when the connection is over: nobody sleeps then
}

// ioctl serves an ioctl. Where its number does not tell what to copy
// (unrestricted), the first answer does, and the kernel asks again.
func (f *file) ioctl(ctx context.Context, in ioctlIn, data, out []byte) (int, error) {
	impl, ok := f.File.(Ioctler)
	if !ok {
		return 0, syscall.ENOTTY
	}
	nin, nout, err := impl.IoctlSize(in.Cmd)
	switch {
	case err != nil:
		return 0, err
	case nin < 0 || nout < 0 || nin > maxIoctl || nout > maxIoctl:
		return 0, errCount
	case nin == len(data) && nout == int(in.OutSize):
	case in.Flags&ioctlUnrestricted != 0 && len(data) == 0 && in.OutSize == 0:
		return retryIoctl(in.Arg, nin, nout, out), nil
	default: // the File goes by other sizes than the number tells
		return 0, syscall.ENOTTY
	}
	call := Ioctl{Cmd: in.Cmd, Arg: in.Arg, In: data, Out: make([]byte, nout), Long32: in.Flags&ioctl32Bit != 0}
	result, err := impl.Ioctl(ctx, call)
	if err != nil {
		return 0, err
	}
	n := put(out, ioctlOut{Result: result})
	return n + copy(out[n:], call.Out), nil
}

func retryIoctl(arg uint64, nin, nout int, out []byte) int {
	h := ioctlOut{Flags: ioctlRetry}
	n := ioctlOutSize
	if nin > 0 {
		h.InIovs = 1
		n += put(out[n:], ioctlIovec{Base: arg, Len: uint64(nin)})
	}
	if nout > 0 {
		h.OutIovs = 1
		n += put(out[n:], ioctlIovec{Base: arg, Len: uint64(nout)})
	}
	put(out, h)
	return n
}
