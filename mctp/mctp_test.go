// SPDX-License-Identifier: Apache-2.0

package mctp_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bluefield-go/bmc-rshim/mctp"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The bytes are those of ncsi.md, section 3.1: a request for the non-volatile
// state, and its response.
func TestPacketGolden(t *testing.T) {
	request := "02" + "0001000150000008" + "0000000000000000" + "00008119" + "00131900" + "ffff15ca"
	response := "02" + "00010001d0000010" + "0000000000000000" + "00000000" + "00008119" + "00131900" + "00000001" + "fffe95c1"
	for _, tt := range []struct {
		wire string
		want mctp.Packet
	}{
		{"011d08c9" + request, mctp.Packet{
			Header:  mctp.Header{Dest: 0x1d, Src: 0x08, SOM: true, EOM: true, TO: true, Tag: 1},
			Payload: unhex(t, request),
		}},
		{"01081dc1" + response, mctp.Packet{
			Header:  mctp.Header{Dest: 0x08, Src: 0x1d, SOM: true, EOM: true, Tag: 1},
			Payload: unhex(t, response),
		}},
		{"01081d3701", mctp.Packet{Header: mctp.Header{Dest: 8, Src: 0x1d, Seq: 3, Tag: 7}, Payload: []byte{1}}},
	} {
		got, err := mctp.ParsePacket(unhex(t, tt.wire))
		if err != nil {
			t.Errorf("%s: %v", tt.wire, err)
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", tt.wire, d)
		}
		if b := hex.EncodeToString(mctp.AppendPacket(nil, tt.want)); b != tt.wire {
			t.Errorf("encoded %s, want %s", b, tt.wire)
		}
	}
}

func TestParsePacketRefuses(t *testing.T) {
	for _, tt := range []struct {
		wire string
		want error
	}{
		{"", mctp.ErrShort}, {"011d08", mctp.ErrShort}, {"011d08c9", mctp.ErrShort},
		{"001d08c902", mctp.ErrVersion}, {"021d08c902", mctp.ErrVersion}, {"0f1d08c902", mctp.ErrVersion},
		{"f11d08c902", nil}, // the upper bits are reserved
	} {
		if _, err := mctp.ParsePacket(unhex(t, tt.wire)); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.wire, err, tt.want)
		}
	}
}

func TestMessageType(t *testing.T) {
	m := mctp.Message{Body: []byte{0x82}}
	if m.Type() != mctp.NCSI || !m.Integrity() {
		t.Errorf("%v, %v", m.Type(), m.Integrity())
	}
	for typ, want := range map[mctp.Type]string{mctp.NCSI: "NC-SI", 0x42: "type 0x42"} {
		if typ.String() != want {
			t.Errorf("%v, want %s", typ, want)
		}
	}
	for eid, want := range map[mctp.EID]bool{mctp.Null: false, 7: false, 8: true, 254: true, mctp.Broadcast: false} {
		if eid.Unicast() != want {
			t.Errorf("EID %d: %v", eid, !want)
		}
	}
}

// The sizes and sequence numbers of 221 bytes are ncsi.md's.
func TestPackets(t *testing.T) {
	for _, tt := range []struct {
		bytes, unit int
		seq         uint8
		want        []int
	}{
		{0, 0, 0, nil}, {1, 0, 0, []int{1}}, {64, 0, 0, []int{64}}, {65, 0, 2, []int{64, 1}}, {128, 0, 3, []int{64, 64}},
		{221, 0, 0, []int{64, 64, 64, 29}}, {221, 0, 7, []int{64, 64, 64, 29}}, {10, 3, 1, []int{3, 3, 3, 1}}, {10, -1, 0, []int{10}},
	} {
		m := mctp.Message{Dest: 8, Src: 29, TO: true, Tag: 5, Body: make([]byte, tt.bytes)}
		var sizes []int
		for p := range m.Packets(tt.unit, tt.seq) {
			i := len(sizes)
			sizes = append(sizes, len(p.Payload))
			want := mctp.Header{
				Dest: 8, Src: 29, TO: true, Tag: 5,
				SOM: i == 0, EOM: i == len(tt.want)-1, Seq: (tt.seq + uint8(i)) & 3,
			}
			if p.Header != want {
				t.Errorf("%d bytes, packet %d: %+v, want %+v", tt.bytes, i, p.Header, want)
			}
		}
		if !slices.Equal(sizes, tt.want) {
			t.Errorf("%d bytes in units of %d: %v, want %v", tt.bytes, tt.unit, sizes, tt.want)
		}
	}
	n := 0
	for range (mctp.Message{Body: make([]byte, 200)}).Packets(64, 0) {
		if n++; n == 2 {
			break
		}
	}
}

func TestAnswerControl(t *testing.T) {
	for _, tt := range []struct{ name, request, want string }{
		{"get endpoint ID", "008a02", "000a0200080200"},
		{"set another ID", "008101001d", "00010100100800"},
		{"force another ID", "008101011d", "00010100100800"},
		{"set the same ID", "0081010008", "00010100000800"},
		{"back to the static ID", "0081010200", "00010100000800"},
		{"set, cut off", "00810100", "00010103"},
		{"version", "009f04ff", "001f0405"},
		{"response", "000a02000a0200", ""},
		{"datagram", "00ca02", ""},
		{"cut off", "008a", ""},
		{"other type", "028a02", ""},
		{"integrity check", "808a02", ""},
		{"nothing", "", ""},
	} {
		if got := hex.EncodeToString(mctp.AnswerControl(unhex(t, tt.request), 8)); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func FuzzPacket(f *testing.F) {
	f.Add(unhex(f, "011d08c902"))
	f.Add(unhex(f, "f1ff00ff0203040506"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := mctp.ParsePacket(b)
		if err != nil {
			return
		}
		again := mctp.AppendPacket(nil, p)
		if again[0]&0x0f != b[0]&0x0f || !bytes.Equal(again[1:], b[1:]) {
			t.Errorf("%x decoded and encoded is %x", b, again)
		}
		mctp.AnswerControl(p.Payload, p.Dest)
	})
}
