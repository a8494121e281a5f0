// SPDX-License-Identifier: Apache-2.0

// Package bus connects to a D-Bus message bus, as a service and as a client.
//
// A Service is one well-known name on a connection of its own, with the tree
// of objects that is exported there. It keeps the values of properties, so
// that reading them never waits for their owner, and lives through restarts
// of the bus. A Conn is a client: it calls methods and receives signals.
//
// It is our own because what it replaces is bigger than the flash has room
// for: it uses neither reflection nor package net.
package bus

import (
	"errors"
	"fmt"
)

// Errors of a connection.
var (
	ErrClosed = errors.New("connection to the bus is closed")
	ErrFull   = errors.New("bus does not read what is sent to it")
	ErrExists = errors.New("object or interface exists already")
)

// OpError is the error of an operation on a bus.
type OpError struct {
	Op      string // "connect", "authenticate", "hello", "call", "request name", ...
	Address string // of the bus
	Err     error
}

func (e *OpError) Error() string { return fmt.Sprintf("bus %s: %s: %v", e.Address, e.Op, e.Err) }

// Unwrap returns the cause.
func (e *OpError) Unwrap() error { return e.Err }

// Error is an error that crosses the bus: the answer to a method call.
type Error struct {
	Name    string // such as "org.freedesktop.DBus.Error.InvalidArgs"
	Message string
}

func (e *Error) Error() string { return e.Name + ": " + e.Message }

// Names of errors that this package answers or meets.
const (
	ErrNameFailed           = "org.freedesktop.DBus.Error.Failed"
	ErrNameUnknownObject    = "org.freedesktop.DBus.Error.UnknownObject"
	ErrNameUnknownInterface = "org.freedesktop.DBus.Error.UnknownInterface"
	ErrNameUnknownMethod    = "org.freedesktop.DBus.Error.UnknownMethod"
	ErrNameUnknownProperty  = "org.freedesktop.DBus.Error.UnknownProperty"
	ErrNameReadOnly         = "org.freedesktop.DBus.Error.PropertyReadOnly"
	ErrNameInvalidArgs      = "org.freedesktop.DBus.Error.InvalidArgs"
	ErrNameLimitsExceeded   = "org.freedesktop.DBus.Error.LimitsExceeded"
	ErrNameAccessDenied     = "org.freedesktop.DBus.Error.AccessDenied"
	ErrNameServiceUnknown   = "org.freedesktop.DBus.Error.ServiceUnknown"
	ErrNameNameHasNoOwner   = "org.freedesktop.DBus.Error.NameHasNoOwner"
	ErrNameNoReply          = "org.freedesktop.DBus.Error.NoReply"
	ErrNameInternalFailure  = "xyz.openbmc_project.Common.Error.InternalFailure"
)

// Errorf makes an error that crosses the bus under the given name.
func Errorf(name, format string, args ...any) *Error {
	return &Error{Name: name, Message: fmt.Sprintf(format, args...)}
}
