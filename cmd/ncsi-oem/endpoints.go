// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
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
	found := decodeEndpoints(links, neighbours, routes)
	for i := range found {
		found[i].bus = busOf("/sys", found[i].link)
	}
	return found, nil
}

// busOf returns the I2C bus whose wires a link uses, behind all multiplexers,
// and the link itself if it is on none.
func busOf(sysfs, link string) string {
	path, err := filepath.EvalSymlinks(filepath.Join(sysfs, "class/net", link, "device"))
	if err != nil {
		return link
	}
	for name := range strings.SplitSeq(path, "/") {
		if strings.HasPrefix(name, "i2c-") {
			return name // its multiplexers' channels are below it
		}
	}
	return link
}

// askAll calls ask with the index of each endpoint, at the same time but for
// those that would be in each other's way: the kernel keeps a bus locked for one
// link while an answer is awaited there, so that a request on another link of
// the same bus would run out of time before it is sent.
func askAll(endpoints []address, ask func(i int)) {
	buses := make(map[string]map[string][]int) // bus, link, endpoints
	for i, a := range endpoints {
		if buses[a.bus] == nil {
			buses[a.bus] = make(map[string][]int)
		}
		buses[a.bus][a.link] = append(buses[a.bus][a.link], i)
	}
	var all sync.WaitGroup
	for _, links := range buses {
		all.Go(func() {
			for _, of := range links {
				var link sync.WaitGroup
				for _, i := range of {
					link.Go(func() { ask(i) })
				}
				link.Wait()
			}
		})
	}
	all.Wait()
}

// names lists endpoints for people.
func names(endpoints []address) string {
	var all []string
	for _, a := range endpoints {
		all = append(all, a.String())
	}
	return strings.Join(all, ", ")
}

// decodeEndpoints puts the kernel's three lists together. What it cannot decode
// is no endpoint.
func decodeEndpoints(links, neighbours, routes []netlink.Message) (found []address) {
	known := make(map[uint32]address) // by the index of the link
	for _, m := range links {
		if index, name, network, ok := decodeLink(m.Data); ok {
			known[index] = address{transport: "mctp", network: network, link: name}
		}
	}
	add := func(link uint32, eid uint8) {
		a, ok := known[link]
		if ok && mctp.EID(eid).Unicast() {
			a.eid = eid
			found = append(found, a)
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
	slices.SortStableFunc(found, func(a, b address) int {
		if a.network != b.network {
			return int(a.network) - int(b.network)
		}
		return int(a.eid) - int(b.eid)
	})
	return slices.CompactFunc(found, func(a, b address) bool { return a.network == b.network && a.eid == b.eid })
}

// decodeLink returns a link's name and the MCTP network that it is in, if in any.
func decodeLink(b []byte) (index uint32, name string, network uint32, ok bool) {
	if len(b) < ifinfoSize {
		return 0, "", 0, false
	}
	spec := attribute(b[ifinfoSize:], unix.IFLA_AF_SPEC)
	n := attribute(attribute(spec, unix.AF_MCTP), unix.IFLA_MCTP_NET)
	if len(n) != 4 {
		return 0, "", 0, false
	}
	name = strings.TrimRight(string(attribute(b[ifinfoSize:], unix.IFLA_IFNAME)), "\x00")
	return binary.NativeEndian.Uint32(b[4:]), name, binary.NativeEndian.Uint32(n), true
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
