// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"sync"

	"github.com/u-root/u-root/pkg/termios"
	"golang.org/x/sys/unix"
)

// terminal is an operator's terminal. A nil one is none: it is never raw.
type terminal struct {
	f *os.File

	mu     sync.Mutex
	cooked *termios.Termios // how it was found, while it is raw
}

// newTerminal returns the terminal that f is, nil if it is none.
func newTerminal(f any) *terminal {
	file, ok := f.(*os.File)
	if !ok {
		return nil
	}
	t := &terminal{f: file}
	if t.control(func(fd int) error { _, err := termios.GetTermios(uintptr(fd)); return err }) != nil {
		return nil
	}
	return t
}

// control calls do with the file's descriptor. File.Fd would not do: it can
// switch the file to blocking calls.
func (t *terminal) control(do func(fd int) error) error { return control(t.f, do) }

func control(f *os.File, do func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	if err := raw.Control(func(fd uintptr) { result = do(int(fd)) }); err != nil {
		return err
	}
	return result
}

// raw has the terminal pass on everything as it is, Ctrl-C included, until
// restore.
func (t *terminal) raw() error {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.control(func(fd int) error {
		found, err := termios.GetTermios(uintptr(fd))
		if err != nil {
			return err
		}
		if err := termios.SetTermios(uintptr(fd), termios.MakeRaw(found)); err != nil {
			return err
		}
		t.cooked = found
		return nil
	})
}

// again is for a process that was stopped: whoever had the terminal meanwhile
// has set it as he likes.
func (t *terminal) again() {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cooked != nil {
		_ = t.control(func(fd int) error {
			if inBackground(fd) {
				return nil
			}
			return termios.SetTermios(uintptr(fd), termios.MakeRaw(t.cooked))
		})
	}
}

// restore sets the terminal as it was found. What was typed for the DPU and not
// read yet is thrown away unless it is to be kept: the BMC's shell would read
// it next.
func (t *terminal) restore(keep bool) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cooked == nil {
		return
	}
	_ = t.control(func(fd int) error {
		if inBackground(fd) {
			return nil
		}
		if !keep {
			_ = unix.IoctlSetInt(fd, unix.TCFLSH, unix.TCIFLUSH)
		}
		return termios.SetTermios(uintptr(fd), t.cooked)
	})
	t.cooked = nil
}

// inBackground reports whether somebody else has the terminal now. It is his to
// set then, and a try to would stop this process, which may be about to end.
func inBackground(fd int) bool {
	group, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP)
	return err == nil && group != unix.Getpgrp()
}

func (t *terminal) isRaw() bool {
	if t == nil {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.cooked != nil
}

// guard runs f in a goroutine. A panic there ends the process past everybody's
// deferred calls, so that the terminal has to be restored here.
func (t *terminal) guard(f func()) {
	go func() {
		panics := true
		defer func() {
			if panics {
				t.restore(false)
			}
		}()
		f()
		panics = false
	}()
}
