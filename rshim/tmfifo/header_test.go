// SPDX-License-Identifier: Apache-2.0

package tmfifo_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/bluefield-go/bmc-rshim/rshim/tmfifo"
)

// known says what the field of a header may hold, written down apart from the
// code that is tested.
var known = map[tmfifo.Type]struct{ shortest, longest int }{
	tmfifo.Net:     {14, 1522},
	tmfifo.Console: {1, 2040},
	tmfifo.VLANID:  {}, tmfifo.PXEID: {}, tmfifo.CtrlReq: {}, tmfifo.MACLow: {}, tmfifo.MACHigh: {},
}

// TestR25Headers gives every type with every length and every kind of checksum
// to a Decoder that is in step. Behind each stands a payload in which nothing
// looks like a header, and a message that must come through whatever was
// before it.
func TestR25Headers(t *testing.T) {
	next := tmfifo.Append(nil, tmfifo.Message{Type: tmfifo.Console, Payload: []byte("next")})
	text := bytes.Repeat([]byte("payload "), 2100/8)
	lengths := []int{0, 1, 7, 8, 9, 13, 14, 1514, 1518, 1522, 1523, 1536, 2032, 2040, 2041, 2048, 4096, 0x7fff, 0x8000, 0xffff}
	type kind struct {
		name     string
		args     uint32
		checksum func(sum byte) byte
	}
	kinds := []kind{
		{"none", 0, func(byte) byte { return 0 }},
		{"none, with arguments", 0xffff8801, func(byte) byte { return 0 }},
		{"right", 0x01020304, func(sum byte) byte { return -sum }},
		{"wrong", 0x01020304, func(sum byte) byte { return -sum ^ 0x55 }},
	}
	var d tmfifo.Decoder
	for typ := range 256 {
		for _, n := range lengths {
			for _, k := range kinds {
				h := make([]byte, 8)
				h[0] = byte(typ)
				binary.BigEndian.PutUint16(h[1:], uint16(n))
				binary.BigEndian.PutUint32(h[3:], k.args)
				var sum byte
				for _, b := range h {
					sum += b
				}
				h[7] = k.checksum(sum)
				name := fmt.Sprintf("%x, checksum %s", h, k.name)
				bad := h[7] != 0 && h[7] != -sum

				limits, isKnown := known[tmfifo.Type(typ)]
				data := typ == 1 || typ == 3
				want := tmfifo.Counts{Messages: 1}
				switch {
				case typ == 0 && n == 0 && k.name == "none":
					want.Padding = 1
				case !isKnown:
					want.BadType = 1
				case data && n == 0 && (bad || k.name == "none, with arguments"):
					want.BadChecksum = 1
				case data && n == 0:
					want.Fillers = 1
				case n < limits.shortest || n > limits.longest:
					want.BadLength = 1
				case !data && bad:
					want.BadChecksum = 1
				default:
					want.Messages++
					if bad {
						want.Mismatched = 1
					}
				}
				if want.Dropped() > 0 {
					want.Resyncs = 1
				}

				n := min(n, len(text)) // no more is needed to be dropped
				stream := append(h, text[:n]...)
				stream = append(stream, bytes.Repeat([]byte{'.'}, -n&7)...)
				d = tmfifo.Decoder{}
				got := decode(&d, append(stream, next...))
				if len(got) == 0 || string(got[len(got)-1].Payload) != "next" {
					t.Fatalf("%s: the next message is lost: %+v", name, d.Counts())
				}
				if want.Messages == 2 && len(got) == 2 {
					m := got[0]
					if m.Type != tmfifo.Type(typ) || !bytes.Equal(m.Args[:], h[3:7]) || !bytes.Equal(m.Payload, text[:n]) {
						t.Fatalf("%s: type %x, args %x, %d bytes of payload", name, m.Type, m.Args, len(m.Payload))
					}
				}
				counts := d.Counts()
				if counts.Dropped() > 0 && n > 0 { // the payload has gone with it, word by word
					if counts.Dropped() != uint64(len(stream)/8) {
						t.Fatalf("%s: %d words dropped of %d", name, counts.Dropped(), len(stream)/8)
					}
					counts.BadType -= uint64(len(stream)/8 - 1)
				}
				if counts != want {
					t.Fatalf("%s: %+v, want %+v", name, counts, want)
				}
			}
		}
	}
}

// TestR25OutOfStep has the headers that are taken when the word before was
// none: only those that are hardly payload.
func TestR25OutOfStep(t *testing.T) {
	tests := map[string]struct {
		header string
		taken  bool
	}{
		"no checksum, nothing else":    {"0300010000000000", true},
		"right checksum":               {"03000101020304f2", true},
		"no checksum, but arguments":   {"0300010100000000", false},
		"wrong checksum":               {"03000100000000fb", false},
		"control, no checksum":         {"fe000000112200 00", false},
		"control, right checksum":      {"fe000000112200 cf", true},
		"control, wrong checksum":      {"fe000000112200 ce", false},
		"frame, nothing else":          {"01000e0000000000", true},
		"frame shorter than a header":  {"01000d0000000000", false},
		"console longer than the FIFO": {"0307f90000000000", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var d tmfifo.Decoder
			stream := append([]byte("payload."), unhex(t, tt.header)...)
			stream = append(stream, "xxxxxxxxxxxxxxxx"...)
			if got := decode(&d, stream); len(got) > 1 || tt.taken != (len(got) == 1) {
				t.Errorf("%d messages, %+v", len(got), d.Counts())
			}
		})
	}
}
