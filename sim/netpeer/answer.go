// SPDX-License-Identifier: Apache-2.0

package netpeer

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
)

// Sizes of headers, in bytes.
const (
	etherLen = 14
	arpLen   = 28
	ipv6Len  = 40
	icmpLen  = 8
)

// Protocol numbers.
const (
	typeIPv4, typeARP, typeIPv6 = 0x0800, 0x0806, 0x86dd
	protoICMP, protoICMPv6      = 1, 58
	echoRequest, echoReply      = 8, 0
	echoRequest6, echoReply6    = 128, 129
	solicit, advertise          = 135, 136
)

// answer returns the answer to a frame, or nil.
func (e *Echo) answer(frame []byte) []byte {
	if len(frame) < etherLen || frame[0]&1 == 0 && !bytes.Equal(frame[:6], e.o.MAC[:]) {
		return nil
	}
	r := slices.Clone(frame)
	copy(r, frame[6:12])
	copy(r[6:], e.o.MAC[:])
	p := r[etherLen:]
	var n int // the size of the answer after Ethernet's header
	switch binary.BigEndian.Uint16(frame[12:]) {
	case typeARP:
		n = e.arp(p)
	case typeIPv4:
		n = e.ipv4(p)
	case typeIPv6:
		if n = e.ipv6(p); n < 0 { // it needs more room
			p = append(p[:ipv6Len+24], make([]byte, 8)...)
			n = e.advertise(p)
			r = append(r[:etherLen], p...)
		}
	}
	if n == 0 {
		return nil
	}
	return r[:etherLen+n]
}

// arp turns a request into its answer, and returns its size, 0 without one. So
// do the others.
func (e *Echo) arp(p []byte) int {
	ask := []byte{0, 1, 8, 0, 6, 4, 0, 1} // Ethernet, IPv4, request
	if len(p) < arpLen || !bytes.Equal(p[:8], ask) || netip.AddrFrom4([4]byte(p[24:28])) != e.o.IPv4 {
		return 0
	}
	p[7] = 2
	copy(p[18:], p[8:18]) // who asked is whom it is for
	copy(p[8:], e.o.MAC[:])
	copy(p[14:], e.o.IPv4.AsSlice())
	return arpLen
}

func (e *Echo) ipv4(p []byte) int {
	if len(p) < 20 || p[0]>>4 != 4 {
		return 0
	}
	head, size := int(p[0]&15)*4, int(binary.BigEndian.Uint16(p[2:]))
	fragment := binary.BigEndian.Uint16(p[6:])&0x3fff != 0
	if head < 20 || size < head+icmpLen || size > len(p) || fragment || p[9] != protoICMP ||
		netip.AddrFrom4([4]byte(p[16:20])) != e.o.IPv4 || sum(0, p[:head]) != 0 {
		return 0
	}
	icmp := p[head:size]
	if icmp[0] != echoRequest || sum(0, icmp) != 0 {
		return 0
	}
	copy(p[16:], p[12:16])
	copy(p[12:], e.o.IPv4.AsSlice())
	p[8] = 64
	seal(p[10:12], 0, p[:head])
	icmp[0] = echoReply
	seal(icmp[2:4], 0, icmp)
	return size
}

// ipv6 returns -1 for a solicitation, which is to be answered by advertise.
func (e *Echo) ipv6(p []byte) int {
	if len(p) < ipv6Len+icmpLen || p[0]>>4 != 6 || p[6] != protoICMPv6 {
		return 0
	}
	size := ipv6Len + int(binary.BigEndian.Uint16(p[4:]))
	if size < ipv6Len+icmpLen || size > len(p) {
		return 0
	}
	icmp := p[ipv6Len:size]
	if sum(pseudo(p), icmp) != 0 {
		return 0
	}
	switch {
	case icmp[0] == solicit && len(icmp) >= 24 && netip.AddrFrom16([16]byte(icmp[8:24])) == e.o.IPv6:
		return -1
	case icmp[0] != echoRequest6 || netip.AddrFrom16([16]byte(p[24:40])) != e.o.IPv6:
		return 0
	}
	e.turn6(p)
	icmp[0] = echoReply6
	seal(icmp[2:4], pseudo(p), icmp)
	return size
}

// advertise makes an answer of a solicitation, cut to 32 bytes after its
// header.
func (e *Echo) advertise(p []byte) int {
	e.turn6(p)
	flags := byte(0x60) // solicited, override
	if to := p[24:40]; netip.AddrFrom16([16]byte(to)).IsUnspecified() {
		// From one who looks whether the address is in use.
		flags = 0x20
		copy(to, netip.IPv6LinkLocalAllNodes().AsSlice())
	}
	p[7] = 255
	icmp := p[ipv6Len:]
	binary.BigEndian.PutUint16(p[4:], uint16(len(icmp)))
	icmp[0], icmp[1] = advertise, 0
	copy(icmp[4:], []byte{flags, 0, 0, 0})
	copy(icmp[24:], []byte{2, 1}) // target's link-layer address
	copy(icmp[26:], e.o.MAC[:])
	seal(icmp[2:4], pseudo(p), icmp)
	return len(p)
}

// turn6 sends a packet back to where it came from.
func (e *Echo) turn6(p []byte) {
	copy(p[24:], p[8:24])
	copy(p[8:], e.o.IPv6.AsSlice())
	p[7] = 64
}

// pseudo is the sum of the pseudo-header of an IPv6 packet.
func pseudo(p []byte) uint32 {
	n := add(0, p[8:40]) + uint32(p[6])
	return n + uint32(binary.BigEndian.Uint16(p[4:]))
}

func add(n uint32, p []byte) uint32 {
	for ; len(p) >= 2; p = p[2:] {
		n += uint32(binary.BigEndian.Uint16(p))
	}
	if len(p) > 0 {
		n += uint32(p[0]) << 8
	}
	return n
}

// sum is the Internet checksum of p and what has been added up before; 0 for
// what has a good one.
func sum(n uint32, p []byte) uint16 {
	n = add(n, p)
	n = n>>16 + n&0xffff
	n += n >> 16
	return ^uint16(n)
}

// seal puts the checksum of p to at.
func seal(at []byte, n uint32, p []byte) {
	at[0], at[1] = 0, 0
	binary.BigEndian.PutUint16(at, sum(n, p))
}
