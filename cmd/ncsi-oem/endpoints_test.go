// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/bluefield-go/bmc-rshim/mctp"
)

// message puts a message of the kernel together: what stands at the offsets of a
// structure of that size, and attributes.
func message(t testing.TB, size int, at map[int]byte, attrs func(*netlink.AttributeEncoder)) netlink.Message {
	t.Helper()
	b := make([]byte, size)
	for i, v := range at {
		b[i] = v
	}
	e := netlink.NewAttributeEncoder()
	attrs(e)
	a, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return netlink.Message{Data: append(b, a...)}
}

// index puts the number of a link where struct ifinfomsg and ndmsg have it.
func index(m netlink.Message, link uint32) netlink.Message {
	binary.NativeEndian.PutUint32(m.Data[4:], link)
	return m
}

// mctpLink is a link as RTM_GETLINK lists it, with its network.
func mctpLink(t testing.TB, link, network uint32) netlink.Message {
	return index(message(t, ifinfoSize, nil, func(e *netlink.AttributeEncoder) {
		e.String(unix.IFLA_IFNAME, "mctpi2c4")
		e.Nested(unix.IFLA_AF_SPEC, func(e *netlink.AttributeEncoder) error {
			e.Nested(unix.AF_INET, func(e *netlink.AttributeEncoder) error {
				e.Uint32(1, 99)
				return nil
			})
			e.Nested(unix.AF_MCTP, func(e *netlink.AttributeEncoder) error {
				e.Uint32(unix.IFLA_MCTP_NET, network)
				return nil
			})
			return nil
		})
	}), link)
}

func neighbour(t testing.TB, link uint32, family, eid byte) netlink.Message {
	return index(message(t, ndSize, map[int]byte{0: family}, func(e *netlink.AttributeEncoder) {
		e.Bytes(unix.NDA_LLADDR, []byte{0x32})
		e.Bytes(unix.NDA_DST, []byte{eid})
	}), link)
}

func route(t testing.TB, link uint32, eid, extent, typ byte) netlink.Message {
	return message(t, rtSize, map[int]byte{0: unix.AF_MCTP, 1: extent, 7: typ}, func(e *netlink.AttributeEncoder) {
		e.Bytes(unix.RTA_DST, []byte{eid})
		e.Uint32(unix.RTA_OIF, link)
	})
}

func TestDecodeEndpoints(t *testing.T) {
	plain := index(message(t, ifinfoSize, nil, func(e *netlink.AttributeEncoder) { e.String(unix.IFLA_IFNAME, "eth0") }), 2)
	links := []netlink.Message{plain, mctpLink(t, 7, 1), mctpLink(t, 8, 2), {Data: []byte{0, 0, 0}}}
	neighbours := []netlink.Message{
		neighbour(t, 8, unix.AF_MCTP, 29),
		neighbour(t, 7, unix.AF_MCTP, 30),
		neighbour(t, 7, unix.AF_MCTP, 3),    // special
		neighbour(t, 7, unix.AF_MCTP, 0xff), // broadcast
		neighbour(t, 2, unix.AF_MCTP, 40),   // on a link without MCTP
		neighbour(t, 7, unix.AF_INET, 41),
		{Data: []byte{unix.AF_MCTP}},
		message(t, ndSize, map[int]byte{0: unix.AF_MCTP, 4: 7}, func(e *netlink.AttributeEncoder) { e.Bytes(unix.NDA_DST, []byte{10, 0, 0, 1}) }),
	}
	routes := []netlink.Message{
		route(t, 7, 8, 0, unix.RTN_LOCAL), // ourselves
		route(t, 7, 30, 0, unix.RTN_UNICAST),
		route(t, 7, 9, 0, unix.RTN_UNICAST),
		route(t, 8, 100, 20, unix.RTN_UNICAST), // 100 to 120
		{Data: []byte{unix.AF_MCTP, 0}},
	}
	want := []address{
		{transport: "mctp", network: 1, eid: 9, link: "mctpi2c4"},
		{transport: "mctp", network: 1, eid: 30, link: "mctpi2c4"},
		{transport: "mctp", network: 2, eid: 29, link: "mctpi2c4"},
	}
	if got := decodeEndpoints(links, neighbours, routes); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := decodeEndpoints(nil, neighbours, routes); got != nil {
		t.Errorf("without links: %v", got)
	}
}

// A link's bus is the one that its device is behind, through all multiplexers.
func TestBus(t *testing.T) {
	sysfs := t.TempDir()
	for link, device := range map[string]string{
		"mctpi2c4": "devices/platform/1e78a200.i2c-bus/i2c-4", "mctpi2c20": "devices/platform/1e78a200.i2c-bus/i2c-4/4-0070/channel-1/i2c-20",
		"mctpi2c5": "devices/platform/1e78a280.i2c-bus/i2c-5", "mctpusb0": "devices/platform/usb/1-1", "mctp0": "",
	} {
		class := filepath.Join(sysfs, "class/net", link)
		if err := os.MkdirAll(class, 0o755); err != nil {
			t.Fatal(err)
		}
		if device == "" {
			continue // as a TUN interface
		}
		if err := os.MkdirAll(filepath.Join(sysfs, device), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(sysfs, device), filepath.Join(class, "device")); err != nil {
			t.Fatal(err)
		}
	}
	for link, want := range map[string]string{
		"mctpi2c4": "i2c-4", "mctpi2c20": "i2c-4", "mctpi2c5": "i2c-5", "mctpusb0": "mctpusb0", "mctp0": "mctp0", "gone": "gone",
	} {
		if got := busOf(sysfs, link); got != want {
			t.Errorf("%s: %s, want %s", link, got, want)
		}
	}
}

// The kernel of this machine, whether it has MCTP or not.
func TestEndpoints(t *testing.T) {
	found, err := endpoints(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Log(found)
}

func FuzzDecodeEndpoints(f *testing.F) {
	f.Add(mctpLink(f, 7, 1).Data, neighbour(f, 7, unix.AF_MCTP, 30).Data, route(f, 7, 31, 0, unix.RTN_UNICAST).Data)
	f.Add([]byte(nil), []byte{unix.AF_MCTP}, []byte{unix.AF_MCTP, 0, 0, 0, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, link, neighbour, route []byte) {
		one := func(b []byte) []netlink.Message { return []netlink.Message{{Data: b}} }
		for _, a := range decodeEndpoints(one(link), one(neighbour), one(route)) {
			if a.transport != "mctp" || !mctp.EID(a.eid).Unicast() {
				t.Errorf("%+v", a)
			}
		}
	})
}

// Whatever is taken as an address is shown so that it is taken for the same
// again.
func FuzzAddress(f *testing.F) {
	for _, s := range []string{"1:29", "0:0x1d", "4:0x32", "4:32:0x12", "4:0x10", "4:0x10:8", "1:7", ":", "4294967296:9", "eth0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, parse := range []func(string) (address, error){parseMCTP, parseI2C} {
			a, err := parse(s)
			if err != nil {
				continue
			}
			again, err := parse(a.String())
			if err != nil || again != a {
				t.Errorf("%q is %+v, and %q is %+v, %v", s, a, a.String(), again, err)
			}
		}
	})
}
