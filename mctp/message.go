// SPDX-License-Identifier: Apache-2.0

package mctp

import (
	"fmt"
	"iter"
)

// Type is the type of a message, the low seven bits of its first byte. The high
// one says that an integrity check follows the message.
type Type uint8

// Types of DSP0239.
const (
	Control  Type = 0x00
	PLDM     Type = 0x01
	NCSI     Type = 0x02 // NC-SI control packets
	Ethernet Type = 0x03 // NC-SI pass-through
	NVMeMI   Type = 0x04
	SPDM     Type = 0x05
	VendorID Type = 0x7e // vendor defined, by PCI vendor
	VendorNo Type = 0x7f // vendor defined, by IANA enterprise number
)

var typeNames = map[Type]string{
	Control: "MCTP control", PLDM: "PLDM", NCSI: "NC-SI", Ethernet: "Ethernet", NVMeMI: "NVMe-MI", SPDM: "SPDM",
	VendorID: "vendor (PCI)", VendorNo: "vendor (IANA)",
}

func (t Type) String() string {
	if s, ok := typeNames[t]; ok {
		return s
	}
	return fmt.Sprintf("type %#02x", uint8(t))
}

// Message is what travels in one packet or more.
type Message struct {
	Dest, Src EID
	TO        bool  // a request; without it the response to one
	Tag       uint8 // 0 to 7, which joins the two
	Body      []byte
}

// Type returns the type in the first byte of the body, which must not be empty.
func (m Message) Type() Type { return Type(m.Body[0] & 0x7f) }

// Integrity reports whether the message says that a check follows its body.
// The body must not be empty. NC-SI and control messages have none.
func (m Message) Integrity() bool { return m.Body[0]&0x80 != 0 }

// Packets cuts a message into packets of unit bytes, the last one shorter;
// unit 0 is BaselineUnit. The first has the sequence number seq modulo 4. An
// empty body makes no packet.
func (m Message) Packets(unit int, seq uint8) iter.Seq[Packet] {
	if unit <= 0 {
		unit = BaselineUnit
	}
	return func(yield func(Packet) bool) {
		for at := 0; at < len(m.Body); at += unit {
			end := min(at+unit, len(m.Body))
			h := Header{
				Dest: m.Dest, Src: m.Src, TO: m.TO, Tag: m.Tag & 7,
				SOM: at == 0, EOM: end == len(m.Body), Seq: seq & 3,
			}
			if !yield(Packet{h, m.Body[at:end:end]}) {
				return
			}
			seq++
		}
	}
}
