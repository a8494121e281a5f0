// SPDX-License-Identifier: Apache-2.0

// Package oem has NVIDIA's NC-SI OEM commands for the host's access to RShim:
// their codec, and a Client that gets and sets, over any Transport, and never
// calls a setting done that it has not read back.
//
// The persistent state (HostAccess) and the one at run time (RuntimeAccess) are
// commands 0x12 (set) and 0x13 (get) with parameters 0x19 and 0x1B. The facts
// are from NVIDIA's BlueField BSP documentation.
package oem

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/bluefield-go/bmc-rshim/ncsi"
)

// Manufacturer is the manufacturer ID (IANA enterprise number, as NC-SI has
// it) that stands before every OEM command and response of ours.
const Manufacturer = 0x8119

// Command is an OEM command's number.
type Command uint8

// Commands.
const (
	Set Command = 0x12
	Get Command = 0x13
)

// Parameter is what an OEM command is about.
type Parameter uint8

// Parameters.
const (
	ParamHostAccess    Parameter = 0x19
	ParamRuntimeAccess Parameter = 0x1b
)

// headerSize is what stands before the data: manufacturer (4 bytes), revision,
// command, parameter, a byte that is reserved.
const headerSize = 8

// revision of the OEM commands.
const revision = 0

// wordSize is the size of the word that holds a state.
const wordSize = 4

// MaxData is how many bytes of data an OEM command has room for.
const MaxData = ncsi.MaxPayload - headerSize

// Request returns the payload of an OEM command.
func Request(c Command, p Parameter, data []byte) []byte {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, headerSize+len(data)), Manufacturer)
	b = append(b, revision, byte(c), byte(p), 0)
	return append(b, data...)
}

// SetHostAccess returns the payload that sets host access.
func SetHostAccess(a HostAccess) []byte { return hostAccess.request(uint8(a)) }

// GetHostAccess returns the payload that asks for host access.
func GetHostAccess() []byte { return Request(Get, ParamHostAccess, nil) }

// SetRuntimeAccess returns the payload that sets run-time access.
func SetRuntimeAccess(a RuntimeAccess) []byte { return runtimeAccess.request(uint8(a)) }

// GetRuntimeAccess returns the payload that asks for run-time access.
func GetRuntimeAccess() []byte { return Request(Get, ParamRuntimeAccess, nil) }

func (s setting) request(state uint8) []byte {
	return Request(Set, s.param, []byte{wordSize - 1: state})
}

// ParseResponse checks the payload of the response to a command, and returns
// the data behind what the response repeats of the command. Errors are
// *StatusError when the NIC refuses, however much of the command that response
// repeats, and ncsi.ErrMalformed, wrapped, when it is not the response to c and
// p at all.
func ParseResponse(c Command, p Parameter, payload []byte) ([]byte, error) {
	r, err := ncsi.ParseResponse(payload)
	if err != nil {
		return nil, err
	}
	status := r.Err()
	if err := checkEcho(c, p, r.Data); err != nil {
		if status != nil {
			err = fmt.Errorf("%w, in a response that says %q", err, status)
		}
		return nil, err
	}
	if status != nil {
		return nil, &StatusError{NCSI: ncsi.StatusError{Code: r.Code, Reason: r.Reason}, Parameter: p}
	}
	if len(r.Data) < headerSize {
		return nil, fmt.Errorf("%w: %d bytes of the command come back, and not all %d", ncsi.ErrMalformed, len(r.Data), headerSize)
	}
	return r.Data[headerSize:], nil
}

// checkEcho compares what a response repeats of its command, as far as it goes.
func checkEcho(c Command, p Parameter, data []byte) error {
	if len(data) >= 4 {
		if m := binary.BigEndian.Uint32(data); m != Manufacturer {
			return fmt.Errorf("%w: manufacturer 0x%08x instead of 0x%08x", ncsi.ErrMalformed, m, Manufacturer)
		}
	}
	for _, f := range []struct {
		at   int
		want byte
		what string
	}{
		{4, revision, "OEM revision"},
		{5, byte(c), "OEM command"},
		{6, byte(p), "OEM parameter"},
	} {
		if f.at < len(data) && data[f.at] != f.want {
			return fmt.Errorf("%w: %s 0x%02x instead of 0x%02x", ncsi.ErrMalformed, f.what, data[f.at], f.want)
		}
	}
	return nil
}

// ErrUnknownState is the error of a state that the NIC reports and that has no
// name here.
var ErrUnknownState = errors.New("the NIC reports a state that is not known")

// HostAccessResponse returns the state in the payload of the response to
// GetHostAccess. Errors are those of ParseResponse and ErrUnknownState.
func HostAccessResponse(payload []byte) (HostAccess, error) {
	n, err := hostAccess.parse(payload)
	return HostAccess(n), err
}

// RuntimeAccessResponse returns the state in the payload of the response to
// GetRuntimeAccess. Errors are those of ParseResponse and ErrUnknownState.
func RuntimeAccessResponse(payload []byte) (RuntimeAccess, error) {
	n, err := runtimeAccess.parse(payload)
	return RuntimeAccess(n), err
}

// parse takes a state out of the last byte of its word. What the bytes before
// it mean is not documented.
func (s setting) parse(payload []byte) (uint8, error) {
	data, err := ParseResponse(Get, s.param, payload)
	if err != nil {
		return 0, err
	}
	if len(data) < wordSize {
		return 0, fmt.Errorf("%w: %d bytes of state instead of %d", ncsi.ErrMalformed, len(data), wordSize)
	}
	state := data[wordSize-1]
	if int(state) >= len(s.names) {
		return 0, fmt.Errorf("%w: %s %d", ErrUnknownState, s.what, state)
	}
	return state, nil
}
