// SPDX-License-Identifier: Apache-2.0

package reg

// USB identity of an RShim. Source: rshim_usb.c.
const (
	USBVendor            uint16 = 0x22dc
	USBProductBlueField1 uint16 = 0x0004
	USBProductBlueField2 uint16 = 0x0214
	USBProductBlueField3 uint16 = 0x021c
)

// USB interfaces of an RShim, told apart by their subclass.
const (
	USBSubclassBoot   = 0 // one bulk OUT endpoint: the boot FIFO
	USBSubclassTMFIFO = 1 // bulk IN, bulk OUT and interrupt IN
)

// Setup packets of register access: vendor request to an endpoint, bRequest 0,
// value in little-endian order.
const (
	USBRequestRead  = 0xC2
	USBRequestWrite = 0x42
)

// GenerationOf returns the generation of a USB device, false if it is not an
// RShim.
func GenerationOf(vendor, product uint16) (Generation, bool) {
	if vendor != USBVendor {
		return 0, false
	}
	switch product {
	case USBProductBlueField1:
		return BlueField1, true
	case USBProductBlueField2:
		return BlueField2, true
	case USBProductBlueField3:
		return BlueField3, true
	}
	return 0, false
}

// mmioBase is the upper half of the linear address of BlueField-3's channels.
const mmioBase = 0x1000

type usbBase struct {
	ch            Channel
	value, offset uint16
}

// bf3Channels maps BlueField-3's channels to linear addresses; channels that
// are not listed stand at mmioBase.
var bf3Channels = []usbBase{
	{ChanRShim, 0x0300, 0},
	{ChanUART0, 0x0301, 0},
	{ChanUART1, 0x0301, 0x1000},
	{ChanDiagUART, 0x0301, 0x2000},
	{ChanUSB, 0x0301, 0x2400},
	{ChanWDOG0, 0x0302, 0},
	{ChanWDOG1, 0x0304, 0},
	{ChanMCHCore, 0x0306, 0},
	{ChanTimer, 0x0308, 0},
	{ChanTimerExt, 0x030a, 0},
	{ChanOOB, 0x030a, 0x1000},
	{ChanYU, 0x0340, 0},
}

// USB returns wValue and wIndex of the control transfer that reaches a
// register. BlueField-1 and -2 take channel and offset as they are;
// BlueField-3 takes the upper and lower half of a linear address.
func (g Generation) USB(a Addr) (value, index uint16) {
	if g != BlueField3 || a.Channel > 0xf {
		return uint16(a.Channel), a.Offset
	}
	for _, b := range bf3Channels {
		if b.ch == a.Channel {
			return mmioBase + b.value, b.offset + a.Offset
		}
	}
	return mmioBase, a.Offset
}

// FromUSB is the inverse of USB. What no channel covers keeps its linear
// address.
func (g Generation) FromUSB(value, index uint16) Addr {
	linear := Addr{Channel(value), index}
	if g != BlueField3 {
		return linear
	}
	best := linear
	for _, b := range bf3Channels {
		// The table is ordered by address: the last base at or below wins.
		if value == mmioBase+b.value && index >= b.offset {
			best = Addr{b.ch, index - b.offset}
		}
	}
	return best
}

// USBSize is how many bytes a register access of size bytes moves: always 8,
// but 4 for up to 4 bytes on BlueField-3.
func (g Generation) USBSize(size int) int {
	if g == BlueField3 && size <= 4 {
		return 4
	}
	return 8
}
