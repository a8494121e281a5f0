// SPDX-License-Identifier: Apache-2.0

package rshim

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/bluefield-go/bmc-rshim/rshim/tmfifo"
)

// miscPeer are the keys of misc that set what the DPU's software is to be, and
// the messages that tell it.
var miscPeer = map[string]func(args []string) ([]tmfifo.Message, error){
	"PEER_MAC": func(args []string) ([]tmfifo.Message, error) {
		var mac [6]byte
		if len(args) == 0 || strings.Count(args[0], ":") != len(mac)-1 {
			return nil, fmt.Errorf("%w: want a MAC address", ErrInvalid)
		}
		for i, s := range strings.Split(args[0], ":") {
			b, err := strconv.ParseUint(s, 16, 8)
			if err != nil {
				return nil, fmt.Errorf("%w: %q in a MAC address", ErrInvalid, s)
			}
			mac[i] = byte(b)
		}
		m := tmfifo.NewMAC(mac)
		return m[:], nil
	},
	"PXE_ID": func(args []string) ([]tmfifo.Message, error) {
		id, err := miscNumber(args, 0, 16, 32)
		return []tmfifo.Message{tmfifo.NewPXEID(uint32(id))}, err
	},
	"VLAN_ID": func(args []string) ([]tmfifo.Message, error) {
		var ids [2]uint16
		for i := range ids {
			if i > 0 && i == len(args) {
				break // the second may be left out, and is 0 then
			}
			id, err := miscNumber(args, i, 10, 12)
			if err != nil {
				return nil, err
			}
			ids[i] = uint16(id)
		}
		return []tmfifo.Message{tmfifo.NewVLANs(ids)}, nil
	},
}

// miscNumber parses a value of at most so many bits.
func miscNumber(args []string, i, base, bits int) (uint64, error) {
	if i >= len(args) {
		return 0, fmt.Errorf("%w: value is missing", ErrInvalid)
	}
	s := args[i]
	if base == 16 {
		s = strings.TrimPrefix(strings.TrimPrefix(s, "0x"), "0X")
	}
	v, err := strconv.ParseUint(s, base, bits)
	if err != nil {
		return 0, fmt.Errorf("%w: value is not a number of %d bits in base %d", ErrInvalid, bits, base)
	}
	return v, nil
}
