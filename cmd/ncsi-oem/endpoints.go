// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/bluefield-go/bmc-rshim/mctp"
)

// Sizes of the kernel's structures before the attributes, in bytes, and what
// this file reads of them.
const (
	ifinfoSize = 16 // struct ifinfomsg; the interface's index is at 4
	ndSize     = 12 // struct ndmsg; index at 4
	rtSize     = 12 // struct rtmsg; length of the destination at 1, type at 7
)

// dumpPatience is with a kernel that has all it needs in memory.
const dumpPatience = 3 * time.Second

// endpoints returns the MCTP endpoints that the kernel knows how to reach: its
// neighbours, and those that have a route of their own. Without MCTP in the
// kernel there are none.
func endpoints(ctx context.Context) ([]address, error) {
	c, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, fmt.Errorf("MCTP endpoints: %w", err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(dumpPatience)); err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })()

	dump := func(typ netlink.HeaderType, family uint8, size int) ([]netlink.Message, error) {
		msgs, err := c.Execute(netlink.Message{
			Header: netlink.Header{Type: typ, Flags: netlink.Request | netlink.Dump},
			Data:   append([]byte{family}, make([]byte, size-1)...),
		})
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, unix.EOPNOTSUPP): // no MCTP in this kernel
			return nil, nil
		case err != nil:
			return nil, fmt.Errorf("MCTP endpoints: %w", err)
		}
		return msgs, nil
	}
	links, err := dump(unix.RTM_GETLINK, unix.AF_UNSPEC, ifinfoSize)
	if err != nil {
		return nil, err
	}
	neighbours, err := dump(unix.RTM_GETNEIGH, unix.AF_MCTP, ndSize)
	if err != nil {
		return nil, err
	}
	routes, err := dump(unix.RTM_GETROUTE, unix.AF_MCTP, rtSize)
	if err != nil {
		return nil, err
	}
	return decodeEndpoints(links, neighbours, routes), nil
}

// decodeEndpoints puts the kernel's three lists together. What it cannot decode
// is no endpoint.
func decodeEndpoints(links, neighbours, routes []netlink.Message) (found []address) {
	networks := make(map[uint32]uint32) // by the index of the link
	for _, m := range links {
		if index, network, ok := decodeLink(m.Data); ok {
			networks[index] = network
		}
	}
	add := func(link uint32, eid uint8) {
		network, ok := networks[link]
		if ok && mctp.EID(eid).Unicast() {
			found = append(found, address{transport: "mctp", network: network, eid: eid})
		}
	}
	for _, m := range neighbours {
		if len(m.Data) < ndSize || m.Data[0] != unix.AF_MCTP {
			continue // a kernel without MCTP lists all others
		}
		if eid := attribute(m.Data[ndSize:], unix.NDA_DST); len(eid) == 1 {
			add(binary.NativeEndian.Uint32(m.Data[4:]), eid[0])
		}
	}
	for _, m := range routes {
		// A length says how many endpoints follow the first one: those behind a
		// bridge, of which most do not exist.
		if len(m.Data) < rtSize || m.Data[0] != unix.AF_MCTP || m.Data[1] != 0 || m.Data[7] != unix.RTN_UNICAST {
			continue
		}
		eid, link := attribute(m.Data[rtSize:], unix.RTA_DST), attribute(m.Data[rtSize:], unix.RTA_OIF)
		if len(eid) == 1 && len(link) == 4 {
			add(binary.NativeEndian.Uint32(link), eid[0])
		}
	}
	slices.SortFunc(found, func(a, b address) int {
		if a.network != b.network {
			return int(a.network) - int(b.network)
		}
		return int(a.eid) - int(b.eid)
	})
	return slices.Compact(found)
}

// decodeLink returns the MCTP network that a link is in, if in any.
func decodeLink(b []byte) (index, network uint32, ok bool) {
	if len(b) < ifinfoSize {
		return 0, 0, false
	}
	spec := attribute(b[ifinfoSize:], unix.IFLA_AF_SPEC)
	n := attribute(attribute(spec, unix.AF_MCTP), unix.IFLA_MCTP_NET)
	if len(n) != 4 {
		return 0, 0, false
	}
	return binary.NativeEndian.Uint32(b[4:]), binary.NativeEndian.Uint32(n), true
}

// attribute returns the data of the first attribute of a type, nil if there is
// none.
func attribute(b []byte, typ uint16) []byte {
	d, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return nil
	}
	for d.Next() {
		if d.Type() == typ {
			return d.Bytes()
		}
	}
	return nil
}
