// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"log/slog"
	"time"

	"github.com/bluefield-go/bmc-rshim/i2c"
	"github.com/bluefield-go/bmc-rshim/mctp"
	"github.com/bluefield-go/bmc-rshim/mctp/afmctp"
	"github.com/bluefield-go/bmc-rshim/ncsi/netlink"
	"github.com/bluefield-go/bmc-rshim/ncsi/oem"
)

// open returns the machine's way to an address. Timeout is for each response; 0
// is the transport's own.
func open(a address, timeout time.Duration, log *slog.Logger) (oem.Transport, func() error, error) {
	nothing := func() error { return nil }
	switch a.transport {
	case "netlink":
		return netlink.New(a.ifname, netlink.Options{Timeout: timeout, Logger: log}), nothing, nil
	case "mctp":
		return afmctp.New(afmctp.Options{Network: a.network, Peer: mctp.EID(a.eid), Timeout: timeout, Logger: log}), nothing, nil
	case "i2c":
		t, err := i2c.Open(i2c.Options{
			Bus: a.i2c, Addr: a.addr, Own: a.own, EID: mctp.EID(a.ownEID), PeerEID: mctp.EID(a.eid), Timeout: timeout, Logger: log,
		})
		if err != nil {
			return nil, nil, err
		}
		return t, t.Close, nil
	}
	return nil, nil, errors.New("no transport is chosen")
}
