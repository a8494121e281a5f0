// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// takeTurn keeps other recoveries out until done is called, or the process has
// ended: however many DPUs there are, the NIC that is asked about the host is
// one. The file stays: alone it means nothing.
func takeTurn() (done func(), err error) {
	name := filepath.Join(stateDir(), "recover.lock")
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return nil, err
	}
	// The descriptor is not inherited, or an ncsi-oem could hold the lock.
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, err
	}
	err = flock(f)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = otherRuns(f)
	} else if err != nil {
		err = fmt.Errorf("%s cannot be locked: %w", name, err)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	// Who is kept out is told by whom.
	_ = f.Truncate(0)
	_, _ = f.WriteAt(fmt.Appendln(nil, os.Getpid()), 0)
	return func() { f.Close() }, nil
}

// forgetHost takes note that somebody has decided what the host may do: a recovery
// that was interrupted has nothing to give back any more. One that runs has.
func forgetHost() {
	if _, err := os.Lstat(hostPath()); err != nil {
		return
	}
	if done, err := takeTurn(); err == nil {
		_ = removeState(hostPath())
		done()
	}
}

var errOtherRuns = errors.New("another recovery runs")

func otherRuns(f *os.File) error {
	b, _ := io.ReadAll(io.LimitReader(f, 32))
	if pid, err := strconv.Atoi(string(bytes.TrimSpace(b))); err == nil && pid > 0 {
		return exitWith(exitDevice, "%w (pid %d); nothing was touched", errOtherRuns, pid)
	}
	return exitWith(exitDevice, "%w; nothing was touched", errOtherRuns)
}
