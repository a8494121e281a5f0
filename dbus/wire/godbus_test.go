// SPDX-License-Identifier: Apache-2.0

package wire_test

import (
	"bytes"
	"encoding/binary"
	"math"
	"reflect"
	"testing"

	godbus "github.com/godbus/dbus/v5"

	"github.com/bluefield-go/bmc-rshim/dbus/wire"
)

type line struct {
	Time uint64
	Seq  uint64
	Text string
}

// Values of ours and of godbus that are the same.
var bodies = []struct {
	name   string
	sig    wire.Signature
	ours   []any
	theirs []any
}{
	{"nothing", "", nil, nil},
	{"byte", "y", []any{byte(0xfe)}, []any{byte(0xfe)}},
	{"booleans", "bb", []any{true, false}, []any{true, false}},
	{"aligned numbers", "yqynyuyiytyxyd",
		[]any{byte(1), uint16(0xfff0), byte(2), int16(-2), byte(3), uint32(1 << 31), byte(4), int32(-5), byte(5), uint64(math.MaxUint64), byte(6), int64(math.MinInt64), byte(7), math.Pi},
		[]any{byte(1), uint16(0xfff0), byte(2), int16(-2), byte(3), uint32(1 << 31), byte(4), int32(-5), byte(5), uint64(math.MaxUint64), byte(6), int64(math.MinInt64), byte(7), math.Pi}},
	{"texts", "sog", []any{"Grüße\n", wire.ObjectPath("/a/b_1"), wire.Signature("a{sv}h")},
		[]any{"Grüße\n", godbus.ObjectPath("/a/b_1"), godbus.ParseSignatureMust("a{sv}h")}},
	{"empty texts", "sg", []any{"", wire.Signature("")}, []any{"", godbus.Signature{}}},
	{"bytes", "ayy", []any{[]byte{1, 2, 3}, byte(9)}, []any{[]byte{1, 2, 3}, byte(9)}},
	{"empty arrays keep their padding", "ayasata{ty}y",
		[]any{[]byte{}, []string{}, wire.Array{Elem: "t"}, wire.Dict{Key: "t", Elem: "y"}, byte(1)},
		[]any{[]byte{}, []string{}, []uint64{}, map[uint64]byte{}, byte(1)}},
	{"strings", "as", []any{[]string{"", "abc", "d"}}, []any{[]string{"", "abc", "d"}}},
	{"arrays of arrays", "aas", []any{wire.Array{Elem: "as", Items: []any{[]string{"x"}, []string{}}}}, []any{[][]string{{"x"}, {}}}},
	{"structs", "ya(tts)", []any{byte(1), wire.Array{Elem: "(tts)", Items: []any{wire.Struct{uint64(1), uint64(2), "INFO"}, wire.Struct{uint64(3), uint64(4), ""}}}},
		[]any{byte(1), []line{{1, 2, "INFO"}, {3, 4, ""}}}},
	{"struct in a struct", "(y(tts))", []any{wire.Struct{byte(1), wire.Struct{uint64(1), uint64(2), "x"}}},
		[]any{struct {
			A byte
			B line
		}{1, line{1, 2, "x"}}}},
	{"vardict", "a{sv}", []any{wire.Vardict("Progress", byte(7))}, []any{map[string]godbus.Variant{"Progress": godbus.MakeVariant(byte(7))}}},
	{"variants", "yvyvv", []any{byte(1), wire.Variant{Value: uint64(5)}, byte(2), wire.Variant{Value: wire.Variant{Value: "in"}}, wire.Variant{Value: []string{"a"}}},
		[]any{byte(1), godbus.MakeVariant(uint64(5)), byte(2), godbus.MakeVariant(godbus.MakeVariant("in")), godbus.MakeVariant([]string{"a"})}},
	{"dict of dicts", "a{oa{sa{sv}}}",
		[]any{wire.Dict{Key: "o", Elem: "a{sa{sv}}", Entries: []wire.Entry{{Key: wire.ObjectPath("/a"), Value: wire.Dict{Key: "s", Elem: "a{sv}", Entries: []wire.Entry{{Key: "i.f", Value: wire.Vardict("P", true)}}}}}}},
		[]any{map[godbus.ObjectPath]map[string]map[string]godbus.Variant{"/a": {"i.f": {"P": godbus.MakeVariant(true)}}}}},
}

var orders = []wire.Order{binary.LittleEndian, binary.BigEndian}

