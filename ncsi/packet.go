// SPDX-License-Identifier: Apache-2.0

// Package ncsi encodes and decodes NC-SI control packets (DMTF DSP0222), by
// which a BMC controls a NIC: header, payload, checksum, the codes of a
// response, and AENs. All numbers are big-endian. It does no I/O; transports
// carry the packets in Ethernet frames of type EtherType, in MCTP messages of
// type MCTPType, or have the kernel make them.
package ncsi

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Sizes in bytes, and what carries a control packet.
const (
	HeaderSize   = 16
	ChecksumSize = 4
	MaxPayload   = 0xfff // 12 bits of length
	Revision     = 0x01  // of the header

	EtherType = 0x88f8 // over RBT, the cable between BMC and NIC
	MCTPType  = 0x02   // message type over MCTP, without integrity check
)

// ErrMalformed is the error of bytes that are no packet, no response or no AEN,
// and of a response that does not fit its command. It comes wrapped in text
// that says what is wrong.
var ErrMalformed = errors.New("malformed NC-SI packet")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// Packet is a control packet.
type Packet struct {
	MC      uint8 // the management controller's ID; 0, as all senders have it
	IID     uint8 // instance ID, 1 to 255, which the response repeats; 0 in AENs
	Type    Type
	Channel Channel
	Payload []byte // without padding; for a response see ParseResponse
}

// Size returns how many bytes Append adds for a payload of n bytes.
func Size(n int) int { return HeaderSize + align4(n) + ChecksumSize }

func align4(n int) int { return (n + 3) &^ 3 }

// Append appends the packet to b: header, payload, zeros up to a multiple of
// 4 bytes, checksum. The payload must not be longer than MaxPayload.
func (p Packet) Append(b []byte) ([]byte, error) {
	if len(p.Payload) > MaxPayload {
		return b, fmt.Errorf("payload of %d bytes: an NC-SI packet has room for %d", len(p.Payload), MaxPayload)
	}
	start := len(b)
	b = append(b, p.MC, Revision, 0, p.IID, byte(p.Type), byte(p.Channel))
	b = binary.BigEndian.AppendUint16(b, uint16(len(p.Payload)))
	b = append(b, make([]byte, 8)...)
	b = append(b, p.Payload...)
	b = append(b, make([]byte, align4(len(p.Payload))-len(p.Payload))...)
	return binary.BigEndian.AppendUint32(b, Sum(b[start:])), nil
}

// Sum returns the checksum of header and padded payload: the 2's complement of
// the sum of their 16-bit words. An odd byte at the end counts as if a zero
// followed.
func Sum(b []byte) uint32 {
	var s uint32
	for ; len(b) >= 2; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	return -s
}

// Checksum says what stands in the place of a packet's checksum.
type Checksum int

// Checksums. All but ChecksumBad are fine: not everybody computes one.
const (
	ChecksumOK     Checksum = iota
	ChecksumZero            // "not computed"
	ChecksumAbsent          // the data ends before it, as some senders over MCTP have it
	ChecksumBad
)

func (c Checksum) String() string {
	switch c {
	case ChecksumOK:
		return "ok"
	case ChecksumZero:
		return "zero"
	case ChecksumAbsent:
		return "absent"
	}
	return "bad"
}

// Parse decodes the packet that b begins with, as long as its header says. What
// follows it is ignored: Ethernet's padding, and with some drivers its FCS.
// Payload is a part of b. The error wraps ErrMalformed; with ChecksumBad, the
// packet is what could be read all the same.
func Parse(b []byte) (Packet, Checksum, error) {
	if len(b) < HeaderSize {
		return Packet{}, ChecksumAbsent, malformed("%d bytes, less than the header's %d", len(b), HeaderSize)
	}
	if b[1] != Revision {
		return Packet{}, ChecksumAbsent, malformed("header revision 0x%02x instead of 0x%02x", b[1], Revision)
	}
	// The upper 4 bits are reserved.
	n := int(binary.BigEndian.Uint16(b[6:]) & MaxPayload)
	if rest := len(b) - HeaderSize; n > rest {
		return Packet{}, ChecksumAbsent, malformed("the header says %d bytes of payload, and %d follow", n, rest)
	}
	p := Packet{MC: b[0], IID: b[3], Type: Type(b[4]), Channel: Channel(b[5]), Payload: b[HeaderSize:][:n:n]}
	at := HeaderSize + align4(n)
	if len(b) <= at {
		return p, ChecksumAbsent, nil
	}
	if rest := len(b) - at; rest < ChecksumSize {
		return p, ChecksumBad, malformed("the checksum is cut off after %d of %d bytes", rest, ChecksumSize)
	}
	got, want := binary.BigEndian.Uint32(b[at:]), Sum(b[:at])
	switch got {
	case want:
		return p, ChecksumOK, nil
	case 0:
		return p, ChecksumZero, nil
	}
	return p, ChecksumBad, malformed("checksum 0x%08x instead of 0x%08x", got, want)
}
