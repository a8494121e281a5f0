// SPDX-License-Identifier: Apache-2.0

package tmfifo

import "encoding/binary"

// header is the first word of a message, or a word that could be.
type header [HeaderSize]byte

func (h header) typ() Type     { return Type(h[0]) }
func (h header) length() int   { return int(binary.BigEndian.Uint16(h[1:])) }
func (h header) args() [4]byte { return [4]byte(h[3:7]) }

// sum adds up all bytes. It is 0 when the checksum is right.
func (h header) sum() (s byte) {
	for _, b := range h {
		s += b
	}
	return s
}

// mismatched reports a checksum that is there and wrong.
func (h header) mismatched() bool { return h[7] != 0 && h.sum() != 0 }

// sure reports a header of console or network that hardly is payload: it has a
// checksum, and the right one, or nothing at all where Linux, UEFI and the
// boot loaders have nothing to say.
func (h header) sure() bool {
	if h[7] != 0 {
		return h.sum() == 0
	}
	return h.args() == [4]byte{}
}

// verdict is what the Decoder makes of a word in the place of a header.
type verdict int

const (
	message verdict = iota
	filler
	padding
	badType
	badLength
	badChecksum
)

// judge looks at a word in the place of a header. The daemon and the drivers
// differ in what they let pass, and this side takes the narrowest that all
// known senders keep to, to find back into step soon:
//
//   - An unknown type is no message, whatever its length says. (The DPU's
//     driver takes it for console, the C daemon drops all that it has read.)
//   - Control messages have no payload, and a wrong checksum makes them void;
//     out of step, having none does too: the padded end of a payload can look
//     like that.
//   - Linux does not clear the last five bytes of its headers, so that a wrong
//     checksum of console or network means nothing as long as the stream is in
//     step. When it is not, they must be sure.
//   - Fillers come from those who clear their headers: they are always sure.
func judge(h header, inStep bool) verdict {
	n := h.length()
	shortest, longest := 1, 0
	switch t := h.typ(); {
	case h == header{}:
		return padding
	case t.Control():
		switch {
		case n != 0:
			return badLength
		case h.mismatched(), !inStep && h[7] == 0:
			return badChecksum
		}
		return message
	case t == Net:
		shortest, longest = MinFrame, MaxFrame
	case t == Console:
		longest = MaxConsole
	default:
		return badType
	}
	switch {
	case n == 0 && h.sure():
		return filler
	case n == 0:
		return badChecksum
	case n < shortest || n > longest:
		return badLength
	case !inStep && !h.sure():
		return badChecksum
	}
	return message
}
