// SPDX-License-Identifier: Apache-2.0

package reg_test

import (
	"testing"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

// bf3Channels is where BlueField-3 has its channels.
var bf3Channels = [16]struct{ value, index uint16 }{
	reg.ChanBoot:     {0x1000, 0},
	reg.ChanRShim:    {0x1300, 0},
	reg.ChanUART0:    {0x1301, 0},
	reg.ChanUART1:    {0x1301, 0x1000},
	reg.ChanDiagUART: {0x1301, 0x2000},
	reg.ChanYU:       {0x1340, 0},
	reg.ChanOOB:      {0x130a, 0x1000},
	reg.ChanGIC:      {0x1000, 0},
	reg.ChanMCHCore:  {0x1306, 0},
	reg.ChanTimer:    {0x1308, 0},
	reg.ChanUSB:      {0x1301, 0x2400},
	reg.ChanGPIO:     {0x1000, 0},
	reg.ChanMMC:      {0x1000, 0},
	reg.ChanTimerExt: {0x130a, 0},
	reg.ChanWDOG0:    {0x1302, 0},
	reg.ChanWDOG1:    {0x1304, 0},
}

func TestUSB(t *testing.T) {
	for ch, want := range bf3Channels {
		for _, off := range []uint16{0, 8, 0x528, 0x9bdc} {
			a := reg.Addr{Channel: reg.Channel(ch), Offset: off}
			if v, i := reg.BlueField3.USB(a); v != want.value || i != want.index+off {
				t.Errorf("BlueField-3: %v at %#x, %#x", a, v, i)
			}
			for _, g := range generations[:2] {
				if v, i := g.USB(a); v != uint16(ch) || i != off {
					t.Errorf("%v: %v at %#x, %#x", g, a, v, i)
				}
			}
		}
	}
	// Above the channels, BlueField-3 takes the address as it is.
	if v, i := reg.BlueField3.USB(reg.Linear(0x13400010)); v != 0x1340 || i != 0x10 {
		t.Errorf("linear address at %#x, %#x", v, i)
	}
}

// TestUSBRoundTrip goes from every channel to USB and back.
func TestUSBRoundTrip(t *testing.T) {
	for _, g := range generations {
		for ch := range reg.Channel(16) {
			for _, off := range []uint16{0, 8, 0x3f8} { // below the next channel's base
				a := reg.Addr{Channel: ch, Offset: off}
				back := g.FromUSB(g.USB(a))
				if g == reg.BlueField3 && bf3Channels[ch].value == 0x1000 {
					a = reg.Addr{Channel: 0x1000, Offset: off} // four channels share it
				}
				if back != a {
					t.Errorf("%v: %v came back as %v", g, a, back)
				}
			}
		}
	}
	// And from USB to an address and back, for all that USB can produce: on
	// BlueField-3, a value up to 0xf never goes out.
	for value := uint16(0x10); value < 0x2000; value++ {
		for _, index := range []uint16{0, 0x8, 0xff8, 0x1000, 0x1ff8, 0x2000, 0x23f8, 0x2400, 0xfff8} {
			for _, g := range generations {
				if v, i := g.USB(g.FromUSB(value, index)); v != value || i != index {
					t.Fatalf("%v: %#x, %#x came back as %#x, %#x", g, value, index, v, i)
				}
			}
		}
	}
}

func TestUSBSize(t *testing.T) {
	for _, tt := range []struct {
		g          reg.Generation
		size, want int
	}{
		{reg.BlueField1, 4, 8}, {reg.BlueField2, 4, 8}, {reg.BlueField2, 8, 8},
		{reg.BlueField3, 1, 4}, {reg.BlueField3, 4, 4}, {reg.BlueField3, 8, 8},
	} {
		if got := tt.g.USBSize(tt.size); got != tt.want {
			t.Errorf("%v: %d bytes move %d, want %d", tt.g, tt.size, got, tt.want)
		}
	}
}
