// SPDX-License-Identifier: Apache-2.0

package hostaccess

import (
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// Limits of an answer.
const (
	maxDepth  = 8
	maxFields = 256
)

var errJSON = errors.New("not the JSON of ncsi-oem")

// parseJSON takes an object apart, and nothing beside it: "a.b" is the field b
// of the object a, "a.0" the first element of the list a. Strings are without
// quotes, other values as they stand. It is a tenth of what encoding/json's
// decoder adds to the binary.
func parseJSON(b []byte) (map[string]string, error) {
	d := &decoder{b: b, fields: make(map[string]string)}
	d.space()
	if d.peek() != '{' {
		return nil, d.wrong("no object")
	}
	if err := d.value("", 0); err != nil {
		return nil, err
	}
	d.space()
	if d.i < len(b) {
		return nil, d.wrong("more than an object")
	}
	return d.fields, nil
}

type decoder struct {
	b      []byte
	i      int
	fields map[string]string
}

func (d *decoder) wrong(what string) error {
	return fmt.Errorf("%w: %s at byte %d", errJSON, what, d.i)
}

// peek is the byte at hand, 0 at the end.
func (d *decoder) peek() byte {
	if d.i < len(d.b) {
		return d.b[d.i]
	}
	return 0
}

func (d *decoder) space() {
	for d.i < len(d.b) && (d.b[d.i] == ' ' || d.b[d.i] == '\n' || d.b[d.i] == '\t' || d.b[d.i] == '\r') {
		d.i++
	}
}

// take takes a byte, if it is there.
func (d *decoder) take(c byte) bool {
	if d.peek() != c || d.i == len(d.b) {
		return false
	}
	d.i++
	return true
}

// value takes a value of any kind.
func (d *decoder) value(path string, depth int) error {
	if depth > maxDepth {
		return d.wrong("too deep")
	}
	switch c := d.peek(); {
	case d.take('{'):
		return d.members(path, '}', depth, func(int) (string, error) {
			name, err := d.str()
			if err != nil {
				return "", err
			}
			if d.space(); !d.take(':') {
				return "", d.wrong("no colon")
			}
			d.space()
			return name, nil
		})
	case d.take('['):
		return d.members(path, ']', depth, func(n int) (string, error) { return strconv.Itoa(n), nil })
	case c == '"':
		s, err := d.str()
		if err != nil {
			return err
		}
		return d.put(path, s)
	}
	start := d.i
	for d.i < len(d.b) && isPlain(d.b[d.i]) {
		d.i++
	}
	word := string(d.b[start:d.i])
	if word != "true" && word != "false" && word != "null" {
		if _, err := strconv.ParseFloat(word, 64); err != nil || word[0] != '-' && (word[0] < '0' || word[0] > '9') {
			d.i = start
			return d.wrong("no value")
		}
	}
	return d.put(path, word)
}

// members takes what is in an object or a list, after its opening bracket.
func (d *decoder) members(path string, end byte, depth int, name func(n int) (string, error)) error {
	if d.space(); d.take(end) {
		return nil
	}
	for n := 0; ; n++ {
		d.space()
		field, err := name(n)
		if err != nil {
			return err
		}
		if path != "" {
			field = path + "." + field
		}
		if err := d.value(field, depth+1); err != nil {
			return err
		}
		d.space()
		switch {
		case d.take(end):
			return nil
		case !d.take(','):
			return d.wrong("no comma")
		}
	}
}

func (d *decoder) put(path, value string) error {
	if _, twice := d.fields[path]; twice {
		return d.wrong(strconv.Quote(path) + " twice")
	}
	if len(d.fields) == maxFields {
		return d.wrong("too many fields")
	}
	d.fields[path] = value
	return nil
}

// str takes a string.
func (d *decoder) str() (string, error) {
	if !d.take('"') {
		return "", d.wrong("no string")
	}
	var s []byte
	for d.i < len(d.b) {
		c := d.b[d.i]
		d.i++
		switch {
		case c == '"':
			if !utf8.Valid(s) {
				return "", d.wrong("not UTF-8")
			}
			return string(s), nil
		case c < ' ':
			return "", d.wrong("a control character")
		case c != '\\':
			s = append(s, c)
			continue
		}
		r, err := d.escape()
		if err != nil {
			return "", err
		}
		s = utf8.AppendRune(s, r)
	}
	return "", d.wrong("no end of a string")
}

// escape takes what follows a backslash. Halves of surrogate pairs, of which
// ncsi-oem has none to print, become U+FFFD.
func (d *decoder) escape() (rune, error) {
	c := d.peek()
	d.i++
	switch c {
	case '"', '\\', '/':
		return rune(c), nil
	case 'b':
		return '\b', nil
	case 'f':
		return '\f', nil
	case 'n':
		return '\n', nil
	case 'r':
		return '\r', nil
	case 't':
		return '\t', nil
	case 'u':
		if d.i+4 <= len(d.b) {
			n, err := strconv.ParseUint(string(d.b[d.i:d.i+4]), 16, 16)
			if err == nil {
				d.i += 4
				return rune(n), nil
			}
		}
	}
	return 0, d.wrong("no escape")
}

func isPlain(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '+' || c == '.' || c == 'E'
}
