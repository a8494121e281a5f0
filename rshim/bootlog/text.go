// SPDX-License-Identifier: Apache-2.0

package bootlog

import (
	"bytes"
	"encoding/binary"
	"strconv"
	"unicode/utf8"
)

// MaxText is the most bytes that the text of a message can have, after its
// argument has been put in and unprintable bytes made visible. What is longer
// is cut off.
const MaxText = 1024

// messageText is the text of a message: its words are the bytes in
// little-endian order, up to the first NUL.
func messageText(h header, body []uint64) string {
	raw := make([]byte, 0, 8*len(body))
	for _, w := range body {
		raw = binary.LittleEndian.AppendUint64(raw, w)
	}
	if n := bytes.IndexByte(raw, 0); n >= 0 {
		raw = raw[:n]
	}
	if h.hasArg() {
		raw = format(raw, h.arg())
	}
	return printable(bytes.TrimRight(raw, "\r\n"))
}

// printable makes visible what is not printable UTF-8: control characters and
// stray bytes as \x1b, invisible or direction-changing characters as \u200e.
func printable(raw []byte) string {
	const hex = "0123456789abcdef"
	b := make([]byte, 0, len(raw))
	for len(raw) > 0 {
		r, size := utf8.DecodeRune(raw)
		before := len(b)
		switch {
		case r == utf8.RuneError && size == 1 || r < 0x80 && !strconv.IsPrint(r):
			b = append(b, '\\', 'x', hex[raw[0]>>4], hex[raw[0]&0xf])
		case strconv.IsPrint(r):
			b = append(b, raw[:size]...)
		default:
			b = strconv.AppendQuoteRuneToASCII(b, r)
			b = append(b[:before], b[before+1:len(b)-1]...) // without the quotes
		}
		if len(b) > MaxText {
			return string(b[:before])
		}
		raw = raw[size:]
	}
	return string(b)
}
