// SPDX-License-Identifier: Apache-2.0

package cuse

import (
	"bytes"
	"context"
	"encoding/binary"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	ioctlAdd  = 0xc00c5200 // _IOWR('R', 0, 12 bytes): increments each
	ioctlGets = 0x5401     // reads 36 bytes, which its number does not tell
	ioctlArg  = 0x540b     // takes a number
	ioctlBad  = 0x5402     // the File is wrong about its sizes
)

// ioctlFile answers the ioctls above.
type ioctlFile struct {
	File
	last Ioctl
}

func (f *ioctlFile) IoctlSize(cmd uint32) (in, out int, err error) {
	switch cmd {
	case ioctlAdd, ioctlArg:
		in, out = IOCSize(cmd)
		return in, out, nil
	case ioctlGets:
		return 0, 36, nil
	case ioctlBad:
		return 1 << 20, -1, nil
	}
	return 0, 0, unix.ENOTTY
}

func (f *ioctlFile) Ioctl(_ context.Context, c Ioctl) (int32, error) {
	f.last = c
	switch c.Cmd {
	case ioctlAdd:
		for i, b := range c.In {
			c.Out[i] = b + 1
		}
	case ioctlGets:
		copy(c.Out, "state")
	case ioctlArg:
		if c.Arg > 9 {
			return 0, unix.EINVAL
		}
	}
	return 7, nil
}

func TestIoctl(t *testing.T) {
	f := &ioctlFile{}
	k := serving(t, Options{}, funcs{wrap: func(plain File) File { f.File = plain; return f }})
	fh := k.open()
	const free = ioctlUnrestricted | ioctl32Bit
	iov := func(base, size uint64) []byte { return bytesOf(ioctlIovec{Base: base, Len: size}) }
	add := []byte("abcdefghijkl")
	gets := make([]byte, 36)
	copy(gets, "state")
	for _, c := range []struct {
		name string
		in   ioctlIn
		data []byte
		want ioctlOut
		body []byte
		err  error
	}{
		{"well formed", ioctlIn{Cmd: ioctlAdd, Arg: 64, InSize: 12, OutSize: 12}, add,
			ioctlOut{Result: 7}, []byte("bcdefghijklm"), nil},
		{"well formed, first round", ioctlIn{Cmd: ioctlAdd, Arg: 64, Flags: free}, nil,
			ioctlOut{Flags: ioctlRetry, InIovs: 1, OutIovs: 1}, append(iov(64, 12), iov(64, 12)...), nil},
		{"well formed, second round", ioctlIn{Cmd: ioctlAdd, Arg: 64, Flags: free, InSize: 12, OutSize: 12}, add,
			ioctlOut{Result: 7}, []byte("bcdefghijklm"), nil},
		{"sizeless", ioctlIn{Cmd: ioctlGets, Arg: 64, Flags: free}, nil,
			ioctlOut{Flags: ioctlRetry, OutIovs: 1}, iov(64, 36), nil},
		{"sizeless, second round", ioctlIn{Cmd: ioctlGets, Arg: 64, Flags: free, OutSize: 36}, nil,
			ioctlOut{Result: 7}, gets, nil},
		{"sizeless, restricted", ioctlIn{Cmd: ioctlGets, Arg: 64}, nil, ioctlOut{}, nil, unix.ENOTTY},
		{"number", ioctlIn{Cmd: ioctlArg, Arg: 9, Flags: free}, nil, ioctlOut{Result: 7}, nil, nil},
		{"error", ioctlIn{Cmd: ioctlArg, Arg: 10, Flags: free}, nil, ioctlOut{}, nil, unix.EINVAL},
		{"unknown", ioctlIn{Cmd: 1, Flags: free}, nil, ioctlOut{}, nil, unix.ENOTTY},
		{"impossible sizes", ioctlIn{Cmd: ioctlBad, Flags: free}, nil, ioctlOut{}, nil, unix.EIO},
		{"other sizes in the second round", ioctlIn{Cmd: ioctlGets, Flags: free, OutSize: 35}, nil, ioctlOut{}, nil, unix.ENOTTY},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.in.FH = fh
			e, out := k.call(opIoctl, bytesOf(c.in), c.data)
			if c.err != nil {
				if e != c.err {
					t.Errorf("got %v, want %v", e, c.err)
				}
				return
			}
			h, body, ok := take[ioctlOut](out)
			if e != 0 || !ok || h != c.want || !bytes.Equal(body, c.body) {
				t.Errorf("got %v, %+v, %q, want %+v, %q", e, h, body, c.want, c.body)
			}
			if h.Flags == 0 && (f.last.Arg != c.in.Arg || f.last.Long32 != (c.in.Flags&ioctl32Bit != 0)) {
				t.Errorf("the File got %+v", f.last)
			}
		})
	}
	plain := serving(t, Options{}, funcs{})
	if e, _ := plain.call(opIoctl, bytesOf(ioctlIn{FH: plain.open(), Cmd: ioctlArg})); e != unix.ENOTTY {
		t.Errorf("File that is no Ioctler: %v, want ENOTTY", e)
	}
}

