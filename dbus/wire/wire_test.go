// SPDX-License-Identifier: Apache-2.0

package wire_test

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/bluefield-go/bmc-rshim/dbus/wire"
)

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		panic(err)
	}
	return b
}

// Messages written out by hand after the specification.
var golden = []struct {
	name    string
	order   wire.Order
	message wire.Message
	bytes   string
}{
	{
		"Hello", binary.LittleEndian,
		wire.Message{Type: wire.MethodCall, Serial: 1, Path: "/org/freedesktop/DBus", Interface: "org.freedesktop.DBus", Member: "Hello", Destination: "org.freedesktop.DBus"},
		`6c010001 00000000 01000000 6d000000
		 01016f00 15000000 2f6f72672f667265656465736b746f702f4442757300 0000
		 02017300 14000000 6f72672e667265656465736b746f702e4442757300 000000
		 03017300 05000000 48656c6c6f00 0000
		 06017300 14000000 6f72672e667265656465736b746f702e4442757300 000000`,
	}, {
		"error with a text", binary.BigEndian,
		wire.Message{Type: wire.Error, Flags: wire.NoReplyExpected, Serial: 2, ReplySerial: 7, ErrorName: "a.B", Signature: "s", Body: []any{"no"}},
		`42030101 00000007 00000002 0000001f
		 04017300 00000003 612e4200 00000000
		 05017500 00000007
		 08016700 01730000
		 00000002 6e6f00`,
	}, {
		"PropertiesChanged", binary.LittleEndian,
		wire.Message{Type: wire.Signal, Serial: 3, Path: "/o", Interface: "a.P", Member: "C", Signature: "sa{sv}as",
			Body: []any{"a.A", wire.Vardict("Progress", byte(100)), []string{}}},
		`6c040001 28000000 03000000 3e000000
		 01016f00 02000000 2f6f0000 00000000
		 02017300 03000000 612e5000 00000000
		 03017300 01000000 43000000 00000000
		 08016700 08 7361 7b73767d 6173 00 0000
		 03000000 612e4100 11000000 00000000
		 08000000 50726f67 72657373 00 01 79 00 64 000000
		 00000000`,
	},
}

func TestGolden(t *testing.T) {
	for _, tt := range golden {
		want := unhex(tt.bytes)
		m := tt.message
		got, err := m.Append(nil, tt.order)
		if err != nil || string(got) != string(want) {
			t.Errorf("%s: %v\n%x, want\n%x", tt.name, err, got, want)
		}
		back, err := wire.Decode(want)
		if err != nil || !reflect.DeepEqual(*back, m) {
			t.Errorf("%s: decoded to %+v, %v, want %+v", tt.name, back, err, m)
		}
		for i := range want {
			if m, err := wire.Decode(want[:i]); err == nil {
				t.Errorf("%s: %d bytes of it are %+v", tt.name, i, m)
			}
		}
	}
}

// nest puts a value into n variants.
func nest(n int) any {
	var v any = byte(1)
	for range n {
		v = wire.Variant{Value: v}
	}
	return v
}

