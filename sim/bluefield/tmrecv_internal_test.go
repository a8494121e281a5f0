// SPDX-License-Identifier: Apache-2.0

package bluefield

import (
	"encoding/binary"
	"testing"
)

// FuzzFeed: whatever comes, no message is longer than its driver takes, and
// after as many empty words as the longest message has, the next message is
// found.
func FuzzFeed(f *testing.F) {
	f.Add([]byte("\x01\x00\x05\x00\x00\x00\x00\x00frame\x00\x00\x00"), false)
	f.Add([]byte("\x03\xff\xff\x00\x00\x00\x00\x00"), true)
	f.Add([]byte("\xfd\x00\x00\x00\x00\x00\x00\x03\xfe\x00\x00\x01\x02\x03\x00\x00"), true)
	f.Fuzz(func(t *testing.T, p []byte, uefi bool) {
		d, s := New(Config{Console: true}), newSoftware()
		s.phase, s.console.buf = phaseLinux, make([]byte, conBuffer)
		limit := maxInput
		if uefi {
			s.phase, limit = phaseUEFI, uefiPacket-1
		}
		var words []uint64
		for ; len(p) >= 8; p = p[8:] {
			words = append(words, binary.LittleEndian.Uint64(p))
		}
		for _, m := range d.feed(s, words) {
			if len(m.payload) == 0 || len(m.payload) > limit || m.typ == typeNet && len(m.payload) > maxFrame {
				t.Errorf("%d bytes of type %d", len(m.payload), m.typ)
			}
		}
		d.feed(s, make([]uint64, 1<<13))
		got := d.feed(s, message(typeConsole, []byte("0123456789"), 0))
		if len(got) != 1 || got[0].typ != typeConsole || string(got[0].payload) != "0123456789" {
			t.Errorf("then %q", got)
		}
	})
}
