// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Errors of encoding and decoding.
var (
	ErrInvalid = errors.New("no valid D-Bus message")
	ErrLimit   = errors.New("D-Bus message exceeds a limit of ours") // it may be valid
)

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}

func beyond(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrLimit, fmt.Sprintf(format, args...))
}

// Type says what a message is.
type Type byte

// Types of messages. Others are to be ignored.
const (
	MethodCall Type = 1 + iota
	MethodReturn
	Error
	Signal
)

// Flags of a message. Others are to be ignored.
type Flags byte

// Flags.
const (
	NoReplyExpected               Flags = 1 << iota
	NoAutoStart                         // of the destination
	AllowInteractiveAuthorization       // by the user, who may take minutes
)

// Message is a D-Bus message. What a message of its type must have must be
// set; of the rest, what is the zero value is left out.
type Message struct {
	Type        Type
	Flags       Flags
	Serial      uint32 // of the sender's, not 0
	ReplySerial uint32
	Path        ObjectPath
	Interface   string
	Member      string
	ErrorName   string
	Destination string
	Sender      string
	Signature   Signature // of the body; Append does not look at it
	FDs         uint32    // file descriptors that come with the message
	Body        []any
}

// Order is a byte order.
type Order interface {
	binary.ByteOrder
	binary.AppendByteOrder
}

var littleEndian Order = binary.LittleEndian

// FixedSize is the size in bytes of the first part of a header, which tells how long the
// message is.
const FixedSize = 16

// Codes of header fields.
const (
	fieldPath = 1 + iota
	fieldInterface
	fieldMember
	fieldErrorName
	fieldReplySerial
	fieldDestination
	fieldSender
	fieldSignature
	fieldUnixFDs
)

// Limits of the specification, beyond which a message cannot even be skipped.
const (
	specMaxMessage = 128 << 20
	specMaxArray   = 64 << 20
)

const protocolVersion = 1

// Names that are for the bus's library alone, never for a message.
const (
	localPath      = "/org/freedesktop/DBus/Local"
	localInterface = "org.freedesktop.DBus.Local"
)

// check reports what the message lacks or has too much for its type, and invalid names.
func (m *Message) check() error {
	var missing bool
	switch m.Type {
	case 0:
		missing = true
	case MethodCall:
		missing = m.Path == "" || m.Member == ""
	case Signal:
		missing = m.Path == "" || m.Interface == "" || m.Member == ""
	case Error:
		missing = m.ErrorName == "" || m.ReplySerial == 0
	case MethodReturn:
		missing = m.ReplySerial == 0
	}
	switch {
	case missing:
		return invalid("message of type %d lacks a field", m.Type)
	case m.Serial == 0:
		return invalid("serial number 0")
	case m.Path != "" && (!m.Path.Valid() || m.Path == localPath):
		return invalid("path %.300q", string(m.Path))
	case m.Interface != "" && (!ValidInterface(m.Interface) || m.Interface == localInterface):
		return invalid("interface %.300q", m.Interface)
	case m.Member != "" && !ValidMember(m.Member):
		return invalid("member %.300q", m.Member)
	case m.ErrorName != "" && !ValidInterface(m.ErrorName):
		return invalid("error name %.300q", m.ErrorName)
	case m.Destination != "" && !ValidBusName(m.Destination):
		return invalid("destination %.300q", m.Destination)
	case m.Sender != "" && !ValidBusName(m.Sender):
		return invalid("sender %.300q", m.Sender)
	}
	return nil
}

// Append encodes the message in the given byte order and appends it to b.
func (m *Message) Append(b []byte, o Order) ([]byte, error) {
	if err := m.check(); err != nil {
		return b, err
	}
	sig, err := SignatureOf(m.Body...)
	if err != nil {
		return b, err
	}
	body := encoder{Order: o}
	for _, v := range m.Body {
		if err := body.value(v); err != nil {
			return b, err
		}
	}
	start := len(b)
	e := encoder{Order: o, b: append(b, 'l', byte(m.Type), byte(m.Flags), protocolVersion), start: start}
	if o.Uint16([]byte{0, 1}) == 1 {
		e.b[start] = 'B'
	}
	e.u32(uint32(len(body.b)))
	e.u32(m.Serial)
	if err := e.fields(m, sig); err != nil {
		return b, err
	}
	e.align(8)
	header := len(e.b) - start
	if header > MaxHeader || header+len(body.b) > MaxMessage {
		return b, beyond("message of %d bytes", header+len(body.b))
	}
	return append(e.b, body.b...), nil
}

func (e *encoder) fields(m *Message, sig Signature) error {
	fields := Array{Elem: "(yv)"}
	add := func(code byte, v any, present bool) {
		if present {
			fields.Items = append(fields.Items, Struct{code, Variant{v}})
		}
	}
	add(fieldPath, m.Path, m.Path != "")
	add(fieldInterface, m.Interface, m.Interface != "")
	add(fieldMember, m.Member, m.Member != "")
	add(fieldErrorName, m.ErrorName, m.ErrorName != "")
	add(fieldReplySerial, m.ReplySerial, m.ReplySerial != 0)
	add(fieldDestination, m.Destination, m.Destination != "")
	add(fieldSender, m.Sender, m.Sender != "")
	add(fieldSignature, sig, sig != "")
	add(fieldUnixFDs, m.FDs, m.FDs != 0)
	return e.value(fields)
}

