// SPDX-License-Identifier: Apache-2.0

package cuse_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bluefield-go/bmc-rshim/internal/cuse"
)

// Tests against a real kernel: as root, in a machine whose kernel has CUSE.

func needKernel(t testing.TB) {
	t.Helper()
	if _, err := os.Stat("/dev/cuse"); err != nil {
		t.Skip("no /dev/cuse here: runs in the machine lanes")
	}
}

// serve runs a Server and returns the path of its node, and what ends it.
func serve(t testing.TB, o cuse.Options, d cuse.Device) (path string, stop func() error) {
	t.Helper()
	needKernel(t)
	if o.Name == "" {
		o.Name = "cusetest/node"
	}
	ctx, cancel := context.WithCancel(context.Background())
	s, ended := cuse.New(o, d), make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-ended:
			return err
		case <-time.After(20 * time.Second):
			t.Fatal("Run does not end")
			return nil
		}
	})
	t.Cleanup(func() { stop() })
	select {
	case <-s.Ready():
	case err := <-ended:
		ended <- err
		t.Fatalf("Run: %v", err)
	case <-time.After(20 * time.Second):
		t.Fatal("not ready")
	}
	return filepath.Join("/dev", o.Name), stop
}

// open opens a node past Go's poller, as a C program does.
func open(t testing.TB, path string, flags int) (fd int) {
	t.Helper()
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("open %s: %v", path, err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// echo is a Device that gives back what was written, and counts.
type echo struct {
	mu             sync.Mutex
	opens, closes  int
	flags          uint32
	stored         bytes.Buffer
	readOff, wrOff []int64
	release        chan bool // told of each Release, if not nil
}

func (e *echo) Open(_ context.Context, flags uint32) (cuse.File, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.opens++
	e.flags = flags
	return e, nil
}

func (e *echo) Read(_ context.Context, p []byte, off int64) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.readOff = append(e.readOff, off)
	return e.stored.Read(p) // io.EOF when empty
}

func (e *echo) Write(_ context.Context, p []byte, off int64) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.wrOff = append(e.wrOff, off)
	return e.stored.Write(p)
}

func (e *echo) Release(context.Context) {
	e.mu.Lock()
	e.closes++
	e.mu.Unlock()
	if e.release != nil {
		e.release <- true
	}
}

func TestKernelEcho(t *testing.T) {
	d := &echo{}
	path, stop := serve(t, cuse.Options{}, d)
	fd := open(t, path, unix.O_RDWR)
	want := bytes.Repeat([]byte("0123456789abcdefg"), 1<<20/17)
	if n, err := unix.Write(fd, want); n != len(want) || err != nil {
		t.Fatalf("write of %d: %d, %v", len(want), n, err)
	}
	got := make([]byte, len(want)+1)
	n, err := unix.Read(fd, got)
	if n != len(want) || err != nil || !bytes.Equal(got[:n], want) {
		t.Fatalf("read: %d, %v", n, err)
	}
	if n, err := unix.Read(fd, got); n != 0 || err != nil {
		t.Errorf("read at the end: %d, %v", n, err)
	}
	// No position: pwrite starts at 0, and so does the write after it.
	for range 2 {
		if n, err := unix.Pwrite(fd, want[:5], 1234); n != 5 || err != nil {
			t.Errorf("pwrite: %d, %v", n, err)
		}
	}
	if err := stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
	if len(d.wrOff) < 1<<20/cuse.MaxIO+2 || d.wrOff[0] != 0 || d.wrOff[1] == 0 || d.wrOff[len(d.wrOff)-1] != 0 {
		t.Errorf("offsets of writes: %d", d.wrOff)
	}
	if d.readOff[0] != 0 || d.readOff[1] == 0 || d.readOff[len(d.readOff)-1] != 0 {
		t.Errorf("offsets of reads: %d", d.readOff)
	}
	if d.opens != 1 || d.closes != 1 { // still open here
		t.Errorf("%d opens, %d closes", d.opens, d.closes)
	}
}

