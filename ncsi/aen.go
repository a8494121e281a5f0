// SPDX-License-Identifier: Apache-2.0

package ncsi

import "fmt"

// AENType says what an asynchronous event notification is about.
type AENType uint8

// Types of AEN. From 0x70 on they are the manufacturer's.
const (
	LinkStatusChange       AENType = 0x00
	ConfigurationRequired  AENType = 0x01
	HostDriverStatusChange AENType = 0x02
)

func (t AENType) String() string {
	switch {
	case t == LinkStatusChange:
		return "link status change"
	case t == ConfigurationRequired:
		return "configuration required"
	case t == HostDriverStatusChange:
		return "host driver status change"
	case t >= 0x70:
		return fmt.Sprintf("manufacturer's AEN 0x%02x", uint8(t))
	}
	return fmt.Sprintf("unknown AEN 0x%02x", uint8(t))
}

// Notification is the payload of an AEN. Its packet has IID 0, and nobody
// answers it.
type Notification struct {
	Type AENType
	Data []byte
}

// aenSize is the size of what stands before the data: 3 reserved bytes, type.
const aenSize = 4

// ParseAEN decodes an AEN's payload. Data is a part of payload. The error wraps
// ErrMalformed.
func ParseAEN(payload []byte) (Notification, error) {
	if len(payload) < aenSize {
		return Notification{}, malformed("an AEN's payload of %d bytes, less than %d", len(payload), aenSize)
	}
	return Notification{AENType(payload[aenSize-1]), payload[aenSize:]}, nil
}

// Append appends the notification as a payload to b.
func (n Notification) Append(b []byte) []byte {
	return append(append(b, 0, 0, 0, byte(n.Type)), n.Data...)
}
