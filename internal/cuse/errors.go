// SPDX-License-Identifier: Apache-2.0

package cuse

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
)

// Why a node cannot be served. Run wraps them in an *OpError.
var (
	// ErrUnavailable: the kernel has no cuse driver, now or at all.
	ErrUnavailable = errors.New("no cuse driver: load it (modprobe cuse), or build the kernel with CONFIG_CUSE")
	// ErrRefused: the kernel did not create the node. Its log has more.
	ErrRefused = errors.New("the kernel refused to create the node: is the name taken by another daemon?")
	// ErrGone: the kernel ended the connection while the node was served,
	// which happens when root writes to its abort file in sysfs.
	ErrGone = errors.New("the kernel ended the connection")
)

// OpError is an error of serving a node.
type OpError struct {
	Op     string // "open", "init", "permit" or "serve"
	Device string // the node's name
	Err    error
}

func (e *OpError) Error() string { return fmt.Sprintf("cuse %s: %s: %v", e.Device, e.Op, e.Err) }

// Unwrap returns the cause.
func (e *OpError) Unwrap() error { return e.Err }

// errno turns a Device's error into what its caller gets. The kernel accepts
// none above 511, and would leave the caller waiting for ever. Known is false if the error had to become a plain EIO.
func errno(err error) (e syscall.Errno, known bool) {
	switch {
	case err == nil:
		return 0, true
	case errors.As(err, &e) && e > 0 && e < 512:
		return e, true
	case errors.Is(err, context.Canceled):
		return syscall.EINTR, true
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return syscall.ETIMEDOUT, true
	}
	return syscall.EIO, false
}