func body(t *testing.T, message []byte) []byte {
	t.Helper()
	header, n, err := wire.Lengths(message)
	if err != nil || header+n != len(message) {
		t.Fatalf("%d + %d bytes of %d, %v", header, n, len(message), err)
	}
	return message[header:]
}

// Our bodies are godbus's, byte for byte, and each side reads what the other wrote.
func TestAgainstGodbus(t *testing.T) {
	for _, tt := range bodies {
		t.Run(tt.name, func(t *testing.T) {
			for _, o := range orders {
				m := wire.Message{
					Type: wire.MethodCall, Flags: wire.NoAutoStart, Serial: 0x1234, Path: "/p/q", Interface: "i.f", Member: "M",
					Destination: "org.example.Name-1", Sender: ":1.5", Body: tt.ours,
				}
				ours, err := m.Append([]byte("xyz"), o)
				if err != nil {
					t.Fatal(err)
				}
				ours = ours[3:]

				theirs := godbus.Message{Type: godbus.TypeMethodCall, Flags: godbus.FlagNoAutoStart, Body: tt.theirs, Headers: map[godbus.HeaderField]godbus.Variant{
					godbus.FieldPath: godbus.MakeVariant(godbus.ObjectPath("/p/q")), godbus.FieldInterface: godbus.MakeVariant("i.f"),
					godbus.FieldMember: godbus.MakeVariant("M"), godbus.FieldDestination: godbus.MakeVariant("org.example.Name-1"),
					godbus.FieldSender: godbus.MakeVariant(":1.5"),
				}}
				if len(tt.theirs) > 0 {
					theirs.Headers[godbus.FieldSignature] = godbus.MakeVariant(godbus.SignatureOf(tt.theirs...))
				}
				var buf bytes.Buffer
				if err := theirs.EncodeTo(&buf, o); err != nil {
					t.Fatal(err)
				}
				o.PutUint32(buf.Bytes()[8:], 0x1234) // it has no way to set it
				if got, want := body(t, ours), body(t, buf.Bytes()); !bytes.Equal(got, want) {
					t.Errorf("%v: body\n% x, godbus's is\n% x", o, got, want)
				}

				got, err := wire.Decode(buf.Bytes())
				if err != nil {
					t.Fatalf("%v: godbus's message: %v", o, err)
				}
				m.Signature = tt.sig
				if !reflect.DeepEqual(*got, m) {
					t.Errorf("%v: from godbus's message %+v,\nwant %+v", o, *got, m)
				}

				back, err := godbus.DecodeMessage(bytes.NewReader(ours))
				if err != nil {
					t.Fatalf("%v: godbus does not read ours: %v", o, err)
				}
				if back.Serial() != 0x1234 || !reflect.DeepEqual(back.Headers, theirs.Headers) {
					t.Errorf("%v: godbus reads header %v, want %v", o, back.Headers, theirs.Headers)
				}
				for i, v := range tt.theirs {
					read := reflect.New(reflect.TypeOf(v))
					if err := godbus.Store(back.Body[i:i+1], read.Interface()); err != nil || !reflect.DeepEqual(read.Elem().Interface(), v) {
						t.Errorf("%v: godbus reads %v of %v, %v", o, read.Elem(), v, err)
					}
				}
			}
		})
	}
}

func TestSignaturesAgainstGodbus(t *testing.T) {
	a, s := func(n int) string { return string(bytes.Repeat([]byte("a"), n)) }, func(n int) string {
		return string(bytes.Repeat([]byte("("), n)) + "y" + string(bytes.Repeat([]byte(")"), n))
	}
	for _, sig := range []string{
		"", "y", "ybnqiuxtdsogvh", "a", "aa", "ay", "aay", "a{sv}", "a{sv", "a{vs}", "a{s}", "a{}", "a{svs}", "{sv}", "a{sa{sv}}", "a{s(ss)}", "a{(s)s}",
		"()", "(", ")", "(y", "y)", "(yy)", "((y)(y))", "(())", "a(y)", "a()", "r", "e", "z", "a{yv}y", "}", "a}", "a{", "a{s", "m", "a{ss}}",
		a(32) + "y", a(33) + "y", s(32), s(33), string(bytes.Repeat([]byte("y"), 255)), string(bytes.Repeat([]byte("y"), 256)),
	} {
		_, want := godbus.ParseSignature(sig)
		switch sig { // which it lets pass
		case "()", "(())", "a()", "a{vs}":
			want = wire.ErrInvalid
		}
		got := wire.Signature(sig).Valid()
		if (got == nil) != (want == nil) {
			t.Errorf("%q: %v, godbus says %v", sig, got, want)
		}
	}
}
