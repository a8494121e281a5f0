// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"syscall"
)

// defaultPIDFile is the C daemon's, so that it and this one exclude each other.
const defaultPIDFile = "/var/run/rshim.pid"

// pidFileByPlace is the default of -pid-file: it depends on other flags.
const pidFileByPlace = "auto"

// lock is held by the one daemon that serves a machine's devices: a lock on a
// file with the daemon's pid in it. The kernel lets go of it when the process
// ends, however that comes about; the file alone means nothing.
type lock struct {
	f    *os.File
	path string
}

// takeLock takes the lock, which one process at a time can have.
func takeLock(path string) (*lock, error) {
	for {
		// The descriptor is not inherited, or who has it would hold the lock.
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
		if err != nil {
			return nil, fmt.Errorf("cannot open the PID file: %w", err)
		}
		l := &lock{f, path}
		err = l.take()
		if err == nil {
			return l, nil
		}
		f.Close()
		if err != errMoved {
			return nil, err
		}
	}
}

// errMoved means that the file was another's, who has just removed it.
var errMoved = errors.New("not the file that was locked")

func (l *lock) take() error {
	info, err := l.f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("the PID file %s is no file", l.path)
	}
	err = flock(l.f)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return l.taken()
	}
	if err == nil && !l.there() {
		return errMoved
	}
	if err == nil {
		err = l.f.Truncate(0)
	}
	if err == nil {
		_, err = l.f.WriteAt(fmt.Appendln(nil, os.Getpid()), 0)
	}
	if err != nil {
		return fmt.Errorf("cannot lock the PID file %s: %w", l.path, err)
	}
	return nil
}

func flock(f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err != syscall.EINTR {
			return err
		}
	}
}

// taken says who has the lock.
func (l *lock) taken() error {
	b, _ := io.ReadAll(io.LimitReader(l.f, 32))
	if pid, err := strconv.Atoi(string(bytes.TrimSpace(b))); err == nil && pid > 0 {
		return fmt.Errorf("%w (pid %d, %s)", errRunning, pid, l.path)
	}
	return fmt.Errorf("%w (%s)", errRunning, l.path)
}

//lint:ignore ST1005 the C daemon's words, which scripts look for
var errRunning = errors.New("Another rshim instance is already running")

// there reports whether the file that is held is the one that others find.
func (l *lock) there() bool {
	held, err := l.f.Stat()
	if err != nil {
		return false
	}
	found, err := os.Lstat(l.path)
	return err == nil && os.SameFile(held, found)
}

// release removes the file, if it still is this one, and then lets go: who has
// opened it in the meantime sees that it is not there any more.
func (l *lock) release() error {
	if l == nil {
		return nil
	}
	var err error
	if l.there() {
		err = os.Remove(l.path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, l.f.Close())
}
