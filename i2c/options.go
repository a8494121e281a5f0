// SPDX-License-Identifier: Apache-2.0

// Package i2c is MCTP over I2C in user space: the SMBus binding's frames, the
// kernel's i2c-dev nodes to send them, its slave-mqueue backend to receive
// them, and on top of those an endpoint, and a transport for NC-SI. It is for
// kernels without MCTP; package afmctp uses the kernel's own.
//
// Sources: DMTF DSP0237 (MCTP over SMBus/I2C); Linux' user-space interfaces
// i2c-dev and slave-mqueue; reference page ncsi.md, sections 3.1 and 3.3.
package i2c

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/bluefield-go/bmc-rshim/mctp"
)

// DefaultOwn is the address that BMCs have on their buses.
const DefaultOwn = 0x10

// Options of an endpoint, and of the transport on it. Addresses are of 7 bits.
type Options struct {
	Bus int // N of /dev/i2c-N
	// Addr is the NIC's address. An Endpoint hears everybody with 0.
	Addr uint8
	// Own is our address, at which the kernel's slave-mqueue backend listens;
	// 0 means DefaultOwn.
	Own uint8
	// EID is our endpoint's ID. With 0 we have none: control messages are
	// ignored, and requests come from the null endpoint.
	EID mctp.EID
	// PeerEID is the NIC's endpoint. With 0 requests go to whatever endpoint
	// is at Addr, and its answers are taken whatever its ID.
	PeerEID mctp.EID
	Root    string        // of sysfs; "" means /sys
	Dev     string        // directory of device nodes; "" means /dev
	Timeout time.Duration // of a command; 0 means ncsimctp.DefaultTimeout
	Logger  *slog.Logger  // nil discards
}

func (o *Options) setDefaults() error {
	if o.Own == 0 {
		o.Own = DefaultOwn
	}
	if o.Root == "" {
		o.Root = "/sys"
	}
	if o.Dev == "" {
		o.Dev = "/dev"
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Addr > 0x7f || o.Own > 0x7f {
		return fmt.Errorf("addresses 0x%02x and 0x%02x: they are of 7 bits", o.Addr, o.Own)
	}
	return nil
}

// Why nothing can be sent or received. They come in an *OpError, with what to
// do.
var (
	ErrNoBus   = errors.New("no such bus")
	ErrNoQueue = errors.New("the kernel does not listen at our own address")
	ErrInUse   = errors.New("another program receives at our own address")
	// ErrNoAck: nobody at the address took the message.
	ErrNoAck = errors.New("no device acknowledges at the address")
)

// OpError is an error of a bus.
type OpError struct {
	Op     string // "open", "send" or "receive"
	Device string // file, or address on a bus
	Err    error
}

func (e *OpError) Error() string { return fmt.Sprintf("i2c: %s: %s: %v", e.Device, e.Op, e.Err) }

// Unwrap returns the cause.
func (e *OpError) Unwrap() error { return e.Err }
