// SPDX-License-Identifier: Apache-2.0

package reg_test

import (
	"testing"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

func TestBad(t *testing.T) {
	for v, want := range map[uint64]bool{
		0xbad00acce55: true, 0xbadacce55: true, 0xffffffffffffffff: true,
		0: false, 0xffffffff: false, 0xbad00acce54: false, reg.Keepalive: false,
	} {
		if got := reg.Bad(v); got != want {
			t.Errorf("%#x: %v", v, got)
		}
	}
}

func TestBootFIFOWords(t *testing.T) {
	for _, tt := range []struct {
		g     reg.Generation
		v     uint64
		words int
		ok    bool
	}{
		{reg.BlueField2, 0, 0, true},
		{reg.BlueField2, 512, 512, true},
		{reg.BlueField2, 513, 0, false},
		{reg.BlueField3, 1023, 1023, true},
		{reg.BlueField3, 1024, 1024, true},
		{reg.BlueField3, 1025, 0, false},
		{reg.BlueField3, 0xbad00acce55, 0, false},
		{reg.BlueField3, 0xbadacce55, 0, false},
		{reg.BlueField3, 1 << 63, 0, false},
		{reg.BlueField3, ^uint64(0), 0, false},
	} {
		if words, ok := reg.For(tt.g).BootFIFOWords(tt.v); words != tt.words || ok != tt.ok {
			t.Errorf("%v: %#x is %d, %v", tt.g, tt.v, words, ok)
		}
	}
}

func TestTmFIFOWords(t *testing.T) {
	for _, tt := range []struct {
		v     uint64
		words int
		ok    bool
	}{
		{0, 0, true}, {1, 1, true}, {256, 256, true}, {257, 0, false}, {0x1ff, 0, false},
		{0xff00_0000_0000_0000 | 7, 7, true}, // what else the register may hold
		{0xbad00acce55, 0, false}, {0xbadacce55, 0, false}, {^uint64(0), 0, false},
	} {
		if words, ok := reg.TmFIFOWords(tt.v); words != tt.words || ok != tt.ok {
			t.Errorf("%#x: %d, %v", tt.v, words, ok)
		}
	}
}

func TestBFModeOf(t *testing.T) {
	for sp2, want := range map[uint64]string{
		0: "Unknown", 1 << 4: "DPU mode", 2 << 4: "NIC mode", 3 << 4: "Reserved",
		^uint64(3 << 4): "Unknown", ^uint64(1 << 4): "NIC mode",
		0xbad00acce55: "Unknown", 0xbadacce55: "Unknown", ^uint64(0): "Unknown",
	} {
		if got := reg.BFModeOf(sp2).String(); got != want {
			t.Errorf("%#x: %q, want %q", sp2, got, want)
		}
	}
	if got := reg.BFMode(255).String(); got != "Reserved" {
		t.Errorf("got %q", got)
	}
}

func TestDebugCommand(t *testing.T) {
	for sp3, want := range map[uint64]uint8{
		0: 0, 1 << 59: 1, 0xf << 59: 0xf, 1 << 63: 0, 1<<59 - 1: 0,
	} {
		if got := reg.DebugCommand(sp3); got != want {
			t.Errorf("%#x: %d, want %d", sp3, got, want)
		}
	}
}

func TestOPN(t *testing.T) {
	for _, tt := range []struct {
		name  string
		words [4]uint32
		want  string
	}{
		{"short", [4]uint32{0x4d424632, 0x48353136, 0x412d4500, 0}, "MBF2H516A-E"},
		{"full", [4]uint32{0x39303044, 0x332d4236, 0x2d535630, 0x2d414141}, "900D3-B6-SV0-AAA"},
		{"none", [4]uint32{}, ""},
		{"erased", [4]uint32{1<<32 - 1, 1<<32 - 1, 1<<32 - 1, 1<<32 - 1}, ""},
		{"in reset", [4]uint32{0x00acce55, 0x00acce55, 0x00acce55, 0x00acce55}, ""},
		{"ends at a control character", [4]uint32{0x41420a43}, "AB"},
		{"ends at a blank", [4]uint32{0x41422043}, "AB"},
		{"ends at what is not ASCII", [4]uint32{0x41c3a443}, "A"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := reg.OPN(tt.words); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	for _, s := range []string{"", "A", "MBF2H516A-CENOT", "900-9D3B6-00CV-A", "sixteen-and-more-than-that"} {
		want := s[:min(len(s), reg.OPNSize)]
		if got := reg.OPN(reg.OPNWords(s)); got != want {
			t.Errorf("%q came back as %q", s, got)
		}
	}
}
