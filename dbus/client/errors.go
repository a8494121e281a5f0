// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/bluefield-go/bmc-rshim/dbus/bus"
)

// Errors that callers tell apart. Every one reaches the caller in an *OpError.
var (
	ErrNoBus       = errors.New("there is no D-Bus to reach the daemon by")
	ErrNoDaemon    = errors.New("the daemon is not on the bus: is bmc-rshim daemon running?")
	ErrLost        = errors.New("the daemon, or the bus, has ended meanwhile")
	ErrUnavailable = errors.New("it cannot be done now")
	ErrTimeout     = fmt.Errorf("it took too long: %w", os.ErrDeadlineExceeded)
	ErrInvalid     = errors.New("invalid argument")
	ErrNotAllowed  = errors.New("not allowed")
	ErrNotFound    = errors.New("there is no such thing")
	ErrUnsupported = errors.New("not supported")
	ErrTooMany     = errors.New("too many")
	ErrPermission  = fmt.Errorf("not permitted, root alone may do this: %w", os.ErrPermission)
	ErrImage       = errors.New("the image is bad")
	ErrWrongChip   = errors.New("the image is for another chip")
	// ErrAnswer says that the daemon has answered what it must not: another
	// version of it perhaps.
	ErrAnswer = errors.New("the daemon has given an answer that makes no sense")
)

// OpError is the error of an operation.
type OpError struct {
	Op     string // "push", "force", ...
	Device string // "rshim0", or "" if it was none's
	Err    error
}

func (e *OpError) Error() string {
	var r *Remote
	if errors.As(e.Err, &r) && r.Message != "" && r.Name != bus.ErrNameAccessDenied {
		return r.Error() // which says so itself
	}
	why := e.Err
	if r != nil && r.Message != "" {
		why = ErrPermission // the bus has refused it, in words about itself
	}
	if e.Device == "" {
		return e.Op + ": " + why.Error()
	}
	return e.Device + ": " + e.Op + ": " + why.Error()
}

// Unwrap returns the cause.
func (e *OpError) Unwrap() error { return e.Err }

// Remote is an error that the daemon, or the bus, has answered.
type Remote struct {
	Name    string // such as xyz.openbmc_project.Common.Error.Unavailable
	Message string // in words
}

func (e *Remote) Error() string {
	if e.Message == "" {
		return e.Name
	}
	return e.Message
}

// Is reports whether the error's name is that of a sentinel.
func (e *Remote) Is(target error) bool {
	kind := ErrorOf(e.Name)
	return kind != nil && errors.Is(kind, target)
}

const (
	commonError = "xyz.openbmc_project.Common.Error."
	updateError = "xyz.openbmc_project.Software.Update.Error."
)

// sentinels by the names of D-Bus errors.
var sentinels = []struct {
	name string
	err  error
}{
	{commonError + "InvalidArgument", ErrInvalid},
	{"xyz.openbmc_project.sdbusplus.Error.InvalidEnumString", ErrInvalid},
	{bus.ErrNameInvalidArgs, ErrInvalid},
	{bus.ErrNameReadOnly, ErrNotAllowed},
	{commonError + "NotAllowed", ErrNotAllowed},
	{commonError + "Unavailable", ErrUnavailable},
	{commonError + "Timeout", ErrTimeout},
	{commonError + "ResourceNotFound", ErrNotFound},
	{bus.ErrNameUnknownObject, ErrNotFound},
	{bus.ErrNameUnknownInterface, ErrUnsupported},
	{bus.ErrNameUnknownMethod, ErrUnsupported},
	{bus.ErrNameUnknownProperty, ErrUnsupported},
	{commonError + "UnsupportedRequest", ErrUnsupported},
	{commonError + "TooManyResources", ErrTooMany},
	{bus.ErrNameLimitsExceeded, ErrTooMany},
	{commonError + "InsufficientPermission", ErrPermission},
	{bus.ErrNameAccessDenied, ErrPermission},
	{updateError + "InvalidImage", ErrImage},
	{updateError + "Incompatible", ErrWrongChip},
	{bus.ErrNameServiceUnknown, ErrNoDaemon},
	{bus.ErrNameNameHasNoOwner, ErrNoDaemon},
	{bus.ErrNameNoReply, ErrLost},
}

// ErrorOf returns the sentinel that a D-Bus error's name stands for, nil for a
// failure without one.
func ErrorOf(name string) error {
	for _, s := range sentinels {
		if s.name == name {
			return s.err
		}
	}
	return nil
}

// opError makes an *OpError of err, unless it is nil or the end of a context.
func (c *Client) opError(op, device string, err error) error {
	if err == nil {
		return nil
	}
	var known *OpError
	var remote *bus.Error
	switch {
	case errors.As(err, &known):
		return err
	case errors.As(err, &remote):
		err = &Remote{Name: printable(remote.Name), Message: printable(remote.Message)}
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, context.DeadlineExceeded):
		err = fmt.Errorf("the daemon does not answer: %w", err)
	case gone(err):
		err = fmt.Errorf("%w: %w", ErrLost, err)
	}
	return &OpError{op, device, err}
}

func wrongType(what string, v any) error {
	return fmt.Errorf("%w: %s is a %T", ErrAnswer, what, v)
}
