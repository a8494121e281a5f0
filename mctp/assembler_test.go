// SPDX-License-Identifier: Apache-2.0

package mctp_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bluefield-go/bmc-rshim/mctp"
)

// text makes a message body that differs at every place.
func text(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i) ^ byte(i>>8)*31
	}
	return b
}

// packets cuts a message with a tag from an endpoint.
func packets(src mctp.EID, tag uint8, body []byte) []mctp.Packet {
	var all []mctp.Packet
	for p := range (mctp.Message{Dest: 8, Src: src, Tag: tag, Body: body}).Packets(0, tag) {
		all = append(all, p)
	}
	return all
}

func TestAssembler(t *testing.T) {
	for _, n := range []int{1, 63, 64, 65, 128, 221, 1000, mctp.MaxMessage} {
		var a mctp.Assembler
		want := mctp.Message{Dest: 8, Src: 29, Tag: 3, Body: text(n)}
		all := packets(29, 3, text(n))
		for range 2 { // and once more, with what the first left behind
			for i, p := range all {
				m, ok, err := a.Add(p)
				if err != nil || ok != (i == len(all)-1) {
					t.Fatalf("%d bytes, packet %d of %d: %v, %v", n, i, len(all), ok, err)
				}
				if d := cmp.Diff(want, m); ok && d != "" {
					t.Errorf("%d bytes (-want +got):\n%s", n, d)
				}
			}
		}
	}
}

// Messages with all tags of one peer come mixed, and from another peer whole
// ones in between.
func TestAssemblerMixed(t *testing.T) {
	var a mctp.Assembler
	var streams [mctp.Tags][]mctp.Packet
	for tag := range streams {
		streams[tag] = packets(29, uint8(tag), text(150+tag))
	}
	done := 0
	for i := range 3 {
		for tag := range streams {
			m, ok, err := a.Add(streams[tag][i])
			if err != nil {
				t.Fatal(err)
			}
			if ok && (int(m.Tag) != tag || !bytes.Equal(m.Body, text(150+tag))) {
				t.Errorf("tag %d: %+v", tag, m)
			}
			if ok {
				done++
			}
			if _, ok, err := a.Add(packets(30, uint8(tag), text(9))[0]); !ok || err != nil {
				t.Errorf("whole message: %v, %v", ok, err)
			}
		}
	}
	if done != len(streams) {
		t.Errorf("%d of %d messages", done, len(streams))
	}
}

// What breaks the rules ends the message, and nothing of it is left.
func TestAssemblerRules(t *testing.T) {
	three := packets(29, 1, text(150))
	with := func(p mctp.Packet, change func(*mctp.Packet)) mctp.Packet {
		change(&p)
		return p
	}
	for _, tt := range []struct {
		name string
		in   []mctp.Packet
		want error // of the last one of in
	}{
		{"no start", three[1:2], mctp.ErrNoStart},
		{"end alone", three[2:], mctp.ErrNoStart},
		{"one missing", []mctp.Packet{three[0], three[2]}, mctp.ErrSequence},
		{"one twice", []mctp.Packet{three[0], three[1], three[1]}, mctp.ErrSequence},
		{"middle too short", []mctp.Packet{three[0], with(three[1], func(p *mctp.Packet) { p.Payload = p.Payload[:63] })}, mctp.ErrUnit},
		{"middle too long", []mctp.Packet{three[0], with(three[1], func(p *mctp.Packet) { p.Payload = text(65) })}, mctp.ErrUnit},
		{"last too long", []mctp.Packet{three[0], three[1], with(three[2], func(p *mctp.Packet) { p.Payload = text(65) })}, mctp.ErrUnit},
		{"empty", []mctp.Packet{three[0], with(three[1], func(p *mctp.Packet) { p.Payload = nil })}, mctp.ErrShort},
		{"other tag", []mctp.Packet{three[0], with(three[1], func(p *mctp.Packet) { p.Tag++ })}, mctp.ErrNoStart},
		{"other tag owner", []mctp.Packet{three[0], with(three[1], func(p *mctp.Packet) { p.TO = true })}, mctp.ErrNoStart},
		{"other source", []mctp.Packet{three[0], with(three[1], func(p *mctp.Packet) { p.Src++ })}, mctp.ErrNoStart},
		{"other destination", []mctp.Packet{three[0], with(three[1], func(p *mctp.Packet) { p.Dest++ })}, mctp.ErrNoStart},
	} {
		var a mctp.Assembler
		var err error
		for _, p := range tt.in {
			var ok bool
			if _, ok, err = a.Add(p); ok {
				t.Errorf("%s: there is a message", tt.name)
			}
		}
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		// A message from the same place comes through.
		for i, p := range three {
			m, ok, err := a.Add(p)
			if err != nil || ok != (i == 2) || ok && !bytes.Equal(m.Body, text(150)) {
				t.Errorf("%s: packet %d afterwards: %v, %v", tt.name, i, ok, err)
			}
		}
	}
}

