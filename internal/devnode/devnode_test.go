// SPDX-License-Identifier: Apache-2.0

package devnode

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/internal/cuse"
	"github.com/bluefield-go/bmc-rshim/internal/vmtest/guest"
	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

// chip is a Backend of nothing but registers, whose accesses it remembers.
type chip struct {
	gen  reg.Generation
	slow time.Duration // of each access
	gone chan struct{}

	mu   sync.Mutex
	regs map[reg.Addr]uint64
	last access
}

type access struct {
	addr  reg.Addr
	size  int
	write bool
}

func (c *chip) Name() string               { return "usb-1.1" }
func (c *chip) Generation() reg.Generation { return c.gen }
func (c *chip) Revision() int              { return 1 }
func (c *chip) Gone() <-chan struct{}      { return c.gone }
func (c *chip) Close() error               { return nil }

func (c *chip) access(ctx context.Context, a access) error {
	c.mu.Lock()
	slow := c.slow
	if a.addr.Channel != reg.ChanRShim { // what the device does by itself
		c.last = a
	}
	c.mu.Unlock()
	select {
	case <-time.After(slow):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *chip) ReadReg(ctx context.Context, a reg.Addr, size int) (uint64, error) {
	if err := c.access(ctx, access{a, size, false}); err != nil {
		return 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.regs[a], nil
}

func (c *chip) WriteReg(ctx context.Context, a reg.Addr, size int, v uint64) error {
	if err := c.access(ctx, access{a, size, true}); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.regs[a] = v
	return nil
}

func (c *chip) BootStart(time.Duration, time.Duration)                {}
func (c *chip) BootWrite(_ context.Context, data []byte) (int, error) { return len(data), nil }
func (c *chip) BootFlush(context.Context) error                       { return nil }
func (c *chip) BootDrop(from int64) int64                             { return from }
func (c *chip) BootEnd()                                              {}
func (c *chip) TMStart()                                              {}
func (c *chip) TMStop()                                               {}
func (c *chip) TMWrite(context.Context, []byte) error                 { return nil }
func (c *chip) TMIdle(context.Context) error                          { return nil }

func (c *chip) TMRead(ctx context.Context, _ []byte) (int, error) {
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-c.gone:
		return 0, rshim.ErrGone
	}
}

// withDevice runs f with a device that is attached to a chip.
func withDevice(t *testing.T, g reg.Generation, f func(ctx context.Context, c *chip, d *rshim.Device)) {
	synctest.Test(t, func(t *testing.T) {
		m := reg.For(g)
		c := &chip{gen: g, gone: make(chan struct{}), regs: map[reg.Addr]uint64{
			m.FabricDim: 0x22, m.BootControl: uint64(reg.BootEMMC),
		}}
		d := rshim.New(0, rshim.Options{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = d.Serve(ctx, c)
		}()
		defer func() {
			cancel()
			<-done
		}()
		time.Sleep(5 * time.Second)
		if s, why := d.State(); s != rshim.Attached {
			t.Fatal(s, why)
		}
		f(ctx, c, d)
	})
}

// TestErrnoTable: every error that package rshim exports has its errno.
func TestErrnoTable(t *testing.T) {
	if guest.Lane() == "ast2600" {
		t.Skip("the sources are not there")
	}
	var want []string
	files, err := filepath.Glob("../../rshim/*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		if f.Name.Name != "rshim" {
			continue // a test
		}
		for name, o := range f.Scope.Objects {
			if o.Kind == ast.Var && strings.HasPrefix(name, "Err") {
				want = append(want, name)
			}
		}
	}
	// The names of the table's errors are not known at run time; this list is
	// what ties the two together.
	named := map[string]error{
		"ErrGone": rshim.ErrGone, "ErrNotOwner": rshim.ErrNotOwner, "ErrNotReady": rshim.ErrNotReady,
		"ErrBusy": rshim.ErrBusy, "ErrNoReset": rshim.ErrNoReset, "ErrIncomplete": rshim.ErrIncomplete,
		"ErrInvalid": rshim.ErrInvalid, "ErrNotSupported": rshim.ErrNotSupported, "ErrTooMany": rshim.ErrTooMany,
		"ErrBlocked": rshim.ErrBlocked, "ErrLocked": rshim.ErrLocked, "ErrNoAnswer": rshim.ErrNoAnswer,
		"ErrCancelled": rshim.ErrCancelled, "ErrDPU": rshim.ErrDPU, "ErrNoPush": rshim.ErrNoPush, "ErrGivenUp": rshim.ErrGivenUp,
	}
	slices.Sort(want)
	if got := slices.Sorted(maps.Keys(named)); !slices.Equal(got, want) {
		t.Errorf("package rshim exports %q, this test knows %q", want, got)
	}
	for name, err := range named {
		var e syscall.Errno
		wrapped := errno(&rshim.OpError{Op: "test", Device: "rshim0", Err: fmt.Errorf("because: %w", err)})
		if !errors.As(wrapped, &e) || e == 0 {
			t.Errorf("%s has no errno", name)
		}
		if !errors.Is(wrapped, err) || strings.Contains(wrapped.Error(), "\n") {
			t.Errorf("%s became %q", name, wrapped)
		}
	}
	if err := errno(nil); err != nil {
		t.Error(err)
	}
}

// TestMiscReadOnce: an open file gives its text once, however small the reads,
// and whatever changes between them.
func TestMiscReadOnce(t *testing.T) {
	for _, size := range []int{1, 7, 100, 4096, 128 << 10} {
		withDevice(t, reg.BlueField3, func(ctx context.Context, c *chip, d *rshim.Device) {
			want := d.Misc(ctx)
			f, err := miscDevice{d, slog.New(slog.DiscardHandler)}.Open(ctx, syscall.O_RDWR)
			if err != nil {
				t.Fatal(err)
			}
			var got bytes.Buffer
			buf := make([]byte, size)
			for i := 0; ; i++ {
				n, err := f.Read(ctx, buf, 0)
				got.Write(buf[:n])
				if err == io.EOF {
					break
				}
				if n == 0 || err != nil {
					t.Fatal(n, err)
				}
				if i == 0 {
					if _, err := f.Write(ctx, []byte("BOOT_TIMEOUT 77\n"), 0); err != nil {
						t.Fatal(err)
					}
				}
			}
			if got.String() != want {
				t.Errorf("in reads of %d: %q, want %q", size, got.String(), want)
			}
			if n, err := f.Read(ctx, buf, 0); n != 0 || err != io.EOF {
				t.Errorf("after the end: %d, %v", n, err)
			}
		})
	}
}

// TestMiscReadInterrupted: a read that is interrupted says so, rather than
// give what registers read as when there is no time; the next one has it all.
func TestMiscReadInterrupted(t *testing.T) {
	withDevice(t, reg.BlueField3, func(ctx context.Context, c *chip, d *rshim.Device) {
		f, _ := miscDevice{d, slog.New(slog.DiscardHandler)}.Open(ctx, syscall.O_RDONLY)
		c.mu.Lock()
		c.slow = 300 * time.Millisecond
		c.mu.Unlock()
		buf := make([]byte, 4096)
		first, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		go func() { // a second reader of the same file does not have to wait for the first
			time.Sleep(10 * time.Millisecond)
			second, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
			defer cancel()
			if n, err := f.Read(second, make([]byte, 10), 0); n != 0 || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("second reader: %d, %v", n, err)
			}
		}()
		if n, err := f.Read(first, buf, 0); n != 0 || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("interrupted: %d, %v: %s", n, err, buf[:n])
		}
		n, err := f.Read(ctx, buf, 0)
		if err != nil || !strings.Contains(string(buf[:n]), "BOOT_MODE       1 ") {
			t.Errorf("read again: %v, %s", err, buf[:n])
		}
	})
}

