// SPDX-License-Identifier: Apache-2.0

package usbfs

import (
	"bytes"
	"reflect"
	"slices"
	"testing"

	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

var (
	deviceDesc = []byte{18, 1, 0, 2, 0, 0, 0, 64, 0xdc, 0x22, 0x14, 0x02, 0, 1, 1, 2, 3, 1}

	bootIface   = []byte{9, 4, 0, 0, 1, 0xff, 0, 7, 0}
	bootOut     = []byte{7, 5, 0x01, 2, 0, 2, 0}
	tmfifoIface = []byte{9, 4, 1, 0, 3, 0xff, 1, 0, 0}
	tmfifoIntr  = []byte{7, 5, 0x82, 3, 8, 0, 4}
	tmfifoIn    = []byte{7, 5, 0x81, 2, 0, 2, 0}
	tmfifoOut   = []byte{7, 5, 0x02, 2, 0, 2, 0}
)

// config builds a configuration descriptor of what follows it.
func config(value byte, parts ...[]byte) []byte {
	body := slices.Concat(parts...)
	n := 9 + len(body)
	return append([]byte{9, 2, byte(n), byte(n >> 8), 2, value, 0, 0x80, 50}, body...)
}

func TestParseInterfaces(t *testing.T) {
	boot := usb.Interface{Number: 0, Class: 0xff, Subclass: 0, Protocol: 7,
		Endpoints: []usb.Endpoint{{Address: 0x01, Type: usb.Bulk, MaxPacket: 512}}}
	tmfifo := usb.Interface{Number: 1, Class: 0xff, Subclass: 1,
		Endpoints: []usb.Endpoint{
			{Address: 0x82, Type: usb.Interrupt, MaxPacket: 8},
			{Address: 0x81, Type: usb.Bulk, MaxPacket: 512},
			{Address: 0x02, Type: usb.Bulk, MaxPacket: 512},
		}}
	bareBoot := boot
	bareBoot.Endpoints = nil
	good := config(1, bootIface, bootOut, tmfifoIface, tmfifoIntr, tmfifoIn, tmfifoOut)
	long := slices.Clone(good) // claims to be longer than what is there
	long[2], long[3] = 0xff, 0xff

	for _, tt := range []struct {
		name string
		in   []byte
		want []usb.Interface
	}{
		{"as the DPU has it", good, []usb.Interface{boot, tmfifo}},
		{"other way round", config(1, tmfifoIface, tmfifoIntr, tmfifoIn, tmfifoOut, bootIface, bootOut),
			[]usb.Interface{tmfifo, boot}},
		{"second configuration", slices.Concat(config(7, tmfifoIface), config(1, bootIface, bootOut)),
			[]usb.Interface{boot}},
		{"claims too much", long, []usb.Interface{boot, tmfifo}},
		{"class-specific descriptors between", config(1, []byte{5, 0x24, 0, 0, 1}, bootIface, []byte{3, 0x30, 0}, bootOut),
			[]usb.Interface{boot}},
		{"longer descriptors", config(1, bootIface, append([]byte{9}, append(bootOut[1:7:7], 0, 0)...)),
			[]usb.Interface{boot}},
		{"other alternate setting", config(1, bootIface, bootOut, []byte{9, 4, 0, 1, 1, 0xff, 0, 0, 0}, tmfifoIn),
			[]usb.Interface{boot}},
		{"interface twice", config(1, bootIface, bootOut, bootIface, tmfifoIn), []usb.Interface{boot}},
		{"endpoint twice", config(1, bootIface, bootOut, bootOut), []usb.Interface{boot}},
		{"endpoint of no interface", config(1, tmfifoIn, bootIface, bootOut), []usb.Interface{boot}},
		{"endpoint 0 and reserved bits", config(1, bootIface, []byte{7, 5, 0x80, 2, 0, 2, 0}, []byte{7, 5, 0x11, 2, 0, 2, 0}, bootOut),
			[]usb.Interface{boot}},
		{"length 0", config(1, bootIface, bootOut, []byte{0, 5}, tmfifoIface), []usb.Interface{boot}},
		{"length 1", config(1, bootIface, bootOut, []byte{1}, tmfifoIface), []usb.Interface{boot}},
		{"cut in a descriptor", config(1, bootIface, bootOut[:6]), []usb.Interface{bareBoot}},
		{"short descriptors", config(1, []byte{8, 4, 0, 0, 1, 0xff, 0, 0}, bootIface, []byte{6, 5, 0x01, 2, 0, 2}, bootOut),
			[]usb.Interface{boot}},
		{"nothing in it", config(1), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseInterfaces(slices.Concat(deviceDesc, tt.in), 1)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

func TestParseInterfacesErrors(t *testing.T) {
	short := config(1, bootIface)
	short[2], short[3] = 8, 0
	for _, tt := range []struct {
		name string
		in   []byte
	}{
		{"empty", nil},
		{"cut device descriptor", deviceDesc[:17]},
		{"not a device descriptor", slices.Concat([]byte{18, 2}, deviceDesc[2:], config(1))},
		{"no configuration", deviceDesc},
		{"not the active one", slices.Concat(deviceDesc, config(2, bootIface))},
		{"total length below the least", slices.Concat(deviceDesc, short)},
		{"cut configuration", slices.Concat(deviceDesc, config(1)[:8])},
	} {
		if ifs, err := parseInterfaces(tt.in, 1); err == nil {
			t.Errorf("%s: no error, %+v", tt.name, ifs)
		}
	}
}

func FuzzParseInterfaces(f *testing.F) {
	f.Add(slices.Concat(deviceDesc, config(1, bootIface, bootOut, tmfifoIface, tmfifoIntr, tmfifoIn, tmfifoOut)), byte(1))
	f.Add(slices.Concat(deviceDesc, config(3, tmfifoIface), config(1, bootIface, bootOut)), byte(1))
	f.Add(bytes.Repeat(deviceDesc, 3), byte(0))
	f.Fuzz(func(t *testing.T, b []byte, value byte) {
		ifs, err := parseInterfaces(b, value)
		if err != nil && ifs != nil {
			t.Fatalf("%+v and %v", ifs, err)
		}
		numbers, addrs := map[int]bool{}, map[uint8]bool{}
		for _, i := range ifs {
			if numbers[i.Number] {
				t.Fatalf("interface %d twice", i.Number)
			}
			numbers[i.Number] = true
			for _, e := range i.Endpoints {
				if e.Address&0x70 != 0 || e.Address&0x0f == 0 || addrs[e.Address] || e.MaxPacket > 0x7ff || e.Type > usb.Interrupt {
					t.Fatalf("endpoint %+v of %+v", e, ifs)
				}
				addrs[e.Address] = true
			}
		}
	})
}
