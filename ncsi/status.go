// SPDX-License-Identifier: Apache-2.0

package ncsi

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Code is the response code: what became of a command.
type Code uint16

// Response codes. From 0x8000 on they are the manufacturer's.
const (
	Completed       Code = 0x0000
	Failed          Code = 0x0001
	Unavailable     Code = 0x0002 // known, but not in the present state
	Unsupported     Code = 0x0003
	DelayedResponse Code = 0x0004 // accepted; not done yet (DSP0222 1.2)
)

func (c Code) String() string {
	switch {
	case c == Completed:
		return "command completed"
	case c == Failed:
		return "command failed"
	case c == Unavailable:
		return "command unavailable"
	case c == Unsupported:
		return "command unsupported"
	case c == DelayedResponse:
		return "command accepted but not done yet"
	case c >= 0x8000:
		return fmt.Sprintf("manufacturer's response code 0x%04x", uint16(c))
	}
	return fmt.Sprintf("unknown response code 0x%04x", uint16(c))
}

// Reason is the reason code: why a command was not completed.
type Reason uint16

// Reason codes. From 0x8000 on they are the manufacturer's.
const (
	NoReason           Reason = 0x0000
	InitRequired       Reason = 0x0001
	InvalidParameter   Reason = 0x0002
	ChannelNotReady    Reason = 0x0003
	PackageNotReady    Reason = 0x0004
	InvalidLength      Reason = 0x0005
	NoInformation      Reason = 0x0006
	InterventionNeeded Reason = 0x0007
	LinkAccessError    Reason = 0x0008
	CommandTimeout     Reason = 0x0009
	NotPowered         Reason = 0x000a
	UnknownCommand     Reason = 0x7fff
)

var reasonNames = map[Reason]string{
	NoReason:           "no reason given",
	InitRequired:       "the interface must be initialised first",
	InvalidParameter:   "a parameter is invalid, unsupported or out of range",
	ChannelNotReady:    "the channel is not ready",
	PackageNotReady:    "the package is not ready",
	InvalidLength:      "the payload has a wrong length",
	NoInformation:      "the information is not available",
	InterventionNeeded: "somebody must intervene",
	LinkAccessError:    "the hardware of the link could not be accessed",
	CommandTimeout:     "the command took too long",
	NotPowered:         "the secondary device has no power",
	UnknownCommand:     "the command type is unknown or unsupported",
}

func (r Reason) String() string {
	if s, ok := reasonNames[r]; ok {
		return s
	}
	if r >= 0x8000 {
		return fmt.Sprintf("manufacturer's reason 0x%04x", uint16(r))
	}
	return fmt.Sprintf("unknown reason 0x%04x", uint16(r))
}

// What a *StatusError is, for errors.Is.
var (
	ErrFailed       = errors.New("command failed")                    // response code 1
	ErrUnavailable  = errors.New("command unavailable")               // response code 2
	ErrUnsupported  = errors.New("command unsupported")               // response code 3
	ErrInitRequired = errors.New("interface initialization required") // response code 1, reason 1: Clear Initial State helps
)

// StatusError says that a command was answered and not completed.
type StatusError struct {
	Code   Code
	Reason Reason
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("%v: %v (response code 0x%04x, reason 0x%04x)", e.Code, e.Reason, uint16(e.Code), uint16(e.Reason))
}

// Is makes the error one or two of the sentinels.
func (e *StatusError) Is(target error) bool {
	switch target {
	case ErrFailed:
		return e.Code == Failed
	case ErrUnavailable:
		return e.Code == Unavailable
	case ErrUnsupported:
		return e.Code == Unsupported
	case ErrInitRequired:
		return e.Code == Failed && e.Reason == InitRequired
	}
	return false
}

// statusSize is the size of response code and reason code.
const statusSize = 4

// Response is the payload of a response.
type Response struct {
	Code   Code
	Reason Reason
	Data   []byte
}

// ParseResponse decodes a response's payload. Data is a part of payload. The
// error wraps ErrMalformed; a command that failed is none, see Err.
func ParseResponse(payload []byte) (Response, error) {
	if len(payload) < statusSize {
		return Response{}, malformed("a response's payload of %d bytes, less than the %d of its codes", len(payload), statusSize)
	}
	return Response{
		Code:   Code(binary.BigEndian.Uint16(payload)),
		Reason: Reason(binary.BigEndian.Uint16(payload[2:])),
		Data:   payload[statusSize:],
	}, nil
}

// Append appends the response as a payload to b.
func (r Response) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(r.Code))
	b = binary.BigEndian.AppendUint16(b, uint16(r.Reason))
	return append(b, r.Data...)
}

// Err returns a *StatusError, or nil if the command was completed.
func (r Response) Err() error {
	if r.Code == Completed {
		return nil
	}
	return &StatusError{r.Code, r.Reason}
}
