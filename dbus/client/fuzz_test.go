// SPDX-License-Identifier: Apache-2.0

package client

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/bluefield-go/bmc-rshim/dbus/bus"
	"github.com/bluefield-go/bmc-rshim/dbus/wire"
)

var propertyNames = []string{
	"Index", "Backend", "Name", "Generation", "Revision", "OPN", "Attached", "AttachedSince", "State", "Owner", "Reason", "DropMode",
	"BootMode", "BFMode", "BootStage", "Uptime", "Counters", "Push", "Device", "Origin", "Phase", "Outcome", "Stage", "Line", "Bytes",
	"Total", "Rate", "SHA256", "Error", "ErrorName", "Progress", "StartTime", "CompletedTime", "Persistent", "Runtime", "Locked",
}

// values makes values of any type out of bytes.
func values(b []byte) (p bus.Properties, all []any) {
	p = make(bus.Properties)
	take := func(n int) []byte {
		n = min(n, len(b))
		x := b[:n]
		b = b[n:]
		return x
	}
	number := func() uint64 {
		var x [8]byte
		copy(x[:], take(8))
		return binary.LittleEndian.Uint64(x[:])
	}
	var value func(depth int) any
	value = func(depth int) any {
		head := take(1)
		if len(head) == 0 {
			return ""
		}
		switch k := head[0]; {
		case k%12 == 0:
			return string(take(int(k) / 4))
		case k%12 == 1:
			return number()
		case k%12 == 2:
			return k > 99
		case k%12 == 3:
			return uint32(number())
		case k%12 == 4:
			return byte(number())
		case k%12 == 5:
			return wire.ObjectPath(take(int(k) / 4))
		case k%12 == 6:
			return wire.ObjectPath(root + "/rshim" + string(take(2)))
		case k%12 == 7:
			return ifDevice + ".States." + string(take(4))
		case k%12 == 8:
			return ifPush + ".Outcomes." + string(take(4))
		case depth > 3:
			return int64(k)
		case k%12 == 9:
			return wire.Dict{Key: "s", Elem: "t", Entries: []wire.Entry{{Key: value(depth + 1), Value: value(depth + 1)}}}
		case k%12 == 10:
			return wire.Array{Elem: "(tts)", Items: []any{value(depth + 1), value(depth + 1)}}
		}
		return wire.Struct{value(depth + 1), value(depth + 1), value(depth + 1)}
	}
	for len(b) > 0 {
		name := propertyNames[int(take(1)[0])%len(propertyNames)]
		v := value(0)
		p[name] = v
		all = append(all, v)
	}
	return p, all
}

// Whatever a daemon answers, decoding it is an error or gives text that a
// terminal can be trusted with.
func FuzzDecode(f *testing.F) {
	f.Add([]byte{8, 7, 'A', 't', 't', 'a', 6, 40, 'x', 0x1b, '[', '2'}, "\x1b[2Jtext\n")
	f.Add([]byte{16, 9, 12, 'a', 'b', 'c', 1, 2, 3}, "\xff\xfe")
	f.Add([]byte{0, 10, 11, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 11}, "")
	f.Fuzz(func(t *testing.T, b []byte, text string) {
		p, all := values(b)
		p["Reason"] = text
		harmless := func(s string) {
			if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 }) {
				t.Fatalf("control characters in %q", s)
			}
		}
		d, err := decodeDevice(devicePath(0), p)
		if err != nil && !errors.Is(err, ErrAnswer) {
			t.Fatal(err)
		}
		for _, s := range []string{d.Reason, d.Name, d.State, d.Generation, d.BootStage, d.OPN} {
			harmless(s)
		}
		if d.Uptime < 0 {
			t.Fatalf("uptime %v", d.Uptime)
		}
		x, err := decodePush(root+"/push/1", map[string]bus.Properties{ifPush: p, ifPercent: p, ifProgress: p})
		if err != nil && !errors.Is(err, ErrAnswer) {
			t.Fatal(err)
		}
		for _, s := range []string{x.Name, x.Line, x.Error, x.ErrorName, x.Outcome, x.Phase} {
			harmless(s)
		}
		if x.Bytes < 0 || x.Total < 0 || x.Rate < 0 || x.Percent < 0 || x.Percent > 100 {
			t.Fatalf("numbers of %+v", x)
		}
		if _, err := decodeHostAccess(p); err != nil && !errors.Is(err, ErrAnswer) {
			t.Fatal(err)
		}
		for _, v := range all {
			ls, err := decodeLines(v)
			if err != nil && !errors.Is(err, ErrAnswer) {
				t.Fatal(err)
			}
			for _, l := range ls {
				harmless(l.Text)
			}
			if _, err := one[string]([]any{v}); err != nil && !errors.Is(err, ErrAnswer) {
				t.Fatal(err)
			}
		}
		harmless((&Remote{Name: printable(text)}).Error())
	})
}
