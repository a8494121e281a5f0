// SPDX-License-Identifier: Apache-2.0

package wire

import "math"

// decoder reads values off b. Offsets, to which values are aligned, count from its beginning.
type decoder struct {
	Order
	b      []byte
	pos    int
	depth  int // containers that are open
	values int // that may still come
}

// take returns the next n bytes, aligned.
func (d *decoder) take(align, n int) ([]byte, error) {
	for ; d.pos%align != 0; d.pos++ {
		if d.pos < len(d.b) && d.b[d.pos] != 0 {
			return nil, invalid("padding is not zero")
		}
	}
	if d.pos > len(d.b) || n > len(d.b)-d.pos {
		return nil, invalid("ends in the middle of a value")
	}
	p := d.b[d.pos : d.pos+n]
	d.pos += n
	return p, nil
}

func (d *decoder) u32() (uint32, error) {
	p, err := d.take(4, 4)
	if err != nil {
		return 0, err
	}
	return d.Uint32(p), nil
}

// text returns n bytes, of which the NUL behind them is not one.
func (d *decoder) text(n uint32) (string, error) {
	if n >= uint32(len(d.b)) {
		return "", invalid("string of %d bytes", n)
	}
	p, err := d.take(1, int(n)+1)
	if err != nil {
		return "", err
	}
	if p[n] != 0 {
		return "", invalid("string without a NUL at its end")
	}
	return string(p[:n]), nil
}

func (d *decoder) str() (string, error) {
	n, err := d.u32()
	if err != nil {
		return "", err
	}
	s, err := d.text(n)
	if err == nil && !ValidString(s) {
		err = invalid("string is not UTF-8, or has a NUL")
	}
	return s, err
}

func (d *decoder) sig() (Signature, error) {
	p, err := d.take(1, 1)
	if err != nil {
		return "", err
	}
	s, err := d.text(uint32(p[0]))
	if err != nil {
		return "", err
	}
	return Signature(s), Signature(s).Valid()
}

// value reads a value of type s, which is one complete and valid type.
func (d *decoder) value(s string) (any, error) {
	if d.values--; d.values < 0 {
		return nil, beyond("more than %d values", MaxValues)
	}
	var size int
	switch s[0] {
	case 's':
		return d.str()
	case 'o':
		p, err := d.str()
		if err == nil && !ObjectPath(p).Valid() {
			err = invalid("object path %.300q", p)
		}
		return ObjectPath(p), err
	case 'g':
		return d.sig()
	case 'v', '(', 'a':
		return d.container(s)
	case 'y':
		size = 1
	default:
		size = alignment(s[0])
	}
	p, err := d.take(size, size)
	if err != nil {
		return nil, err
	}
	switch s[0] {
	case 'y':
		return p[0], nil
	case 'b':
		n := d.Uint32(p)
		if n > 1 {
			return nil, invalid("boolean %d", n)
		}
		return n == 1, nil
	case 'n':
		return int16(d.Uint16(p)), nil
	case 'q':
		return d.Uint16(p), nil
	case 'i':
		return int32(d.Uint32(p)), nil
	case 'u':
		return d.Uint32(p), nil
	case 'h':
		return FD(d.Uint32(p)), nil
	case 'x':
		return int64(d.Uint64(p)), nil
	case 't':
		return d.Uint64(p), nil
	case 'd':
		return math.Float64frombits(d.Uint64(p)), nil
	}
	return nil, invalid("type %q", s)
}

func (d *decoder) container(s string) (any, error) {
	if d.depth++; d.depth > maxNesting {
		return nil, invalid("more than %d containers in each other", maxNesting)
	}
	defer func() { d.depth-- }()
	switch s[0] {
	case 'v':
		inner, err := d.sig()
		if err != nil {
			return nil, err
		}
		if !inner.Single() {
			return nil, invalid("variant of %q", string(inner))
		}
		v, err := d.value(string(inner))
		return Variant{v}, err
	case '(':
		if _, err := d.take(8, 0); err != nil {
			return nil, err
		}
		var fields Struct
		for rest := s[1 : len(s)-1]; rest != ""; {
			n := typeLen(rest, 0, 0)
			f, err := d.value(rest[:n])
			if err != nil {
				return nil, err
			}
			fields = append(fields, f)
			rest = rest[n:]
		}
		return fields, nil
	}
	return d.array(s)
}

// array reads an array of type s.
func (d *decoder) array(s string) (any, error) {
	n, err := d.u32()
	if err != nil {
		return nil, err
	}
	if _, err := d.take(alignment(s[1]), 0); err != nil {
		return nil, err
	}
	if int64(n) > int64(len(d.b)-d.pos) {
		return nil, invalid("array of %d bytes, of which there are %d", n, len(d.b)-d.pos)
	}
	if n > MaxArray {
		return nil, beyond("array of %d bytes", n)
	}
	end := d.pos + int(n)
	var v any
	switch s[1] {
	case 'y':
		v = append(make([]byte, 0, n), d.b[d.pos:end]...)
		d.pos = end
	case 's':
		v, err = d.strings(end)
	case '{':
		v, err = d.dict(s[2:3], s[3:len(s)-1], end)
	default:
		a := Array{Elem: Signature(s[1:])}
		for d.pos < end && err == nil {
			var item any
			item, err = d.value(s[1:])
			a.Items = append(a.Items, item)
		}
		v = a
	}
	if err == nil && d.pos != end {
		err = invalid("elements of an array go beyond its end")
	}
	return v, err
}

func (d *decoder) strings(end int) ([]string, error) {
	a := []string{}
	for d.pos < end {
		v, err := d.value("s")
		if err != nil {
			return nil, err
		}
		a = append(a, v.(string))
	}
	return a, nil
}

func (d *decoder) dict(key, elem string, end int) (Dict, error) {
	if d.depth++; d.depth > maxNesting {
		return Dict{}, invalid("more than %d containers in each other", maxNesting)
	}
	defer func() { d.depth-- }()
	v := Dict{Key: Signature(key), Elem: Signature(elem)}
	for d.pos < end {
		if _, err := d.take(8, 0); err != nil {
			return v, err
		}
		k, err := d.value(key)
		if err != nil {
			return v, err
		}
		e, err := d.value(elem)
		if err != nil {
			return v, err
		}
		v.Entries = append(v.Entries, Entry{k, e})
	}
	return v, nil
}
