// SPDX-License-Identifier: Apache-2.0

package bootlog

// header is the first word of an entry:
//
//	[63:60] module   [59:56] type   [54:48] words that follow
//	[47:16] argument of a message   [15:8] it has one   [7:0] level
//	[31:0]  code of a panic or exception
type header uint64

func newHeader(m Module, t Type, words int) header {
	return header(m&0xf)<<60 | header(t&0xf)<<56 | header(words&maxWords)<<48
}

// maxWords is the most that the length field can say.
const maxWords = 0x7f

func (h header) typ() Type    { return Type(h >> 56 & 0xf) }
func (h header) length() int  { return int(h >> 48 & maxWords) }
func (h header) arg() uint32  { return uint32(h >> 16) }
func (h header) hasArg() bool { return h>>8&0xff != 0 }

func (h header) module() Module {
	m := Module(h >> 60)
	if int(m) >= len(modules) {
		return MISC
	}
	return m
}

func (h header) level() Level {
	l := Level(h)
	if int(l) >= len(levels) {
		return Info
	}
	return l
}
