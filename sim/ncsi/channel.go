// SPDX-License-Identifier: Apache-2.0

package simncsi

import (
	"encoding/binary"

	"github.com/bluefield-go/bmc-rshim/ncsi"
)

// Filters of a channel, as Get Capabilities has them.
const (
	macFilters  = 2
	vlanFilters = 4
)

// pkg is a package with its channels.
type pkg struct {
	needInit bool // OEM commands want a Clear Initial State
	channels []channel
}

func newPackage(channels int) *pkg { return &pkg{channels: make([]channel, channels)} }

// channel is a channel's configuration. The zero value is the Initial State.
type channel struct {
	ready       bool // Clear Initial State came
	enabled     bool
	tx          bool
	vlan        bool
	vlanMode    byte
	vlans       [vlanFilters]uint16
	vlanEnabled uint16 // a bit for each filter
	macs        [macFilters][6]byte
	macEnabled  byte
	broadcast   bool
	broadcasts  uint32
	multicast   bool
	flowControl byte
	aens        uint32
	link        uint32
}

// shortest is how long the payloads of commands are that have one.
var shortest = map[ncsi.Type]int{
	ncsi.SelectPackage: 4, ncsi.DisableChannel: 4, ncsi.ResetChannel: 4, ncsi.EnableAEN: 8, ncsi.SetLink: 8,
	ncsi.SetVLANFilter: 8, ncsi.EnableVLAN: 4, ncsi.SetMACAddress: 8, ncsi.EnableBroadcastFilter: 4,
	ncsi.EnableGlobalMulticastFilter: 4, ncsi.SetFlowControl: 4,
}

// command carries out a command of the standard. The caller holds mu.
func (n *NIC) command(pk *pkg, p ncsi.Packet) ncsi.Response {
	if len(p.Payload) < shortest[p.Type] {
		return failed(ncsi.InvalidLength)
	}
	number := p.Channel.Channel()
	switch p.Type {
	case ncsi.SelectPackage, ncsi.DeselectPackage, ncsi.GetPackageStatus:
		if number != ncsi.WholePackage {
			return failed(ncsi.InvalidParameter)
		}
		if p.Type == ncsi.GetPackageStatus {
			return ncsi.Response{Data: make([]byte, 4)} // no hardware arbitration
		}
		return ncsi.Response{} // it answers selected or not
	}
	if number >= len(pk.channels) {
		return failed(ncsi.InvalidParameter)
	}
	ch := &pk.channels[number]
	if p.Type == ncsi.ClearInitialState {
		ch.ready, pk.needInit = true, false
		return ncsi.Response{}
	}
	if !ch.ready {
		return failed(ncsi.InitRequired)
	}
	switch p.Type {
	case ncsi.GetVersionID:
		return ncsi.Response{Data: version()}
	case ncsi.GetCapabilities:
		return ncsi.Response{Data: capabilities(len(pk.channels))}
	case ncsi.GetParameters:
		return ncsi.Response{Data: ch.parameters()}
	case ncsi.GetLinkStatus:
		// Up; 10 Gb/s, by autonegotiation that is complete.
		return ncsi.Response{Data: []byte{0, 0, 0, 0x71, 0, 0, 0, 0, 0, 0, 0, 0}}
	case ncsi.GetNCSIStatistics:
		b := make([]byte, 28)
		binary.BigEndian.PutUint32(b, uint32(n.state.Counts.Commands))
		return ncsi.Response{Data: b}
	}
	return ch.set(p)
}

// set carries out a command that changes the channel's configuration.
func (c *channel) set(p ncsi.Packet) ncsi.Response {
	b := p.Payload
	switch p.Type {
	case ncsi.EnableChannel:
		c.enabled = true
	case ncsi.DisableChannel:
		c.enabled = false
	case ncsi.ResetChannel:
		*c = channel{}
	case ncsi.EnableChannelTx:
		c.tx = true
	case ncsi.DisableChannelTx:
		c.tx = false
	case ncsi.EnableAEN:
		c.aens = binary.BigEndian.Uint32(b[4:])
	case ncsi.SetLink:
		c.link = binary.BigEndian.Uint32(b)
	case ncsi.SetVLANFilter:
		i := int(b[6]) - 1
		if i < 0 || i >= vlanFilters {
			return failed(ncsi.InvalidParameter)
		}
		c.vlans[i] = binary.BigEndian.Uint16(b[2:])
		c.vlanEnabled = c.vlanEnabled&^(1<<i) | uint16(b[7]&1)<<i
	case ncsi.EnableVLAN:
		c.vlan, c.vlanMode = true, b[3]
	case ncsi.DisableVLAN:
		c.vlan, c.vlanMode = false, 0
	case ncsi.SetMACAddress:
		i := int(b[6]) - 1
		if i < 0 || i >= macFilters {
			return failed(ncsi.InvalidParameter)
		}
		copy(c.macs[i][:], b)
		c.macEnabled = c.macEnabled&^(1<<i) | b[7]&1<<i
	case ncsi.EnableBroadcastFilter:
		c.broadcast, c.broadcasts = true, binary.BigEndian.Uint32(b)
	case ncsi.DisableBroadcastFilter:
		c.broadcast, c.broadcasts = false, 0
	case ncsi.EnableGlobalMulticastFilter:
		c.multicast = true
	case ncsi.DisableGlobalMulticastFilter:
		c.multicast = false
	case ncsi.SetFlowControl:
		c.flowControl = b[3]
	default:
		return ncsi.Response{Code: ncsi.Unsupported, Reason: ncsi.UnknownCommand}
	}
	return ncsi.Response{}
}

// version is the data of Get Version ID: NC-SI 1.1.0, firmware 24.40.1000, a
// BlueField-2.
func version() []byte {
	b := []byte{0xf1, 0xf1, 0xf0, 0, 0, 0, 0, 0}
	b = append(b, "BlueField\x00\x00\x00"...)
	b = binary.BigEndian.AppendUint32(b, 0x182803e8)
	for _, id := range []uint16{0xa2d6, 0x15b3, 0x0058, 0x15b3} {
		b = binary.BigEndian.AppendUint16(b, id)
	}
	return binary.BigEndian.AppendUint32(b, 0x8119)
}

// capabilities is the data of Get Capabilities.
func capabilities(channels int) []byte {
	var b []byte
	for _, word := range []uint32{
		0x10,   // the global multicast filter
		0x0f,   // broadcast filters
		0x07,   // multicast filters
		0x2000, // buffer
		0x07,   // AENs
	} {
		b = binary.BigEndian.AppendUint32(b, word)
	}
	return append(b, vlanFilters, 0, 0, macFilters, 0, 0, 0x07, byte(channels))
}

// parameters is the data of Get Parameters.
func (c *channel) parameters() []byte {
	b := []byte{macFilters, 0, 0, c.macEnabled, vlanFilters, 0}
	b = binary.BigEndian.AppendUint16(b, c.vlanEnabled)
	b = binary.BigEndian.AppendUint32(b, c.link)
	b = binary.BigEndian.AppendUint32(b, c.broadcasts)
	var flags uint32
	for i, on := range []bool{c.broadcast, c.enabled, c.tx, c.multicast} {
		if on {
			flags |= 1 << i
		}
	}
	b = binary.BigEndian.AppendUint32(b, flags)
	b = append(b, c.vlanMode, c.flowControl, 0, 0)
	b = binary.BigEndian.AppendUint32(b, c.aens)
	for _, mac := range c.macs {
		b = append(b, mac[:]...)
	}
	for _, vlan := range c.vlans {
		b = binary.BigEndian.AppendUint16(b, vlan)
	}
	return b
}
