// SPDX-License-Identifier: Apache-2.0

// Package usbip attaches a simulated BlueField to the vhci_hcd of this
// machine's kernel, which then is a USB host with a device on it like any
// other. It speaks USB/IP's transfer phase over a socket pair; there is no
// network and no usbip tool involved.
//
// Source of the protocol: Documentation/usb/usbip_protocol.rst and
// drivers/usb/usbip of Linux 6.1.
package usbip

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

// headerSize is the size of every header; they are big-endian.
const headerSize = 48

// Commands.
const (
	cmdSubmit = 1
	cmdUnlink = 2
	retSubmit = 3
	retUnlink = 4
)

// errProtocol means that the peer does not speak USB/IP.
var errProtocol = errors.New("not a USB/IP command")

// maxTransfer is the longest transfer that is accepted, in bytes.
const maxTransfer = 4 << 20

// command is a CMD_SUBMIT or CMD_UNLINK.
type command struct {
	Command uint32
	Seq     uint32
	Device  uint32
	In      bool
	EP      uint8 // number, without direction

	// CMD_SUBMIT
	Length int // bytes to be moved; for OUT they follow the header
	Setup  usb.Setup

	// CMD_UNLINK
	Victim uint32 // Seq of what is to be unlinked
}

// decode reads a header of headerSize bytes.
func decode(b []byte) (c command, err error) {
	word := func(i int) uint32 { return binary.BigEndian.Uint32(b[4*i:]) }
	c.Command, c.Seq, c.Device = word(0), word(1), word(2)
	c.In = word(3) != 0
	switch c.Command {
	case cmdUnlink:
		c.Victim = word(5)
		return c, nil
	case cmdSubmit:
	default:
		return c, fmt.Errorf("%w: command %#x", errProtocol, c.Command)
	}
	length, packets := word(6), word(8)
	switch {
	case word(3) > 1 || word(4) > 15:
		err = fmt.Errorf("%w: direction %d, endpoint %d", errProtocol, word(3), word(4))
	case length > maxTransfer:
		err = fmt.Errorf("%w: transfer of %d bytes", errProtocol, int32(length))
	case packets != 0 && packets != 0xffffffff:
		err = fmt.Errorf("%w: isochronous transfer", errProtocol)
	}
	c.EP, c.Length = uint8(word(4)), int(min(length, maxTransfer))
	s := b[40:]
	c.Setup = usb.Setup{
		RequestType: s[0], Request: s[1],
		Value: binary.LittleEndian.Uint16(s[2:]), Index: binary.LittleEndian.Uint16(s[4:]),
	}
	return c, err
}

// address is the endpoint's address as package usb has it.
func (c command) address() uint8 {
	if c.In && c.EP != 0 {
		return c.EP | 0x80
	}
	return c.EP
}

// submitReply makes a RET_SUBMIT, without the data.
func submitReply(seq uint32, status int32, actual int) []byte {
	b := reply(retSubmit, seq, status)
	binary.BigEndian.PutUint32(b[24:], uint32(actual))
	return b
}

// unlinkReply makes a RET_UNLINK.
func unlinkReply(seq uint32, status int32) []byte { return reply(retUnlink, seq, status) }

func reply(command, seq uint32, status int32) []byte {
	b := make([]byte, headerSize)
	binary.BigEndian.PutUint32(b, command)
	binary.BigEndian.PutUint32(b[4:], seq)
	binary.BigEndian.PutUint32(b[20:], uint32(status))
	return b
}

// Linux's negative errnos, the same on all architectures that matter here.
const (
	statusStall     = -32  // EPIPE
	statusProtocol  = -71  // EPROTO
	statusOverflow  = -75  // EOVERFLOW
	statusCancelled = -104 // ECONNRESET
	statusGone      = -108 // ESHUTDOWN
)

// status is how Linux tells of a transfer's end.
func status(err error) int32 {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, usb.ErrStall):
		return statusStall
	case errors.Is(err, usb.ErrCancelled):
		return statusCancelled
	case errors.Is(err, usb.ErrNoDevice):
		return statusGone
	case errors.Is(err, usb.ErrOverflow):
		return statusOverflow
	}
	return statusProtocol
}
