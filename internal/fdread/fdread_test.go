// SPDX-License-Identifier: Apache-2.0

package fdread_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bluefield-go/bmc-rshim/internal/fdread"
)

// ends makes what can be waited for: its end to read from, and to write to.
var ends = map[string]func(t *testing.T) (r, w *os.File){
	"pipe": func(t *testing.T) (r, w *os.File) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		return r, w
	},
	"blocking pipe": func(t *testing.T) (r, w *os.File) {
		var fds [2]int
		if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		return os.NewFile(uintptr(fds[0]), "r"), os.NewFile(uintptr(fds[1]), "w")
	},
	"socket": func(t *testing.T) (r, w *os.File) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return os.NewFile(uintptr(fds[0]), "r"), os.NewFile(uintptr(fds[1]), "w")
	},
}

// open makes a Reader of f and closes f, as who got it over D-Bus does.
func open(t *testing.T, f *os.File) *fdread.Reader {
	t.Helper()
	c, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var r *fdread.Reader
	var rerr error
	err = c.Control(func(fd uintptr) {
		before, _ := unix.FcntlInt(fd, unix.F_GETFL, 0)
		r, rerr = fdread.New(fd, "input")
		if after, _ := unix.FcntlInt(fd, unix.F_GETFL, 0); after != before {
			t.Errorf("the flags of the file were %#x and are %#x", before, after)
		}
	})
	if err := errors.Join(err, rerr, f.Close()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// bound is a reader whose Read ends with a context, for io.ReadAll.
type bound struct {
	r   *fdread.Reader
	ctx context.Context
}

func (b bound) Read(p []byte) (int, error) { return b.r.Read(b.ctx, p) }

func TestRead(t *testing.T) {
	for name, make := range ends {
		t.Run(name, func(t *testing.T) {
			f, w := make(t)
			defer w.Close()
			r := open(t, f)
			if r.Regular() != nil {
				t.Error("it counts as a regular file")
			}
			want := bytes.Repeat([]byte("0123456789abcdef"), 20_000) // more than fits
			go func() {
				_, _ = w.Write(want)
				_ = w.Close()
			}()
			got, err := io.ReadAll(bound{r, t.Context()})
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes, %v; want %d", len(got), err, len(want))
			}
		})
	}
}

// TestContext: a Read that waits ends with its context, and the next one goes on.
func TestContext(t *testing.T) {
	for name, make := range ends {
		t.Run(name, func(t *testing.T) {
			f, w := make(t)
			defer w.Close()
			r := open(t, f)
			p := [10]byte{}
			for range 3 {
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
				n, err := r.Read(ctx, p[:])
				if n != 0 || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%d, %v", n, err)
				}
				if n, err := r.Read(ctx, p[:]); n != 0 || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("after its end: %d, %v", n, err)
				}
				cancel()
				if _, err := w.Write([]byte("more")); err != nil {
					t.Fatal(err)
				}
				if n, err := r.Read(t.Context(), p[:]); string(p[:n]) != "more" || err != nil {
					t.Errorf("%q, %v", p[:n], err)
				}
			}
		})
	}
}

func TestRegular(t *testing.T) {
	name := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(name, []byte("an image"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Seek(3, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	r := open(t, f)
	if r.Regular() == nil {
		t.Error("it does not count as a regular file")
	}
	if got, err := io.ReadAll(bound{r, t.Context()}); string(got) != "image" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Read(ctx, make([]byte, 1)); !errors.Is(err, context.Canceled) {
		t.Errorf("after its end: %v", err)
	}
}

func TestRefused(t *testing.T) {
	d, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := fdread.New(d.Fd(), "input"); !errors.Is(err, unix.EISDIR) {
		t.Errorf("a directory: %v", err)
	}
	if _, err := fdread.New(^uintptr(0)>>1, "input"); err == nil {
		t.Error("no file: no error")
	}
}

// TestLeaks: whatever New does to a descriptor, Close undoes.
func TestLeaks(t *testing.T) {
	open := func() int {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(fds)
	}
	for name, make := range ends {
		f, w := make(t)
		before := open()
		for range 100 {
			c, _ := f.SyscallConn()
			_ = c.Control(func(fd uintptr) {
				r, err := fdread.New(fd, "input")
				if err != nil {
					t.Fatal(err)
				}
				_ = r.Close()
			})
		}
		if after := open(); after > before+2 { // of the runtime's own
			t.Errorf("%s: %d descriptors are open, %d were", name, after, before)
		}
		_, _ = f.Close(), w.Close()
	}
}
