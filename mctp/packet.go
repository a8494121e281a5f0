// SPDX-License-Identifier: Apache-2.0

// Package mctp is the Management Component Transport Protocol's base layer:
// packets and their header, messages cut into packets and put together again,
// and the few control messages that an endpoint with a static ID must answer.
// It does no I/O.
//
// Sources: DMTF DSP0236 (MCTP base), DSP0239 (message types); reference page
// ncsi.md, section 3.
package mctp

import "errors"

// EID is the ID of an endpoint: 8 to 254, or one of the special ones. 1 to 7
// are reserved.
type EID uint8

const (
	// Null stands for the endpoint at the physical address, or for the
	// sender before it has an ID.
	Null EID = 0
	// Broadcast stands for all endpoints of a bus.
	Broadcast EID = 0xff
)

// Unicast reports whether e is an ID that an endpoint can have.
func (e EID) Unicast() bool { return e >= 8 && e != Broadcast }

const (
	// HeaderSize is the size of a packet's header, in bytes.
	HeaderSize = 4
	// BaselineUnit is how many bytes of a message one packet carries: every
	// endpoint takes as much, more has to be negotiated.
	BaselineUnit = 64
	// Tags is how many tags there are: 0 to Tags-1. It is as many requests
	// as one endpoint can have under way to another.
	Tags = 8
)

// headerVersion is the only one there is; it stands in the low four bits of the
// first byte. The high ones are reserved.
const headerVersion = 1

// Header of a packet. The sequence number counts modulo 4.
type Header struct {
	Dest, Src EID
	SOM, EOM  bool  // first and last packet of a message
	Seq       uint8 // 0 to 3
	TO        bool  // the sender chose the tag: a request
	Tag       uint8 // 0 to 7
}

// Packet is a header and the part of a message that it carries.
type Packet struct {
	Header
	Payload []byte
}

// Why bytes are no packet.
var (
	ErrShort   = errors.New("mctp: shorter than a packet's header and one byte")
	ErrVersion = errors.New("mctp: header version is not 1")
)

// ParsePacket takes a packet apart. Its payload is a part of b, of one byte or
// more. Errors are ErrShort and ErrVersion.
func ParsePacket(b []byte) (Packet, error) {
	if len(b) <= HeaderSize {
		return Packet{}, ErrShort
	}
	if b[0]&0x0f != headerVersion {
		return Packet{}, ErrVersion
	}
	f := b[3]
	return Packet{
		Header: Header{
			Dest: EID(b[1]), Src: EID(b[2]),
			SOM: f&0x80 != 0, EOM: f&0x40 != 0, Seq: f >> 4 & 3, TO: f&0x08 != 0, Tag: f & 7,
		},
		Payload: b[HeaderSize:],
	}, nil
}

// AppendPacket appends a packet to b. Of Seq and Tag it takes the low bits.
func AppendPacket(b []byte, p Packet) []byte {
	f := p.Seq&3<<4 | p.Tag&7
	if p.SOM {
		f |= 0x80
	}
	if p.EOM {
		f |= 0x40
	}
	if p.TO {
		f |= 0x08
	}
	b = append(b, headerVersion, byte(p.Dest), byte(p.Src), f)
	return append(b, p.Payload...)
}
