// SPDX-License-Identifier: Apache-2.0

package oem

import (
	"errors"
	"fmt"

	"github.com/bluefield-go/bmc-rshim/ncsi"
)

// Errors that callers tell apart with errors.Is. A response that did not come
// in time is what the Transport says, os.ErrDeadlineExceeded; see IsTimeout.
// ErrNotReadBack is no failure: the NIC has done it, by its own word alone.
//
// Reason 0x7FFF is both what an unknown command gets and what a BMC gets that
// the NIC does not trust. With response code 3 nobody can say which it is: such
// an error is ErrUnsupported and ErrUntrusted, and its text names both.
var (
	ErrUnsupported    = errors.New("not supported by the NIC")                      // response code 3
	ErrUntrusted      = errors.New("the NIC does not trust this BMC")               // reason 0x7FFF
	ErrUnavailable    = errors.New("run-time access is not available")              // while host access is disabled
	ErrNotTaken       = errors.New("the setting was not taken")                     // reading back gives another state
	ErrOutcomeUnknown = errors.New("it is not known whether the setting was taken") // reading back failed
	ErrNotReadBack    = errors.New("the NIC answered that it is done, and its firmware cannot be asked for the state")
)

// NotSent marks an error of a Transport's: nothing has left for the NIC, so
// that nothing can have happened there. The text stays as it is. Who is not
// sure leaves the mark out.
func NotSent(err error) error {
	if err == nil || IsNotSent(err) {
		return err
	}
	return &notSentError{err}
}

// IsNotSent reports whether an error of a Transport's has the mark of NotSent.
// An ErrOutcomeUnknown may have it of the attempt to read back.
func IsNotSent(err error) bool {
	_, ok := errors.AsType[*notSentError](err)
	return ok
}

type notSentError struct{ err error }

func (e *notSentError) Error() string { return e.err.Error() }
func (e *notSentError) Unwrap() error { return e.err }

// StatusError says that the NIC refused an OEM command. It unwraps to a
// *ncsi.StatusError.
type StatusError struct {
	NCSI      ncsi.StatusError
	Parameter Parameter
}

func (e *StatusError) Error() string {
	if m := e.meaning(); m != "" {
		return m + ": " + e.NCSI.Error()
	}
	return e.NCSI.Error()
}

func (e *StatusError) meaning() string {
	untrusted, unsupported := e.Is(ErrUntrusted), e.Is(ErrUnsupported)
	switch {
	case untrusted && unsupported:
		return "the NIC's firmware does not know the command, or does not trust this BMC"
	case untrusted:
		return ErrUntrusted.Error()
	case unsupported:
		return "the NIC's firmware does not support the command"
	case e.Is(ErrUnavailable) && e.NCSI.Code == ncsi.Unavailable:
		return "run-time access is not available while host access is disabled"
	case e.Is(ErrUnavailable):
		return "run-time access is not available, because host access is disabled or the NIC's firmware does not have it"
	}
	return ""
}

// Unwrap returns the codes.
func (e *StatusError) Unwrap() error { return &e.NCSI }

// Is makes the error one or two of the sentinels.
func (e *StatusError) Is(target error) bool {
	switch target {
	case ErrUnsupported:
		return e.NCSI.Code == ncsi.Unsupported
	case ErrUntrusted:
		return e.NCSI.Reason == ncsi.UnknownCommand
	case ErrUnavailable:
		// NVIDIA calls it "0x0002, command unavailable", and that is the name
		// of a response code; as a reason, 2 is an invalid parameter.
		return e.Parameter == ParamRuntimeAccess &&
			(e.NCSI.Code == ncsi.Unavailable || e.NCSI.Code == ncsi.Failed && e.NCSI.Reason == ncsi.InvalidParameter)
	}
	return false
}

// OpError is the error of an operation of a Client.
type OpError struct {
	Op      string // "get host access", "set run-time access", ...
	Channel ncsi.Channel
	Err     error
}

func (e *OpError) Error() string { return fmt.Sprintf("%v: %s: %v", e.Channel, e.Op, e.Err) }

// Unwrap returns the cause.
func (e *OpError) Unwrap() error { return e.Err }

// cannotTell reports a refusal to a Get after which the firmware need not be
// asked again: it does not know the command or its parameter. That a BMC is not
// trusted reads the same; who has just set something is.
func cannotTell(err error) bool {
	s, ok := errors.AsType[*StatusError](err)
	return ok && (s.Is(ErrUnsupported) || s.Is(ErrUntrusted) || s.NCSI.Code == ncsi.Failed && s.NCSI.Reason == ncsi.InvalidParameter)
}

// IsTimeout reports whether err says that a deadline ran out: the Transport's,
// which is os.ErrDeadlineExceeded, or a context's.
func IsTimeout(err error) bool {
	t, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err)
	return ok && t.Timeout()
}
