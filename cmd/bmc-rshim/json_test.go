// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestJSON(t *testing.T) {
	got := toJSON(fields(func(o *object) {
		o.text("a", "x\"\\\n\t\x01\x7f<é>")
		o.some("none", "")
		o.some("some", "s")
		o.count("zero", 0)
		o.int("n", -7)
		o.float("f", 0.125)
		o.float("nan", math.NaN())
		o.bool("b", true)
		o.object("o", fields(func(o *object) {}))
		o.object("p", fields(func(o *object) { o.int("q", 1) }))
	}))
	const want = `{"a":"x\"\\\n\t\u0001\u007f<é>","some":"s","n":-7,"f":0.125,"nan":0,"b":true,"o":{},"p":{"q":1}}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	var b strings.Builder
	_ = printList(&b, []fields{})
	_ = printList(&b, []fields{func(o *object) {}, func(o *object) { o.int("a", 1) }})
	if b.String() != "[]\n[\n  {},\n  {\"a\":1}\n]\n" {
		t.Errorf("lists: %q", b.String())
	}
}

// Whatever the text, encoding/json reads it back.
func FuzzJSONText(f *testing.F) {
	f.Add("a", "\x00\"\\\xff\u2028")
	f.Fuzz(func(t *testing.T, name, value string) {
		var got map[string]string
		b := toJSON(fields(func(o *object) { o.text(name, value) }))
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		if utf8.ValidString(name) && utf8.ValidString(value) && !reflect.DeepEqual(got, map[string]string{name: value}) {
			t.Fatalf("%s", b)
		}
	})
}
