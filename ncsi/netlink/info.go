// SPDX-License-Identifier: Apache-2.0

package netlink

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"syscall"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"

	"github.com/bluefield-go/bmc-rshim/ncsi"
)

// Package is a package, a NIC on the cable, as the kernel has found it.
type Package struct {
	ID       int  // 0 to ncsi.MaxPackage
	Forced   bool // the only one the kernel may use
	Channels []Channel
}

// Channel is a channel of a package, a port of the NIC.
type Channel struct {
	ID int // 0 to ncsi.MaxChannel
	// Version of NC-SI that the NIC says it implements. Kernels before 6.4 give
	// it in another form, which is converted; other values are as they came.
	Major, Minor int
	Firmware     string // its name; bytes that are not printable ASCII have become "?"
	LinkStatus   uint32 // as of Get Link Status; bit 0: link up
	Active       bool   // the kernel has configured it and uses it
	Forced       bool   // the one the kernel shall prefer
	VLANs        []uint16
}

// LinkUp reports whether the port has a link, as far as the kernel knows.
func (c Channel) LinkUp() bool { return c.LinkStatus&1 != 0 }

// Interface is a network interface that does NC-SI.
type Interface struct {
	Name     string
	Index    int
	Up       bool      // set up; otherwise the kernel does nothing on the cable
	Packages []Package // none while the kernel is still looking, which takes about 15 s, or has found none
}

// Interfaces returns the network interfaces that do NC-SI, with what is on
// their cables. It takes no privilege. Without any, there is no error.
func Interfaces(ctx context.Context) ([]Interface, error) { return kernel.list(ctx) }

func (s *system) list(ctx context.Context) ([]Interface, error) {
	all, err := s.interfaces()
	if err != nil {
		return nil, &OpError{Op: "list interfaces", Err: err}
	}
	var found []Interface
	for _, ifi := range all {
		packages, err := s.packages(ctx, ifi.Index)
		if errors.Is(err, ErrNoDevice) {
			continue
		}
		if err != nil {
			return nil, &OpError{"list packages", ifi.Name, err}
		}
		found = append(found, Interface{ifi.Name, ifi.Index, ifi.Flags&net.FlagUp != 0, packages})
	}
	return found, nil
}

// Packages returns the packages that the kernel has found on the interface's
// cable. It takes no privilege.
//
// The kernel (Linux 6.1) tells of packages up to the first number that is free,
// and when asked for one, if its number is below the count of packages. A NIC
// that is package 3 and alone is not told of at all, and commands to it work all
// the same.
func (t *Transport) Packages(ctx context.Context) ([]Package, error) {
	ifi, err := t.sys.find(t.name)
	if err == nil {
		var packages []Package
		if packages, err = t.sys.packages(ctx, ifi.Index); err == nil {
			return packages, nil
		}
	}
	return nil, &OpError{"list packages", t.name, err}
}

func (s *system) packages(ctx context.Context, index int) ([]Package, error) {
	found, err := s.packageInfo(ctx, index, -1)
	if err != nil {
		return nil, explain(err)
	}
	// Asking for a package that it does not know has the kernel write to its log,
	// so that it is left alone if it tells of any.
	if len(found) == 0 {
		for id := range ncsi.MaxPackage + 1 {
			more, err := s.packageInfo(ctx, index, id)
			if err != nil && !errors.Is(err, syscall.ENODEV) {
				return nil, explain(err)
			}
			found = append(found, more...)
		}
	}
	slices.SortFunc(found, func(a, b Package) int { return a.ID - b.ID })
	return slices.CompactFunc(found, func(a, b Package) bool { return a.ID == b.ID }), nil
}

// packageInfo asks for one package, or for all with id -1.
func (s *system) packageInfo(ctx context.Context, index, id int) ([]Package, error) {
	e := netlink.NewAttributeEncoder()
	e.Uint32(attrIndex, uint32(index))
	flags := netlink.Dump
	if id >= 0 {
		e.Uint32(attrPackageID, uint32(id))
		flags = 0
	}
	attrs, err := e.Encode()
	if err != nil {
		return nil, err
	}
	msgs, err := s.execute(ctx, DefaultTimeout, cmdPackageInfo, flags, attrs)
	if err != nil {
		return nil, err
	}
	return decodePackages(msgs)
}

