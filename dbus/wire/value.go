// SPDX-License-Identifier: Apache-2.0

// Package wire is the codec of D-Bus messages: it turns bytes into messages
// and back, in both byte orders, and checks both. It does no I/O and needs no
// reflection, because values are of a small closed set of Go types:
//
//	y byte        n int16    q uint16    b bool    s string
//	d float64     i int32    u uint32    g Signature
//	h FD          x int64    t uint64    o ObjectPath
//	v Variant     ay []byte  as []string
//	a* Array      a{} Dict   () Struct
//
// Every value carries its whole signature, so that none has to be given
// beside it. The format is that of the D-Bus Specification 0.43, section
// "Message Protocol"; the limits below are its own, or lower.
package wire

// Limits of a message. The specification allows 128 MiB for a message and
// 64 MiB for an array; what the daemon exchanges is far smaller.
const (
	MaxMessage  = 1 << 20   // bytes, header and body
	MaxHeader   = 64 << 10  // bytes of the header with its fields
	MaxArray    = 512 << 10 // bytes of the elements of an array
	MaxFDs      = 16        // file descriptors of one message, as dbus-daemon's system bus has it
	MaxValues   = 64 << 10  // values in one body: of all elements, fields, keys, but not the bytes of an ay
	maxDepth    = 32        // arrays in a signature, and structs in it
	maxNesting  = 64        // containers, with variants, in a value
	maxSigBytes = 255
	maxName     = 255
)

// ObjectPath is a D-Bus object path, such as "/xyz/openbmc_project/rshim".
type ObjectPath string

// Signature is a D-Bus signature: no, one or several complete types.
type Signature string

// FD stands for a file descriptor: it is the index among those that come with the message.
type FD uint32

// Variant holds a value of any type.
type Variant struct{ Value any }

// Array is an array of anything but bytes, strings and dict entries, which
// have types of their own. (An Array of bytes or strings may be encoded too;
// decoding never gives one.)
type Array struct {
	Elem  Signature // one complete type
	Items []any     // each of type Elem
}

// Struct is a structure of at least one field.
type Struct []any

// Dict is an array of dict entries, in the order in which they came.
type Dict struct {
	Key, Elem Signature // a basic type, one complete type
	Entries   []Entry
}

// Entry is one entry of a Dict.
type Entry struct{ Key, Value any }

// Get returns the value of a string key: of an a{sv}, what its variant holds.
func (d Dict) Get(key string) (v any, ok bool) {
	for _, e := range d.Entries {
		if k, is := e.Key.(string); is && k == key {
			if v, is := e.Value.(Variant); is {
				return v.Value, true
			}
			return e.Value, true
		}
	}
	return nil, false
}

// Vardict makes an a{sv} of name, value, name, value... The values are put into
// variants. It panics on names that are no strings.
func Vardict(pairs ...any) Dict {
	d := Dict{Key: "s", Elem: "v"}
	for i := 0; i+1 < len(pairs); i += 2 {
		d.Entries = append(d.Entries, Entry{pairs[i].(string), Variant{pairs[i+1]}})
	}
	return d
}
