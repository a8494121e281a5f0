// SPDX-License-Identifier: Apache-2.0

// Package tmfifo is the codec of the messages that the DPU and the BMC
// exchange through the two TMFIFOs: console bytes, Ethernet frames, and the
// control messages that ask for and set the network identity of the DPU's
// side.
//
// A FIFO is a stream of 8-byte words. A message is a header of one word, its
// payload, and zeros up to a whole word:
//
//	byte 0     type
//	bytes 1-2  length of the payload, big endian
//	bytes 3-6  arguments of a control message
//	byte 7     checksum: all eight bytes add up to 0 modulo 256; 0 = unchecked
//
// Both ends are written by others, lose words when the chip resets or the
// owner changes, and begin anywhere in the stream; the Decoder copes.
//
// Source of the layout: the RShim daemon 2.8.2 (rshim.h, rshim.c) and Linux's
// drivers/platform/mellanox/mlxbf-tmfifo.c.
package tmfifo

// Sizes in bytes.
const (
	WordSize   = 8
	HeaderSize = 8

	// MinFrame is an Ethernet header: nobody sends less in a Net message.
	MinFrame = 14
	// MaxFrame is an Ethernet frame of MTU 1500 with two VLAN tags.
	MaxFrame = 1522
	// MaxConsole is the most that comes from the DPU in one Console message:
	// what a FIFO of 256 words holds beside the header. UEFI fills it, Linux
	// leaves one word free.
	MaxConsole = 2040
	// MaxInput is the most to send to the DPU in one Console message. UEFI has
	// a ring of 1024 bytes and drops a message that does not fit as a whole;
	// one of 1536 bytes or more puts it out of step.
	MaxInput = 512
	// MaxMessage is the longest message there is, with its header.
	MaxMessage = HeaderSize + MaxConsole
)

// Type is the first byte of a header.
type Type uint8

// The types there are. The first two are virtio's device numbers.
const (
	Net     Type = 1
	Console Type = 3

	// Control messages have no payload.
	VLANID  Type = 0xfb
	PXEID   Type = 0xfc
	CtrlReq Type = 0xfd
	MACLow  Type = 0xfe // bytes 0 to 2 of the MAC address
	MACHigh Type = 0xff // bytes 3 to 5
)

// Control reports whether messages of this type have arguments and no payload.
func (t Type) Control() bool { return t >= VLANID }

// Message is one message of either direction.
type Message struct {
	Type Type
	// Args are bytes 3 to 6 of the header. Only control messages use them;
	// Linux leaves there whatever was on its stack.
	Args [4]byte
	// Payload is at most MaxFrame bytes of Net, or MaxConsole of Console.
	Payload []byte
}

// Size returns the bytes that a message with so many bytes of payload takes in
// the FIFO, header and padding included.
func Size(payload int) int {
	return HeaderSize + (payload+WordSize-1)&^(WordSize-1)
}

// Append appends a message as it goes into the FIFO: whole words, with a
// checksum. The payload must not be longer than Message and MaxInput say; a
// Net message without one is the filler that brings the other side into step.
func Append(dst []byte, m Message) []byte {
	h := header{byte(m.Type), byte(len(m.Payload) >> 8), byte(len(m.Payload))}
	copy(h[3:7], m.Args[:])
	h[7] = -h.sum()
	dst = append(dst, h[:]...)
	dst = append(dst, m.Payload...)
	var zeros [WordSize]byte
	return append(dst, zeros[:Size(len(m.Payload))-HeaderSize-len(m.Payload)]...)
}
