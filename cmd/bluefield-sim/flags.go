// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
	"github.com/bluefield-go/bmc-rshim/sim/usbip"
)

type options struct {
	dpu     bluefield.Config
	usb     usbdev.Options
	net     network
	host    *bluefield.HostOptions // nil: the hosts have no driver
	vhci    usbip.VHCI
	count   int
	sink    string
	control string
}

var generations = map[string]reg.Generation{"bf1": reg.BlueField1, "bf2": reg.BlueField2, "bf3": reg.BlueField3}

func parse(args []string, stderr io.Writer) (o options, err error) {
	fs := flag.NewFlagSet("bluefield-sim", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Func("generation", "bf1, bf2 or bf3 (default bf3)", func(s string) error {
		g, ok := generations[s]
		if !ok {
			return errors.New("no such generation")
		}
		o.dpu.Generation = g
		return nil
	})
	fs.IntVar(&o.count, "count", 1, "how many DPUs")
	fs.StringVar(&o.dpu.OPN, "opn", "900-9D3B6-SIMUL", "part number")
	fs.BoolVar(&o.dpu.NICMode, "nic", false, "the cards are in NIC mode")
	fs.BoolVar(&o.dpu.NoFirmware, "no-firmware", false, "no boot ROM: what comes into the boot FIFO is thrown away")
	fs.BoolVar(&o.dpu.Console, "console", true, "boot log and a shell on the console; its command help lists what it can do")
	o.net = network{kind: "echo", prefix: netip.MustParsePrefix("192.168.100.2/30")}
	fs.Var(&o.net, "net", "`network` of the DPUs: none; echo, a host that answers ARP and pings; or tap:NAME[@NETNS], an interface\n(%d in its name is the DPU's number) in the network namespace of a file such as /run/netns/NAME")
	fs.Func("net-address", "`prefix` of the DPUs' side of it, or none (default 192.168.100.2/30)", func(s string) (err error) {
		o.net.prefix = netip.Prefix{}
		if s != "none" {
			o.net.prefix, err = netip.ParsePrefix(s)
		}
		return err
	})
	fs.BoolVar(&o.dpu.UpstreamKernel, "upstream-kernel", false, "the DPUs' Linux does not answer control messages (PEER_MAC, PXE_ID, VLAN_ID)")
	fs.BoolVar(&o.dpu.DirtyHeaders, "dirty-headers", false, "the DPUs' Linux leaves garbage in unused bytes of its messages' headers")
	fs.Int64Var(&o.dpu.DrainRate, "drain-rate", 0, "how fast a DPU reads its boot FIFO, in `bytes/s`; 0 is at once")
	fs.Float64Var(&o.dpu.StageScale, "stage-scale", 0, "length of the boot stages; 1 is about ten seconds in all")
	fs.StringVar(&o.dpu.FailAfter, "fail-after", "", "log `text` after which the boot gets stuck with -fail-line")
	fs.StringVar(&o.dpu.FailLine, "fail-line", "", "what it says then, such as 'ERR[BL2]: DDR init fail on MSS0'")
	fs.DurationVar(&o.usb.Latency, "latency", 0, "of each USB transfer")
	fs.Int64Var(&o.usb.LinkRate, "link-rate", 0, "of the USB link, in `bytes/s`; 0 is unlimited")
	fs.IntVar(&o.usb.LowSpeed, "low-speed", 0, "enumerate at low speed so many `times` first")
	fs.DurationVar(&o.dpu.Reset.Drop, "drop-time", 0, "off the bus after a reset; 0 is 500 ms")
	fs.DurationVar(&o.dpu.Reset.Ready, "ready-delay", 0, "on the bus but not ready after that")
	fs.Func("host", "`driver` on the hosts of the DPUs: none; owner, which has the RShim from the beginning; or deaf,\nwhich also ignores requests for it (default none)", func(s string) error {
		h, ok := hostDrivers[s]
		if !ok {
			return errors.New("no such driver")
		}
		o.host = h
		return nil
	})
	fs.StringVar(&o.sink, "sink", "", "`file` for what the DPUs read of boot streams (with .N added from the second DPU on)")
	fs.StringVar(&o.control, "control", "", "Unix `socket` that takes commands")
	fs.StringVar(&o.vhci.Dir, "vhci", "", "`folder` of vhci_hcd in sysfs")
	switch err = fs.Parse(args); {
	case err != nil:
	case fs.NArg() > 0 || o.count < 1 || o.count > 1 && o.net.kind == "tap" && !strings.Contains(o.net.name, "%d"):
		fs.Usage()
		err = errors.New("usage")
	}
	return o, err
}

// sinkOf is the name of a DPU's sink.
func (o *options) sinkOf(dev int) string {
	if dev == 0 {
		return o.sink
	}
	return fmt.Sprintf("%s.%d", o.sink, dev)
}
