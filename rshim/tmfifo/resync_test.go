// SPDX-License-Identifier: Apache-2.0

package tmfifo_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"github.com/bluefield-go/bmc-rshim/rshim/tmfifo"
)

// sender writes headers as one of the drivers does.
type sender int

const (
	checked sender = iota // the C daemon
	cleared               // ATF, UEFI, Linux that clears its stack
	dirty                 // Linux that does not
)

// stream is what a sender has written, with the place and number of each
// message: its text is "<number> ....".
type stream struct {
	words []byte
	at    []int
}

func (s *stream) add(r *rand.Rand, as sender, payload []byte) {
	m := tmfifo.Message{Type: tmfifo.Console, Payload: payload}
	if len(payload) >= tmfifo.MinFrame && len(payload) <= tmfifo.MaxFrame && r.IntN(2) == 0 {
		m.Type = tmfifo.Net
	}
	s.at = append(s.at, len(s.words))
	h := len(s.words)
	s.words = tmfifo.Append(s.words, m)
	switch as {
	case cleared:
		s.words[h+7] = 0
	case dirty:
		right := s.words[h+7]
		copy(s.words[h+3:], []byte{0x88, 0xff, 0xff, 0x10, right + 1})
	}
}

// text writes messages in which no word of payload looks like a header, short
// and long ones.
func text(r *rand.Rand, as sender, messages int) *stream {
	s := new(stream)
	for i := range messages {
		n := 8 + r.IntN(40)
		if r.IntN(4) == 0 {
			n = 8 + r.IntN(tmfifo.MaxConsole-7)
		}
		p := fmt.Appendf(nil, "%06d ", i)
		s.add(r, as, append(p, bytes.Repeat([]byte{'.'}, n-len(p))...))
	}
	return s
}

// number returns which message of a text this is; -1 if it is none of them.
func number(m tmfifo.Message) int {
	digits, rest, found := bytes.Cut(m.Payload, []byte(" "))
	n, err := strconv.Atoi(string(digits))
	if err != nil || !found || len(digits) != 6 || len(bytes.TrimRight(rest, ".")) > 0 {
		return -1
	}
	return n
}

// TestR25Bound damages a stream, and has the messages before the fault and
// those that begin as far behind it as the Decoder promises come through.
func TestR25Bound(t *testing.T) {
	faults := map[string]func(r *rand.Rand, b []byte, at, n int) (damaged []byte, end int){
		"lost": func(_ *rand.Rand, b []byte, at, n int) ([]byte, int) {
			return slices.Delete(b, at, at+n), at
		},
		"inserted": func(r *rand.Rand, b []byte, at, n int) ([]byte, int) {
			return slices.Insert(b, at, random(r, n)...), at + n
		},
		"overwritten": func(r *rand.Rand, b []byte, at, n int) ([]byte, int) {
			copy(b[at:], random(r, n))
			return b, at + n
		},
		"a wrong header": func(r *rand.Rand, b []byte, at, n int) ([]byte, int) {
			h := []byte{3, 0, 0, 0, 0, 0, 0, 0}
			binary.BigEndian.PutUint16(h[1:], uint16(1+r.IntN(tmfifo.MaxConsole)))
			copy(b[at:], h)
			return b, at + 8
		},
		"zeros": func(_ *rand.Rand, b []byte, at, n int) ([]byte, int) {
			return slices.Insert(b, at, make([]byte, n)...), at + n
		},
	}
	bounds := map[sender]int{checked: tmfifo.MaxMessage, cleared: tmfifo.MaxMessage, dirty: 3 * tmfifo.MaxMessage}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(25, uint64(len(name))))
			worst := make(map[sender]int)
			for trial := range 1000 {
				as := sender(trial % 3)
				s := text(r, as, 60)
				length := len(s.words)
				at := r.IntN(length/8/2) * 8
				damaged, end := fault(r, slices.Clone(s.words), at, min(8*(1+r.IntN(300)), (length-at)&^7))
				shift := len(damaged) - length // of what comes after the fault

				var d tmfifo.Decoder
				came := make([]int, len(s.at)) // how often
				for _, m := range decode(&d, damaged) {
					if n := number(m); n >= 0 && n < len(came) {
						came[n]++
					}
				}
				for i, begin := range s.at {
					behind := begin + shift - end
					stop := length
					if i+1 < len(s.at) {
						stop = s.at[i+1]
					}
					before := stop <= at
					if came[i] != 1 && (before || behind >= bounds[as]) {
						t.Fatalf("trial %d, sender %d, fault at %d: message %d at %d came %d times\n%+v",
							trial, as, at, i, begin, came[i], d.Counts())
					}
					if came[i] == 0 {
						worst[as] = max(worst[as], behind)
					}
				}
			}
			t.Logf("farthest message lost behind a fault: %v bytes; the bounds: %v", worst, bounds)
		})
	}
}