func TestEncodeRefuses(t *testing.T) {
	call := wire.Message{Type: wire.MethodCall, Serial: 1, Path: "/", Member: "M"}
	for _, tt := range []struct {
		name string
		make func(m *wire.Message)
		want error
	}{
		{"int", func(m *wire.Message) { m.Body = []any{1} }, wire.ErrInvalid},
		{"nil", func(m *wire.Message) { m.Body = []any{nil} }, wire.ErrInvalid},
		{"empty variant", func(m *wire.Message) { m.Body = []any{wire.Variant{}} }, wire.ErrInvalid},
		{"empty struct", func(m *wire.Message) { m.Body = []any{wire.Struct{}} }, wire.ErrInvalid},
		{"NUL", func(m *wire.Message) { m.Body = []any{"a\x00b"} }, wire.ErrInvalid},
		{"not UTF-8", func(m *wire.Message) { m.Body = []any{"a\xff"} }, wire.ErrInvalid},
		{"bad path", func(m *wire.Message) { m.Body = []any{wire.ObjectPath("/a/")} }, wire.ErrInvalid},
		{"bad signature", func(m *wire.Message) { m.Body = []any{wire.Signature("a")} }, wire.ErrInvalid},
		{"mixed array", func(m *wire.Message) { m.Body = []any{wire.Array{Elem: "u", Items: []any{uint32(1), uint64(1)}}} }, wire.ErrInvalid},
		{"array of two types", func(m *wire.Message) { m.Body = []any{wire.Array{Elem: "uu"}} }, wire.ErrInvalid},
		{"array of nothing", func(m *wire.Message) { m.Body = []any{wire.Array{}} }, wire.ErrInvalid},
		{"struct of another type", func(m *wire.Message) {
			m.Body = []any{wire.Array{Elem: "(us)", Items: []any{wire.Struct{uint32(1)}}}}
		}, wire.ErrInvalid},
		{"struct with a field more", func(m *wire.Message) {
			m.Body = []any{wire.Array{Elem: "(u)", Items: []any{wire.Struct{uint32(1), "x"}}}}
		}, wire.ErrInvalid},
		{"key of a container", func(m *wire.Message) { m.Body = []any{wire.Dict{Key: "v", Elem: "s"}} }, wire.ErrInvalid},
		{"wrong key", func(m *wire.Message) {
			m.Body = []any{wire.Dict{Key: "s", Elem: "s", Entries: []wire.Entry{{Key: byte(1), Value: "x"}}}}
		}, wire.ErrInvalid},
		{"wrong value", func(m *wire.Message) {
			m.Body = []any{wire.Dict{Key: "s", Elem: "s", Entries: []wire.Entry{{Key: "x", Value: byte(1)}}}}
		}, wire.ErrInvalid},
		{"65 variants in each other", func(m *wire.Message) { m.Body = []any{nest(65)} }, wire.ErrInvalid},
		{"array too big", func(m *wire.Message) { m.Body = []any{make([]byte, wire.MaxArray+1)} }, wire.ErrLimit},
		{"message too big", func(m *wire.Message) { m.Body = []any{strings.Repeat("x", wire.MaxMessage)} }, wire.ErrLimit},
		{"no type", func(m *wire.Message) { m.Type = 0 }, wire.ErrInvalid},
		{"no serial number", func(m *wire.Message) { m.Serial = 0 }, wire.ErrInvalid},
		{"no path", func(m *wire.Message) { m.Path = "" }, wire.ErrInvalid},
		{"no member", func(m *wire.Message) { m.Member = "" }, wire.ErrInvalid},
		{"signal without an interface", func(m *wire.Message) { m.Type = wire.Signal }, wire.ErrInvalid},
		{"return without a serial number", func(m *wire.Message) { m.Type = wire.MethodReturn }, wire.ErrInvalid},
		{"error without a name", func(m *wire.Message) { m.Type, m.ReplySerial = wire.Error, 1 }, wire.ErrInvalid},
		{"bad member", func(m *wire.Message) { m.Member = "a.b" }, wire.ErrInvalid},
		{"bad interface", func(m *wire.Message) { m.Interface = "a" }, wire.ErrInvalid},
		{"bad destination", func(m *wire.Message) { m.Destination = "a." }, wire.ErrInvalid},
		{"bad sender", func(m *wire.Message) { m.Sender = ":" }, wire.ErrInvalid},
		{"bad error name", func(m *wire.Message) { m.ErrorName = "1.2" }, wire.ErrInvalid},
		{"the library's own path", func(m *wire.Message) { m.Path = "/org/freedesktop/DBus/Local" }, wire.ErrInvalid},
		{"the library's own interface", func(m *wire.Message) { m.Interface = "org.freedesktop.DBus.Local" }, wire.ErrInvalid},
	} {
		m := call
		tt.make(&m)
		b, err := m.Append([]byte("keep"), binary.LittleEndian)
		if !errors.Is(err, tt.want) || string(b) != "keep" {
			t.Errorf("%s: %q, %v, want %v", tt.name, b, err, tt.want)
		}
	}
	m := call
	m.Body = []any{nest(64), make([]byte, wire.MaxArray)}
	b, err := m.Append(nil, binary.LittleEndian)
	if err != nil {
		t.Fatal("what is just allowed:", err)
	}
	if _, err := wire.Decode(b); err != nil {
		t.Error("what is just allowed:", err)
	}
}

// patched is the golden Hello or PropertiesChanged with some bytes replaced.
func patched(i int, at int, with string) []byte {
	b := unhex(golden[i].bytes)
	copy(b[at:], with)
	return b
}

func TestDecodeRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		b    []byte
	}{
		{"nothing", nil},
		{"byte order", patched(0, 0, "x")},
		{"type 0", patched(0, 1, "\x00")},
		{"version 2", patched(0, 3, "\x02")},
		{"body of 4 GiB", patched(0, 4, "\xff\xff\xff\xff")},
		{"fields of 4 GiB", patched(0, 12, "\xff\xff\xff\xff")},
		{"serial number 0", patched(0, 8, "\x00")},
		{"field 0", patched(0, 16, "\x00")},
		{"field twice", patched(0, 48, "\x03")},
		{"field of another type", patched(0, 18, "s")},
		{"path that is none", patched(0, 24, "x")},
		{"string without its end", patched(0, 45, "x")},
		{"padding", patched(0, 46, "x")},
		{"padding behind the fields", patched(2, 78, "x")},
		{"body without a signature", append(patched(0, 4, "\x01"), 0)},
		{"signature that is none", patched(2, 69, "a{")},
		{"string longer than the message", patched(2, 80, "\xff\xff\xff\xff")},
		{"string to the end of the message", patched(2, 80, "\x24")},
		{"array longer than the message", patched(2, 88, "\xff\xff\xff\x7f")},
		{"array that ends in an element", patched(2, 88, "\x10")},
		{"array that begins in padding", patched(2, 92, "x")},
		{"variant of two types", patched(2, 109, "\x02yy")},
		{"variant of nothing", patched(2, 109, "\x00\x00")},
		{"more than the signature says", patched(2, 70, "s\x00")},
	} {
		if m, err := wire.Decode(tt.b); !errors.Is(err, wire.ErrInvalid) {
			t.Errorf("%s: %+v, %v", tt.name, m, err)
		}
	}
}

// Fields of later versions of the specification are passed over.
func TestUnknownField(t *testing.T) {
	b := patched(0, 16+80, "\x0b") // DESTINATION becomes something
	m, err := wire.Decode(b)
	if err != nil || m.Destination != "" || m.Member != "Hello" {
		t.Errorf("%+v, %v", m, err)
	}
}

// What is small on the wire must not become big in memory.
func TestDecodeLimits(t *testing.T) {
	big := wire.Message{Type: wire.MethodCall, Serial: 1, Path: "/", Member: "M"}
	for _, v := range []any{
		make([]string, wire.MaxValues/2),
		wire.Array{Elem: "q", Items: slicesOf(uint16(0), wire.MaxValues/2)},
		wire.Array{Elem: "as", Items: slicesOf([]string{}, wire.MaxValues/2)},
	} {
		big.Body = []any{v, v}
		b, err := big.Append(nil, binary.LittleEndian)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := wire.Decode(b); !errors.Is(err, wire.ErrLimit) {
			t.Errorf("%T of %d bytes: %v", v, len(b), err)
		}
	}
	head := make([]byte, wire.MaxHeader+8)
	copy(head, unhex("6c010001 00000000 01000000 f8ff0000"))
	if _, _, err := wire.DecodeHeader(head); !errors.Is(err, wire.ErrLimit) {
		t.Errorf("header of %d bytes: %v", len(head), err)
	}
	if header, body, err := wire.Lengths(unhex("42010001 04000000 00000001 03000000")); header != 16+3<<24 || body != 4<<24 {
		t.Errorf("a message to skip: %d, %d, %v", header, body, err)
	}
}

func slicesOf(v any, n int) []any {
	s := make([]any, n)
	for i := range s {
		s[i] = v
	}
	return s
}

func TestNames(t *testing.T) {
	long := strings.Repeat("a", 254)
	for _, tt := range []struct {
		what  string
		valid func(string) bool
		good  []string
		bad   []string
	}{
		{"path", func(s string) bool { return wire.ObjectPath(s).Valid() },
			[]string{"/", "/a", "/a/b_C/0", "/_"}, []string{"", "a", "//", "/a/", "/a//b", "/a-b", "/a.b", "/ü", "/a b"}},
		{"interface", wire.ValidInterface,
			[]string{"a.b", "_a.B1.c_", long[:250] + ".bcde"[:5]}, []string{"", "a", ".a", "a.", "a..b", "1a.b", "a.1b", "a-b.c", ":1.2", long + ".b"}},
		{"member", wire.ValidMember, []string{"M", "_m1", long + "a"}, []string{"", "1", "a.b", "a-b", "ä", long + "aa"}},
		{"bus name", wire.ValidBusName,
			[]string{"a.b", "a-b.c", ":1.5", ":1.a-b", "-a.b"}, []string{"", ":", "a", "a.", "1.5", "a.1", ":1", ":1.", ":1..2", "a b.c"}},
		{"string", wire.ValidString, []string{"", "ä"}, []string{"\x00", "\xff", "\xed\xa0\x80"}},
	} {
		for _, s := range tt.good {
			if !tt.valid(s) {
				t.Errorf("%s: %q is none", tt.what, s)
			}
		}
		for _, s := range tt.bad {
			if tt.valid(s) {
				t.Errorf("%s: %q is one", tt.what, s)
			}
		}
	}
}

