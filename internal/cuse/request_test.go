// SPDX-License-Identifier: Apache-2.0

package cuse

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestErrno(t *testing.T) {
	for _, c := range []struct {
		err   error
		want  syscall.Errno
		known bool
	}{
		{nil, 0, true},
		{unix.EBUSY, unix.EBUSY, true},
		{&OpError{Op: "x", Err: fmt.Errorf("busy: %w", unix.EPERM)}, unix.EPERM, true},
		{errors.Join(context.Canceled, unix.EPIPE), unix.EPIPE, true},
		{fmt.Errorf("x: %w", context.Canceled), unix.EINTR, true},
		{context.DeadlineExceeded, unix.ETIMEDOUT, true},
		{fmt.Errorf("x: %w", os.ErrDeadlineExceeded), unix.ETIMEDOUT, true},
		{io.ErrUnexpectedEOF, unix.EIO, false},
		{syscall.Errno(0), unix.EIO, false},   // would be success
		{syscall.Errno(512), unix.EIO, false}, // ERESTARTSYS: the kernel refuses it
	} {
		if e, known := errno(c.err); e != c.want || known != c.known {
			t.Errorf("errno(%v) = %v, %v, want %v, %v", c.err, e, known, c.want, c.known)
		}
	}
}

func TestOpen(t *testing.T) {
	var flags uint32
	var err error
	k := serving(t, Options{}, funcs{open: func(_ context.Context, f uint32) error { flags = f; return err }})
	if a, b := k.open(), k.open(); a == b {
		t.Error("two files have one handle")
	}
	if flags != unix.O_RDWR {
		t.Errorf("flags %#x", flags)
	}
	for want, open := range map[syscall.Errno]error{
		unix.EBUSY: unix.EBUSY,
		unix.ENXIO: unix.ENOSYS, // ENOSYS would make the kernel stop asking
		unix.EIO:   errors.New("else"),
	} {
		err = open
		if e, _ := k.call(opOpen, bytesOf(openIn{})); e != want {
			t.Errorf("open failing with %v: got %v, want %v", open, e, want)
		}
	}
}

func TestRead(t *testing.T) {
	type result struct {
		n   int
		err error
	}
	var next result
	var gotLen int
	var gotOff int64
	k := serving(t, Options{}, funcs{read: func(_ context.Context, p []byte, off int64) (int, error) {
		gotLen, gotOff = len(p), off
		for i := range p {
			p[i] = byte('a' + i%26)
		}
		return next.n, next.err
	}})
	fh := k.open()
	for name, c := range map[string]struct {
		result
		want string
		err  error
	}{
		"all":            {result{5, nil}, "abcde", nil},
		"short":          {result{2, nil}, "ab", nil},
		"end":            {result{0, nil}, "", nil},
		"EOF":            {result{0, io.EOF}, "", nil},
		"bytes and EOF":  {result{3, io.EOF}, "abc", nil},
		"bytes, error":   {result{3, unix.EPIPE}, "abc", nil},
		"error":          {result{0, unix.EPIPE}, "", unix.EPIPE},
		"too many":       {result{6, nil}, "", unix.EIO},
		"less than none": {result{-1, nil}, "", unix.EIO},
	} {
		t.Run(name, func(t *testing.T) {
			next = c.result
			if got, err := k.readFile(fh, 5, 0); got != c.want || err != c.err {
				t.Errorf("got %q, %v, want %q, %v", got, err, c.want, c.err)
			}
		})
	}
	next = result{MaxIO, nil}
	e, out := k.call(opRead, bytesOf(ioIn{FH: fh, Offset: MaxIO, Size: MaxIO + 1}))
	if e != 0 || len(out) != MaxIO || gotLen != MaxIO || gotOff != MaxIO || out[MaxIO-1] != byte('a'+(MaxIO-1)%26) {
		t.Errorf("large read: %v, %d bytes; the File got %d at %d", e, len(out), gotLen, gotOff)
	}
}

func TestWrite(t *testing.T) {
	var got bytes.Buffer
	var offs []int64
	k := serving(t, Options{}, funcs{write: func(_ context.Context, p []byte, off int64) (int, error) {
		offs = append(offs, off)
		return got.Write(p)
	}})
	fh := k.open()
	large := strings.Repeat("0123456789abcdef", MaxIO/16)
	for _, w := range []struct {
		off  uint64
		data string
	}{{0, "hello"}, {0, ""}, {0, large}, {MaxIO, "tail"}} {
		if n, err := k.writeFile(fh, w.off, w.data); n != len(w.data) || err != nil {
			t.Fatalf("write of %d: %d, %v", len(w.data), n, err)
		}
	}
	if got.String() != "hello"+large+"tail" || fmt.Sprint(offs) != fmt.Sprint([]int64{0, 0, 0, MaxIO}) {
		t.Errorf("the File got %d bytes at %v", got.Len(), offs)
	}
}

