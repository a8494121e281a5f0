// SPDX-License-Identifier: Apache-2.0

package ncsi_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/bluefield-go/bmc-rshim/ncsi"
)

// TestPadding has every length of payload within a word.
func TestPadding(t *testing.T) {
	for n := range 10 {
		payload := bytes.Repeat([]byte{0xff}, n)
		b, err := ncsi.Packet{MC: 3, IID: 200, Type: ncsi.OEM, Channel: 0x7f, Payload: payload}.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) != ncsi.Size(n) || len(b)%4 != 0 {
			t.Fatalf("%d bytes of payload make %d", n, len(b))
		}
		if pad := b[16+n : len(b)-4]; len(pad) > 3 || !bytes.Equal(pad, make([]byte, len(pad))) {
			t.Errorf("padding %x", pad)
		}
		p, sum, err := ncsi.Parse(b)
		if err != nil || sum != ncsi.ChecksumOK || p.MC != 3 || p.IID != 200 || p.Channel != 0x7f || !bytes.Equal(p.Payload, payload) {
			t.Errorf("%+v, %v, %v", p, sum, err)
		}
		// The payload cannot be appended to into the checksum.
		if cap(p.Payload) != n {
			t.Errorf("capacity %d", cap(p.Payload))
		}
	}
}

func TestSumOdd(t *testing.T) {
	if a, b := ncsi.Sum([]byte{1, 2, 3}), ncsi.Sum([]byte{1, 2, 3, 0}); a != b || a != 0xfffffbfe {
		t.Errorf("%#x, %#x", a, b)
	}
}

func TestParse(t *testing.T) {
	good := unhex(t, frames[0].packet)
	edit := func(f func(b []byte) []byte) []byte { return f(bytes.Clone(good)) }
	for _, c := range []struct {
		name string
		in   []byte
		sum  ncsi.Checksum
		text string // of the error
	}{
		{"whole", good, ncsi.ChecksumOK, ""},
		{"Ethernet's padding", edit(func(b []byte) []byte { return append(b, make([]byte, 14)...) }), ncsi.ChecksumOK, ""},
		{"padding and FCS", edit(func(b []byte) []byte { return append(append(b, make([]byte, 14)...), 1, 2, 3, 4) }), ncsi.ChecksumOK, ""},
		{"reserved bits of the length", edit(func(b []byte) []byte {
			b[6] |= 0xf0
			copy(b[28:], []byte{0xff, 0xfe, 0x25, 0xc7})
			return b
		}), ncsi.ChecksumOK, ""},
		{"zero", edit(func(b []byte) []byte { return append(b[:28], 0, 0, 0, 0) }), ncsi.ChecksumZero, ""},
		{"absent", good[:28], ncsi.ChecksumAbsent, ""},
		{"absent with its padding", edit(func(b []byte) []byte { b[7] = 11; return b[:27] }), ncsi.ChecksumAbsent, ""},
		{"bad", edit(func(b []byte) []byte { b[31]++; return b }), ncsi.ChecksumBad, "malformed NC-SI packet: checksum 0xffff15c8 instead of 0xffff15c7"},
		{"cut", good[:30], ncsi.ChecksumBad, "malformed NC-SI packet: the checksum is cut off after 2 of 4 bytes"},
		{"nothing", nil, ncsi.ChecksumAbsent, "malformed NC-SI packet: 0 bytes, less than the header's 16"},
		{"no header", good[:15], ncsi.ChecksumAbsent, "malformed NC-SI packet: 15 bytes, less than the header's 16"},
		{"revision", edit(func(b []byte) []byte { b[1] = 2; return b }), ncsi.ChecksumAbsent, "malformed NC-SI packet: header revision 0x02 instead of 0x01"},
		{"length", good[:27], ncsi.ChecksumAbsent, "malformed NC-SI packet: the header says 12 bytes of payload, and 11 follow"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, sum, err := ncsi.Parse(c.in)
			if c.text != "" {
				if err == nil || err.Error() != c.text || !errors.Is(err, ncsi.ErrMalformed) || sum != c.sum {
					t.Errorf("%v, %v", sum, err)
				}
				return
			}
			if err != nil || sum != c.sum || p.IID != 1 || p.Type != ncsi.OEM || len(p.Payload) < 11 {
				t.Errorf("%+v, %v, %v", p, sum, err)
			}
		})
	}
	for sum, want := range []string{"ok", "zero", "absent", "bad"} {
		if got := ncsi.Checksum(sum).String(); got != want {
			t.Errorf("%d is %q", sum, got)
		}
	}
}