func TestKernelMode(t *testing.T) {
	for gid, want := range map[int]fs.FileMode{0: 0o600, 1234: 0o660} {
		path, stop := serve(t, cuse.Options{GID: gid}, &echo{})
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			t.Fatal(err)
		}
		if st.Uid != 0 || int(st.Gid) != gid || fs.FileMode(st.Mode&0o7777) != want || st.Mode&unix.S_IFMT != unix.S_IFCHR {
			t.Errorf("GID %d: %d:%d %#o", gid, st.Uid, st.Gid, st.Mode)
		}
		stop()
	}
}

// What the package's comment says of calls that never get to the Device.
func TestKernelAnswersAlone(t *testing.T) {
	d := &echo{release: make(chan bool, 10)}
	path, _ := serve(t, cuse.Options{}, d)
	fd := open(t, path, unix.O_RDWR|unix.O_TRUNC|unix.O_CREAT|unix.O_APPEND)
	if d.flags&(unix.O_TRUNC|unix.O_CREAT) != 0 || d.flags&unix.O_APPEND == 0 || d.flags&unix.O_ACCMODE != unix.O_RDWR {
		t.Errorf("flags %#x", d.flags)
	}
	_, mmapErr := unix.Mmap(fd, 0, 4096, unix.PROT_READ, unix.MAP_SHARED)
	_, seekErr := unix.Seek(fd, 100, 0)
	for _, c := range []struct {
		name      string
		got, want error
	}{
		{"truncate", unix.Truncate(path, 0), unix.EINVAL},
		{"ftruncate", unix.Ftruncate(fd, 0), unix.EINVAL},
		{"fsync", unix.Fsync(fd), unix.EINVAL},
		{"mmap", mmapErr, unix.ENODEV},
		{"lseek", seekErr, nil},
	} {
		if c.got != c.want {
			t.Errorf("%s: %v, want %v", c.name, c.got, c.want)
		}
	}
	// As the shell's "echo hello > node" does it.
	if err := os.WriteFile(path, []byte("hello"), 0o666); err != nil {
		t.Error(err)
	}
	<-d.release // close has waited for it; no lock is needed to look
	if d.stored.String() != "hello" || d.closes != 1 {
		t.Errorf("stored %q, %d closes", d.stored.String(), d.closes)
	}
}

// gate is a Device whose reads wait to be let in, and can be interrupted.
type gate struct {
	echo
	entered chan bool
	leave   chan bool
	partial int // bytes that an interrupted write has taken
}

func newGate() *gate { return &gate{entered: make(chan bool, 100), leave: make(chan bool)} }

func (g *gate) Open(context.Context, uint32) (cuse.File, error) { return g, nil }

