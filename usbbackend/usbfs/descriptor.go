// SPDX-License-Identifier: Apache-2.0

package usbfs

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

// Types and least lengths of descriptors, USB 2.0 sections 9.5 and 9.6.
const (
	typeDevice    = 1
	typeConfig    = 2
	typeInterface = 4
	typeEndpoint  = 5

	lenDevice    = 18
	lenConfig    = 9
	lenInterface = 9
	lenEndpoint  = 7
)

// maxDescriptors is how much is read of a device's descriptors: one device
// descriptor and one configuration of the greatest length.
const maxDescriptors = lenDevice + 0xffff

var errDescriptor = errors.New("descriptors without an active configuration")

// parseInterfaces finds the interfaces of a configuration, at alternate
// setting 0, in what reading a usbfs node gives: the device descriptor and
// all configurations one after the other. They come from the device: no
// length in them is trusted, and what makes no sense is passed over.
func parseInterfaces(b []byte, config uint8) ([]usb.Interface, error) {
	if len(b) < lenDevice || b[0] != lenDevice || b[1] != typeDevice {
		return nil, errDescriptor
	}
	for b = b[lenDevice:]; len(b) >= lenConfig && b[1] == typeConfig; {
		// The kernel leaves a hole where a configuration claims to be
		// longer than it is, so the next one stands where it says.
		total := min(int(binary.LittleEndian.Uint16(b[2:])), len(b))
		if total < lenConfig {
			break
		}
		if b[5] == config {
			return parseConfig(b[:total]), nil
		}
		b = b[total:]
	}
	return nil, errDescriptor
}

func parseConfig(b []byte) []usb.Interface {
	var ifs []usb.Interface
	var seen [256]bool // endpoint addresses: the first of a kind counts
	take := false      // whether endpoints now belong to the last of ifs
	for len(b) >= 2 {
		n := int(b[0])
		if n < 2 || n > len(b) {
			break
		}
		d := b[:n]
		b = b[n:]
		switch {
		case d[1] == typeInterface && n >= lenInterface:
			number := int(d[2])
			take = d[3] == 0 && !slices.ContainsFunc(ifs, func(i usb.Interface) bool { return i.Number == number })
			if take {
				ifs = append(ifs, usb.Interface{Number: number, Class: d[5], Subclass: d[6], Protocol: d[7]})
			}
		case d[1] == typeEndpoint && n >= lenEndpoint && take:
			addr := d[2]
			if addr&0x0f == 0 || addr&0x70 != 0 || seen[addr] {
				continue
			}
			seen[addr] = true
			i := &ifs[len(ifs)-1]
			i.Endpoints = append(i.Endpoints, usb.Endpoint{
				Address:   addr,
				Type:      usb.TransferType(d[3] & 3),
				MaxPacket: int(binary.LittleEndian.Uint16(d[4:]) & 0x7ff),
			})
		}
	}
	return ifs
}
