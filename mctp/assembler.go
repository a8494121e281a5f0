// SPDX-License-Identifier: Apache-2.0

package mctp

import "errors"

const (
	// MaxMessage is the longest body that an Assembler puts together, in
	// bytes: 66 units. NC-SI's longest has 1 + 16 + 4096 + 4.
	MaxMessage = 66 * BaselineUnit
	// maxPartial is how many messages an Assembler has under way at most:
	// one peer with all its tags.
	maxPartial = Tags
)

// Why an Assembler dropped a packet, and with it what it had of the message;
// ErrShort is another one, for a packet without payload.
var (
	ErrNoStart  = errors.New("mctp: packet of a message whose start is missing")
	ErrSequence = errors.New("mctp: packet out of sequence")
	ErrUnit     = errors.New("mctp: packet of another size than the message's first")
	ErrTooLong  = errors.New("mctp: message is too long")
)

// Assembler puts messages together from packets that come in any mixture. The
// zero value is ready. It holds at most eight messages of MaxMessage bytes.
//
// The rules are DSP0236's: a message's packets have one source, destination,
// tag and tag owner, follow each other in sequence, and all but the last have
// the size of the first, which the last does not exceed. What breaks them ends
// the message. A first packet ends what was there of an earlier message, and,
// when there is no room left, the message that waited longest.
type Assembler struct {
	partial []partial // the one touched longest ago first
}

type flow struct {
	dest, src EID
	to        bool
	tag       uint8
}

type partial struct {
	flow
	next uint8 // sequence number
	unit int
	body []byte
}

// Add takes a packet. When it is the last of a message it returns that, with
// ok. The body is the caller's for good. An error says why the packet was
// dropped.
func (a *Assembler) Add(p Packet) (m Message, ok bool, err error) {
	f := flow{p.Dest, p.Src, p.TO, p.Tag}
	r, found := a.take(f)
	switch {
	case len(p.Payload) == 0:
		return Message{}, false, ErrShort
	case p.SOM:
		r = partial{flow: f, unit: len(p.Payload)}
	case !found:
		return Message{}, false, ErrNoStart
	case p.Seq&3 != r.next:
		return Message{}, false, ErrSequence
	case len(p.Payload) > r.unit || len(p.Payload) < r.unit && !p.EOM:
		return Message{}, false, ErrUnit
	}
	if len(r.body)+len(p.Payload) > MaxMessage {
		return Message{}, false, ErrTooLong
	}
	r.body = append(r.body, p.Payload...)
	if p.EOM {
		return Message{Dest: f.dest, Src: f.src, TO: f.to, Tag: f.tag, Body: r.body}, true, nil
	}
	r.next = (p.Seq + 1) & 3
	if len(a.partial) == maxPartial {
		a.remove(0)
	}
	a.partial = append(a.partial, r)
	return Message{}, false, nil
}

// take removes what there is of a message.
func (a *Assembler) take(f flow) (partial, bool) {
	for i, r := range a.partial {
		if r.flow == f {
			a.remove(i)
			return r, true
		}
	}
	return partial{}, false
}

func (a *Assembler) remove(i int) {
	n := copy(a.partial[i:], a.partial[i+1:])
	a.partial[i+n] = partial{} // for the garbage collector
	a.partial = a.partial[:i+n]
}