func TestWriteErrors(t *testing.T) {
	type step struct {
		off     uint64
		n       int
		err     error // of the File
		want    int
		wantErr error // of the call
		unasked bool  // the File must not see this one
	}
	for name, steps := range map[string][]step{
		"plain error is told at once": {
			{err: unix.EPIPE, wantErr: unix.EPIPE}, {n: 4, want: 4}},
		"error after some bytes is told by the next write": {
			{n: 2, err: unix.ENOSPC, want: 2}, {wantErr: unix.ENOSPC, unasked: true}, {n: 4, want: 4}},
		"error in a later piece is swallowed by the kernel and told again": {
			{n: 4, want: 4}, {off: 4, err: unix.ENOSPC, wantErr: unix.ENOSPC}, {wantErr: unix.ENOSPC, unasked: true}, {n: 4, want: 4}},
		"a later piece does not use up the error": {
			{n: 4, err: unix.ENOSPC, want: 4}, {off: 4, wantErr: unix.ENOSPC, unasked: true}, {wantErr: unix.ENOSPC, unasked: true}, {n: 4, want: 4}},
		"an interrupt is not kept": {
			{n: 2, err: context.Canceled, want: 2}, {n: 4, want: 4}},
		"nor is EAGAIN": {
			{n: 2, err: unix.EAGAIN, want: 2}, {n: 4, want: 4}},
		"impossible count": {
			{n: 5, wantErr: unix.EIO}, {n: -1, wantErr: unix.EIO}, {n: 4, want: 4}},
	} {
		t.Run(name, func(t *testing.T) {
			var now step
			asked := 0
			k := serving(t, Options{}, funcs{write: func(context.Context, []byte, int64) (int, error) {
				asked++
				return now.n, now.err
			}})
			fh := k.open()
			for i, s := range steps {
				now, asked = s, 0
				n, err := k.writeFile(fh, s.off, "data")
				if n != s.want || err != s.wantErr || (asked == 0) != s.unasked {
					t.Errorf("step %d: got %d, %v, File asked %d times; want %d, %v", i, n, err, asked, s.want, s.wantErr)
				}
			}
		})
	}
}