func (g *gate) wait(ctx context.Context) error {
	g.entered <- true
	select {
	case <-g.leave:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *gate) Read(ctx context.Context, p []byte, _ int64) (int, error) {
	if err := g.wait(ctx); err != nil {
		return 0, err
	}
	return copy(p, "through"), nil
}

func (g *gate) Write(ctx context.Context, p []byte, _ int64) (int, error) {
	if err := g.wait(ctx); err != nil {
		return g.partial, err
	}
	return len(p), nil
}

func TestKernelConcurrentReaders(t *testing.T) {
	d := newGate()
	path, _ := serve(t, cuse.Options{}, d)
	const readers = 8
	results := make(chan string, readers)
	for range readers {
		fd := open(t, path, unix.O_RDONLY)
		go func() {
			p := make([]byte, 100)
			n, err := unix.Read(fd, p)
			results <- fmt.Sprint(string(p[:max(n, 0)]), err)
		}()
	}
	for range readers {
		<-d.entered // all are in before one is out
	}
	for range readers {
		d.leave <- true
	}
	for range readers {
		if got := <-results; got != "through<nil>" {
			t.Errorf("read: %s", got)
		}
	}
}

func TestKernelInterrupt(t *testing.T) {
	for _, c := range []struct {
		name    string
		partial int
		size    int
		want    string
	}{
		{"nothing taken", 0, 100, fmt.Sprint(-1, " ", unix.EINTR)},
		{"some taken", 7, 100, "7 <nil>"},
		{"in the first piece of several", 7, 3 * cuse.MaxIO, "7 <nil>"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newGate()
			d.partial = c.partial
			path, _ := serve(t, cuse.Options{}, d)
			h := startHelper(t, "write", path, fmt.Sprint(c.size))
			<-d.entered
			h.signal(t, unix.SIGUSR1)
			if got := h.line(t); got != c.want {
				t.Errorf("write: %s, want %s", got, c.want)
			}
			h.signal(t, unix.SIGUSR1) // between calls: no effect on the next
			h.next(t)
			<-d.entered
			d.leave <- true
			if got, want := h.line(t), fmt.Sprint(min(c.size, cuse.MaxIO)); !strings.HasPrefix(got, want) && c.size <= cuse.MaxIO {
				t.Errorf("next write: %s, want %s", got, want)
			}
		})
	}
}

// A program killed in the middle of a call goes at once, and its file is
// released without an interrupt.
func TestKernelKill(t *testing.T) {
	d := newGate()
	d.release = make(chan bool, 1)
	path, _ := serve(t, cuse.Options{}, d)
	h := startHelper(t, "write", path, "100")
	<-d.entered
	h.cmd.Process.Kill()
	h.cmd.Wait()
	select {
	case <-d.release:
	case <-time.After(20 * time.Second):
		t.Error("not released")
	}
}

