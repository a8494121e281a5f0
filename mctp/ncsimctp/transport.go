// SPDX-License-Identifier: Apache-2.0

package ncsimctp

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"

	"github.com/bluefield-go/bmc-rshim/mctp"
	"github.com/bluefield-go/bmc-rshim/ncsi"
	"github.com/bluefield-go/bmc-rshim/ncsi/oem"
)

// Transport sends commands over a link. One command is under way at a time, as
// NC-SI has it; those of other goroutines wait their turn, within their
// deadlines.
type Transport struct {
	link Link
	o    Options
	iids *ncsi.IIDs
	turn chan struct{}
}

var _ oem.Direct = (*Transport)(nil)

// New returns a transport. Its instance IDs begin anywhere, so that a late
// response to an earlier program's command is no answer to ours.
func New(link Link, o Options) *Transport {
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Transport{link: link, o: o, iids: ncsi.NewIIDs(uint8(rand.N(256))), turn: make(chan struct{}, 1)}
}

// NextIID implements oem.Direct.
func (t *Transport) NextIID() uint8 { return t.iids.Next() }

// Do implements oem.Direct.
func (t *Transport) Do(ctx context.Context, ch ncsi.Channel, typ ncsi.Type, payload []byte) ([]byte, error) {
	return t.DoIID(ctx, t.NextIID(), ch, typ, payload)
}

// DoIID implements oem.Direct.
func (t *Transport) DoIID(ctx context.Context, iid uint8, ch ncsi.Channel, typ ncsi.Type, payload []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, oem.NotSent(err)
	}
	command := ncsi.Packet{IID: iid, Type: typ, Channel: ch, Payload: payload}
	body, err := command.Append([]byte{byte(mctp.NCSI)})
	if err != nil {
		return nil, oem.NotSent(err)
	}
	limit, cancel := context.WithTimeout(ctx, t.o.Timeout)
	defer cancel()
	select {
	case t.turn <- struct{}{}:
		defer func() { <-t.turn }()
	case <-limit.Done():
		return nil, oem.NotSent(timeout(ctx, nil))
	}

	t.trace("command", t.o.Peer, body)
	var response []byte
	var refused error // why the last message was not the response
	err = t.link.Exchange(limit, body, func(m mctp.Message) bool {
		if len(m.Body) == 0 {
			return false
		}
		t.trace("message", m.Src, m.Body)
		response, refused = t.judge(command, m)
		if refused != nil {
			t.o.Logger.DebugContext(ctx, "not the response", "err", refused)
		}
		return refused == nil
	})
	switch {
	case err == nil:
		return response, nil
	case ctx.Err() != nil, errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return nil, timeout(ctx, refused)
	}
	return nil, err
}

// judge returns the payload of the response to a command, or why the message
// is none.
func (t *Transport) judge(command ncsi.Packet, m mctp.Message) ([]byte, error) {
	switch {
	case t.o.Peer != mctp.Null && m.Src != t.o.Peer:
		return nil, fmt.Errorf("from EID %d instead of %d", m.Src, t.o.Peer)
	case m.TO:
		return nil, errors.New("a request, not a response")
	case m.Type() != mctp.NCSI || m.Integrity():
		return nil, fmt.Errorf("message type byte 0x%02x instead of 0x%02x", m.Body[0], byte(mctp.NCSI))
	}
	r, _, err := ncsi.Parse(m.Body[1:])
	switch {
	case err != nil:
		return nil, err
	case r.Type != command.Type.Response():
		return nil, fmt.Errorf("%v instead of %v", r.Type, command.Type.Response())
	case r.IID != command.IID:
		return nil, fmt.Errorf("instance ID %d instead of %d", r.IID, command.IID)
	}
	return r.Payload, nil
}

// timeout is the error of a command whose time is up. What came in the place of
// a response says more than that nothing did.
func timeout(ctx context.Context, refused error) error {
	err := ctx.Err()
	if err == nil {
		err = os.ErrDeadlineExceeded
	}
	if refused != nil {
		return fmt.Errorf("%w; what came last was not the response: %w", err, refused)
	}
	return err
}

func (t *Transport) trace(what string, eid mctp.EID, body []byte) {
	if t.o.Logger.Enabled(context.Background(), slog.LevelDebug) {
		t.o.Logger.Debug(what, "eid", uint8(eid), "body", hex.EncodeToString(body))
	}
}
