// SPDX-License-Identifier: Apache-2.0

package oem

import (
	"context"

	"github.com/bluefield-go/bmc-rshim/ncsi"
)

// Transport carries one NC-SI command to a package or channel, and its response
// back. It is at payload level, because the kernel makes header and checksum
// itself where NC-SI goes through it.
type Transport interface {
	// Do sends a command of type typ with a payload to ch, and returns the
	// payload of its response: response code, reason code, data, without padding
	// and checksum. A response that says that the command failed is no error
	// here. Errors are os.ErrDeadlineExceeded when no response came in time,
	// the context's, ncsi's for a response that is none, and the operating
	// system's; they are marked with NotSent where it is certain that the
	// command has not left. One attempt; repeating is Client's business.
	Do(ctx context.Context, ch ncsi.Channel, typ ncsi.Type, payload []byte) ([]byte, error)
}

// Direct is a Transport with nobody between us and the NIC, so that instance
// IDs and the channel's state are ours to look after. Do takes a new instance
// ID each time.
type Direct interface {
	Transport
	// NextIID returns the instance ID for a new command, 1 to 255.
	NextIID() uint8
	// DoIID is Do with a given instance ID: the same as before tells the NIC
	// that a command is a repetition.
	DoIID(ctx context.Context, iid uint8, ch ncsi.Channel, typ ncsi.Type, payload []byte) ([]byte, error)
}
