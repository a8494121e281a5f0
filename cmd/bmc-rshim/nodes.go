// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/bluefield-go/bmc-rshim/internal/devnode"
	"github.com/bluefield-go/bmc-rshim/rshim"
	corepush "github.com/bluefield-go/bmc-rshim/rshim/push"
)

const (
	nodePatience = 10 * time.Second // of anything but the boot stream
	maxMisc      = 1 << 20          // bytes of misc that are read
)

// nodes is a device of the running daemon, used through its files.
type nodes struct {
	root, name string
}

// findNodes returns the names of the devices that have files, or just want if
// that is one of them.
func findNodes(root, want string) ([]string, error) {
	found, err := filepath.Glob(filepath.Join(root, "rshim*", "misc"))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, path := range found {
		name := filepath.Base(filepath.Dir(path))
		if _, err := strconv.Atoi(strings.TrimPrefix(name, "rshim")); err == nil && (want == "" || want == name) {
			names = append(names, name)
		}
	}
	if names == nil {
		return nil, exitWith(exitDevice, "no %s in %s: is bmc-rshim daemon running, and the DPU on the bus?", cmp.Or(want, "rshim device"), root)
	}
	slices.SortFunc(names, func(a, b string) int { // rshim9 before rshim10
		return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
	})
	return names, nil
}

func (n nodes) close() {}

func (n nodes) status(ctx context.Context) (status, error) {
	text, err := n.misc(ctx)
	if err != nil {
		return status{}, err
	}
	s := parseMisc(text).status(n.name)
	// What misc cannot tell; the C daemon does not know.
	if state, reason, err := n.state(ctx); err == nil {
		s.State, s.Reason = state, reason
	}
	return s, nil
}

func (n nodes) state(ctx context.Context) (state, reason string, err error) {
	ctx, cancel := context.WithTimeout(ctx, nodePatience)
	defer cancel()
	_, err = blocking(ctx, func() (_ struct{}, err error) {
		r, err := devnode.OpenRegisters(filepath.Join(n.root, n.name, "rshim"))
		if err == nil {
			state, reason, err = r.State()
			r.Close()
		}
		return struct{}{}, err
	})
	return state, reason, err
}

func (n nodes) readReg(ctx context.Context, addr uint32, size int) (v uint64, err error) {
	err = n.registers(ctx, func(r *devnode.Registers) error {
		v, err = r.Read(addr, size)
		return err
	})
	return v, err
}

func (n nodes) writeReg(ctx context.Context, addr uint32, size int, v uint64) error {
	return n.registers(ctx, func(r *devnode.Registers) error { return r.Write(addr, size, v) })
}

func (n nodes) registers(ctx context.Context, use func(*devnode.Registers) error) error {
	ctx, cancel := context.WithTimeout(ctx, nodePatience)
	defer cancel()
	_, err := blocking(ctx, func() (struct{}, error) {
		r, err := devnode.OpenRegisters(filepath.Join(n.root, n.name, "rshim"))
		if err == nil {
			err = use(r)
			r.Close()
		}
		return struct{}{}, err
	})
	return unavailable(explain(err))
}

func (n nodes) force(ctx context.Context) (rshim.ForceResult, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*nodePatience)
	defer cancel()
	r, err := blocking(ctx, func() (rshim.ForceResult, error) {
		r, err := devnode.OpenRegisters(filepath.Join(n.root, n.name, "rshim"))
		if err != nil {
			return 0, explain(err)
		}
		defer r.Close()
		return r.Force()
	})
	switch {
	case errors.Is(err, syscall.ETIMEDOUT):
		err = fmt.Errorf("%w: %w", rshim.ErrNoAnswer, err)
	case errors.Is(err, syscall.EBUSY):
		err = fmt.Errorf("%w: %w", rshim.ErrNotOwner, err)
	case errors.Is(err, syscall.ENOSYS):
		err = fmt.Errorf("the daemon is not bmc-rshim, write FORCE_CMD 1 to misc: %w", err)
	}
	return r, unavailable(err)
}

