// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"

	"github.com/bluefield-go/bmc-rshim/internal/tap"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/netpeer"
)

// network is what the DPUs' interfaces are connected to.
type network struct {
	kind   string // none, echo or tap
	name   string // of a TAP, may contain %d
	netns  string
	prefix netip.Prefix
}

// Set takes "none", "echo", or "tap:NAME[@NETNS]".
func (n *network) Set(s string) error {
	kind, rest, _ := strings.Cut(s, ":")
	name, netns, _ := strings.Cut(rest, "@")
	switch {
	case kind == "tap" && name != "", (kind == "none" || kind == "echo") && s == kind:
		n.kind, n.name, n.netns = kind, name, netns
		return nil
	}
	return errors.New("neither none, echo nor tap:NAME[@NETNS]")
}

func (n *network) String() string { return n.kind }

// open connects a DPU; nil without a network.
func (n *network) open(dev int) (io.ReadWriteCloser, error) {
	switch n.kind {
	case "echo":
		o := netpeer.Options{}
		if n.prefix.Addr().Is4() {
			o.IPv4 = n.prefix.Addr()
		} else {
			o.IPv6 = n.prefix.Addr()
		}
		return netpeer.New(o), nil
	case "tap":
		o := tap.Options{
			Name:  strings.ReplaceAll(n.name, "%d", strconv.Itoa(dev)),
			MAC:   bluefield.DefaultMAC,
			Netns: n.netns,
		}
		if n.prefix.IsValid() {
			o.Addresses = []netip.Prefix{n.prefix}
		}
		t, err := tap.Open(o)
		if err != nil {
			return nil, fmt.Errorf("network of DPU %d: %w", dev, err)
		}
		return t, nil
	}
	return nil, nil
}
