// SPDX-License-Identifier: Apache-2.0

// Package ncsimctp is NC-SI over MCTP: what the transports through the kernel's
// sockets and over a raw I2C bus have in common. It makes the packets, gives
// each command its instance ID, and finds the response among what comes.
//
// Sources: DMTF DSP0261 (NC-SI over MCTP); reference page ncsi.md, section 3.
package ncsimctp

import (
	"context"
	"log/slog"
	"time"

	"github.com/bluefield-go/bmc-rshim/mctp"
)

// DefaultTimeout is how long a command waits for its response.
const DefaultTimeout = time.Second

// Link carries a message to an endpoint, and what the endpoint says to it back.
type Link interface {
	// Exchange sends a request. The body begins with the message type. Then it
	// hands what may be the answer to take, with its type in front too, until
	// take returns true; that is nil. A link need not know that a message is
	// the answer, but it never hands on one that was for an earlier request,
	// if it can know, and none after Exchange has returned. It returns
	// os.ErrDeadlineExceeded or context.DeadlineExceeded when ctx is over its
	// deadline, and its own errors otherwise, with oem.NotSent's mark where it
	// is certain that the request has not left.
	Exchange(ctx context.Context, body []byte, take func(mctp.Message) bool) error
}

// Options of a Transport.
type Options struct {
	// Peer is the NIC's endpoint. mctp.Null takes answers from any that the
	// link lets through.
	Peer    mctp.EID
	Timeout time.Duration // of a command; 0 means DefaultTimeout
	Logger  *slog.Logger  // packets, at debug level; nil discards
}
