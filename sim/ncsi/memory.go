// SPDX-License-Identifier: Apache-2.0

package simncsi

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/bluefield-go/bmc-rshim/ncsi"
	"github.com/bluefield-go/bmc-rshim/ncsi/oem"
)

// Memory is a transport to a NIC in the same process, with nothing in between.
type Memory struct {
	nic     *NIC
	timeout time.Duration
	iids    ncsi.IIDs

	mu      sync.Mutex
	waiting map[uint8]wait // by instance ID
}

type wait struct {
	typ      ncsi.Type
	response chan []byte // the payload, of which there is room for one
}

var _ oem.Direct = (*Memory)(nil)

// NewMemory returns a transport that waits for a response as long as timeout;
// 0 means 1 s.
func NewMemory(n *NIC, timeout time.Duration) *Memory {
	if timeout == 0 {
		timeout = time.Second
	}
	return &Memory{nic: n, timeout: timeout, waiting: make(map[uint8]wait)}
}

// NextIID implements oem.Direct.
func (m *Memory) NextIID() uint8 { return m.iids.Next() }

// Do implements oem.Transport.
func (m *Memory) Do(ctx context.Context, ch ncsi.Channel, typ ncsi.Type, payload []byte) ([]byte, error) {
	return m.DoIID(ctx, m.NextIID(), ch, typ, payload)
}

// DoIID implements oem.Direct. Commands that run at the same time must have
// different instance IDs.
func (m *Memory) DoIID(ctx context.Context, iid uint8, ch ncsi.Channel, typ ncsi.Type, payload []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	command, err := ncsi.Packet{IID: iid, Type: typ, Channel: ch, Payload: payload}.Append(nil)
	if err != nil {
		return nil, err
	}
	w := wait{typ.Response(), make(chan []byte, 1)}
	m.mu.Lock()
	_, taken := m.waiting[iid]
	if !taken {
		m.waiting[iid] = w
	}
	m.mu.Unlock()
	if taken {
		return nil, fmt.Errorf("instance ID %d is in use", iid)
	}
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.waiting, iid)
	}()
	if r := m.nic.Respond(command); r.After > 0 {
		time.AfterFunc(r.After, func() { m.deliver(r.Packets) })
	} else {
		m.deliver(r.Packets)
	}
	timer := time.NewTimer(m.timeout)
	defer timer.Stop()
	select {
	case p := <-w.response:
		return p, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-timer.C:
		return nil, fmt.Errorf("no response in %v: %w", m.timeout, os.ErrDeadlineExceeded)
	}
}

// deliver hands responses to who waits for them. What nobody waits for is lost,
// as is what is no packet.
func (m *Memory) deliver(packets [][]byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range packets {
		p, _, err := ncsi.Parse(b)
		w, ok := m.waiting[p.IID]
		if err != nil || !ok || w.typ != p.Type {
			continue
		}
		select {
		case w.response <- p.Payload:
		default: // it has one
		}
	}
}
