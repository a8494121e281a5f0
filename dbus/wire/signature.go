// SPDX-License-Identifier: Apache-2.0

package wire

// Valid reports what is wrong with a signature of no, one or several types.
func (s Signature) Valid() error {
	if len(s) > maxSigBytes {
		return invalid("signature of %d bytes", len(s))
	}
	for rest := string(s); rest != ""; {
		n := typeLen(rest, 0, 0)
		if n == 0 {
			return invalid("signature %q", string(s))
		}
		rest = rest[n:]
	}
	return nil
}

// Single reports whether the signature is that of exactly one complete type.
func (s Signature) Single() bool {
	return s != "" && len(s) <= maxSigBytes && typeLen(string(s), 0, 0) == len(s)
}

// Types returns the complete types of a valid signature, one after the other.
func (s Signature) Types() []Signature {
	var types []Signature
	for s != "" {
		n := typeLen(string(s), 0, 0)
		if n == 0 {
			return nil
		}
		types = append(types, s[:n])
		s = s[n:]
	}
	return types
}

// typeLen returns the length of the complete type at the beginning of s,
// inside of that many arrays and structs, or 0 if it is none.
func typeLen(s string, arrays, structs int) int {
	if s == "" || arrays > maxDepth || structs > maxDepth {
		return 0
	}
	switch s[0] {
	case 'a':
		if len(s) > 1 && s[1] == '{' {
			return dictLen(s, arrays+1, structs)
		}
		if n := typeLen(s[1:], arrays+1, structs); n > 0 {
			return 1 + n
		}
	case '(':
		for i := 1; i < len(s); {
			if s[i] == ')' && i > 1 {
				return i + 1
			}
			n := typeLen(s[i:], arrays, structs+1)
			if n == 0 {
				return 0
			}
			i += n
		}
	case 'v':
		return 1
	default:
		if basic(s[0]) {
			return 1
		}
	}
	return 0
}

// dictLen is typeLen of what begins with "a{". A dict entry does not count as a struct.
func dictLen(s string, arrays, structs int) int {
	if len(s) < 5 || !basic(s[2]) {
		return 0
	}
	n := typeLen(s[3:], arrays, structs)
	if n == 0 || 3+n >= len(s) || s[3+n] != '}' {
		return 0
	}
	return 3 + n + 1
}

// basic reports whether c is a type that may be the key of a dict.
func basic(c byte) bool {
	switch c {
	case 'y', 'b', 'n', 'q', 'i', 'u', 'x', 't', 'd', 's', 'o', 'g', 'h':
		return true
	}
	return false
}

// alignment returns what values of a type that begins with c are aligned to.
func alignment(c byte) int {
	switch c {
	case 'n', 'q':
		return 2
	case 'b', 'i', 'u', 'h', 's', 'o', 'a':
		return 4
	case 'x', 't', 'd', '(', '{':
		return 8
	}
	return 1
}

// SignatureOf returns the signature of values. The error names the one that is
// of none of this package's types.
func SignatureOf(values ...any) (Signature, error) {
	var b []byte
	for _, v := range values {
		var err error
		if b, err = appendType(b, v, 0); err != nil {
			return "", err
		}
	}
	return Signature(b), nil
}

func appendType(b []byte, v any, depth int) ([]byte, error) {
	if depth > maxDepth {
		return b, invalid("structs too deep")
	}
	switch v := v.(type) {
	case Array:
		return append(append(b, 'a'), v.Elem...), nil
	case Dict:
		b = append(append(b, 'a', '{'), v.Key...)
		return append(append(b, v.Elem...), '}'), nil
	case Struct:
		b = append(b, '(')
		for _, f := range v {
			var err error
			if b, err = appendType(b, f, depth+1); err != nil {
				return b, err
			}
		}
		return append(b, ')'), nil
	case []byte:
		return append(b, 'a', 'y'), nil
	case []string:
		return append(b, 'a', 's'), nil
	}
	c := code(v)
	if c == 0 {
		return b, invalid("%T is no D-Bus type", v)
	}
	return append(b, c), nil
}

// code returns the type of a value that is neither array nor struct, or 0.
func code(v any) byte {
	switch v.(type) {
	case byte:
		return 'y'
	case bool:
		return 'b'
	case int16:
		return 'n'
	case uint16:
		return 'q'
	case int32:
		return 'i'
	case uint32:
		return 'u'
	case int64:
		return 'x'
	case uint64:
		return 't'
	case float64:
		return 'd'
	case string:
		return 's'
	case ObjectPath:
		return 'o'
	case Signature:
		return 'g'
	case FD:
		return 'h'
	case Variant:
		return 'v'
	}
	return 0
}

// Is reports whether v is of the one complete type s.
func (s Signature) Is(v any) bool {
	var room [64]byte
	b, err := appendType(room[:0], v, 0)
	return err == nil && string(b) == string(s) && s.Single()
}