// decodePackages decodes the kernel's answers to a PKG_INFO.
func decodePackages(msgs []genetlink.Message) ([]Package, error) {
	var packages []Package
	for _, m := range msgs {
		d, err := netlink.NewAttributeDecoder(m.Data)
		if err == nil {
			each(d, attrPackageList, pkgAttr, func(d *netlink.AttributeDecoder) error {
				p, err := decodePackage(d)
				packages = append(packages, p)
				return err
			})
			err = d.Err()
		}
		if err != nil {
			return nil, fmt.Errorf("packages from the kernel: %w", err)
		}
	}
	return packages, nil
}

// each calls f for every attribute of type item in every attribute of type
// list.
func each(d *netlink.AttributeDecoder, list, item uint16, f func(*netlink.AttributeDecoder) error) {
	for d.Next() {
		if d.Type() == list {
			nested(d, item, f)
		}
	}
}

// nested calls f for every attribute of type item in d's present one.
func nested(d *netlink.AttributeDecoder, item uint16, f func(*netlink.AttributeDecoder) error) {
	d.Nested(func(d *netlink.AttributeDecoder) error {
		for d.Next() {
			if d.Type() == item {
				d.Nested(f)
			}
		}
		return nil
	})
}

func decodePackage(d *netlink.AttributeDecoder) (Package, error) {
	p := Package{ID: -1}
	for d.Next() {
		switch d.Type() {
		case pkgID:
			p.ID = number(d, ncsi.MaxPackage)
		case pkgForced:
			p.Forced = d.Flag()
		case pkgChannels:
			nested(d, chAttr, func(d *netlink.AttributeDecoder) error {
				c, err := decodeChannel(d)
				p.Channels = append(p.Channels, c)
				return err
			})
		}
	}
	if err := d.Err(); err != nil {
		return p, err
	}
	if p.ID < 0 {
		return p, errors.New("a package without a number, or with one that is too high")
	}
	return p, nil
}

func decodeChannel(d *netlink.AttributeDecoder) (Channel, error) {
	c := Channel{ID: -1}
	var major, minor uint32
	for d.Next() {
		switch d.Type() {
		case chID:
			c.ID = number(d, ncsi.MaxChannel)
		case chMajor:
			major = d.Uint32()
		case chMinor:
			minor = d.Uint32()
		case chFirmware:
			c.Firmware = printable(d.String())
		case chLinkState:
			c.LinkStatus = d.Uint32()
		case chActive:
			c.Active = d.Flag()
		case chForced:
			c.Forced = d.Flag()
		case chVLANs:
			d.Nested(func(d *netlink.AttributeDecoder) error {
				for d.Next() {
					if d.Type() == chVLAN {
						c.VLANs = append(c.VLANs, d.Uint16())
					}
				}
				return nil
			})
		}
	}
	c.Major, c.Minor = version(major, minor)
	if err := d.Err(); err != nil {
		return c, err
	}
	if c.ID < 0 {
		return c, errors.New("a channel without a number, or with one that is too high")
	}
	return c, nil
}

// number returns the attribute's value, or -1 above the limit.
func number(d *netlink.AttributeDecoder, limit uint32) int {
	if n := d.Uint32(); n <= limit {
		return int(n)
	}
	return -1
}

// version returns the NC-SI version. Kernels without commit 3084b58bfd0b give
// the NIC's whole version word as its first number, BCD digits with 0xf for none
// in bytes of major, minor, update and a letter, and a letter as its second.
func version(major, minor uint32) (int, int) {
	if major <= 0xff {
		return int(major), int(min(minor, 0xff))
	}
	return bcd(major >> 24), bcd(major >> 16)
}

func bcd(word uint32) int {
	digit := func(d uint32) int {
		if d &= 0xf; d < 10 {
			return int(d)
		}
		return 0
	}
	return 10*digit(word>>4) + digit(word)
}

// printable replaces what does not belong on a terminal: the text is the NIC's.
func printable(s string) string {
	s, _, _ = strings.Cut(s, "\x00")
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}
