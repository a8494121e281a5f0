// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/bluefield-go/bmc-rshim/i2c"
	"github.com/bluefield-go/bmc-rshim/mctp"
	"github.com/bluefield-go/bmc-rshim/ncsi"
)

// options are what the command line asks for.
type options struct {
	device       address // zero: the one that is found
	pkg, channel int     // -1: found, and the whole package
	timeout      time.Duration
	json, trace  bool
	yes, version bool
	words        []string // the command
}

// address is how to get to a NIC. Exactly one transport is set, or none.
type address struct {
	transport string // "netlink", "mctp", "i2c"; "": none
	ifname    string
	network   uint32 // MCTP's
	eid       uint8
	i2c       int   // the bus's number
	addr, own uint8 // 7 bits
	ownEID    uint8 // I2C's, as eid is; 0: none

	// Of an MCTP endpoint that was found: the link that leads to it, and what
	// that shares with others.
	link, bus string
}

// String is the address as its flag takes it.
func (a address) String() string {
	switch a.transport {
	case "netlink":
		return a.ifname
	case "mctp":
		return fmt.Sprintf("%d:%d", a.network, a.eid)
	case "i2c":
		s := fmt.Sprintf("%d:0x%02x", a.i2c, a.addr)
		if a.own != i2c.DefaultOwn {
			s += fmt.Sprintf(":0x%02x", a.own)
		}
		return s
	}
	return "none"
}

// label is the address for people.
func (a address) label() string {
	return map[string]string{"mctp": "MCTP ", "i2c": "I2C "}[a.transport] + a.String()
}

// flag is the flag that chooses the address.
func (a address) flag() string {
	s := map[string]string{"netlink": "-if ", "mctp": "-mctp ", "i2c": "-i2c "}[a.transport] + a.String()
	if a.transport == "i2c" && (a.ownEID != 0 || a.eid != 0) {
		s += fmt.Sprintf(" -eid %d:%d", a.ownEID, a.eid)
	}
	return s
}

const usageText = `usage: ncsi-oem [flags] COMMAND

  get                               show the host's RShim access, persistent and at run time
  set disabled|enabled|locked       set it persistently, from the DPU's next reboot on
  runtime get                       show the run-time access alone
  runtime set enabled|locked        set it at once, until the DPU's next reset
  packages                          list the NC-SI packages that can be reached
  raw CMD PARAM [HEX]               send an OEM command of NVIDIA's, once; CMD and PARAM are hexadecimal, such
                                    as 0x13 0x19, and HEX is its data, such as 00000001

disabled: the host has no RShim. enabled: it has. locked: it sees its RShim, and cannot use it.
Without -if, -mctp and -i2c the only NC-SI package is used that the kernel lists; else, the only one that answers on the
network interfaces that are up; else, the first one behind the only MCTP endpoint that answers. I2C buses are not
searched. Flags may follow the command.

`

