// SPDX-License-Identifier: Apache-2.0

package cuse_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bluefield-go/bmc-rshim/internal/cuse"
	"github.com/bluefield-go/bmc-rshim/internal/vmtest/guest"
)

// Tests against a real kernel: as root, in a machine whose kernel has CUSE.

func needKernel(t testing.TB) {
	t.Helper()
	if _, err := os.Stat("/dev/cuse"); err != nil {
		if guest.In() {
			t.Fatal(err)
		}
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
		case <-time.After(time.Minute):
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
	case <-time.After(time.Minute):
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
	d.mu.Lock()
	if d.flags&(unix.O_TRUNC|unix.O_CREAT) != 0 || d.flags&unix.O_APPEND == 0 || d.flags&unix.O_ACCMODE != unix.O_RDWR {
		t.Errorf("flags %#x", d.flags)
	}
	d.mu.Unlock()
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
	h := startHelper(t, "echo", path, "0")
	if got := h.line(t); got != "<nil>" {
		t.Errorf("echo: %s", got)
	}
	select {
	case <-d.release:
	default:
		t.Error("close did not wait for Release")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
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
			for err == unix.EINTR { // Go's own signals
				n, err = unix.Read(fd, p)
			}
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
			close(d.leave)
			if got, want := h.line(t), fmt.Sprint(c.size, " <nil>"); got != want {
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
	case <-time.After(time.Minute):
		t.Error("not released")
	}
}
