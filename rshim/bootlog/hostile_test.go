// SPDX-License-Identifier: Apache-2.0

package bootlog_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/bluefield-go/bmc-rshim/rshim/bootlog"
)

func message(text string, arg ...uint32) []uint64 {
	return bootlog.EncodeMessage(bootlog.BL2, bootlog.Info, text, arg...)
}

func TestR16Framing(t *testing.T) {
	const (
		msg   = 4 << 56
		panic = 1 << 56
	)
	good := message("good")
	for _, tt := range []struct {
		name     string
		words    []uint64
		entries  int
		consumed int
	}{
		{"empty", nil, 0, 0},
		{"message with LEN 0", slices.Concat([]uint64{msg}, good), 1, 3},
		{"message with LEN 0 and an argument", slices.Concat([]uint64{msg | 1<<8}, good), 1, 3},
		{"panic with LEN 0", slices.Concat([]uint64{panic}, good), 2, 3},
		{"panic with odd LEN", slices.Concat([]uint64{panic | 3<<48, 0, 0, 0}, good), 2, 6},
		{"unknown type 0", slices.Concat([]uint64{2 << 48, 1, 2}, good), 1, 5},
		{"unknown type 3", slices.Concat([]uint64{3<<56 | 1<<48, 1}, good), 1, 4},
		{"unknown type 15", slices.Concat([]uint64{15 << 56}, good), 1, 3},
		{"LEN past the end by one", slices.Concat(good, []uint64{msg | 2<<48, 1}), 1, 2},
		{"LEN past the end by all", slices.Concat(good, []uint64{msg | 127<<48}), 1, 2},
		{"unknown type past the end", slices.Concat(good, []uint64{5<<56 | 127<<48, 0}), 1, 2},
		{"bit 55 is not of LEN", slices.Concat([]uint64{5<<56 | 1<<55}, good), 1, 3},
		{"all zero", make([]uint64, 128), 0, 128},
		{"all ones", slices.Repeat([]uint64{^uint64(0)}, 128), 0, 128},
		{"bad reads", slices.Repeat([]uint64{0xbad00acce55}, 128), 0, 128},
		{"full ring", slices.Repeat(good, 64), 64, 128},
		{"full ring, wrapped in an entry", slices.Concat(slices.Repeat(good, 63), []uint64{msg | 4<<48, 0}), 63, 126},
	} {
		t.Run(tt.name, func(t *testing.T) {
			entries, n := bootlog.Decode(tt.words)
			if len(entries) != tt.entries || n != tt.consumed {
				t.Errorf("%d entries of %d words, want %d of %d", len(entries), n, tt.entries, tt.consumed)
			}
		})
	}
}

func TestR16UnknownModuleAndLevel(t *testing.T) {
	for _, header := range []uint64{0x7401_0000_0000_0004, 0xf401_0000_0000_00ff} {
		if got := lines(header, 'x'); got != " INFO[MISC]: x\n" {
			t.Errorf("%#x: got %q", header, got)
		}
	}
}

func TestR16Text(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"plain", "DPU is ready", "DPU is ready"},
		{"ends at NUL", "one\x00two", "one"},
		{"UTF-8", "Größe: 5 µs €", "Größe: 5 µs €"},
		{"not UTF-8", "a\xff\xc3b\xc3", `a\xff\xc3b\xc3`},
		{"overlong", "\xc0\xaf", `\xc0\xaf`},
		{"terminal escape", "\x1b[2Jgone\x07\x7f", `\x1b[2Jgone\x07\x7f`},
		{"C1 escape", "\u009b2J", `\u009b2J`},
		{"newline inside", "one\n INFO[MISC]: DPU is ready", `one\x0a INFO[MISC]: DPU is ready`},
		{"newline at the end", "one\r\n", "one"},
		{"tab and carriage return", "a\tb\rc", `a\x09b\x0dc`},
		{"right to left", "abc\u202edcba", `abc\u202edcba`},
		{"line separator", "a\u2028b", `a\u2028b`},
		{"invisible tag", "a\U000e0041b", `a\U000e0041b`},
		{"formats stay without an argument", "100% %s%n%d %%", "100% %s%n%d %%"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			entries, _ := bootlog.Decode(message(tt.text))
			if got := entries[0].Text; got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	entries, _ := bootlog.Decode(message(strings.Repeat("\x1b", bootlog.MaxEncodedText)))
	if got := entries[0].Text; got != strings.Repeat(`\x1b`, bootlog.MaxText/4) {
		t.Errorf("%d bytes: %.20q...", len(got), got)
	}
}