// pollFile is ready when told so.
type pollFile struct {
	File
	mu    sync.Mutex
	ready uint32
	wake  func()
}

func (f *pollFile) Poll(events uint32, wake func()) uint32 {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wake = wake
	return f.ready & (events | unix.POLLERR | unix.POLLHUP)
}

func (f *pollFile) become(ready uint32) {
	f.mu.Lock()
	f.ready = ready
	wake := f.wake
	f.mu.Unlock()
	if wake != nil {
		wake()
	}
}

func TestPoll(t *testing.T) {
	f := &pollFile{}
	k := serving(t, Options{}, funcs{
		wrap: func(plain File) File { f.File = plain; return f },
		read: func(_ context.Context, p []byte, _ int64) (int, error) { return copy(p, "x"), nil },
	})
	fh := k.open()
	if _, err := k.readFile(fh, 1, unix.O_NONBLOCK); err != unix.EAGAIN {
		t.Errorf("nonblocking read: %v, want EAGAIN", err)
	}
	f.become(0) // never polled: nobody to wake, so no message before the next answer
	poll := func() uint32 {
		e, out := k.call(opPoll, bytesOf(pollIn{FH: fh, KH: 42, Events: unix.POLLIN | unix.POLLOUT}))
		if e != 0 {
			t.Fatalf("poll: %v", e)
		}
		return decode[pollOut](t, out).REvents
	}
	if got := poll(); got != 0 {
		t.Errorf("not ready: %#x", got)
	}
	f.become(unix.POLLIN | unix.POLLPRI)
	if h, body := k.recv(); h.Unique != 0 || h.Error != notifyPoll || binary.NativeEndian.Uint64(body) != 42 {
		t.Errorf("wake: %+v %x", h, body)
	}
	if got := poll(); got != unix.POLLIN {
		t.Errorf("ready: %#x", got)
	}
	if got, err := k.readFile(fh, 1, unix.O_NONBLOCK); got != "x" || err != nil {
		t.Errorf("nonblocking read when ready: %q, %v", got, err)
	}
	write := ioIn{FH: fh, Size: 1, Flags: unix.O_NONBLOCK}
	if e, _ := k.call(opWrite, bytesOf(write), []byte("x")); e != unix.EAGAIN {
		t.Errorf("nonblocking write: %v, want EAGAIN", e)
	}
	f.become(unix.POLLHUP)
	k.recv()
	if e, _ := k.call(opWrite, bytesOf(write), []byte("x")); e != 0 {
		t.Errorf("nonblocking write after hangup has to ask the File: %v", e)
	}
	k.cancel()
	k.wait()
	f.become(unix.POLLIN) // after the end: no panic, no effect
}