// TestMiscWrite: a command that is refused is explained in the log, on one line
// and bounded, whatever was written.
func TestMiscWrite(t *testing.T) {
	withDevice(t, reg.BlueField3, func(ctx context.Context, c *chip, d *rshim.Device) {
		var log bytes.Buffer
		f, _ := miscDevice{d, slog.New(slog.NewTextHandler(&log, nil))}.Open(ctx, syscall.O_RDWR)
		for text, want := range map[string]syscall.Errno{
			"BOOT_TIMEOUT 20\n":              0,
			"NONSENSE 1\n":                   syscall.EINVAL,
			"DEV_NAME usb-1.1\n":             syscall.EINVAL,
			"\x1b[2J\nSW_RESET 1\n":          syscall.EINVAL,
			strings.Repeat("\xff ", 64<<10):  syscall.EINVAL,
			"BOOT_MODE 1 " + "\u202e\r\n x ": syscall.EINVAL,
		} {
			log.Reset()
			n, err := f.Write(ctx, []byte(text), 0)
			var e syscall.Errno
			errors.As(err, &e)
			if e != want || (err == nil) != (n == len(text)) {
				t.Errorf("%.40q: %d, %v; want %v", text, n, err, want)
			}
			if (err != nil) != (log.Len() > 0) {
				t.Errorf("%.40q: log is %q", text, log.String())
			}
			for _, r := range strings.TrimSuffix(log.String(), "\n") {
				if r < ' ' || r > '~' {
					t.Errorf("%.40q: %q in the log", text, r)
				}
			}
			if log.Len() > 1000 {
				t.Errorf("%.40q: %d bytes in the log", text, log.Len())
			}
		}
		if _, err := f.Write(ctx, []byte("BOOT_TIMEOUT 20\n"), 4096); err != syscall.EINVAL {
			t.Errorf("at an offset: %v", err)
		}
	})
}

