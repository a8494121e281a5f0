// SPDX-License-Identifier: Apache-2.0

package i2c_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bluefield-go/bmc-rshim/i2c"
	"github.com/bluefield-go/bmc-rshim/mctp"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The frames of ncsi.md, section 3.1: BMC 0x10 EID 0x08, NIC 0x32 EID 0x1d.
const (
	getFrame      = "64 0f 22 21 01 1d08c9 02 0001000150000008 0000000000000000 00008119 00131900 ffff15ca d6"
	setFrame      = "64 0f 26 21 01 1d08c9 02 000100015000000c 0000000000000000 00008119 00121900 00000000 ffff15c7 0d"
	responseFrame = "20 0f 2a 65 01 081dc1 02 00010001d0000010 0000000000000000 00000000 00008119 00131900 00000001 fffe95c1 24"
)

func TestFrameGolden(t *testing.T) {
	request := mctp.Header{Dest: 0x1d, Src: 0x08, SOM: true, EOM: true, TO: true, Tag: 1}
	response := mctp.Header{Dest: 0x08, Src: 0x1d, SOM: true, EOM: true, Tag: 1}
	for _, tt := range []struct {
		wire string
		want i2c.Frame
	}{
		{getFrame, i2c.Frame{Dest: 0x32, Src: 0x10, Packet: mctp.Packet{Header: request}}},
		{setFrame, i2c.Frame{Dest: 0x32, Src: 0x10, Packet: mctp.Packet{Header: request}}},
		{responseFrame, i2c.Frame{Dest: 0x10, Src: 0x32, Packet: mctp.Packet{Header: response}}},
	} {
		wire := unhex(t, tt.wire)
		tt.want.Packet.Payload = wire[8 : len(wire)-1]
		got, err := i2c.ParseFrame(wire)
		if err != nil {
			t.Errorf("%s: %v", tt.wire, err)
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", tt.wire, d)
		}
		b, err := tt.want.Append([]byte("before"))
		if err != nil || !bytes.Equal(b[6:], wire) {
			t.Errorf("encoded %x, %v, want %x", b[6:], err, wire)
		}
	}
}

// Any byte that is changed is noticed, as is any that is missing or too much.
func TestParseFrameRefuses(t *testing.T) {
	wire := unhex(t, getFrame)
	for i := range wire {
		b := bytes.Clone(wire)
		b[i] ^= 0x40
		if _, err := i2c.ParseFrame(b); !errors.Is(err, i2c.ErrMalformed) {
			t.Errorf("byte %d changed: %v", i, err)
		}
		if _, err := i2c.ParseFrame(wire[:i]); !errors.Is(err, i2c.ErrMalformed) {
			t.Errorf("%d bytes: %v", i, err)
		}
	}
	if _, err := i2c.ParseFrame(append(bytes.Clone(wire), 0)); !errors.Is(err, i2c.ErrMalformed) {
		t.Errorf("one byte more: %v", err)
	}
	// With a PEC that fits, the reason is named.
	for _, tt := range []struct{ wire, want string }{
		{"20 01 06 65 01 08 1d c1 02 ea", "command code 0x01"},
		{"20 0f 07 65 01 08 1d c1 02 89", "byte count 7, and 6 follow"},
		{"20 0f 06 65 01 08 1d c1 02 5a", "PEC 0x5a"},
		{"20 0f 05 65 01 08 1d c1 02", "9 bytes"},
		{"20 0f 06 65 02 08 1d c1 02 51", "header version"},
	} {
		if _, err := i2c.ParseFrame(unhex(t, tt.wire)); !errors.Is(err, i2c.ErrMalformed) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", tt.wire, err, tt.want)
		}
	}
}

func TestFrameSizes(t *testing.T) {
	for n, ok := range map[int]bool{0: false, 1: true, mctp.BaselineUnit: true, i2c.MaxPayload: true, i2c.MaxPayload + 1: false} {
		f := i2c.Frame{Dest: 0x10, Src: 0x32, Packet: mctp.Packet{Payload: make([]byte, n)}}
		b, err := f.Append(nil)
		if (err == nil) != ok {
			t.Errorf("%d bytes of payload: %v", n, err)
		}
		if err != nil {
			continue
		}
		if int(b[2]) != n+5 || len(b) != n+9 {
			t.Errorf("%d bytes of payload: byte count %d, %d bytes", n, b[2], len(b))
		}
		if got, err := i2c.ParseFrame(b); err != nil || len(got.Packet.Payload) != n {
			t.Errorf("%d bytes of payload: %+v, %v", n, got, err)
		}
	}
}

func FuzzFrame(f *testing.F) {
	f.Add(unhex(f, getFrame))
	f.Add(unhex(f, responseFrame))
	f.Add([]byte("\x20\x0f\x00\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := i2c.ParseFrame(b)
		if err != nil {
			if !errors.Is(err, i2c.ErrMalformed) {
				t.Fatal(err)
			}
			// What cannot be parsed becomes a frame's payload.
			if len(b) == 0 || len(b) > i2c.MaxPayload {
				return
			}
			got = i2c.Frame{Dest: 1, Src: 2, Packet: mctp.Packet{Payload: b}}
		}
		again, err := got.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		same, err := i2c.ParseFrame(again)
		if err != nil {
			t.Fatalf("%+v encoded is %x: %v", got, again, err)
		}
		if d := cmp.Diff(got, same); d != "" {
			t.Fatal(d)
		}
	})
}
