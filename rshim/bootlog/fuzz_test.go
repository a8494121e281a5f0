// SPDX-License-Identifier: Apache-2.0

package bootlog_test

import (
	"encoding/binary"
	"reflect"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/bluefield-go/bmc-rshim/rshim/bootlog"
)

func FuzzDecode(f *testing.F) {
	add := func(words []uint64) {
		var b []byte
		for _, w := range words {
			b = binary.LittleEndian.AppendUint64(b, w)
		}
		f.Add(b)
	}
	add(message("VDDQ: %d mV", 1120))
	add(message("\x1b[2J%s%n\xff", 0x41414141))
	add(bootlog.EncodePanic(bootlog.BL31, 1, bootlog.Register{Encoding: bootlog.Sys(3, 6, 4, 0, 1)}))
	add([]uint64{4 << 56, 4<<56 | 127<<48, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		var words []uint64
		for ; len(b) >= 8 && len(words) < 300; b = b[8:] {
			words = append(words, binary.LittleEndian.Uint64(b))
		}
		entries, n := bootlog.Decode(words)
		if n > len(words) || len(entries) > n {
			t.Fatalf("%d entries of %d words of %d", len(entries), n, len(words))
		}
		for _, e := range entries {
			s := e.String()
			if want := 1 + len(e.Registers); strings.Count(s, "\n") != want || !strings.HasSuffix(s, "\n") {
				t.Fatalf("%q: want %d lines", s, want)
			}
			if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) {
				t.Fatalf("%q: not printable", s)
			}
			if len(e.Text) > bootlog.MaxText || len(e.Registers) > 63 {
				t.Fatalf("%d bytes of text, %d registers", len(e.Text), len(e.Registers))
			}
		}

		// Entries decode the same when they come alone, and again after
		// having been encoded.
		for _, e := range entries {
			var enc []uint64
			switch e.Type {
			case bootlog.Message:
				if len(e.Text) > bootlog.MaxEncodedText {
					continue
				}
				enc = bootlog.EncodeMessage(e.Module, e.Level, e.Text)
			case bootlog.Panic:
				enc = bootlog.EncodePanic(e.Module, e.Code, e.Registers...)
			case bootlog.Exception:
				enc = bootlog.EncodeException(e.Module, e.Code, e.Registers...)
			}
			again, n := bootlog.Decode(enc)
			if n != len(enc) || len(again) != 1 || !reflect.DeepEqual(again[0], e) {
				t.Fatalf("%+v became %+v", e, again)
			}
		}
	})
}

func FuzzMessage(f *testing.F) {
	f.Add("PSC error %d", uint32(0xffffffc4), true)
	f.Add("%064.64llx%%", uint32(1), true)
	f.Fuzz(func(t *testing.T, text string, arg uint32, has bool) {
		var args []uint32
		if has {
			args = append(args, arg)
		}
		entries, _ := bootlog.Decode(message(text, args...))
		if len(entries) != 1 || len(entries[0].Text) > bootlog.MaxText || !utf8.ValidString(entries[0].Text) {
			t.Fatalf("%q: %+v", text, entries)
		}
		printable := !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) })
		if !has && printable && utf8.ValidString(text) && len(text) <= bootlog.MaxEncodedText && entries[0].Text != text {
			t.Fatalf("%q came back as %q", text, entries[0].Text)
		}
	})
}
