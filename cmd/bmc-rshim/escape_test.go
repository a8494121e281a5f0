// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"testing"
)

// What is typed has the same effect in whatever pieces it comes. Escapes stand
// in brackets in what is wanted.
func TestEscapes(t *testing.T) {
	for _, c := range []struct{ escape, typed, want string }{
		{"~", "", ""},
		{"~", "ls -l\r", "ls -l\r"},
		{"~", "~.", "[.]"},
		{"~", "~", "~"}, // the input's end
		{"~", "~~", "~"},
		{"~", "~~.", "~."}, // for an ssh within
		{"~", "~~~.", "~~."},
		{"~", "~x", "~x"},
		{"~", "~\r~.", "~\r[.]"},
		{"~", "a~.", "a~."},
		{"~", "a\r~.b", "a\r[.]b"},
		{"~", "a\n~.", "a\n[.]"},
		{"~", "~?~B~.", "[?][B][.]"}, // which send nothing
		{"~", "cd ~\r~b", "cd ~\r~b"},
		{"~", "\x03~.", "\x03~."},
		{"none", "~.\r~.\n~?", "~.\r~.\n~?"},
		{"^]", "\x1d.~.", "[.]~."},
		{"^]", "\x1d\x1d", "\x1d"},
		{"%", "~.\r%.", "~.\r[.]"},
	} {
		for size := 1; size <= len(c.typed)+1; size++ {
			e, err := parseEscape(c.escape)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			for left := []byte(c.typed); len(left) > 0; {
				p := left[:min(size, len(left))]
				left = left[len(p):]
				for len(p) > 0 {
					send, escape, rest := e.next(p)
					got += string(send)
					if escape != 0 {
						got += fmt.Sprintf("[%c]", escape)
					}
					p = rest
				}
			}
			if got += string(e.last()); got != c.want {
				t.Errorf("-escape %s: %q in pieces of %d: %q, want %q", c.escape, c.typed, size, got, c.want)
			}
		}
	}
}

func TestParseEscape(t *testing.T) {
	for s, want := range map[string]byte{"~": '~', "^]": 0x1d, "^a": 1, "^A": 1, "^": '^', "^^": 0x1e, "none": 0} {
		if e, err := parseEscape(s); err != nil || e.char != want {
			t.Errorf("%q: %#x, %v; want %#x", s, e.char, err, want)
		}
	}
	for _, s := range []string{"", "ab", "^é", "é", "NONE", ".", "?", "B", "\r", "\n", "^M", "^j", "^@", "^?", "\x00", "\x80", "^~~"} {
		if e, err := parseEscape(s); err == nil {
			t.Errorf("%q: taken as %#x", s, e.char)
		}
	}
	e, _ := parseEscape("^]")
	if h := e.help(); !strings.Contains(h, "  ^].  end\n") {
		t.Errorf("help: %s", h)
	}
}
