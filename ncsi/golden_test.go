// SPDX-License-Identifier: Apache-2.0

package ncsi_test

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/bluefield-go/bmc-rshim/ncsi"
)

// frames are whole packets, MC ID 0, package 0 channel 0.
var frames = []struct {
	name    string
	iid     uint8
	typ     ncsi.Type
	payload string
	packet  string
}{
	{"set host access disabled", 1, ncsi.OEM, "00008119 00121900 00000000", "000100015000000c 0000000000000000 00008119 00121900 00000000 ffff15c7"},
	{"set host access enabled", 1, ncsi.OEM, "00008119 00121900 00000001", "000100015000000c 0000000000000000 00008119 00121900 00000001 ffff15c6"},
	{"set host access locked", 1, ncsi.OEM, "00008119 00121900 00000002", "000100015000000c 0000000000000000 00008119 00121900 00000002 ffff15c5"},
	{"set run-time access enabled", 1, ncsi.OEM, "00008119 00121b00 00000000", "000100015000000c 0000000000000000 00008119 00121b00 00000000 ffff13c7"},
	{"set run-time access locked", 1, ncsi.OEM, "00008119 00121b00 00000001", "000100015000000c 0000000000000000 00008119 00121b00 00000001 ffff13c6"},
	{"get host access", 1, ncsi.OEM, "00008119 00131900", "0001000150000008 0000000000000000 00008119 00131900 ffff15ca"},
	{"get run-time access", 1, ncsi.OEM, "00008119 00131b00", "0001000150000008 0000000000000000 00008119 00131b00 ffff13ca"},

	{"host access is disabled", 1, 0xd0, "00000000 00008119 00131900 00000000", "00010001d0000010 0000000000000000 00000000 00008119 00131900 00000000 fffe95c2"},
	{"host access is enabled", 1, 0xd0, "00000000 00008119 00131900 00000001", "00010001d0000010 0000000000000000 00000000 00008119 00131900 00000001 fffe95c1"},
	{"host access is locked", 1, 0xd0, "00000000 00008119 00131900 00000002", "00010001d0000010 0000000000000000 00000000 00008119 00131900 00000002 fffe95c0"},
	{"run-time access is enabled", 1, 0xd0, "00000000 00008119 00131b00 00000000", "00010001d0000010 0000000000000000 00000000 00008119 00131b00 00000000 fffe93c2"},
	{"run-time access is locked", 1, 0xd0, "00000000 00008119 00131b00 00000001", "00010001d0000010 0000000000000000 00000000 00008119 00131b00 00000001 fffe93c1"},
	{"host access set", 1, 0xd0, "00000000 00008119 00121900", "00010001d000000c 0000000000000000 00000000 00008119 00121900 fffe95c7"},
	{"run-time access set", 1, 0xd0, "00000000 00008119 00121b00", "00010001d000000c 0000000000000000 00000000 00008119 00121b00 fffe93c7"},
	{"host access set, with the state", 1, 0xd0, "00000000 00008119 00121900 00000000", "00010001d0000010 0000000000000000 00000000 00008119 00121900 00000000 fffe95c3"},
	{"invalid parameter", 1, 0xd0, "00010002 00008119 00121900", "00010001d000000c 0000000000000000 00010002 00008119 00121900 fffe95c4"},
	{"unavailable", 1, 0xd0, "00020000 00008119 00121900", "00010001d000000c 0000000000000000 00020000 00008119 00121900 fffe95c5"},
	{"unsupported, with the manufacturer", 1, 0xd0, "00037fff 00008119", "00010001d0000008 0000000000000000 00037fff 00008119 fffe2edb"},
	{"unsupported", 1, 0xd0, "00037fff", "00010001d0000004 0000000000000000 00037fff fffeaff8"},
	{"link status change", 0, ncsi.AEN, "00000000 00000001 00000000", "00010000ff00000c 0000000000000000 00000000 00000001 00000000 ffff00f2"},
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestGolden(t *testing.T) {
	for _, f := range frames {
		t.Run(f.name, func(t *testing.T) {
			payload, want := unhex(t, f.payload), unhex(t, f.packet)
			got, err := ncsi.Packet{IID: f.iid, Type: f.typ, Payload: payload}.Append([]byte("before"))
			if err != nil {
				t.Fatal(err)
			}
			if got, ok := bytes.CutPrefix(got, []byte("before")); !ok || !bytes.Equal(got, want) {
				t.Errorf("\n got %x\nwant %x", got, want)
			}
			if n := ncsi.Size(len(payload)); n != len(want) {
				t.Errorf("Size is %d instead of %d", n, len(want))
			}
			p, sum, err := ncsi.Parse(want)
			if err != nil || sum != ncsi.ChecksumOK {
				t.Fatal(sum, err)
			}
			if p.MC != 0 || p.IID != f.iid || p.Type != f.typ || p.Channel != 0 || !bytes.Equal(p.Payload, payload) {
				t.Errorf("decoded as %+v", p)
			}
		})
	}
}
