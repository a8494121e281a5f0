// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/bluefield-go/bmc-rshim/dbus/client"
	"github.com/bluefield-go/bmc-rshim/rshim"
)

// Exit codes. They are an interface: scripts branch on them.
const (
	exitOK          = 0
	exitFailed      = 1   // anything that has no code of its own
	exitUsage       = 2   // wrong command line
	exitRefused     = 3   // push, recover: the image is bad or for another chip; nothing was touched
	exitDPU         = 4   // push, recover: the DPU reported an error during its boot
	exitTimeout     = 5   // the DPU, the input or (force) the owner took too long
	exitDevice      = 6   // no such device, or it cannot be used now; nothing was touched (console: or it went away)
	exitHost        = 7   // recover: the DPU is up, but the host's access is not what it was
	exitGivenUp     = 8   // push, recover: the DPU has the image, but the RShim was given up before it was ready
	exitInterrupted = 130 // by a signal
)

const exitCodes = `exit codes:
  0    done
  1    failed
  2    wrong command line
  3    push, recover: the image is bad or for another chip; nothing was touched
  4    push, recover: the DPU reported an error during its boot
  5    the DPU, the input or (force) the owner took too long
  6    no such device, or it cannot be used now; nothing was touched
       (console: or it went away)
  7    recover: the DPU is up, but the host's access to the RShim is not what it
       was before
  8    push, recover: the DPU has the image, but the RShim was given up before it
       was ready: nobody knows how its boot ended
  130  interrupted
`

// exitError is an error that has decided on the exit code.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// exitWith makes one. As it is everywhere, it is not inlined.
//
//go:noinline
func exitWith(code int, format string, args ...any) error {
	return &exitError{code, fmt.Errorf(format, args...)}
}

// givenUp is the error of a push whose boot cannot be followed any more.
func givenUp(why string) error {
	return exitWith(exitGivenUp, "the DPU has the image, but %s; bmc-rshim force takes the RShim back, and bmc-rshim log shows how far the DPU is",
		cmp.Or(why, "the RShim was given up before the DPU was ready"))
}

//go:noinline
func usageError(format string, args ...any) error { return exitWith(exitUsage, format, args...) }

// exitCode is the exit code that tells of err.
func exitCode(err error) int {
	var e *exitError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &e):
		return e.code
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.Is(err, rshim.ErrNoAnswer), errors.Is(err, rshim.ErrNoReset), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return exitTimeout
	}
	return exitFailed
}

// remote gives an error of the daemon's its exit code.
func remote(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, client.ErrImage), errors.Is(err, client.ErrWrongChip):
		return &exitError{exitRefused, err}
	case errors.Is(err, client.ErrTimeout), errors.Is(err, context.DeadlineExceeded):
		return &exitError{exitTimeout, err}
	}
	for _, e := range []error{client.ErrNoBus, client.ErrNoDaemon, client.ErrUnavailable, client.ErrNotFound, client.ErrNotAllowed, client.ErrPermission} {
		if errors.Is(err, e) {
			return &exitError{exitDevice, err}
		}
	}
	return err
}

// unavailable gives an error of a device that cannot be used its exit code.
func unavailable(err error) error {
	for _, e := range []error{rshim.ErrGone, rshim.ErrNotOwner, rshim.ErrLocked, rshim.ErrNotReady, rshim.ErrBusy, os.ErrNotExist, os.ErrPermission} {
		if errors.Is(err, e) {
			return &exitError{exitDevice, err}
		}
	}
	return err
}
