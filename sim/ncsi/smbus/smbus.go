// SPDX-License-Identifier: Apache-2.0

// Package smbus puts a simulated NIC on an I2C bus of the running kernel, as an
// MCTP endpoint: with i2c-dev to send, and a slave-mqueue at the NIC's address
// to receive.
package smbus

import (
	"context"

	"github.com/bluefield-go/bmc-rshim/i2c"
	"github.com/bluefield-go/bmc-rshim/mctp"
)

// Serve answers at an address until ctx is done: it calls answer with the body
// of each request, type first, and sends what that returns to whoever has
// asked, unless it is nil. A NIC's answer is its method Message. Of the options
// it takes all but Addr and PeerEID: Own and EID are the NIC's. The error is
// ctx's, or that of opening or receiving.
func Serve(ctx context.Context, o i2c.Options, answer func(body []byte) []byte) error {
	o.Addr, o.PeerEID = 0, mctp.Null
	e, err := i2c.OpenEndpoint(o)
	if err != nil {
		return err
	}
	defer e.Close()
	for {
		m, err := e.Receive(ctx)
		if err != nil {
			return err
		}
		if !m.TO {
			continue
		}
		body := answer(m.Body)
		if body == nil {
			continue
		}
		// Who does not listen any more gets no answer.
		_ = e.Send(ctx, i2c.Message{Addr: m.Addr, Message: mctp.Message{Dest: m.Src, Src: o.EID, Tag: m.Tag, Body: body}})
	}
}
