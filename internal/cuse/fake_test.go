// SPDX-License-Identifier: Apache-2.0

package cuse

import (
	"context"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fakeKernel is the other end of a channel that keeps messages apart, as
// /dev/cuse does.
type fakeKernel struct {
	t      *testing.T
	f      *os.File
	unique uint64
	cancel context.CancelFunc
	ended  chan error // from serve
}

// connect starts a Server on a fake kernel and leaves it waiting for INIT.
func connect(t *testing.T, o Options, d Device) (*fakeKernel, *Server) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 1<<20)
	}
	k := &fakeKernel{t: t, f: os.NewFile(uintptr(fds[0]), "kernel"), ended: make(chan error, 1)}
	var ctx context.Context
	ctx, k.cancel = context.WithCancel(context.Background())
	s := New(o, d)
	go func() { k.ended <- s.serve(ctx, os.NewFile(uintptr(fds[1]), "cuse")) }()
	t.Cleanup(func() {
		k.cancel()
		k.wait()
		k.f.Close()
	})
	return k, s
}

// wait returns what serve did.
func (k *fakeKernel) wait() error {
	k.t.Helper()
	select {
	case err := <-k.ended:
		k.ended <- err
		return err
	case <-time.After(time.Minute):
		k.t.Fatal("serve does not end")
		return nil
	}
}

// serving is connect, through INIT.
func serving(t *testing.T, o Options, d Device) *fakeKernel {
	t.Helper()
	if o.Name == "" {
		o.Name = "test"
	}
	k, s := connect(t, o, d)
	k.send(opCuseInit, bytesOf(initIn{Major: 7, Minor: 38, Flags: cuseUnrestrictedIoctl}))
	if h, _ := k.recv(); h.Error != 0 {
		t.Fatalf("INIT: error %d", h.Error)
	}
	select {
	case <-s.Ready():
	case <-time.After(time.Minute):
		t.Fatal("not ready")
	}
	return k
}

func bytesOf[T any](v T) []byte {
	b := make([]byte, 256)
	return b[:put(b, v)]
}

func decode[T any](t *testing.T, b []byte) (v T) {
	t.Helper()
	v, rest, ok := take[T](b)
	if !ok || len(rest) != 0 {
		t.Fatalf("answer has %d bytes for a %T", len(b), v)
	}
	return v
}

func (k *fakeKernel) write(msg []byte) {
	k.t.Helper()
	if _, err := k.f.Write(msg); err != nil {
		k.t.Fatal(err)
	}
}

// send makes a request and returns its name.
func (k *fakeKernel) send(opcode uint32, body ...[]byte) (unique uint64) {
	k.t.Helper()
	k.unique += 2
	h := inHeader{Len: uint32(inHeaderSize), Opcode: opcode, Unique: k.unique}
	msg := make([]byte, inHeaderSize)
	for _, b := range body {
		msg = append(msg, b...)
		h.Len += uint32(len(b))
	}
	put(msg, h)
	k.write(msg)
	return k.unique
}

func (k *fakeKernel) recv() (outHeader, []byte) {
	k.t.Helper()
	buf := make([]byte, 1<<18)
	k.f.SetReadDeadline(time.Now().Add(time.Minute))
	n, err := k.f.Read(buf)
	if err != nil {
		k.t.Fatalf("no answer: %v", err)
	}
	h, body, ok := take[outHeader](buf[:n])
	if !ok || int(h.Len) != n || h.Error > 0 && h.Unique != 0 || h.Error < 0 && len(body) != 0 {
		k.t.Fatalf("bad answer %+v in %d bytes", h, n)
	}
	return h, body
}

// call makes a request and returns the answer to it.
func (k *fakeKernel) call(opcode uint32, body ...[]byte) (syscall.Errno, []byte) {
	k.t.Helper()
	unique := k.send(opcode, body...)
	h, out := k.recv()
	if h.Unique != unique {
		k.t.Fatalf("answer to %d, want %d", h.Unique, unique)
	}
	return syscall.Errno(-h.Error), out
}

func (k *fakeKernel) open() (fh uint64) {
	k.t.Helper()
	e, out := k.call(opOpen, bytesOf(openIn{Flags: unix.O_RDWR}))
	if e != 0 {
		k.t.Fatalf("open: %v", e)
	}
	return decode[openOut](k.t, out).FH
}

func (k *fakeKernel) writeFile(fh, off uint64, data string) (int, error) {
	k.t.Helper()
	e, out := k.call(opWrite, bytesOf(ioIn{FH: fh, Offset: off, Size: uint32(len(data))}), []byte(data))
	if e != 0 {
		return 0, e
	}
	return int(decode[writeOut](k.t, out).Size), nil
}

func (k *fakeKernel) readFile(fh uint64, size, flags uint32) (string, error) {
	k.t.Helper()
	e, out := k.call(opRead, bytesOf(ioIn{FH: fh, Size: size, Flags: flags}))
	if e != 0 {
		return "", e
	}
	return string(out), nil
}

// funcs is a Device whose Files do what the functions say; nil ones do nothing.
type funcs struct {
	open    func(ctx context.Context, flags uint32) error
	read    func(ctx context.Context, p []byte, off int64) (int, error)
	write   func(ctx context.Context, p []byte, off int64) (int, error)
	release func(ctx context.Context)
	wrap    func(File) File
}

func (d funcs) Open(ctx context.Context, flags uint32) (File, error) {
	if d.open != nil {
		if err := d.open(ctx, flags); err != nil {
			return nil, err
		}
	}
	if d.wrap != nil {
		return d.wrap(funcFile{d}), nil
	}
	return funcFile{d}, nil
}

type funcFile struct{ funcs }

func (f funcFile) Read(ctx context.Context, p []byte, off int64) (int, error) {
	if f.read == nil {
		return 0, nil
	}
	return f.read(ctx, p, off)
}

func (f funcFile) Write(ctx context.Context, p []byte, off int64) (int, error) {
	if f.write == nil {
		return len(p), nil
	}
	return f.write(ctx, p, off)
}

func (f funcFile) Release(ctx context.Context) {
	if f.release != nil {
		f.release(ctx)
	}
}
