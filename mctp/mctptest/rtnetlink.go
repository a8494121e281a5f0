// SPDX-License-Identifier: Apache-2.0

// Package mctptest sets up the kernel's MCTP for tests, as an administrator
// does with mctp(1), and gives it links with somebody at the other end: a TUN
// interface, and I2C devices on the test machine's joined adapters. It needs a
// kernel with MCTP, and root.
package mctptest

import (
	"encoding/binary"
	"net"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/bluefield-go/bmc-rshim/mctp"
)

// mctpNet is IFLA_MCTP_NET.
const mctpNet = 1

// Link is what a link needs before an endpoint behind it can be reached.
type Link struct {
	Name    string
	Network uint32
	MTU     uint32 // with the packets' header; 0: as it is
	Own     mctp.EID
	Peers   map[mctp.EID][]byte // with their physical addresses, if the link has any
}

// SetUp is "mctp link set up", "addr add", and for each peer "route add" and
// "neigh add".
func (l Link) SetUp(t testing.TB) {
	t.Helper()
	index := l.index(t)
	execute(t, unix.RTM_NEWLINK, 0, ifinfo(index, unix.IFF_UP, unix.IFF_UP), func(ae *netlink.AttributeEncoder) {
		if l.MTU > 0 {
			ae.Uint32(unix.IFLA_MTU, l.MTU)
		}
		ae.Nested(unix.IFLA_AF_SPEC, func(ae *netlink.AttributeEncoder) error {
			ae.Nested(unix.AF_MCTP, func(ae *netlink.AttributeEncoder) error {
				ae.Uint32(mctpNet, l.Network)
				return nil
			})
			return nil
		})
	})
	if l.Own != mctp.Null {
		execute(t, unix.RTM_NEWADDR, netlink.Create|netlink.Excl, ifaddr(index), func(ae *netlink.AttributeEncoder) {
			ae.Uint8(unix.IFA_LOCAL, uint8(l.Own))
		})
	}
	for eid, addr := range l.Peers {
		l.AddRoute(t, eid)
		if addr != nil {
			l.AddNeighbour(t, eid, addr)
		}
	}
}

// AddRoute is "mctp route add EID via LINK".
func (l Link) AddRoute(t testing.TB, eid mctp.EID) {
	t.Helper()
	index := l.index(t)
	execute(t, unix.RTM_NEWROUTE, netlink.Create|netlink.Excl, rtmsg(), func(ae *netlink.AttributeEncoder) {
		ae.Uint8(unix.RTA_DST, uint8(eid))
		ae.Uint32(unix.RTA_OIF, index)
	})
}

// AddNeighbour is "mctp neigh add EID dev LINK lladdr ADDR".
func (l Link) AddNeighbour(t testing.TB, eid mctp.EID, addr []byte) {
	t.Helper()
	execute(t, unix.RTM_NEWNEIGH, netlink.Create|netlink.Excl, ndmsg(l.index(t)), func(ae *netlink.AttributeEncoder) {
		ae.Uint8(unix.NDA_DST, uint8(eid))
		ae.Bytes(unix.NDA_LLADDR, addr)
	})
}

// SetDown is "mctp link set LINK down".
func (l Link) SetDown(t testing.TB) {
	t.Helper()
	execute(t, unix.RTM_NEWLINK, 0, ifinfo(l.index(t), 0, unix.IFF_UP), func(*netlink.AttributeEncoder) {})
}

func (l Link) index(t testing.TB) uint32 {
	t.Helper()
	i, err := net.InterfaceByName(l.Name)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(i.Index)
}

// execute sends one request to rtnetlink: a header of the message's kind, and
// attributes.
func execute(t testing.TB, typ netlink.HeaderType, flags netlink.HeaderFlags, header []byte, attrs func(*netlink.AttributeEncoder)) {
	t.Helper()
	ae := netlink.NewAttributeEncoder()
	attrs(ae)
	b, err := ae.Encode()
	if err != nil {
		t.Fatal(err)
	}
	c, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	m := netlink.Message{Header: netlink.Header{Type: typ, Flags: netlink.Request | netlink.Acknowledge | flags}, Data: append(header, b...)}
	if _, err := c.Execute(m); err != nil {
		t.Fatalf("rtnetlink request %d: %v", typ, err)
	}
}

// ifinfo is struct ifinfomsg.
func ifinfo(index, flags, change uint32) []byte {
	b := binary.NativeEndian.AppendUint32(make([]byte, 4), index)
	b = binary.NativeEndian.AppendUint32(b, flags)
	return binary.NativeEndian.AppendUint32(b, change)
}

// ifaddr is struct ifaddrmsg.
func ifaddr(index uint32) []byte {
	return binary.NativeEndian.AppendUint32([]byte{unix.AF_MCTP, 0, 0, 0}, index)
}

// rtmsg is struct rtmsg.
func rtmsg() []byte {
	return []byte{unix.AF_MCTP, 0, 0, 0, 0, 0, 0, unix.RTN_UNICAST, 0, 0, 0, 0}
}

// ndmsg is struct ndmsg.
func ndmsg(index uint32) []byte {
	b := binary.NativeEndian.AppendUint32([]byte{unix.AF_MCTP, 0, 0, 0}, index)
	return append(b, 0, 0, 0, 0)
}