func TestR16Format(t *testing.T) {
	for _, tt := range []struct {
		text string
		arg  uint32
		want string
	}{
		{"PSC error %d", 0xffffffc4, "PSC error -60"},
		{"DDR init fail on MSS%d", 1, "DDR init fail on MSS1"},
		{"(clk_ref %d)", 53836948, "(clk_ref 53836948)"},
		{"%i|", 0x80000000, "-2147483648|"},
		{"%u|", 0xffffffff, "4294967295|"},
		{"%x %%", 0xBEEF, "beef %"},
		{"%#X", 0xBEEF, "0XBEEF"},
		{"%#x", 0, "0"},
		{"%o", 8, "10"},
		{"%#o", 8, "010"},
		{"%#.3o", 8, "010"},
		{"%#o", 0, "0"},
		{"%p", 0xdeadbeef, "0xdeadbeef"},
		{"%c!", 'A', "A!"},
		{"%c!", 0x1b, `\x1b!`},
		{"%c!", 0, `\x00!`},
		{"%3c|%c", 'A', "  A|%c"},
		{"%5d|", 42, "   42|"},
		{"%-5d|", 42, "42   |"},
		{"%05d|", 0xfffffffe, "-0002|"},
		{"%-05d|", 42, "42   |"},
		{"%+d", 42, "+42"},
		{"% d", 42, " 42"},
		{"%+u", 42, "42"},
		{"%.3d", 7, "007"},
		{"%06.3d|", 7, "   007|"},
		{"%.0d|", 0, "|"},
		{"%.d|", 0, "|"},
		{"%#010x", 0xbeef, "0x0000beef"},
		{"%08x", 0xbeef, "0000beef"},
		{"%lx %d", 0xbeef, "beef %d"},
		{"%lld", 0xffffffff, "-1"},
		{"%llu", 0xffffffff, "4294967295"},
		{"%zu", 7, "7"},
		{"%hd", 0xffff, "-1"},
		{"%hhd", 0x80, "-128"},
		{"%hu", 0x12345678, "22136"},
		{"%hhx", 0x12345678, "78"},
		{"%64d|", 1, strings.Repeat(" ", 63) + "1|"},
		{"%.64d", 1, strings.Repeat("0", 63) + "1"},

		// Not ours to convert.
		{"%s", 0x41414141, "%s"},
		{"%n", 0x41414141, "%n"},
		{"%s %d", 1, "%s %d"}, // the argument would have been %s's
		{"%d %d %s %%", 1, "1 %d %s %"},
		{"%*d", 1, "%*d"},
		{"%.*d", 1, "%.*d"},
		{"%65d", 1, "%65d"},
		{"%.65d", 1, "%.65d"},
		{"%99999999999999999999d", 1, "%99999999999999999999d"},
		{"%1$d", 1, "%1$d"},
		{"%-d%", 1, "1%"},
		{"%f %g %a %m %v %T", 1, "%f %g %a %m %v %T"},
		{"%", 1, "%"},
		{"%l", 1, "%l"},
		{"%5", 1, "%5"},
		{"%.", 1, "%."},
		{"nothing", 1, "nothing"},
	} {
		entries, _ := bootlog.Decode(message(tt.text, tt.arg))
		if got := entries[0].Text; got != tt.want {
			t.Errorf("%q with %#x: got %q, want %q", tt.text, tt.arg, got, tt.want)
		}
	}
}