func order(c byte) (Order, error) {
	switch c {
	case 'l':
		return binary.LittleEndian, nil
	case 'B':
		return binary.BigEndian, nil
	}
	return nil, invalid("byte order %#02x", c)
}

// Lengths reads the FixedSize bytes at the beginning of a message: how many bytes its
// header has, these and padding included, and its body. They may exceed our
// limits, not the specification's.
func Lengths(fixed []byte) (header, body int, err error) {
	if len(fixed) < FixedSize {
		return 0, 0, invalid("header of %d bytes", len(fixed))
	}
	o, err := order(fixed[0])
	if err != nil {
		return 0, 0, err
	}
	if fixed[3] != protocolVersion {
		return 0, 0, invalid("protocol version %d", fixed[3])
	}
	b, f := int64(o.Uint32(fixed[4:])), int64(o.Uint32(fixed[12:]))
	h := (FixedSize + f + 7) &^ 7
	if f > specMaxArray || h+b > specMaxMessage {
		return 0, 0, invalid("message of %d bytes", h+b)
	}
	return int(h), int(b), nil
}

// DecodeHeader decodes a header, padding included. Fields that are not known are ignored.
func DecodeHeader(b []byte) (*Message, Order, error) {
	header, body, err := Lengths(b)
	if err != nil {
		return nil, nil, err
	}
	if header != len(b) {
		return nil, nil, invalid("header of %d bytes in %d", header, len(b))
	}
	if header > MaxHeader {
		return nil, nil, beyond("header of %d bytes", header)
	}
	o, err := order(b[0])
	if err != nil {
		return nil, nil, err
	}
	m := &Message{Type: Type(b[1]), Flags: Flags(b[2]), Serial: o.Uint32(b[8:])}
	d := decoder{Order: o, b: b, pos: 12, values: MaxValues}
	v, err := d.value("a(yv)")
	if err != nil {
		return nil, nil, err
	}
	if _, err := d.take(8, 0); err != nil {
		return nil, nil, err
	}
	var seen [fieldUnixFDs + 1]bool
	for _, item := range v.(Array).Items {
		f := item.(Struct)
		code := f[0].(byte)
		if int(code) >= len(seen) {
			continue
		}
		if code == 0 || seen[code] || !m.set(code, f[1].(Variant).Value) {
			return nil, nil, invalid("header field %d", code)
		}
		seen[code] = true
	}
	if (body > 0) != (m.Signature != "") {
		return nil, nil, invalid("body of %d bytes with signature %q", body, string(m.Signature))
	}
	return m, o, m.check()
}

// set takes a header field over. It reports whether the value is of its type, and not empty.
func (m *Message) set(code byte, v any) bool {
	text := func(to *string) bool {
		s, ok := v.(string)
		*to = s
		return ok && s != ""
	}
	var ok bool
	switch code {
	case fieldPath:
		m.Path, ok = v.(ObjectPath)
	case fieldInterface:
		ok = text(&m.Interface)
	case fieldMember:
		ok = text(&m.Member)
	case fieldErrorName:
		ok = text(&m.ErrorName)
	case fieldReplySerial:
		m.ReplySerial, ok = v.(uint32)
		ok = ok && m.ReplySerial != 0
	case fieldDestination:
		ok = text(&m.Destination)
	case fieldSender:
		ok = text(&m.Sender)
	case fieldSignature:
		m.Signature, ok = v.(Signature)
	case fieldUnixFDs:
		m.FDs, ok = v.(uint32)
	}
	return ok
}

// DecodeBody decodes the body of a message whose header was decoded, in the
// header's byte order.
func (m *Message) DecodeBody(o Order, b []byte) error {
	d := decoder{Order: o, b: b, values: MaxValues}
	m.Body = nil
	for _, t := range m.Signature.Types() {
		v, err := d.value(string(t))
		if err != nil {
			m.Body = nil
			return err
		}
		m.Body = append(m.Body, v)
	}
	if d.pos != len(b) {
		m.Body = nil
		return invalid("%d bytes behind the body", len(b)-d.pos)
	}
	return nil
}

// Decode decodes a whole message.
func Decode(b []byte) (*Message, error) {
	header, body, err := Lengths(b)
	if err != nil {
		return nil, err
	}
	if header+body != len(b) {
		return nil, invalid("message of %d bytes in %d", header+body, len(b))
	}
	if len(b) > MaxMessage {
		return nil, beyond("message of %d bytes", len(b))
	}
	m, o, err := DecodeHeader(b[:header])
	if err != nil {
		return nil, err
	}
	return m, m.DecodeBody(o, b[header:])
}
