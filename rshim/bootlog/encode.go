// SPDX-License-Identifier: Apache-2.0

package bootlog

import "encoding/binary"

// MaxEncodedText is the most bytes of text that one entry can hold.
const MaxEncodedText = 8 * maxWords

// EncodeMessage returns a message as the DPU's firmware writes it. The first
// of arg, if any, is what a conversion in text stands for. Text beyond
// MaxEncodedText is cut off.
func EncodeMessage(m Module, l Level, text string, arg ...uint32) []uint64 {
	b := []byte(text[:min(len(text), MaxEncodedText)])
	for len(b) == 0 || len(b)%8 != 0 {
		b = append(b, 0)
	}
	h := newHeader(m, Message, len(b)/8) | header(l)
	if len(arg) > 0 {
		h |= 1<<8 | header(arg[0])<<16
	}
	words := []uint64{uint64(h)}
	for ; len(b) > 0; b = b[8:] {
		words = append(words, binary.LittleEndian.Uint64(b))
	}
	return words
}

// EncodePanic returns a panic at pc. Registers beyond the 63 that fit are
// left out.
func EncodePanic(m Module, pc uint32, regs ...Register) []uint64 {
	return encodeCrash(m, Panic, pc, regs)
}

// EncodeException returns an exception with that syndrome. Registers beyond
// the 63 that fit are left out.
func EncodeException(m Module, syndrome uint32, regs ...Register) []uint64 {
	return encodeCrash(m, Exception, syndrome, regs)
}

func encodeCrash(m Module, t Type, code uint32, regs []Register) []uint64 {
	regs = regs[:min(len(regs), maxWords/2)]
	words := []uint64{uint64(newHeader(m, t, 2*len(regs)) | header(code))}
	for _, r := range regs {
		words = append(words, r.instruction(), r.Value)
	}
	return words
}
