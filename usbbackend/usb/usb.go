// SPDX-License-Identifier: Apache-2.0

// Package usb is the seam between the RShim backend and whatever drives the
// USB bus: the kernel's usbfs, libusb, or a simulated device. It holds
// interfaces and vocabulary only; usbtest holds the behaviour that every
// implementation must show.
package usb

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Errors of a transfer. Implementations wrap them in an *OpError.
var (
	ErrNoDevice  = errors.New("device is gone")                       // unplugged; every later call fails the same way
	ErrStall     = errors.New("endpoint stalled")                     // ClearHalt resumes it; on the control endpoint the next request does
	ErrCancelled = errors.New("transfer cancelled")                   // by Cancel, or because a transfer queued before it failed
	ErrClosed    = errors.New("device is closed")                     // by Close
	ErrOverflow  = errors.New("device sent more than was asked for")  // babble
	ErrProtocol  = errors.New("transfer failed on the bus")           // CRC, timeout of a handshake, bit stuffing
	ErrBusy      = errors.New("interface is claimed by someone else") // by a kernel driver or another program
)

// OpError is the error of an operation on one device.
type OpError struct {
	Op       string // "control", "transfer", "claim", "reset", ...
	Location Location
	Err      error
}

func (e *OpError) Error() string { return fmt.Sprintf("usb %s: %s: %v", e.Location, e.Op, e.Err) }

// Unwrap returns the cause.
func (e *OpError) Unwrap() error { return e.Err }

// Location is where on the bus a device is plugged in, as the kernel names it
// in sysfs: bus number, dash, port numbers with dots between, all decimal
// ("2-1.7"). It outlives re-enumeration, unlike an address.
type Location string

// Split returns the bus and the ports from the root hub outwards.
func (l Location) Split() (bus int, ports []int, err error) {
	b, p, ok := strings.Cut(string(l), "-")
	if bus, err = strconv.Atoi(b); err != nil || !ok {
		return 0, nil, fmt.Errorf("usb location %q: want BUS-PORT[.PORT...]", string(l))
	}
	for f := range strings.SplitSeq(p, ".") {
		n, err := strconv.Atoi(f)
		if err != nil {
			return 0, nil, fmt.Errorf("usb location %q: want BUS-PORT[.PORT...]", string(l))
		}
		ports = append(ports, n)
	}
	return bus, ports, nil
}

// Speed is what a device enumerated at.
type Speed int

// Speeds, slowest first.
const (
	SpeedUnknown Speed = iota
	SpeedLow           // 1.5 Mb/s
	SpeedFull          // 12 Mb/s
	SpeedHigh          // 480 Mb/s
	SpeedSuper         // 5 Gb/s and up
)

func (s Speed) String() string {
	names := [...]string{"unknown", "low", "full", "high", "super"}
	if s < 0 || int(s) >= len(names) {
		s = SpeedUnknown
	}
	return names[s]
}

// Info is what enumeration tells about a device.
type Info struct {
	Location Location
	Address  int // number on the bus; a new one at every enumeration
	Vendor   uint16
	Product  uint16
	Release  uint16 // bcdDevice
	Speed    Speed
}

// TransferType is the type of an endpoint, as in bmAttributes.
type TransferType uint8

// Transfer types.
const (
	Control TransferType = iota
	Isochronous
	Bulk
	Interrupt
)

// Endpoint is one endpoint of an interface.
type Endpoint struct {
	Address   uint8 // bEndpointAddress; bit 7 set means IN
	Type      TransferType
	MaxPacket int
}

// In reports whether the endpoint moves data from the device.
func (e Endpoint) In() bool { return e.Address&0x80 != 0 }

// Interface is one interface of the active configuration, at alternate
// setting 0.
type Interface struct {
	Number    int
	Class     uint8
	Subclass  uint8
	Protocol  uint8
	Endpoints []Endpoint
}

// Setup is the setup packet of a control transfer; its length field is that
// of the data. RequestType bit 7 set means IN.
type Setup struct {
	RequestType uint8
	Request     uint8
	Value       uint16
	Index       uint16
}

// Host is a USB host: what is plugged in, and a way to open it.
// It has no notion of hotplug; see package uevent.
type Host interface {
	// Name is the name of the implementation, as -usb takes it.
	Name() string
	// Devices lists the devices of a vendor that are plugged in now.
	Devices(ctx context.Context, vendor uint16) ([]Info, error)
	// Open opens the device at info.Location, if it still is the one with
	// info.Address; otherwise ErrNoDevice.
	Open(ctx context.Context, info Info) (Device, error)
	// Reset resets the port that info's device hangs on, so that the kernel
	// enumerates it anew. It needs no open device.
	Reset(ctx context.Context, info Info) error
}

// Device is an open device. All methods may be called at once from several
// goroutines; Close ends every call and transfer with ErrClosed.
type Device interface {
	// Interfaces describes the active configuration.
	Interfaces() []Interface
	// Claim takes an interface, detaching a kernel driver from it.
	Claim(iface int) error
	// Control does one control transfer and returns how many bytes of data
	// moved. When ctx ends first, the transfer is cancelled within 100 ms.
	Control(ctx context.Context, s Setup, data []byte) (int, error)
	// Submit queues a bulk or interrupt transfer. Transfers of an endpoint
	// are carried out in the order of their Submits. For an OUT endpoint,
	// data must not be changed, and for IN not be touched, until the
	// transfer is done.
	//
	// When a transfer of an OUT endpoint fails or is cancelled, those queued
	// behind it end with ErrCancelled and nothing of them sent, and so does
	// what is submitted before the caller has seen its Result, so that what
	// has been sent always is a prefix of what was submitted. Submits made
	// before the last of them is done may fail the same way.
	Submit(ep uint8, data []byte) (Transfer, error)
	// ClearHalt resumes an endpoint after ErrStall.
	ClearHalt(ctx context.Context, ep uint8) error
	// Gone is closed when the device has been seen to be unplugged.
	Gone() <-chan struct{}
	Close() error
}

// Transfer is a transfer that was submitted.
type Transfer interface {
	// Done is closed when the transfer has ended.
	Done() <-chan struct{}
	// Result returns how many bytes moved and why the transfer ended, nil
	// when as it should. It waits for Done. A transfer that failed or was
	// cancelled may have moved some bytes all the same.
	Result() (int, error)
	// Cancel ends the transfer early; Done is closed within 100 ms. It does
	// nothing to a transfer that has ended.
	Cancel()
}

// Do submits one transfer and waits for it, or cancels it when ctx ends, in
// which case the error is that of ctx and n still is exact.
func Do(ctx context.Context, d Device, ep uint8, data []byte) (n int, err error) {
	t, err := d.Submit(ep, data)
	if err != nil {
		return 0, err
	}
	select {
	case <-t.Done():
	case <-ctx.Done():
		t.Cancel()
	}
	n, err = t.Result()
	if err != nil && ctx.Err() != nil && errors.Is(err, ErrCancelled) {
		err = ctx.Err()
	}
	return n, err
}
