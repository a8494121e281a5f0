// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"math"
	"strconv"
	"unicode/utf8"
)

// object writes a JSON object, field by field. encoding/json would be a tenth
// of the binary's code. The names of fields are an interface.
type object struct{ b []byte }

// jsoner has something to say in JSON.
type jsoner interface{ json(o *object) }

// open and end begin and end an object.
func (o *object) open() { o.b = append(o.b, '{') }
func (o *object) end()  { o.b = append(o.b, '}') }

func (o *object) name(name string) {
	if c := o.b[len(o.b)-1]; c != '{' {
		o.b = append(o.b, ',')
	}
	o.b = append(appendJSON(o.b, name), ':')
}

//go:noinline
func (o *object) text(name, v string) {
	o.name(name)
	o.b = appendJSON(o.b, v)
}

// some is text, unless it is empty.
//
//go:noinline
func (o *object) some(name, v string) {
	if v != "" {
		o.text(name, v)
	}
}

func (o *object) int(name string, v int64) {
	o.name(name)
	o.b = strconv.AppendInt(o.b, v, 10)
}

// count is int, unless it is 0.
func (o *object) count(name string, v int64) {
	if v != 0 {
		o.int(name, v)
	}
}

func (o *object) float(name string, v float64) {
	o.name(name)
	if math.IsNaN(v) || math.IsInf(v, 0) {
		v = 0
	}
	o.b = strconv.AppendFloat(o.b, v, 'f', -1, 64)
}

func (o *object) bool(name string, v bool) {
	o.name(name)
	o.b = strconv.AppendBool(o.b, v)
}

func (o *object) object(name string, x jsoner) {
	o.name(name)
	o.open()
	x.json(o)
	o.end()
}

// fields is a jsoner made of a function.
type fields func(o *object)

func (f fields) json(o *object) { f(o) }

// toJSON is x in one line, without its end.
func toJSON(x jsoner) []byte {
	var o object
	o.open()
	x.json(&o)
	o.end()
	return o.b
}

// printJSON prints x as one line.
func printJSON(w io.Writer, x jsoner) error {
	_, err := w.Write(append(toJSON(x), '\n'))
	return err
}

// printList prints an array, an element a line.
func printList[T jsoner](w io.Writer, list []T) error {
	b := []byte{'['}
	for i, x := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(b, "\n  "...), toJSON(x)...)
	}
	if len(list) > 0 {
		b = append(b, '\n')
	}
	_, err := w.Write(append(b, "]\n"...))
	return err
}

// appendJSON appends a string. What is no UTF-8 becomes U+FFFD.
func appendJSON(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\n':
			b = append(b, `\n`...)
		case r == '\t':
			b = append(b, `\t`...)
		case r < ' ' || r == 0x7f:
			b = append(b, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}