// TestIoctl: registers are reached by their address in both sizes of message.
func TestIoctl(t *testing.T) {
	call := func(ctx context.Context, d *rshim.Device, cmd, addr uint32, data uint64, size ...byte) (uint64, error) {
		f := regFile{d}
		in, out, err := f.IoctlSize(cmd)
		if err != nil {
			return 0, err
		}
		msg := binary.LittleEndian.AppendUint32(nil, addr)
		msg = append(binary.LittleEndian.AppendUint64(msg, data), size...)
		if in != len(msg) || out != len(msg) {
			t.Fatalf("ioctl %#x has sizes %d, %d; want %d", cmd, in, out, len(msg))
		}
		c := cuse.Ioctl{Cmd: cmd, In: msg, Out: make([]byte, out)}
		_, err = f.Ioctl(ctx, c)
		return binary.LittleEndian.Uint64(c.Out[4:]), err
	}
	for g, want := range map[reg.Generation]reg.Addr{
		reg.BlueField2: {Channel: 0x5, Offset: 0x28}, // the upper bits are masked off
		reg.BlueField3: {Channel: 0x1305, Offset: 0x28},
	} {
		withDevice(t, g, func(ctx context.Context, c *chip, d *rshim.Device) {
			for _, size := range []byte{1, 2, 4, 8} {
				if _, err := call(ctx, d, iocWrite2, 0x13050028, 0x1122334455667788, size); err != nil {
					t.Fatal(err)
				}
				if got := (access{want, int(size), true}); c.last != got {
					t.Errorf("write of %d: %+v, want %+v", size, c.last, got)
				}
				v, err := call(ctx, d, iocRead2, 0x13050028, 0, size)
				if err != nil || v != 0x1122334455667788 {
					t.Errorf("read of %d: %#x, %v", size, v, err)
				}
			}
			if _, err := call(ctx, d, iocWrite, 0x13050028, 42); err != nil {
				t.Fatal(err)
			}
			if v, err := call(ctx, d, iocRead, 0x13050028, 0); v != 42 || err != nil {
				t.Errorf("old message: %d, %v", v, err)
			}
			if got := (access{want, 8, false}); c.last != got {
				t.Errorf("old message: %+v, want %+v", c.last, got)
			}
			for _, size := range []byte{0, 3, 5, 7, 9, 16, 255} {
				if _, err := call(ctx, d, iocRead2, 0x50028, 0, size); err != syscall.EINVAL {
					t.Errorf("size %d: %v", size, err)
				}
			}
			if _, err := call(ctx, d, 0x5401, 0, 0); err != syscall.ENOSYS {
				t.Errorf("TCGETS: %v", err)
			}
		})
	}
	gone := rshim.New(1, rshim.Options{})
	if _, err := call(t.Context(), gone, iocRead, 0x10110, 0); !errors.Is(err, syscall.ENODEV) {
		t.Errorf("register of an absent device: %v", err)
	}
}

