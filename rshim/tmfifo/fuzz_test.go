// SPDX-License-Identifier: Apache-2.0

package tmfifo_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bluefield-go/bmc-rshim/rshim/tmfifo"
)

// FuzzR25Decoder gives any words to a Decoder, at once and cut anywhere: the
// same must come of it, within the limits, with every byte accounted for; it
// must decode again after having been encoded; and fillers must bring whatever
// it was into step.
func FuzzR25Decoder(f *testing.F) {
	macs := tmfifo.NewMAC([6]byte{0, 0x1a, 0xca, 0xff, 0xff, 1})
	all := tmfifo.Append(nil, macs[0])
	all = tmfifo.Append(all, macs[1])
	all = tmfifo.Append(all, tmfifo.NewVLANs([2]uint16{1, 2}))
	all = append(all, make([]byte, 24)...)
	all = tmfifo.Append(all, tmfifo.Message{Type: tmfifo.Net, Payload: make([]byte, 60)})
	all = tmfifo.Append(all, tmfifo.Message{Type: tmfifo.Console, Payload: []byte("BlueField login: ")})
	f.Add(all, []byte{1, 8, 9, 200})
	f.Add(all[8:len(all)-8], []byte{3})
	f.Add([]byte("\x01\x00\x0d\x00\x00\x00\x00\x00payload."), []byte{8})
	f.Add([]byte("payload.\x03\x07\xf8\xff\xff\x00\x00\x05\xff\xff\xff\xff\xff\xff\xff\xff"), []byte{})
	f.Add(bytes.Repeat([]byte("\x03\x07\xf8\x88\xff\xff\x10\x2a"), 600), []byte{255, 255})
	f.Fuzz(func(t *testing.T, stream, cuts []byte) {
		stream = stream[:len(stream)&^7]
		var whole, pieces tmfifo.Decoder
		want := decode(&whole, stream)
		var got []tmfifo.Message
		rest := stream
		for _, n := range cuts {
			n := min(int(n), len(rest))
			got = append(got, decode(&pieces, rest[:n])...)
			rest = rest[n:]
		}
		got = append(got, decode(&pieces, rest)...)
		if !slices.EqualFunc(want, got, same) {
			t.Fatal(cmp.Diff(want, got, empty))
		}
		if whole.Counts() != pieces.Counts() {
			t.Fatalf("at once %+v\npieces  %+v", whole.Counts(), pieces.Counts())
		}

		var again tmfifo.Decoder
		for _, m := range want {
			limits, isKnown := known[m.Type]
			if !isKnown || len(m.Payload) < limits.shortest || len(m.Payload) > limits.longest {
				t.Fatalf("type %x with %d bytes", m.Type, len(m.Payload))
			}
			back := decode(&again, tmfifo.Append(nil, m))
			if len(back) != 1 || !same(m, back[0]) {
				t.Fatal(cmp.Diff([]tmfifo.Message{m}, back, empty))
			}
		}

		filler := tmfifo.Append(nil, tmfifo.Message{Type: tmfifo.Net})
		tail := bytes.Repeat(filler, tmfifo.MaxMessage/tmfifo.WordSize)
		last := tmfifo.Message{Type: tmfifo.Console, Args: [4]byte{1, 2, 3, 4}, Payload: []byte("in step again")}
		tail = tmfifo.Append(tail, last)
		tail[len(tail)-17]++ // as Linux does, with a wrong checksum
		got = append(got, decode(&pieces, tail)...)
		if len(got) == 0 || !same(last, got[len(got)-1]) {
			t.Fatalf("%q does not come after fillers", last.Payload)
		}
		c := pieces.Counts()
		sum := tmfifo.WordSize * int(c.Fillers+c.Padding+c.Dropped())
		for _, m := range got {
			sum += tmfifo.Size(len(m.Payload))
		}
		if int(c.Messages) != len(got) || c.Mismatched > c.Messages || c.Resyncs > c.Dropped() || sum != len(stream)+len(tail) {
			t.Fatalf("%d messages, %d bytes of %d accounted for: %+v", len(got), sum, len(stream)+len(tail), c)
		}
	})
}

func same(a, b tmfifo.Message) bool {
	return a.Type == b.Type && a.Args == b.Args && bytes.Equal(a.Payload, b.Payload)
}

// FuzzR25RoundTrip makes messages out of any data, three at a time, and has
// them back.
func FuzzR25RoundTrip(f *testing.F) {
	f.Add(uint8(0), []byte{1, 2, 3, 4}, []byte("echo\r"), 5)
	f.Add(uint8(1), []byte{0, 0, 0, 0xf1}, make([]byte, 1522), 13)
	f.Add(uint8(4), []byte{}, []byte{}, 1)
	f.Fuzz(func(t *testing.T, which uint8, args, payload []byte, cut int) {
		types := []tmfifo.Type{tmfifo.Console, tmfifo.Net, tmfifo.VLANID, tmfifo.PXEID, tmfifo.CtrlReq, tmfifo.MACLow, tmfifo.MACHigh}
		m := tmfifo.Message{Type: types[int(which)%len(types)]}
		copy(m.Args[:], args)
		limits := known[m.Type]
		if len(payload) < limits.shortest {
			return
		}
		m.Payload = payload[:min(len(payload), limits.longest)]
		one := tmfifo.Append(nil, m)
		if len(one) != tmfifo.Size(len(m.Payload)) || len(one)%8 != 0 {
			t.Fatalf("%d bytes for %d", len(one), len(m.Payload))
		}
		if sum := one[0] + one[1] + one[2] + one[3] + one[4] + one[5] + one[6] + one[7]; sum != 0 {
			t.Fatalf("%x adds up to %d", one[:8], sum)
		}
		stream := slices.Concat(one, one, one)
		cut = min(max(cut, 0), len(stream))
		var d tmfifo.Decoder
		got := append(decode(&d, stream[:cut]), decode(&d, stream[cut:])...)
		if diff := cmp.Diff([]tmfifo.Message{m, m, m}, got, empty); diff != "" {
			t.Fatal(diff)
		}
		if d.Counts() != (tmfifo.Counts{Messages: 3}) {
			t.Fatalf("%+v", d.Counts())
		}
	})
}
