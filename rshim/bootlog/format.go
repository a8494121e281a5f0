// SPDX-License-Identifier: Apache-2.0

package bootlog

import "strconv"

// maxField bounds the width and the precision that a message may ask for.
const maxField = 64

// format puts arg into the first conversion of a printf-like text. It knows
// %d %i %u %x %X %o %c %p with flags, width, precision and the length
// modifiers h, l and z, and %%. Everything else, such as %s, %n, a width of *
// or one above maxField, and all conversions after the first, stays as it is
// written: it would be for an argument that is not there.
//
// The argument has 32 bits. Signed conversions take bit 31 as the sign, also
// with an l, which is what the firmware means by it.
func format(text []byte, arg uint32) []byte {
	out := make([]byte, 0, len(text)+maxField)
	used := false
	for i := 0; i < len(text); i++ {
		if text[i] != '%' || i+1 == len(text) {
			out = append(out, text[i])
			continue
		}
		if text[i+1] == '%' {
			out = append(out, '%')
			i++
			continue
		}
		c, n := parseConversion(text[i+1:])
		if n == 0 || used {
			used = true
			out = append(out, '%')
			continue
		}
		used = true
		out = c.append(out, arg)
		i += n
	}
	return out
}

// conversion is a conversion specification of printf.
type conversion struct {
	verb                          byte
	minus, plus, space, zero, alt bool
	half                          int // number of h
	width, precision              int // precision -1: none
}

// parseConversion reads what follows a '%'. It returns the bytes it took, or 0
// if that is nothing this package converts.
func parseConversion(s []byte) (c conversion, n int) {
	at := func() byte {
		if n < len(s) {
			return s[n]
		}
		return 0
	}
flags:
	for ; ; n++ {
		switch at() {
		case '-':
			c.minus = true
		case '+':
			c.plus = true
		case ' ':
			c.space = true
		case '0':
			c.zero = true
		case '#':
			c.alt = true
		default:
			break flags
		}
	}
	number := func() (v int) {
		for ; '0' <= at() && at() <= '9'; n++ {
			v = min(v*10+int(at()-'0'), maxField+1)
		}
		return v
	}
	c.width, c.precision = number(), -1
	if at() == '.' {
		n++
		c.precision = number()
	}
	for ; at() == 'h' || at() == 'l' || at() == 'z'; n++ {
		if at() == 'h' {
			c.half++
		}
	}
	c.verb = at()
	switch c.verb {
	case 'd', 'i', 'u', 'x', 'X', 'o', 'c', 'p':
		if c.width <= maxField && c.precision <= maxField {
			return c, n + 1
		}
	}
	return c, 0
}

// append converts arg as C's printf does.
func (c conversion) append(b []byte, arg uint32) []byte {
	var prefix string
	var digits []byte
	switch c.verb {
	case 'c':
		c.zero = false
		digits = []byte{byte(arg)}
	case 'd', 'i':
		v := int64(int32(arg))
		switch {
		case c.half == 1:
			v = int64(int16(arg))
		case c.half > 1:
			v = int64(int8(arg))
		}
		switch {
		case v < 0:
			prefix, v = "-", -v
		case c.plus:
			prefix = "+"
		case c.space:
			prefix = " "
		}
		digits = c.digits(uint64(v), 10)
	default:
		switch {
		case c.half == 1:
			arg = uint32(uint16(arg))
		case c.half > 1:
			arg = uint32(uint8(arg))
		}
		prefix, digits = c.unsigned(uint64(arg))
	}

	fill := max(0, c.width-len(prefix)-len(digits))
	if !c.minus && (!c.zero || c.precision >= 0) {
		b = pad(b, ' ', fill)
	}
	b = append(b, prefix...)
	if !c.minus && c.zero && c.precision < 0 {
		b = pad(b, '0', fill)
	}
	b = append(b, digits...)
	if c.minus {
		b = pad(b, ' ', fill)
	}
	return b
}

func (c conversion) unsigned(v uint64) (prefix string, digits []byte) {
	switch c.verb {
	case 'u':
		return "", c.digits(v, 10)
	case 'o':
		if digits = c.digits(v, 8); c.alt && (len(digits) == 0 || digits[0] != '0') {
			prefix = "0"
		}
		return prefix, digits
	}
	if c.verb == 'p' || c.alt && v != 0 {
		prefix = "0x"
		if c.verb == 'X' {
			prefix = "0X"
		}
	}
	return prefix, c.digits(v, 16)
}

// digits writes v with at least as many digits as the precision asks for; it
// writes none for a 0 with a precision of 0.
func (c conversion) digits(v uint64, base int) []byte {
	if v == 0 && c.precision == 0 {
		return nil
	}
	d := strconv.AppendUint(nil, v, base)
	if c.verb == 'X' {
		for i, ch := range d {
			if ch >= 'a' {
				d[i] = ch - 'a' + 'A'
			}
		}
	}
	return append(pad(nil, '0', c.precision-len(d)), d...)
}

func pad(b []byte, ch byte, n int) []byte {
	for ; n > 0; n-- {
		b = append(b, ch)
	}
	return b
}
