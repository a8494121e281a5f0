// SPDX-License-Identifier: Apache-2.0

package tmfifo

// Counts says what a Decoder has seen since it was made. Every byte of the
// stream is in a message that was delivered, in one of the words counted here,
// in an unfinished message, or in the one at hand.
type Counts struct {
	Messages   uint64 // delivered
	Mismatched uint64 // of these: console and network with a wrong checksum

	Fillers uint64 // headers of console and network without payload: skipped
	Padding uint64 // zero words in the place of a header: skipped

	// Words in the place of a header that cannot be one: dropped.
	BadType     uint64
	BadLength   uint64
	BadChecksum uint64 // or none, out of step

	Resyncs    uint64 // times that the stream went out of step
	Unfinished uint64 // messages cut short by Reset
}

// Dropped is the number of words that were dropped.
func (c Counts) Dropped() uint64 { return c.BadType + c.BadLength + c.BadChecksum }

// Decoder takes a stream of words apart, whatever is in it. The zero value is
// ready.
//
// After a message the next word must be a header. If it cannot be one, the
// stream is out of step: the Decoder goes on word by word until it finds a
// header that is sure. The longest message has maxHunt words of payload; when
// so many have gone by, so has a header, which means that this sender's are
// never sure, and the next that is possible is taken.
//
// What a fault of the stream costs is bounded. A wrong or cut message takes up
// to MaxMessage bytes for its own, and the message that these end in is lost
// too. So the messages that begin MaxMessage bytes after the fault, or later,
// are delivered; 3*MaxMessage if the sender's headers are never sure. Payload
// that looks like a header can prolong this, but hardly does: of random words,
// one in a million is a sure header, and one in five thousand a possible one.
// Fillers need no luck: MaxMessage bytes of them bring any stream into step.
type Decoder struct {
	buf    [MaxMessage]byte
	n      int // bytes in buf: a header, or a message and its padding
	need   int // bytes that buf must have; 0 = a header's
	hunted int // words since the stream went out of step; 0 = in step
	counts Counts
}

// maxHunt is the number of words of payload in the longest message.
const maxHunt = MaxConsole / WordSize

// Decode takes the next piece of the stream, which may begin and end anywhere,
// and calls deliver for each message that it completes. The payload is valid
// during the call, which must not call Decode.
func (d *Decoder) Decode(p []byte, deliver func(Message)) {
	for len(p) > 0 {
		if d.n == 0 && len(p) >= HeaderSize {
			size := d.begin(header(p))
			switch {
			case size == 0:
				p = p[HeaderSize:]
			case size <= len(p): // all there: no need to copy
				m := p[:size]
				p = p[size:]
				d.finish(m, deliver)
			default:
				d.n, d.need = copy(d.buf[:], p), size
				return
			}
			continue
		}
		n := copy(d.buf[d.n:max(d.need, HeaderSize)], p)
		d.n += n
		p = p[n:]
		if d.need == 0 && d.n == HeaderSize {
			if d.need = d.begin(header(d.buf[:])); d.need == 0 {
				d.n = 0
			}
		}
		if d.need > 0 && d.n == d.need {
			m := d.buf[:d.n]
			d.n, d.need = 0, 0
			d.finish(m, deliver)
		}
	}
}

// begin judges a word in the place of a header. It returns the size of the
// message that begins with it; 0 if none does.
func (d *Decoder) begin(h header) int {
	v := judge(h, d.hunted == 0 || d.hunted == maxHunt)
	switch v {
	case message:
		d.hunted = 0
		return Size(h.length())
	case filler:
		d.counts.Fillers++
		d.hunted = 0
		return 0
	case padding:
		d.counts.Padding++
		if d.hunted == 0 {
			return 0
		}
	case badType:
		d.counts.BadType++
	case badLength:
		d.counts.BadLength++
	case badChecksum:
		d.counts.BadChecksum++
	}
	if d.hunted == 0 {
		d.counts.Resyncs++
	}
	d.hunted = min(d.hunted+1, maxHunt)
	return 0
}

// finish delivers a message that is complete.
func (d *Decoder) finish(b []byte, deliver func(Message)) {
	h := header(b)
	d.counts.Messages++
	if h.mismatched() {
		d.counts.Mismatched++
	}
	end := HeaderSize + h.length()
	deliver(Message{Type: h.typ(), Args: h.args(), Payload: b[HeaderSize:end:end]})
}

// Reset forgets what it has of a message and takes the next word for a header:
// the chip was reset, or somebody else has read from the FIFO.
func (d *Decoder) Reset() {
	if d.n > 0 {
		d.counts.Unfinished++
	}
	d.n, d.need, d.hunted = 0, 0, 0
}

// Counts returns the counters. Reset keeps them.
func (d *Decoder) Counts() Counts { return d.counts }