func TestTooLong(t *testing.T) {
	p := ncsi.Packet{Payload: make([]byte, ncsi.MaxPayload)}
	if b, err := p.Append(nil); err != nil || len(b) != 16+4096+4 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	p.Payload = make([]byte, ncsi.MaxPayload+1)
	b, err := p.Append([]byte("before"))
	if err == nil || err.Error() != "payload of 4096 bytes: an NC-SI packet has room for 4095" || string(b) != "before" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestChannel(t *testing.T) {
	for pkg := range 8 {
		for ch := range 32 {
			c, err := ncsi.NewChannel(pkg, ch)
			if err != nil || c.Package() != pkg || c.Channel() != ch || c != ncsi.Channel(pkg<<5|ch) {
				t.Errorf("%d/%d: %v, %v", pkg, ch, c, err)
			}
			if c.First() != ncsi.Channel(pkg<<5) || c.Whole() != ncsi.Channel(pkg<<5|0x1f) {
				t.Errorf("%v: %v, %v", c, c.First(), c.Whole())
			}
		}
	}
	for _, c := range []struct {
		pkg, ch int
		text    string
	}{
		{-1, 0, "package -1: want 0 to 7"},
		{8, 0, "package 8: want 0 to 7"},
		{0, -1, "channel -1: want 0 to 30, or 31 for the whole package"},
		{0, 32, "channel 32: want 0 to 30, or 31 for the whole package"},
	} {
		if _, err := ncsi.NewChannel(c.pkg, c.ch); err == nil || err.Error() != c.text {
			t.Errorf("%d/%d: %v", c.pkg, c.ch, err)
		}
	}
	if a, b := ncsi.Channel(0x62).String(), ncsi.Channel(0x7f).String(); a != "package 3 channel 2" || b != "package 3" {
		t.Errorf("%q, %q", a, b)
	}
}

func TestType(t *testing.T) {
	for typ, want := range map[ncsi.Type]string{
		ncsi.ClearInitialState:      "Clear Initial State",
		ncsi.OEM:                    "OEM",
		ncsi.OEM.Response():         "OEM response",
		ncsi.GetVersionID | 0x80:    "Get Version ID response",
		ncsi.AEN:                    "AEN",
		0x7e:                        "command 0x7e",
		ncsi.Type(0x7e).Response():  "command 0x7e response",
		ncsi.GetPackageUUID:         "Get Package UUID",
		ncsi.GetNCSIStatistics:      "Get NC-SI Statistics",
		ncsi.DisableBroadcastFilter: "Disable Broadcast Filter",
	} {
		if got := typ.String(); got != want {
			t.Errorf("0x%02x is %q", uint8(typ), got)
		}
	}
	if ncsi.AEN.IsResponse() || ncsi.AEN.Command() != ncsi.AEN || ncsi.OEM.IsResponse() || !ncsi.Type(0xd0).IsResponse() || ncsi.Type(0xd0).Command() != ncsi.OEM {
		t.Error("commands, responses and AENs are mixed up")
	}
}

func TestIIDs(t *testing.T) {
	var i ncsi.IIDs
	var all []uint8
	for range 255 {
		all = append(all, i.Next())
	}
	if all[0] != 1 || slices.Contains(all, 0) || len(slices.Compact(slices.Sorted(slices.Values(all)))) != 255 || i.Next() != 1 {
		t.Errorf("%v", all)
	}
	for last, want := range map[uint8]uint8{0: 1, 1: 2, 41: 42, 254: 255, 255: 1} {
		if got := ncsi.NewIIDs(last).Next(); got != want {
			t.Errorf("after %d comes %d", last, got)
		}
	}
}

func TestAEN(t *testing.T) {
	p, _, err := ncsi.Parse(unhex(t, frames[len(frames)-1].packet))
	if err != nil {
		t.Fatal(err)
	}
	n, err := ncsi.ParseAEN(p.Payload)
	if err != nil || n.Type != ncsi.LinkStatusChange || !bytes.Equal(n.Data, []byte{0, 0, 0, 1, 0, 0, 0, 0}) {
		t.Errorf("%+v, %v", n, err)
	}
	if got := n.Append(nil); !bytes.Equal(got, p.Payload) {
		t.Errorf("%x", got)
	}
	if _, err := ncsi.ParseAEN([]byte{0, 0, 0}); !errors.Is(err, ncsi.ErrMalformed) || !strings.Contains(err.Error(), "3 bytes, less than 4") {
		t.Error(err)
	}
	for typ, want := range map[ncsi.AENType]string{
		0: "link status change", 1: "configuration required", 2: "host driver status change", 3: "unknown AEN 0x03",
		0x70: "manufacturer's AEN 0x70", 0xff: "manufacturer's AEN 0xff",
	} {
		if got := typ.String(); got != want {
			t.Errorf("%d is %q", typ, got)
		}
	}
}