func TestPollOfPlainFile(t *testing.T) {
	k := serving(t, Options{}, funcs{})
	e, out := k.call(opPoll, bytesOf(pollIn{FH: k.open(), KH: 1, Events: unix.POLLIN}))
	if e != 0 || decode[pollOut](t, out).REvents&(unix.POLLIN|unix.POLLOUT) != unix.POLLIN|unix.POLLOUT {
		t.Errorf("got %v, %x: want ready, and never ENOSYS", e, out)
	}
	if got, err := k.readFile(1, 1, unix.O_NONBLOCK); got != "" || err != nil {
		t.Errorf("nonblocking read: %q, %v", got, err)
	}
}

// A File learns whether a call may wait, as the open file is now.
func TestNonblocking(t *testing.T) {
	var got []bool
	k := serving(t, Options{}, funcs{
		read: func(ctx context.Context, _ []byte, _ int64) (int, error) {
			got = append(got, Nonblocking(ctx))
			return 0, nil
		},
		write: func(ctx context.Context, p []byte, _ int64) (int, error) {
			got = append(got, Nonblocking(ctx))
			return len(p), nil
		},
	})
	fh := k.open()
	for _, flags := range []uint32{0, unix.O_NONBLOCK, unix.O_APPEND} {
		if _, err := k.readFile(fh, 1, unix.O_RDWR|flags); err != nil {
			t.Fatal(err)
		}
		if e, _ := k.call(opWrite, bytesOf(ioIn{FH: fh, Size: 1, Flags: unix.O_RDWR | flags}), []byte("x")); e != 0 {
			t.Fatal(e)
		}
	}
	if want := []bool{false, false, true, true, false, false}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// Whatever the kernel says, each message that wants an answer gets one that
// the kernel takes, and nothing panics.
func FuzzDispatch(f *testing.F) {
	header := func(opcode uint32, body []byte) []byte {
		return append(bytesOf(inHeader{Len: uint32(inHeaderSize + len(body)), Opcode: opcode, Unique: 2}), body...)
	}
	f.Add(header(opOpen, bytesOf(openIn{})))
	f.Add(header(opRead, bytesOf(ioIn{FH: 1, Size: 1 << 31})))
	f.Add(header(opWrite, append(bytesOf(ioIn{FH: 1, Size: 1}), 'x')))
	f.Add(header(opIoctl, append(bytesOf(ioctlIn{FH: 1, Cmd: ioctlAdd, InSize: 12, OutSize: 12}), make([]byte, 12)...)))
	f.Add(header(opIoctl, bytesOf(ioctlIn{FH: 1, Cmd: ioctlGets, Flags: ioctlUnrestricted})))
	f.Add(header(opPoll, bytesOf(pollIn{FH: 1, KH: 1})))
	f.Add(header(opRelease, bytesOf(releaseIn{FH: 1})))
	f.Add(header(opInterrupt, bytesOf(interruptIn{Unique: 2})))
	f.Add(header(opForget, nil))
	f.Fuzz(func(t *testing.T, msg []byte) {
		if len(msg) == 0 || len(msg) > len(buffer{}) {
			return // read never gives these
		}
		k := serving(t, Options{}, funcs{wrap: func(plain File) File { return &ioctlFile{File: plain} }})
		k.open()
		k.write(msg)
		h, _, ok := take[inHeader](msg)
		if ok && h.Unique != 0 && h.Opcode != opInterrupt && h.Opcode != opForget && h.Opcode != opBatchForget {
			if a, _ := k.recv(); a.Unique != h.Unique || a.Error <= -512 { // recv checks the rest
				t.Errorf("answer %+v to %+v", a, h)
			}
		}
		k.unique = 1 << 40
		if e, _ := k.call(0); e != unix.ENOSYS {
			t.Errorf("out of step: %v", e)
		}
		k.cancel()
		if err := k.wait(); err != nil {
			t.Error(err)
		}
	})
}