func TestPaths(t *testing.T) {
	for _, tt := range []struct {
		p, q  wire.ObjectPath
		below bool
	}{
		{"/a", "/", true}, {"/", "/", false}, {"/a/b", "/a", true}, {"/ab", "/a", false}, {"/a", "/a", false}, {"/a", "/a/b", false},
	} {
		if got := tt.p.Below(tt.q); got != tt.below {
			t.Errorf("%s below %s: %v", tt.p, tt.q, got)
		}
	}
	for p, want := range map[wire.ObjectPath]wire.ObjectPath{"/": "/", "/a": "/", "/a/b": "/a"} {
		if got := p.Parent(); got != want {
			t.Errorf("parent of %s: %s", p, got)
		}
	}
}

func TestEqual(t *testing.T) {
	var all []any
	for _, tt := range bodies {
		all = append(all, tt.ours...)
	}
	all = append(all, nil, 1)
	for i, a := range all {
		b, err := wire.SignatureOf(a)
		if err != nil {
			if wire.Equal(a, a) {
				t.Errorf("%v is a value", a)
			}
			continue
		}
		for j, c := range all {
			if d, _ := wire.SignatureOf(c); wire.Equal(a, c) != (b == d && reflect.DeepEqual(a, c)) {
				t.Errorf("%d and %d, %v and %v: %v", i, j, a, c, wire.Equal(a, c))
			}
		}
		if err := wire.Check(b, a); err != nil {
			t.Error(err)
		}
	}
	if wire.Check("s", byte(1)) == nil || wire.Check("s", "\xff") == nil || wire.Check("", "") == nil {
		t.Error("a value of another type is sent")
	}
}

func TestDictGet(t *testing.T) {
	d := wire.Vardict("a", byte(1), "b", "x")
	if v, ok := d.Get("b"); v != "x" || !ok {
		t.Error(v, ok)
	}
	if v, ok := d.Get("c"); v != nil || ok {
		t.Error(v, ok)
	}
	plain := wire.Dict{Key: "s", Elem: "t", Entries: []wire.Entry{{Key: "n", Value: uint64(7)}}}
	if v, ok := plain.Get("n"); v != uint64(7) || !ok {
		t.Error(v, ok)
	}
}

// What decodes must encode to the same body, and that decode to the same message.
func FuzzDecode(f *testing.F) {
	for _, tt := range golden {
		f.Add(unhex(tt.bytes))
	}
	for _, tt := range bodies {
		for _, o := range orders {
			m := wire.Message{Type: wire.MethodCall, Serial: 1, Path: "/", Member: "M", Body: tt.ours}
			b, err := m.Append(nil, o)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := wire.Decode(b)
		if err != nil {
			if !errors.Is(err, wire.ErrInvalid) && !errors.Is(err, wire.ErrLimit) {
				t.Fatalf("error is no error of ours: %v", err)
			}
			return
		}
		o := orders[0]
		if b[0] == 'B' {
			o = orders[1]
		}
		again, err := m.Append(nil, o)
		if err != nil {
			t.Fatalf("%+v does not encode: %v", m, err)
		}
		if string(body(t, again)) != string(body(t, b)) {
			t.Fatalf("body % x, was % x", body(t, again), body(t, b))
		}
		if string(again) == string(b) {
			return
		}
		back, err := wire.Decode(again)
		if err != nil {
			t.Fatal(err)
		}
		third, err := back.Append(nil, o)
		if err != nil || string(third) != string(again) {
			t.Fatalf("%v\n% x, was\n% x", err, third, again)
		}
	})
}
