// SPDX-License-Identifier: Apache-2.0

package bfb_test

import (
	"errors"
	"testing"

	"github.com/bluefield-go/bmc-rshim/rshim/bfb"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

// golden is a header put together by hand: bl2 in version 1, 5 bytes long, with
// bl2 in version 2 and initramfs still to come.
var golden = [bfb.HeaderSize]byte{
	0x42, 0x66, 0x02, 0x13, // magic
	0x21,       // minor 2, major 1
	0x20,       // next version 2, reserved
	0x31,       // header of 3 words, version 1
	0x01,       // id
	5, 0, 0, 0, // length
	0xef, 0xbe, 0xad, 0xde, // CRC
	0x02, 0, 0, 0, 0, 0, 0, 0x80, // ids 1 and 63 follow
}

var goldenHeader = bfb.Header{
	Major: 1, Minor: 2, ID: bfb.IDBL2, Version: 1, NextVersion: 2,
	Length: 5, CRC: 0xdeadbeef, Following: 1<<63 | 1<<1,
}

func TestHeaderGolden(t *testing.T) {
	var h bfb.Header
	if err := h.Decode(golden[:]); err != nil || h != goldenHeader {
		t.Errorf("Decode: %+v, %v; want %+v", h, err, goldenHeader)
	}
	if got := goldenHeader.Encode(); got != golden {
		t.Errorf("Encode: % x; want % x", got, golden)
	}
	if got := h.String(); got != "bl2-v1" {
		t.Errorf("String: %q", got)
	}
	if got := h.Padded(); got != 8 {
		t.Errorf("Padded: %d; want 8", got)
	}
}

func TestHeaderDecodeErrors(t *testing.T) {
	for _, tt := range []struct {
		name  string
		index int
		value byte
		want  error
	}{
		{"magic, first byte", 0, 0x43, bfb.ErrMagic},
		{"magic, last byte", 3, 0x31, bfb.ErrMagic},
		{"major 2", 4, 0x22, bfb.ErrVersion},
		{"major 0", 4, 0x20, bfb.ErrVersion},
		{"minor 3", 4, 0x31, bfb.ErrVersion},
		{"minor 1", 4, 0x11, nil},
		{"minor 0", 4, 0x01, nil},
		{"header of 2 words", 6, 0x21, bfb.ErrVersion},
		{"header of 4 words", 6, 0x41, bfb.ErrVersion},
		{"reserved bits", 5, 0x2f, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := golden
			b[tt.index] = tt.value
			if err := new(bfb.Header).Decode(b[:]); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
	for n := range golden {
		if err := new(bfb.Header).Decode(golden[:n]); !errors.Is(err, bfb.ErrTruncated) {
			t.Errorf("%d bytes: got %v", n, err)
		}
	}
}

func TestID(t *testing.T) {
	for id, name := range map[bfb.ID]string{
		bfb.IDBL2: "bl2", bfb.IDBL2R: "bl2r", bfb.IDPSCBL: "psc-bl", bfb.IDNICFW: "nicfw",
		bfb.IDCapsule: "capsule", bfb.IDUpgrade: "upgrade-image", bfb.IDBootArgs: "boot-args",
		bfb.IDImage: "image", bfb.IDInitramfs: "initramfs", 6: "bl2-cert", 29: "sys", 40: "ddr5_snps_images",
	} {
		if id.String() != name {
			t.Errorf("%d: got %q, want %q", uint8(id), id, name)
		}
		if got, ok := bfb.ParseID(name); got != id || !ok {
			t.Errorf("ParseID(%q) = %d, %v", name, got, ok)
		}
	}
	for _, id := range []bfb.ID{0, 16, 64, 255} {
		if name := id.String(); name[:9] != "image_id_" {
			t.Errorf("%d: got %q", uint8(id), name)
		}
	}
	if _, ok := bfb.ParseID(""); ok {
		t.Error("the empty name is an id")
	}
}

func TestVersionOf(t *testing.T) {
	for g, want := range map[reg.Generation]uint8{reg.BlueField1: 0, reg.BlueField2: 1, reg.BlueField3: 2} {
		if got := bfb.VersionOf(g); got != want {
			t.Errorf("%v: got %d, want %d", g, got, want)
		}
	}
}