// TestBoot: only a writer resets the chip, there is one at a time, and what
// goes wrong has the errno that it has with the C daemon.
func TestBoot(t *testing.T) {
	withDevice(t, reg.BlueField3, func(ctx context.Context, c *chip, d *rshim.Device) {
		b := bootDevice{d}
		if _, err := b.Open(ctx, syscall.O_RDONLY); err != syscall.EINVAL {
			t.Errorf("open to read: %v", err)
		}
		if err := d.WriteMisc(ctx, "BOOT_RESET_SKIP 1"); err != nil {
			t.Fatal(err)
		}
		f, err := b.Open(ctx, syscall.O_WRONLY)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Open(ctx, syscall.O_WRONLY); !errors.Is(err, syscall.EBUSY) {
			t.Errorf("second open: %v", err)
		}
		if _, err := f.Read(ctx, make([]byte, 8), 0); err != syscall.EINVAL {
			t.Errorf("read: %v", err)
		}
		if n, err := f.Write(ctx, make([]byte, 100), 0); n != 100 || err != nil {
			t.Errorf("write: %d, %v", n, err)
		}
		f.Release(ctx)
		if p := d.Push(); p.Phase != rshim.PushDone || p.Bytes != 100 {
			t.Errorf("%+v", p)
		}
		if f, err = b.Open(ctx, syscall.O_RDWR); err != nil {
			t.Errorf("open again: %v", err)
		}
		f.Release(ctx)
	})
}

// TestState: the ioctl tells the state in words; forceErrno tells who wanted the
// RShim that it is somebody else's.
func TestState(t *testing.T) {
	d := rshim.New(0, rshim.Options{})
	f := regFile{d}
	in, out, err := f.IoctlSize(iocState)
	if in != 0 || out != iocStateSize || err != nil {
		t.Fatalf("%d, %d, %v", in, out, err)
	}
	c := cuse.Ioctl{Cmd: iocState, Out: make([]byte, out)}
	if _, err := f.Ioctl(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if state, reason := parseState(c.Out); state != "gone" || reason != "" {
		t.Errorf("%q, %q", state, reason)
	}
	if _, err := f.Ioctl(t.Context(), cuse.Ioctl{Cmd: iocForce}); !errors.Is(err, syscall.ENODEV) {
		t.Errorf("force: %v", err)
	}
	for err, want := range map[error]syscall.Errno{rshim.ErrNotOwner: syscall.EBUSY, rshim.ErrNoAnswer: syscall.ETIMEDOUT, rshim.ErrLocked: syscall.EPERM} {
		if got := forceErrno(err); !errors.Is(got, want) {
			t.Errorf("%v: %v", err, got)
		}
	}
	// Whatever another daemon answers is taken for words, and no more of it than
	// there is.
	for text, want := range map[string][2]string{
		"": {}, "attached": {"attached", ""}, "a\x00b": {"a", "b"}, "a\x00b\x00c": {"a", "b"}, "\x00b": {"", "b"},
	} {
		if state, reason := parseState([]byte(text)); state != want[0] || reason != want[1] {
			t.Errorf("%q: %q, %q", text, state, reason)
		}
	}
}
