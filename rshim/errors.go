// SPDX-License-Identifier: Apache-2.0

package rshim

import (
	"errors"
	"fmt"
)

// Errors that callers tell apart. Every one of them reaches the caller in an
// *OpError. Time limits that ran out are os.ErrDeadlineExceeded.
var (
	ErrGone         = errors.New("the device is not on the bus")
	ErrNotOwner     = errors.New("another backend owns the RShim")
	ErrLocked       = errors.New("the chip keeps drivers out (secure NIC mode)")
	ErrNoAnswer     = errors.New("the owner of the RShim does not answer")
	ErrNotReady     = errors.New("the chip is resetting or does not answer yet")
	ErrBusy         = errors.New("a boot stream is open already")
	ErrNoReset      = errors.New("the chip did not reset")
	ErrIncomplete   = errors.New("the boot stream ended early")
	ErrCancelled    = errors.New("the push was cancelled")
	ErrNoPush       = errors.New("no such push is under way")
	ErrDPU          = errors.New("the DPU reported an error")
	ErrInvalid      = errors.New("invalid command")
	ErrNotSupported = errors.New("not supported")
	// ErrGivenUp is of a push with OutcomeStreamed whose boot was to be followed,
	// and cannot be any more: released, handed over, another push, the daemon ends.
	ErrGivenUp = errors.New("the RShim was given up before the DPU was ready")
)

// OpError is the error of an operation on one device.
type OpError struct {
	Op     string // "boot open", "boot write", "misc write", "reset", ...
	Device string // "rshim0"
	Err    error
}

func (e *OpError) Error() string { return e.Device + ": " + e.Op + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *OpError) Unwrap() error { return e.Err }

// opError wraps err unless it is nil or names the device already.
func (d *Device) opError(op string, err error) error {
	var o *OpError
	if err == nil || errors.As(err, &o) {
		return err
	}
	return &OpError{Op: op, Device: fmt.Sprintf("rshim%d", d.index), Err: err}
}
