// SPDX-License-Identifier: Apache-2.0

package cuse_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bluefield-go/bmc-rshim/internal/cuse"
)

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

// What a shell left under the node's name, while there was no node, is not what
// the next writer gets.
func TestKernelFileInTheWay(t *testing.T) {
	needKernel(t)
	const dir = "/dev/cusetest-way"
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(dir+"/node", []byte("an image"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := &echo{}
	path, stop := serve(t, cuse.Options{Name: "cusetest-way/node"}, d)
	if st, err := os.Stat(path); err != nil || st.Mode()&fs.ModeCharDevice == 0 {
		t.Errorf("node: %v, %v", st, err)
	}
	if _, err := unix.Write(open(t, path, unix.O_WRONLY), []byte("x")); err != nil {
		t.Error(err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	// What else has the name is not ours to remove.
	if err := os.Mkdir(dir+"/node", 0o755); err != nil {
		t.Fatal(err)
	}
	err := cuse.New(cuse.Options{Name: "cusetest-way/node"}, d).Run(t.Context())
	if !errors.Is(err, cuse.ErrRefused) {
		t.Errorf("a directory in the way: %v, want ErrRefused", err)
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

// A read that blocks would hold a thread for each.
func TestKernelIdleNodesHoldNoThread(t *testing.T) {
	needKernel(t)
	threads := func() int {
		d, err := os.ReadDir("/proc/self/task")
		if err != nil {
			t.Fatal(err)
		}
		return len(d)
	}
	const nodes = 32
	before := threads()
	for i := range nodes {
		serve(t, cuse.Options{Name: fmt.Sprint("cusetest/node", i)}, &echo{})
	}
	if after := threads(); after-before >= nodes/2 {
		t.Errorf("%d threads before, %d with %d idle nodes", before, after, nodes)
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