func ioctl(fd int, cmd uint32, arg uintptr) (int, error) {
	n, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(cmd), arg)
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
				if n, err := ioctl(fd, cmd, uintptr(unsafe.Pointer(&arg[0]))); n != 0 || err != nil || !bytes.Equal(arg, want) {
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
			n, err := ioctl(fd, unix.TCGETS, uintptr(unsafe.Pointer(&termios[0])))
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
	d := &terminal{polled: make(chan bool)}
	path, stop := serve(t, cuse.Options{}, d)
	fd := open(t, path, unix.O_RDWR|unix.O_NONBLOCK)
	p := make([]byte, 100)
	if n, err := unix.Read(fd, p); err != unix.EAGAIN {
		t.Errorf("nonblocking read: %d, %v, want EAGAIN", n, err)
	}
	poll := func(events int16) chan string {
		res := make(chan string, 1)
		go func() {
			fds := []unix.PollFd{{Fd: int32(fd), Events: events}}
			n, err := unix.Poll(fds, 20000)
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
	// Go's own poller, and with it epoll.
	f := os.NewFile(uintptr(open(t, path, unix.O_RDWR|unix.O_NONBLOCK)), path)
	got := make(chan string, 1)
	go func() {
		n, err := f.Read(p)
		got <- fmt.Sprint(n, err)
	}()
	<-d.polled
	d.feed("x")
	if s := <-got; s != "1 <nil>" {
		t.Errorf("epoll: %s", s)
	}
	res := poll(unix.POLLIN)
	<-d.polled
	stop()
	if got, want := <-res, fmt.Sprintf("1 %#x <nil>", unix.POLLERR); got != want {
		t.Errorf("poll at the end: %s, want %s", got, want)
	}
}

// After Run the node is gone, whoever has it open, and they are told.
func TestKernelEnd(t *testing.T) {
	d := newGate()
	d.release = make(chan bool, 10)
	path, stop := serve(t, cuse.Options{}, d)
	h := startHelper(t, "write", path, "100") // a program that stays in its call
	<-d.entered
	idle := startHelper(t, "hold", path, "0") // one that just keeps the file
	if got := idle.line(t); got != "open" {
		t.Fatalf("hold: %s", got)
	}
	fd := open(t, path, unix.O_RDWR)
	if err := stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
	if n := len(d.release); n != 3 {
		t.Errorf("%d of 3 files released", n)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("node after Run: %v", err)
	}
	if got, want := h.line(t), fmt.Sprint(-1, " ", unix.ECONNABORTED); got != want {
		t.Errorf("call in progress: %s, want %s", got, want)
	}
	if _, err := unix.Read(fd, make([]byte, 1)); err != unix.ENOTCONN {
		t.Errorf("read of a file left open: %v, want ENOTCONN", err)
	}
	// The name is free although the old node's files are open.
	again, _ := serve(t, cuse.Options{}, &echo{})
	if _, err := unix.Write(open(t, again, unix.O_WRONLY), []byte("x")); err != nil {
		t.Errorf("write to the new node: %v", err)
	}
}

func TestKernelRefuses(t *testing.T) {
	path, _ := serve(t, cuse.Options{}, &echo{})
	err := cuse.New(cuse.Options{Name: "cusetest/node"}, &echo{}).Run(t.Context())
	if !errors.Is(err, cuse.ErrRefused) {
		t.Errorf("second node of the name: %v, want ErrRefused", err)
	}
	if _, err := unix.Write(open(t, path, unix.O_WRONLY), []byte("x")); err != nil {
		t.Errorf("first node: %v", err)
	}
}

func TestKernelAbort(t *testing.T) {
	needKernel(t)
	s := cuse.New(cuse.Options{Name: "cusetest/node"}, &echo{})
	ended := make(chan error, 1)
	go func() { ended <- s.Run(t.Context()) }()
	<-s.Ready()
	if err := os.WriteFile("/sys/class/cuse/cusetest!node/abort", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, cuse.ErrGone) {
		t.Errorf("got %v, want ErrGone", err)
	}
	if _, err := os.Stat("/dev/cusetest/node"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("node: %v", err)
	}
}

func TestKernelCycles(t *testing.T) {
	needKernel(t)
	fds := func() int {
		d, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(d)
	}
	before := 0
	for i := range 200 {
		d := &echo{}
		path, stop := serve(t, cuse.Options{}, d)
		fd := open(t, path, unix.O_RDWR)
		if _, err := unix.Write(fd, []byte("x")); err != nil {
			t.Fatalf("cycle %d: %v", i, err)
		}
		if i%2 == 0 {
			unix.Close(fd)
		}
		if err := stop(); err != nil {
			t.Fatalf("cycle %d: %v", i, err)
		}
		if i%2 == 1 {
			unix.Close(fd)
		}
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("cycle %d: node: %v", i, err)
		}
		if d.opens != 1 || d.closes != 1 {
			t.Fatalf("cycle %d: %d opens, %d closes", i, d.opens, d.closes)
		}
		if i == 0 {
			before = fds()
		}
	}
	if after := fds(); after != before {
		t.Errorf("%d descriptors, %d after the first cycle", after, before)
	}
	if nodes, _ := os.ReadDir("/sys/class/cuse"); len(nodes) != 0 {
		t.Errorf("%d nodes left", len(nodes))
	}
}

// sink swallows writes.
type sink struct{ echo }

func (s *sink) Open(context.Context, uint32) (cuse.File, error)         { return s, nil }
func (s *sink) Write(_ context.Context, p []byte, _ int64) (int, error) { return len(p), nil }

func BenchmarkKernelWrite(b *testing.B) {
	path, _ := serve(b, cuse.Options{}, &sink{})
	fd := open(b, path, unix.O_WRONLY)
	p := make([]byte, cuse.MaxIO)
	b.SetBytes(cuse.MaxIO)
	b.ReportAllocs()
	for b.Loop() {
		if n, err := unix.Write(fd, p); n != len(p) || err != nil {
			b.Fatal(n, err)
		}
	}
}