// TestR25MidStream begins in the middle of frames of random bytes, as after
// another owner: nearly always the next message is found, and nothing is taken
// for one before it.
func TestR25MidStream(t *testing.T) {
	for _, as := range []sender{checked, cleared} {
		r := rand.New(rand.NewPCG(25, uint64(as)))
		const trials = 5000
		found := 0
		for range trials {
			s := new(stream)
			s.add(r, as, random(r, 64+r.IntN(tmfifo.MaxFrame-63)))
			cut := 8 * (1 + r.IntN(len(s.words)/8-1))
			s.add(r, as, []byte("found"))
			var d tmfifo.Decoder
			got := decode(&d, s.words[cut:])
			if len(got) > 0 && string(got[0].Payload) == "found" {
				found++
			}
		}
		t.Logf("sender %d: %d of %d", as, found, trials)
		if found < trials*999/1000 {
			t.Errorf("sender %d: the next message was found in %d of %d streams", as, found, trials)
		}
	}
}

// TestDirtyMidStream begins in the middle of a message of a sender whose
// headers are never sure: the first that can be one is taken once a whole
// message has gone by.
func TestDirtyMidStream(t *testing.T) {
	r := rand.New(rand.NewPCG(25, 25))
	s := text(r, dirty, 100)
	var d tmfifo.Decoder
	got := decode(&d, s.words[8:])
	if len(got) == 0 {
		t.Fatalf("nothing: %+v", d.Counts())
	}
	first := number(got[0])
	if first < 1 || s.at[first] > 2*tmfifo.MaxMessage || len(got) != 100-first {
		t.Errorf("the first was %d at %d, %d of them came", first, s.at[first], len(got))
	}
	if c := d.Counts(); c.Resyncs != 1 || c.Mismatched != uint64(len(got)) {
		t.Errorf("%+v", c)
	}
}

// TestReset drops what has come of a message, and what was said of the stream.
func TestReset(t *testing.T) {
	var d tmfifo.Decoder
	console := tmfifo.Append(nil, tmfifo.Message{Type: tmfifo.Console, Payload: []byte("a message of 27 characters\n")})
	d.Reset()
	for _, cut := range []int{1, 8, 9, 32} {
		if got := decode(&d, console[:cut]); len(got) > 0 {
			t.Fatalf("%d messages in %d bytes", len(got), cut)
		}
		d.Reset()
		if got := decode(&d, console); len(got) != 1 {
			t.Fatalf("cut at %d: %d messages after Reset", cut, len(got))
		}
	}
	want := tmfifo.Counts{Messages: 4, Unfinished: 4}
	if got := d.Counts(); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}

	// Out of step, the header of a dirty sender is not enough; after Reset it is.
	console[7]++
	if got := decode(&d, append([]byte("payload."), console...)); len(got) > 0 {
		t.Errorf("%d messages out of step", len(got))
	}
	d.Reset()
	if got := decode(&d, console); len(got) != 1 {
		t.Errorf("%d messages after Reset", len(got))
	}
}

// TestResetInside lets the receiver of a message reset the Decoder.
func TestResetInside(t *testing.T) {
	var d tmfifo.Decoder
	one := tmfifo.Append(nil, tmfifo.Message{Type: tmfifo.Console, Payload: []byte("one message")})
	two := slices.Concat(one, one)
	n := 0
	for _, piece := range [][]byte{two, one[:9], slices.Concat(one[9:], one)} {
		d.Decode(piece, func(m tmfifo.Message) {
			n++
			d.Reset()
			_ = append(m.Payload, "more than padding"...) // must not reach what follows
		})
	}
	if n != 4 || d.Counts() != (tmfifo.Counts{Messages: 4}) {
		t.Errorf("%d messages, %+v", n, d.Counts())
	}
}

func random(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}