func (n nodes) misc(ctx context.Context) (string, error) {
	if ctx.Err() != nil { // or the text could still come first
		return "", ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, nodePatience)
	defer cancel()
	return blocking(ctx, func() (string, error) {
		f, err := n.open("misc", syscall.O_RDONLY)
		if err != nil {
			return "", err
		}
		defer f.Close()
		// In large reads: some daemons give their text to the first one alone.
		text := make([]byte, 0, 128<<10)
		for len(text) < maxMisc {
			text = slices.Grow(text, 64<<10)
			m, err := f.Read(text[len(text):cap(text)])
			text = text[:len(text)+m]
			if err == io.EOF {
				break
			}
			if err != nil {
				return "", explain(err)
			}
		}
		return string(text), nil
	})
}

func (n nodes) setMisc(ctx context.Context, commands string) error {
	ctx, cancel := context.WithTimeout(ctx, nodePatience)
	defer cancel()
	_, err := blocking(ctx, func() (int, error) {
		f, err := n.open("misc", syscall.O_WRONLY)
		if err != nil {
			return 0, err
		}
		defer f.Close()
		return f.WriteString(commands)
	})
	if errors.Is(err, syscall.EINVAL) {
		return err // it is the command that is wrong
	}
	return explain(err)
}

func (n nodes) release(ctx context.Context) error {
	return unavailable(n.setMisc(ctx, "DROP_MODE 1\n"))
}

func (n nodes) reset(ctx context.Context) (bool, error) { return false, n.setMisc(ctx, "SW_RESET 1\n") }

func (n nodes) openBoot(ctx context.Context) (corepush.Stream, error) {
	f, err := blocking(ctx, func() (*os.File, error) { return n.open("boot", syscall.O_WRONLY) })
	if err != nil {
		return nil, unavailable(err)
	}
	return nodeBoot{f}, nil
}

// open opens a file of the device for blocking calls: Go's poller is for files
// that can be not ready, and would have Close wait for a Write.
func (n nodes) open(file string, flags int) (*os.File, error) {
	path := filepath.Join(n.root, n.name, file)
	for {
		fd, err := syscall.Open(path, flags|syscall.O_CLOEXEC, 0)
		if err == nil {
			return os.NewFile(uintptr(fd), path), nil
		}
		if !errors.Is(err, syscall.EINTR) {
			return nil, explain(&os.PathError{Op: "open", Path: path, Err: err})
		}
	}
}

// nodeBoot is an open /dev/rshimN/boot.
type nodeBoot struct{ f *os.File }

// Write leaves a write that ctx has ended behind; the kernel ends it when this
// process does.
func (b nodeBoot) Write(ctx context.Context, p []byte) (int, error) {
	return blocking(ctx, func() (int, error) {
		n, err := b.f.Write(p)
		return n, explain(err)
	})
}

// Close ends the stream. Whether that went well only the daemon's log tells.
func (b nodeBoot) Close(ctx context.Context) error {
	_, err := blocking(ctx, func() (struct{}, error) { return struct{}{}, b.f.Close() })
	return err
}

// blocking runs a call that cannot be cancelled and leaves it behind when ctx
// ends first.
func blocking[T any](ctx context.Context, call func() (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		v, err := call()
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// explain puts what the daemon means by an errno beside it.
func explain(err error) error {
	for _, e := range []struct {
		errno syscall.Errno
		means error
	}{
		{syscall.EBUSY, rshim.ErrBusy},
		{syscall.ENODEV, rshim.ErrNotReady},
		{syscall.ENXIO, rshim.ErrNotReady},
		{syscall.EINVAL, rshim.ErrNotOwner}, // "drop mode"
		{syscall.ETIMEDOUT, os.ErrDeadlineExceeded},
		{syscall.ECONNABORTED, errDaemonGone},
		{syscall.ENOTCONN, errDaemonGone},
	} {
		if errors.Is(err, e.errno) {
			return fmt.Errorf("%w: %w", err, e.means)
		}
	}
	return err
}

var errDaemonGone = errors.New("the daemon has ended")
