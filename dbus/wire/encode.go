// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"math"
)

// encoder appends values to b. Offsets, to which values are aligned, count from start.
type encoder struct {
	Order
	b     []byte
	start int
	depth int // containers that are open
}

func (e *encoder) align(n int) {
	for (len(e.b)-e.start)%n != 0 {
		e.b = append(e.b, 0)
	}
}

func (e *encoder) u32(v uint32) {
	e.align(4)
	e.b = e.AppendUint32(e.b, v)
}

func (e *encoder) str(s string) error {
	if !ValidString(s) {
		return invalid("string is not UTF-8, or has a NUL")
	}
	if len(s) > MaxMessage {
		return beyond("string of %d bytes", len(s))
	}
	e.u32(uint32(len(s)))
	e.b = append(append(e.b, s...), 0)
	return nil
}

func (e *encoder) sig(s Signature) error {
	if err := s.Valid(); err != nil {
		return err
	}
	e.b = append(e.b, byte(len(s)))
	e.b = append(append(e.b, s...), 0)
	return nil
}

func (e *encoder) value(v any) error {
	switch v := v.(type) {
	case byte:
		e.b = append(e.b, v)
	case bool:
		var n uint32
		if v {
			n = 1
		}
		e.u32(n)
	case int16:
		e.align(2)
		e.b = e.AppendUint16(e.b, uint16(v))
	case uint16:
		e.align(2)
		e.b = e.AppendUint16(e.b, v)
	case int32:
		e.u32(uint32(v))
	case uint32:
		e.u32(v)
	case FD:
		e.u32(uint32(v))
	case int64:
		e.align(8)
		e.b = e.AppendUint64(e.b, uint64(v))
	case uint64:
		e.align(8)
		e.b = e.AppendUint64(e.b, v)
	case float64:
		e.align(8)
		e.b = e.AppendUint64(e.b, math.Float64bits(v))
	case string:
		return e.str(v)
	case ObjectPath:
		if !v.Valid() {
			return invalid("object path %.300q", string(v))
		}
		return e.str(string(v))
	case Signature:
		return e.sig(v)
	default:
		return e.container(v)
	}
	return nil
}

func (e *encoder) container(v any) error {
	if e.depth++; e.depth > maxNesting {
		return invalid("more than %d containers in each other", maxNesting)
	}
	defer func() { e.depth-- }()
	switch v := v.(type) {
	case Variant:
		s, err := SignatureOf(v.Value)
		if err != nil {
			return err
		}
		if err := e.sig(s); err != nil {
			return err
		}
		return e.value(v.Value)
	case Struct:
		if len(v) == 0 {
			return invalid("struct without fields")
		}
		e.align(8)
		for _, f := range v {
			if err := e.value(f); err != nil {
				return err
			}
		}
		return nil
	case []byte:
		return e.array('y', func() error {
			e.b = append(e.b, v...)
			return nil
		})
	case []string:
		return e.array('s', func() error {
			for _, s := range v {
				if err := e.str(s); err != nil {
					return err
				}
			}
			return nil
		})
	case Array:
		if !v.Elem.Single() {
			return invalid("array of %.300q", string(v.Elem))
		}
		return e.array(v.Elem[0], func() error {
			for _, item := range v.Items {
				if err := e.typed(v.Elem, item); err != nil {
					return err
				}
			}
			return nil
		})
	case Dict:
		if len(v.Key) != 1 || !basic(v.Key[0]) || !v.Elem.Single() {
			return invalid("dict of %.300q and %.300q", string(v.Key), string(v.Elem))
		}
		return e.array('{', func() error {
			// An entry is a container in the array, which is one.
			if e.depth++; e.depth > maxNesting {
				return invalid("more than %d containers in each other", maxNesting)
			}
			defer func() { e.depth-- }()
			for _, entry := range v.Entries {
				e.align(8)
				if err := e.typed(v.Key, entry.Key); err != nil {
					return err
				}
				if err := e.typed(v.Elem, entry.Value); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return invalid("%T is no D-Bus type", v)
}

func (e *encoder) typed(s Signature, v any) error {
	if !s.Is(v) {
		return invalid("%T in a container of %s", v, s)
	}
	return e.value(v)
}

// array appends length and elements, of a type that begins with c. The padding in front of
// the first does not count.
func (e *encoder) array(c byte, elements func() error) error {
	e.u32(0)
	at := len(e.b) - 4
	e.align(alignment(c))
	first := len(e.b)
	if err := elements(); err != nil {
		return err
	}
	n := len(e.b) - first
	if n > MaxArray {
		return beyond("array of %d bytes", n)
	}
	e.PutUint32(e.b[at:], uint32(n))
	return nil
}

// Equal reports whether two values are the same and of the same type. Those that
// cannot be sent are equal to none.
func Equal(a, b any) bool {
	s, err := SignatureOf(a)
	if err != nil || !s.Is(b) {
		return false
	}
	x, y := encoder{Order: littleEndian}, encoder{Order: littleEndian}
	return x.value(a) == nil && y.value(b) == nil && bytes.Equal(x.b, y.b)
}

// Check reports why v could not be sent as a value of the one complete type s.
func Check(s Signature, v any) error {
	e := encoder{Order: littleEndian}
	return e.typed(s, v)
}