// parse reads the command line, in which flags and words may be mixed, as no
// word begins with a dash.
func parse(args []string, stdout io.Writer) (o options, err error) {
	o = options{pkg: -1, channel: -1}
	fs := flag.NewFlagSet("ncsi-oem", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	choose := func(a address) error {
		if o.device.transport != "" {
			return fmt.Errorf("%s is chosen already", o.device.flag())
		}
		o.device = a
		return nil
	}
	fs.Func("if", "through the kernel's NC-SI on this network `interface`", func(s string) error {
		if s == "" {
			return errors.New("it is empty")
		}
		return choose(address{transport: "netlink", ifname: s})
	})
	fs.Func("mctp", "through the kernel's MCTP, to `NET:EID`, such as 1:29", func(s string) error {
		a, err := parseMCTP(s)
		if err != nil {
			return err
		}
		return choose(a)
	})
	fs.Func("i2c", "over an I2C bus without the kernel's MCTP, to `BUS:ADDR[:OWN]`, such as 4:0x32; OWN is the BMC's address (default 0x10)", func(s string) error {
		a, err := parseI2C(s)
		if err != nil {
			return err
		}
		return choose(a)
	})
	var ownEID, eid uint8
	eids := ""
	fs.Func("eid", "with -i2c: the MCTP endpoint IDs of the BMC and of the NIC, `OWN:PEER`, such as 8:29 (default 0:0: the BMC has none, and the NIC's may be any)", func(s string) (err error) {
		eids = s
		ownEID, eid, err = parseEIDs(s)
		return err
	})
	fs.Func("package", "NC-SI package, `0..7` (default: the only one, or with -mctp and -i2c the first that answers)", number(&o.pkg, ncsi.MaxPackage))
	fs.Func("channel", "NC-SI channel, `0..31` (default 31, the whole package)", number(&o.channel, ncsi.WholePackage))
	fs.DurationVar(&o.timeout, "timeout", 0, "how long to wait for each response (default 3s with -if, else 1s)")
	fs.BoolVar(&o.json, "json", false, "report in JSON, errors as well")
	fs.BoolVar(&o.trace, "v", false, "show what is sent and received, in hexadecimal")
	fs.BoolVar(&o.yes, "yes", false, "do not ask")
	fs.BoolVar(&o.version, "version", false, "print the version")
	for {
		if err = fs.Parse(args); err != nil || fs.NArg() == 0 {
			break
		}
		o.words = append(o.words, fs.Arg(0))
		args = fs.Args()[1:]
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
		fs.SetOutput(stdout)
		fmt.Fprint(stdout, usageText)
		fs.PrintDefaults()
		fmt.Fprint(stdout, "\n"+exitCodes())
		return o, err
	case err == nil && o.timeout < 0:
		err = fmt.Errorf("-timeout %v is negative", o.timeout)
	case err == nil && eids != "" && o.device.transport != "i2c":
		err = fmt.Errorf("-eid %s: it goes with -i2c", eids)
	}
	if err != nil {
		return o, usageError("%v", err)
	}
	if eids != "" {
		o.device.ownEID, o.device.eid = ownEID, eid
	}
	return o, nil
}

// number returns a flag's function that takes a number up to most, decimal or
// with 0x.
func number(n *int, most uint64) func(string) error {
	return func(s string) error {
		v, err := strconv.ParseUint(s, 0, 64)
		if err != nil || v > most {
			return fmt.Errorf("not a number from 0 to %d", most)
		}
		*n = int(v)
		return nil
	}
}

func parseMCTP(s string) (address, error) {
	network, eid, _ := strings.Cut(s, ":")
	n, err1 := strconv.ParseUint(network, 0, 31) // the kernel's limit
	e, err2 := strconv.ParseUint(eid, 0, 8)
	switch {
	case err1 != nil || err2 != nil:
		return address{}, errors.New("not NET:EID, such as 1:29")
	case !mctp.EID(e).Unicast():
		return address{}, fmt.Errorf("%d is no endpoint's ID: those are 8 to 254", e)
	}
	return address{transport: "mctp", network: uint32(n), eid: uint8(e)}, nil
}

// parseEIDs reads two endpoint IDs, of which 0 means none.
func parseEIDs(s string) (own, peer uint8, err error) {
	first, second, _ := strings.Cut(s, ":")
	o, err1 := strconv.ParseUint(first, 0, 8)
	p, err2 := strconv.ParseUint(second, 0, 8)
	if err1 != nil || err2 != nil {
		return 0, 0, errors.New("not OWN:PEER, such as 8:29")
	}
	for _, n := range []uint64{o, p} {
		if e := mctp.EID(n); e != mctp.Null && !e.Unicast() {
			return 0, 0, fmt.Errorf("%d is no endpoint's ID: those are 8 to 254, and 0 for none", n)
		}
	}
	if o == p && o != 0 {
		return 0, 0, fmt.Errorf("the NIC and the BMC cannot both be %d", o)
	}
	return uint8(o), uint8(p), nil
}

func parseI2C(s string) (address, error) {
	fields := strings.Split(s, ":")
	if len(fields) < 2 || len(fields) > 3 {
		return address{}, errors.New("not BUS:ADDR[:OWN], such as 4:0x32 or 4:0x32:0x10")
	}
	bus, err := strconv.ParseUint(fields[0], 10, 16)
	if err != nil {
		return address{}, fmt.Errorf("%q is no number of an I2C bus", fields[0])
	}
	a := address{transport: "i2c", i2c: int(bus), own: i2c.DefaultOwn}
	for i, to := range []*uint8{&a.addr, &a.own}[:len(fields)-1] {
		n, err := parseHex(fields[i+1])
		if err != nil || n < 0x08 || n > 0x77 {
			return address{}, fmt.Errorf("%q is no 7-bit I2C address: those are 0x08 to 0x77", fields[i+1])
		}
		*to = n
	}
	if a.addr == a.own {
		return address{}, fmt.Errorf("the NIC and the BMC cannot both be 0x%02x", a.own)
	}
	return a, nil
}

// parseHex reads a byte, hexadecimal with or without 0x.
func parseHex(s string) (uint8, error) {
	n, err := strconv.ParseUint(strings.TrimPrefix(strings.ToLower(s), "0x"), 16, 8)
	if err != nil {
		return 0, fmt.Errorf("%q is no hexadecimal byte, such as 0x12", s)
	}
	return uint8(n), nil
}

// parseBytes reads bytes, hexadecimal with or without 0x.
func parseBytes(s string) ([]byte, error) {
	b, err := hex.DecodeString(strings.TrimPrefix(strings.ToLower(s), "0x"))
	if err != nil {
		return nil, fmt.Errorf("%q is not hexadecimal bytes, such as 00000001", s)
	}
	return b, nil
}
