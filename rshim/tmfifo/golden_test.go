// SPDX-License-Identifier: Apache-2.0

package tmfifo_test

import (
	"bytes"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bluefield-go/bmc-rshim/rshim/tmfifo"
)

var (
	mac  = [6]byte{0x00, 0x1a, 0xca, 0xff, 0xff, 0x02}
	ping = slices.Concat( // the first 20 bytes of a frame
		[]byte{0x00, 0x1a, 0xca, 0xff, 0xff, 0x02}, []byte{0x00, 0x1a, 0xca, 0xff, 0xff, 0x01},
		[]byte{0x08, 0x00, 0x45, 0x00, 0x00, 0x54, 0x12, 0x34})
)

// TestAppend has the words that the C daemon makes of the same values: its
// header is packed, with the arguments at byte 3 and the checksum at byte 7.
func TestAppend(t *testing.T) {
	macs := tmfifo.NewMAC(mac)
	tests := map[string]struct {
		message tmfifo.Message
		want    string
	}{
		"request":   {tmfifo.NewRequest(), "fd 0000 00000000 03"},
		"MAC low":   {macs[0], "fe 0000 001aca00 1e"},
		"MAC high":  {macs[1], "ff 0000 ffff0200 01"},
		"PXE id":    {tmfifo.NewPXEID(0x12345678), "fc 0000 78563412 f0"},
		"VLANs":     {tmfifo.NewVLANs([2]uint16{100, 4094}), "fb 0000 0064 0ffe 94"},
		"no VLANs":  {tmfifo.NewVLANs([2]uint16{}), "fb 0000 0000 0000 05"},
		"filler":    {tmfifo.Message{Type: tmfifo.Net}, "01 0000 00000000 ff"},
		"key":       {tmfifo.Message{Type: tmfifo.Console, Payload: []byte("\r")}, "03 0001 00000000 fc  0d00000000000000"},
		"whole":     {tmfifo.Message{Type: tmfifo.Console, Payload: []byte("ls -l /\n")}, "03 0008 00000000 f5  6c73202d6c202f0a"},
		"word more": {tmfifo.Message{Type: tmfifo.Console, Payload: []byte("ls -la /\n")}, "03 0009 00000000 f4  6c73202d6c61202f 0a00000000000000"},
		"frame": {tmfifo.Message{Type: tmfifo.Net, Payload: ping},
			"01 0014 00000000 eb  001acaffff02001a caffff0108004500 0054123400000000"},
		// 0x01+0x01+0xfe add up to 256, so that the checksum is 0.
		"checksum 0": {tmfifo.Message{Type: tmfifo.Net, Args: [4]byte{0, 0, 0, 0xf1}, Payload: ping[:14]},
			"01 000e 000000f1 00  001acaffff02001a caffff0108000000"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			want := unhex(t, tt.want)
			got := tmfifo.Append([]byte("before"), tt.message)
			if !bytes.Equal(got, append([]byte("before"), want...)) {
				t.Errorf("%x, want %x", got[len("before"):], want)
			}
			if n := tmfifo.Size(len(tt.message.Payload)); n != len(want) {
				t.Errorf("Size: %d, want %d", n, len(want))
			}
		})
	}
}

// TestSenders decodes what each of the senders on the DPU writes.
func TestSenders(t *testing.T) {
	console := func(s string) tmfifo.Message {
		return tmfifo.Message{Type: tmfifo.Console, Payload: []byte(s)}
	}
	tests := map[string]struct {
		stream string
		want   []tmfifo.Message
		counts tmfifo.Counts
	}{
		"ATF": { // eight characters a message, then one; no checksum
			"03000800 00000000 4e4f544943453a20  03000100 00000000 4200000000000000",
			[]tmfifo.Message{console("NOTICE: "), console("B")},
			tmfifo.Counts{Messages: 2},
		},
		"UEFI": { // 192 fillers when it starts
			strings.Repeat("0100000000000000", 192) + "03000b00 00000000 5761697420666f72 2069740000000000",
			[]tmfifo.Message{console("Wait for it")},
			tmfifo.Counts{Messages: 1, Fillers: 192},
		},
		"Linux": { // the last five bytes are what was on the stack
			"03000788 ffffc02a 6c6f67696e3a2000 01001400 00000000 001acaffff02001acaffff01080045000054123400000000" +
				"03000280 00102a00 0d0a000000000000",
			[]tmfifo.Message{
				{Type: tmfifo.Console, Args: [4]byte{0x88, 0xff, 0xff, 0xc0}, Payload: []byte("login: ")},
				{Type: tmfifo.Net, Payload: ping},
				{Type: tmfifo.Console, Args: [4]byte{0x80, 0x00, 0x10, 0x2a}, Payload: []byte("\r\n")},
			},
			tmfifo.Counts{Messages: 3, Mismatched: 1},
		},
		"Linux after 2 s": { // zeros for the rest of a frame, and some more
			"01001400 00000000 001acaffff02001a 0000000000000000 0000000000000000 0000000000000000 03000100 00000000 2300000000000000",
			[]tmfifo.Message{
				{Type: tmfifo.Net, Payload: append(slices.Clone(ping[:8]), make([]byte, 12)...)},
				console("#"),
			},
			tmfifo.Counts{Messages: 2, Padding: 1},
		},
		"answer": {
			"fe0000 021ac500 21  ff0000 010203 00 fb  fb0000 0fa00000 56  fc0000 01000000 03",
			[]tmfifo.Message{
				{Type: tmfifo.MACLow, Args: [4]byte{0x02, 0x1a, 0xc5}},
				{Type: tmfifo.MACHigh, Args: [4]byte{1, 2, 3}},
				{Type: tmfifo.VLANID, Args: [4]byte{0x0f, 0xa0}},
				{Type: tmfifo.PXEID, Args: [4]byte{1}},
			},
			tmfifo.Counts{Messages: 4},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var d tmfifo.Decoder
			got := decode(&d, unhex(t, tt.stream))
			if diff := cmp.Diff(tt.want, got, empty); diff != "" {
				t.Error(diff)
			}
			if got := d.Counts(); got != tt.counts {
				t.Errorf("%+v, want %+v", got, tt.counts)
			}
		})
	}
}

// TestPeer takes an answer, and its messages back to what was set.
func TestPeer(t *testing.T) {
	want := tmfifo.Peer{MAC: mac, PXEID: 0x12345678, VLAN: [2]uint16{100, 4094}}
	macs := tmfifo.NewMAC(want.MAC)
	var p tmfifo.Peer
	for i, m := range []tmfifo.Message{
		macs[0], macs[1], tmfifo.NewVLANs(want.VLAN), tmfifo.NewRequest(),
		{Type: tmfifo.Console, Args: [4]byte{9, 9, 9, 9}}, tmfifo.NewPXEID(want.PXEID),
	} {
		if last := p.Take(m); last != (i == 5) {
			t.Errorf("message %d: last = %v", i, last)
		}
	}
	if p != want {
		t.Errorf("%+v, want %+v", p, want)
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// empty makes no difference between no payload and an empty one.
var empty = cmp.Transformer("empty", func(b []byte) string { return string(b) })

// decode returns copies of the messages that come out of a stream.
func decode(d *tmfifo.Decoder, stream []byte) (out []tmfifo.Message) {
	d.Decode(stream, func(m tmfifo.Message) {
		m.Payload = bytes.Clone(m.Payload)
		out = append(out, m)
	})
	return out
}