func TestUntoldErrorIsLogged(t *testing.T) {
	var log bytes.Buffer
	var mu sync.Mutex
	k := serving(t, Options{Logger: slog.New(slog.NewTextHandler(lockedWriter{&mu, &log}, nil))},
		funcs{write: func(context.Context, []byte, int64) (int, error) { return 1, errors.New("bus fell off") }})
	fh := k.open()
	k.writeFile(fh, 0, "data")
	k.call(opRelease, bytesOf(releaseIn{FH: fh}))
	mu.Lock()
	defer mu.Unlock()
	if s := log.String(); strings.Count(s, "bus fell off") != 1 || !strings.Contains(s, "device=test") {
		t.Errorf("log: %s", s)
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// blocker is a Device whose writes take 3 bytes and wait for an interrupt.
func blocker(entered chan<- uint64) funcs {
	return funcs{write: func(ctx context.Context, p []byte, off int64) (int, error) {
		entered <- uint64(off)
		<-ctx.Done()
		return min(3, len(p)-1), ctx.Err()
	}}
}

func TestInterrupt(t *testing.T) {
	entered := make(chan uint64, 10)
	k := serving(t, Options{}, blocker(entered))
	fh := k.open()
	write := func(data string) uint64 {
		return k.send(opWrite, bytesOf(ioIn{FH: fh, Size: uint32(len(data))}), []byte(data))
	}
	// Blocked calls; each interrupt ends its own alone.
	a, b := write("x"), write("long")
	<-entered
	<-entered
	k.send(opInterrupt, bytesOf(interruptIn{Unique: b}))
	h, out := k.recv()
	if h.Unique != b || h.Error != 0 || decode[writeOut](t, out).Size != 3 {
		t.Errorf("interrupted after 3 bytes: %+v", h)
	}
	k.send(opInterrupt, bytesOf(interruptIn{Unique: a}))
	if h, _ := k.recv(); h.Unique != a || h.Error != -int32(unix.EINTR) {
		t.Errorf("interrupted before a byte: %+v", h)
	}
	// At the heels of its request, most likely before the File is called.
	for range 100 {
		c := write("x")
		k.send(opInterrupt, bytesOf(interruptIn{Unique: c}))
		if h, _ := k.recv(); h.Unique != c || h.Error != -int32(unix.EINTR) {
			t.Fatalf("interrupted early: %+v", h)
		}
		<-entered
	}
	// Of a call that is over, or never was: no answer, no harm.
	k.send(opInterrupt, bytesOf(interruptIn{Unique: a}))
	k.send(opInterrupt, bytesOf(interruptIn{Unique: 1 << 60}))
	if got, err := k.readFile(fh, 1, 0); got != "" || err != nil {
		t.Errorf("after stray interrupts: %q, %v", got, err)
	}
}

func TestReleaseIsNotInterrupted(t *testing.T) {
	entered, leave := make(chan context.Context), make(chan bool)
	k := serving(t, Options{}, funcs{release: func(ctx context.Context) { entered <- ctx; <-leave }})
	fh := k.open()
	r := k.send(opRelease, bytesOf(releaseIn{FH: fh}))
	ctx := <-entered
	k.send(opInterrupt, bytesOf(interruptIn{Unique: r}))
	if e, _ := k.call(opRead, bytesOf(ioIn{FH: fh})); e != unix.EIO {
		t.Errorf("read of a file being released: %v", e)
	}
	if ctx.Err() != nil {
		t.Error("interrupted")
	}
	leave <- true
	if h, _ := k.recv(); h.Unique != r || h.Error != 0 {
		t.Errorf("release: %+v", h)
	}
}

func TestCallsAreBounded(t *testing.T) {
	entered := make(chan uint64, maxCalls)
	k := serving(t, Options{}, blocker(entered))
	fh := k.open()
	var last uint64
	for range maxCalls {
		last = k.send(opWrite, bytesOf(ioIn{FH: fh, Size: 1}), []byte("x"))
		<-entered
	}
	if _, err := k.writeFile(fh, 0, "x"); err != unix.EBUSY {
		t.Errorf("one call too many: %v, want EBUSY", err)
	}
	if e, _ := k.call(opRelease, bytesOf(releaseIn{FH: fh})); e != 0 {
		t.Errorf("release while busy: %v", e)
	}
	k.send(opInterrupt, bytesOf(interruptIn{Unique: last}))
	if h, _ := k.recv(); h.Unique != last {
		t.Errorf("got %+v", h)
	}
	// The place is free a moment after its answer.
	for {
		if e, _ := k.call(opOpen, bytesOf(openIn{})); e == 0 {
			return
		} else if e != unix.EBUSY {
			t.Fatalf("open: %v", e)
		}
	}
}

func TestGarbage(t *testing.T) {
	k := serving(t, Options{}, funcs{})
	fh := k.open()
	for _, opcode := range []uint32{0, 1, 26, 25, 20, opCuseInit, 1 << 31} {
		if e, _ := k.call(opcode, make([]byte, 64)); e != unix.ENOSYS {
			t.Errorf("opcode %d: %v, want ENOSYS", opcode, e)
		}
	}
	for _, opcode := range []uint32{opOpen, opRead, opWrite, opIoctl, opPoll, opRelease} {
		if e, _ := k.call(opcode, make([]byte, 7)); e != unix.EIO {
			t.Errorf("opcode %d cut short: %v, want EIO", opcode, e)
		}
		if e, _ := k.call(opcode, bytesOf(^uint64(0)), make([]byte, 32)); e != unix.EIO && opcode != opOpen {
			t.Errorf("opcode %d on no file: %v, want EIO", opcode, e)
		}
	}
	for _, size := range []uint32{0, 3, 5, 1 << 31, 1<<32 - 1} {
		if e, _ := k.call(opWrite, bytesOf(ioIn{FH: fh, Size: size}), []byte("data")); e != unix.EIO {
			t.Errorf("write of 4 bytes that claims %d: %v", size, e)
		}
		if e, _ := k.call(opIoctl, bytesOf(ioctlIn{FH: fh, InSize: size}), []byte("data")); e != unix.EIO {
			t.Errorf("ioctl of 4 bytes that claims %d: %v", size, e)
		}
	}
	for _, claim := range []uint32{0, 47, 49, 1 << 31} {
		k.unique += 2
		k.write(append(bytesOf(inHeader{Len: claim, Opcode: opOpen, Unique: k.unique}), make([]byte, 8)...))
		if h, _ := k.recv(); h.Unique != k.unique || h.Error != -int32(unix.EIO) {
			t.Errorf("message of 48 bytes that claims %d: %+v", claim, h)
		}
	}
	// These have no answer.
	k.write([]byte{1})
	k.write(make([]byte, 39))
	k.write(make([]byte, 48)) // Unique 0 is that of notifications
	k.send(opForget, make([]byte, 8))
	k.send(opBatchForget)
	k.send(opInterrupt)
	if _, err := k.readFile(fh, 1, 0); err != nil {
		t.Errorf("after garbage: %v", err)
	}
}
