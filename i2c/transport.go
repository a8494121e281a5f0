// SPDX-License-Identifier: Apache-2.0

package i2c

import (
	"context"
	"errors"
	"math/rand/v2"

	"golang.org/x/sys/unix"

	"github.com/bluefield-go/bmc-rshim/mctp"
	"github.com/bluefield-go/bmc-rshim/mctp/ncsimctp"
	"github.com/bluefield-go/bmc-rshim/ncsi/oem"
)

// Transport sends NC-SI commands to a NIC on a bus.
type Transport struct {
	*ncsimctp.Transport
	e *Endpoint
}

var _ oem.Direct = (*Transport)(nil)

// Open opens the bus and our queue. Errors are OpenEndpoint's; Addr must be
// given.
func Open(o Options) (*Transport, error) {
	if o.Addr == 0 {
		return nil, errors.New("the NIC's address is missing")
	}
	e, err := OpenEndpoint(o)
	if err != nil {
		return nil, err
	}
	return newTransport(e), nil
}

func newTransport(e *Endpoint) *Transport {
	l := &link{e: e, tag: uint8(rand.N(mctp.Tags))}
	return &Transport{ncsimctp.New(l, ncsimctp.Options{Peer: e.o.PeerEID, Timeout: e.o.Timeout, Logger: e.o.Logger}), e}
}

// Close closes bus and queue.
func (t *Transport) Close() error { return t.e.Close() }

// link implements ncsimctp.Link, which makes one exchange at a time.
type link struct {
	e   *Endpoint
	tag uint8
}

func (l *link) Exchange(ctx context.Context, body []byte, take func(mctp.Message) bool) error {
	l.tag = (l.tag + 1) % mctp.Tags
	if err := l.e.flush(); err != nil {
		return oem.NotSent(err)
	}
	o := &l.e.o
	request := Message{o.Addr, mctp.Message{Dest: o.PeerEID, Src: o.EID, TO: true, Tag: l.tag, Body: body}}
	if err := l.e.Send(ctx, request); err != nil {
		// A request of which a frame was not taken is none.
		if errors.Is(err, ErrNoAck) || errors.Is(err, unix.EMSGSIZE) || errors.Is(err, unix.EOPNOTSUPP) {
			err = oem.NotSent(err)
		}
		return err
	}
	for {
		m, err := l.e.Receive(ctx)
		switch {
		case err != nil:
			return err
		case m.TO || m.Tag != l.tag:
			l.e.drop(m.Body, errOtherRequest)
		case take(m.Message):
			return nil
		}
	}
}
