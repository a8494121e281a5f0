// SPDX-License-Identifier: Apache-2.0

package afmctp

import "unsafe"

// The structures and numbers of <linux/mctp.h>, which golang.org/x/sys/unix
// does not have. None depends on the word size.

// sockaddr is struct sockaddr_mctp. The kernel refuses an address whose padding
// is not zero.
type sockaddr struct {
	family  uint16
	_       uint16
	network uint32 // 0: the default one
	eid     uint8
	typ     uint8 // of the message; it is not part of the data
	tag     uint8
	_       uint8
}

// Bits of a tag, above the three of its number.
const (
	tagOwner    = 0x08 // we send a request; the kernel chooses the number
	tagReserved = 0x10 // MCTP_TAG_PREALLOC: the number is one that was reserved
)

// tagControl is struct mctp_ioc_tag_ctl, for the socket's default network.
type tagControl struct {
	peer  uint8
	tag   uint8 // out: with tagOwner and tagReserved
	flags uint16
}

// tagControl2 is struct mctp_ioc_tag_ctl2, for any network; Linux 6.9 and
// later.
type tagControl2 struct {
	network uint32
	peer    uint8
	local   uint8
	flags   uint16
	tag     uint8
	_       [3]uint8
}

const (
	siocAllocTag  = 0x89e0 // SIOCPROTOPRIVATE
	siocAllocTag2 = 0x89e2

	localAny = 0xff // MCTP_ADDR_ANY
)

const sockaddrSize = unsafe.Sizeof(sockaddr{})
