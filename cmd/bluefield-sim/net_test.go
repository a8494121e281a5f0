// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/bluefield-go/bmc-rshim/internal/tap"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
)

func TestNetworkFlags(t *testing.T) {
	prefix := netip.MustParsePrefix("192.168.100.2/30")
	for _, c := range []struct {
		args []string
		want network
	}{
		{nil, network{kind: "echo", prefix: prefix}},
		{[]string{"-net", "none"}, network{kind: "none", prefix: prefix}},
		{[]string{"-net", "tap:dpu", "-net-address", "none"}, network{kind: "tap", name: "dpu"}},
		{
			[]string{"-net", "tap:dpu%d@/proc/1/ns/net", "-count", "2", "-net-address", "fe80::2/64"},
			network{kind: "tap", name: "dpu%d", netns: "/proc/1/ns/net", prefix: netip.MustParsePrefix("fe80::2/64")},
		},
	} {
		if o, err := parse(c.args, io.Discard); err != nil || o.net != c.want {
			t.Errorf("%q: %+v, %v", c.args, o.net, err)
		}
	}
}

func TestOpenNetwork(t *testing.T) {
	if c, err := (&network{kind: "none"}).open(0); c != nil || err != nil {
		t.Errorf("none is %v, %v", c, err)
	}
	c, err := (&network{kind: "echo", prefix: netip.MustParsePrefix("10.0.0.7/24")}).open(0)
	if err != nil {
		t.Fatal(err)
	}
	ask := append([]byte{255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1}, 0, 0, 0, 0, 0, 0, 10, 0, 0, 7)
	c.Write(ask)
	p := make([]byte, 2000)
	if n, err := c.Read(p); n != 42 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	c.Close()
}

func TestOpenTAP(t *testing.T) {
	c, err := (&network{kind: "tap", name: "simdpu%d", prefix: netip.MustParsePrefix("192.0.2.2/30")}).open(7)
	if errors.Is(err, tap.ErrNoDriver) || errors.Is(err, os.ErrPermission) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	i, err := net.InterfaceByName("simdpu7")
	if err != nil || [6]byte(i.HardwareAddr) != bluefield.DefaultMAC {
		t.Fatalf("%+v, %v", i, err)
	}
	if a, err := i.Addrs(); err != nil || a[0].String() != "192.0.2.2/30" {
		t.Errorf("addresses %v, %v", a, err)
	}
}
