// SPDX-License-Identifier: Apache-2.0

package i2c

import (
	"errors"
	"fmt"

	"github.com/bluefield-go/bmc-rshim/mctp"
)

// A frame is what one SMBus block write carries, MCTP's packet in it:
//
//	0     destination address << 1
//	1     command code 0x0f
//	2     byte count: all that follows but the PEC
//	3     source address << 1 | 1
//	4     MCTP header and payload
//	last  PEC
//
// A master writes byte 0 by itself; a slave-mqueue puts it back in front.
const (
	commandCode = 0x0f
	countAt     = 2
	sourceAt    = 3
	packetAt    = 4

	// MaxPayload is how much of a message a frame can carry, in bytes: the
	// byte count goes to 255.
	MaxPayload = 255 - 1 - mctp.HeaderSize
)

// ErrMalformed is the error of bytes that are no frame. It comes wrapped in
// text that says what is wrong.
var ErrMalformed = errors.New("malformed SMBus frame")

// Frame is a packet on a bus. Addresses are of 7 bits.
type Frame struct {
	Dest, Src uint8
	Packet    mctp.Packet
}

// Append appends the frame to b, from the byte of the destination address on.
// The packet's payload must be of 1 to MaxPayload bytes.
func (f Frame) Append(b []byte) ([]byte, error) {
	if n := len(f.Packet.Payload); n == 0 || n > MaxPayload {
		return b, fmt.Errorf("payload of %d bytes: a frame has 1 to %d", n, MaxPayload)
	}
	start := len(b)
	b = append(b, f.Dest<<1, commandCode, byte(1+mctp.HeaderSize+len(f.Packet.Payload)), f.Src<<1|1)
	b = mctp.AppendPacket(b, f.Packet)
	return append(b, pec(b[start:])), nil
}

// ParseFrame takes a frame apart that begins with the byte of the destination
// address. The payload is a part of b. The error wraps ErrMalformed.
func ParseFrame(b []byte) (Frame, error) {
	if least := packetAt + mctp.HeaderSize + 1 + 1; len(b) < least {
		return Frame{}, malformed("%d bytes, less than %d", len(b), least)
	}
	end := len(b) - 1
	if b[1] != commandCode {
		return Frame{}, malformed("command code 0x%02x instead of 0x%02x", b[1], commandCode)
	}
	if n := end - sourceAt; int(b[countAt]) != n {
		return Frame{}, malformed("byte count %d, and %d follow", b[countAt], n)
	}
	if got, want := b[end], pec(b[:end]); got != want {
		return Frame{}, malformed("PEC 0x%02x instead of 0x%02x", got, want)
	}
	p, err := mctp.ParsePacket(b[packetAt:end:end])
	if err != nil {
		return Frame{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return Frame{Dest: b[0] >> 1, Src: b[sourceAt] >> 1, Packet: p}, nil
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// pec is SMBus' packet error code: a CRC of 8 bits, x^8 + x^2 + x + 1, from 0.
func pec(b []byte) uint8 {
	var crc uint8
	for _, v := range b {
		crc ^= v
		for range 8 {
			if crc&0x80 != 0 {
				crc = crc<<1 ^ 0x07
			} else {
				crc <<= 1
			}
		}
	}
	return crc
}