// A start ends what came before it with the same tag.
func TestAssemblerRestart(t *testing.T) {
	var a mctp.Assembler
	first, second := packets(29, 0, text(150)), packets(29, 0, text(200)[7:])
	a.Add(first[0])
	for i, p := range second {
		m, ok, err := a.Add(p)
		if err != nil || ok != (i == len(second)-1) || ok && !bytes.Equal(m.Body, text(200)[7:]) {
			t.Errorf("packet %d: %v, %v", i, ok, err)
		}
	}
}

// Endless and many messages take no more memory than the limits say.
func TestAssemblerLimits(t *testing.T) {
	var a mctp.Assembler
	p := packets(29, 0, text(65))[0]
	var err error
	n := 0
	for ; err == nil; n += len(p.Payload) {
		_, _, err = a.Add(p)
		p.SOM = false
		p.Seq++
	}
	if !errors.Is(err, mctp.ErrTooLong) || n > mctp.MaxMessage+64 {
		t.Errorf("%v after %d bytes", err, n)
	}

	// The message that waited longest goes.
	var eight mctp.Assembler
	start := func(src mctp.EID) { eight.Add(packets(src, 0, text(65))[0]) }
	end := func(src mctp.EID) error {
		_, _, err := eight.Add(packets(src, 0, text(65))[1])
		return err
	}
	for src := range mctp.EID(9) {
		start(10 + src)
	}
	for src := range mctp.EID(9) {
		if err := end(10 + src); (src == 0) != errors.Is(err, mctp.ErrNoStart) {
			t.Errorf("message %d of 9: %v", src, err)
		}
	}
}

// FuzzAssembler gives any packets to an Assembler. What comes out must be one
// run of packets that went in, in order, of one flow; and a message sent after
// that must come through.
func FuzzAssembler(f *testing.F) {
	f.Add([]byte{0x81, 3, 0x11, 3, 0x61, 2})
	f.Add([]byte{0x80, 1, 0x81, 1, 0x10, 1, 0x51, 1})
	f.Add([]byte{0xc0, 1})
	f.Add([]byte("\x8000ZP0")) // an empty packet in a message
	f.Fuzz(func(t *testing.T, script []byte) {
		script = script[:min(len(script), 4096)]
		var a mctp.Assembler
		type flow struct {
			src, tag uint8
			to       bool
		}
		open := make(map[flow][]byte) // what a message would be so far
		for i := 0; i+1 < len(script); i += 2 {
			flags, size := script[i], int(script[i+1]%9)
			p, err := mctp.ParsePacket(append([]byte{1, 8, script[i+1] >> 6, flags}, text(size)...))
			if err != nil {
				p = mctp.Packet{Header: mctp.Header{Dest: 8, SOM: flags&0x80 != 0}}
			}
			for j := range p.Payload {
				p.Payload[j] = byte(i + j)
			}
			fl := flow{uint8(p.Src), p.Tag, p.TO}
			if p.SOM {
				open[fl] = nil
			}
			open[fl] = append(open[fl], p.Payload...)
			m, ok, err := a.Add(p)
			switch {
			case err != nil && ok:
				t.Fatal("error and message")
			case err != nil:
				delete(open, fl)
			case ok && (!p.EOM || !bytes.Equal(m.Body, open[fl])):
				t.Fatalf("message %x of %x", m.Body, open[fl])
			case ok && (m.Src != p.Src || m.Tag != p.Tag || m.TO != p.TO || m.Dest != p.Dest):
				t.Fatalf("%+v ends %+v", p.Header, m)
			}
		}
		all := packets(29, 1, text(300))
		for i, p := range all {
			if m, ok, err := a.Add(p); err != nil || ok != (i == len(all)-1) || ok && !bytes.Equal(m.Body, text(300)) {
				t.Fatalf("packet %d: %v, %v", i, ok, err)
			}
		}
	})
}

func FuzzRoundTrip(f *testing.F) {
	f.Add(text(221), uint8(64), uint8(3))
	f.Add(text(5), uint8(1), uint8(255))
	f.Fuzz(func(t *testing.T, body []byte, unit, seq uint8) {
		want := mctp.Message{Dest: 8, Src: 29, TO: seq&4 != 0, Tag: seq & 7, Body: body}
		var a mctp.Assembler
		n := 0
		for p := range want.Packets(int(unit), seq) {
			n += len(p.Payload)
			p, err := mctp.ParsePacket(mctp.AppendPacket(nil, p))
			if err != nil {
				t.Fatal(err)
			}
			m, ok, err := a.Add(p)
			if n > mctp.MaxMessage {
				if !errors.Is(err, mctp.ErrTooLong) {
					t.Fatal(err)
				}
				return
			}
			if err != nil || ok != (n == len(body)) {
				t.Fatal(ok, err)
			}
			if ok && fmt.Sprint(m) != fmt.Sprint(want) {
				t.Fatalf("%+v, want %+v", m, want)
			}
		}
	})
}
