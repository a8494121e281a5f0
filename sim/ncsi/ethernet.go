// SPDX-License-Identifier: Apache-2.0

package simncsi

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"time"

	"github.com/bluefield-go/bmc-rshim/ncsi"
)

// Sizes of an Ethernet frame, without FCS.
const (
	etherHeader = 14
	minFrame    = 60
	maxFrame    = 9216 // more than anybody's MTU
)

// Frame gives the NIC an Ethernet frame, as over RBT. The packets of the reply
// are frames, at least 60 bytes long. What is not NC-SI gets none.
func (n *NIC) Frame(in []byte) Reply {
	if len(in) < etherHeader || binary.BigEndian.Uint16(in[12:]) != ncsi.EtherType {
		return Reply{}
	}
	reply := n.Respond(in[etherHeader:])
	for i, p := range reply.Packets {
		f := bytes.Repeat([]byte{0xff}, 12) // to everybody, from nobody
		f = binary.BigEndian.AppendUint16(f, ncsi.EtherType)
		f = append(f, p...)
		reply.Packets[i] = append(f, make([]byte, max(0, minFrame-len(f)))...)
	}
	return reply
}

// ServePackets answers the frames that come out of a datagram socket, one each,
// as QEMU's -netdev dgram has them. A reply goes to peer, or if that is nil to
// who sent the frame. It returns nil once ctx is done, having interrupted c, or
// the error of reading.
func (n *NIC) ServePackets(ctx context.Context, c net.PacketConn, peer net.Addr) error {
	stop := context.AfterFunc(ctx, func() { c.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, maxFrame)
	for {
		size, from, err := c.ReadFrom(buf)
		if err != nil {
			if ctx.Err() != nil {
				err = nil
			}
			return err
		}
		if peer != nil {
			from = peer
		}
		if from == nil {
			continue // an unbound socket of package unix
		}
		// What cannot be sent is lost, as on a cable.
		send(ctx, n.Frame(buf[:size]), func(f []byte) { c.WriteTo(f, from) })
	}
}

// ServeTap answers the frames of a TAP interface, one for each Read and Write.
// It returns nil once ctx is done, having closed tap, or the error of reading.
func (n *NIC) ServeTap(ctx context.Context, tap io.ReadWriteCloser) error {
	stop := context.AfterFunc(ctx, func() { tap.Close() })
	defer stop()
	buf := make([]byte, maxFrame)
	for {
		size, err := tap.Read(buf)
		if err != nil {
			if ctx.Err() != nil {
				err = nil
			}
			return err
		}
		send(ctx, n.Frame(buf[:size]), func(f []byte) { tap.Write(f) })
	}
}

// send sends a reply when it is time, unless ctx is done before.
func send(ctx context.Context, r Reply, write func([]byte)) {
	if r.After > 0 {
		t := time.NewTimer(r.After)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
	for _, p := range r.Packets {
		write(p)
	}
}

// Message gives the NIC an MCTP message, which begins with its type, and
// returns the message that answers it, or nil if there is none. It takes as
// long as the NIC does. AENs are left out: over MCTP they are no responses.
func (n *NIC) Message(in []byte) []byte {
	if len(in) == 0 || in[0] != ncsi.MCTPType {
		return nil
	}
	r := n.Respond(in[1:])
	time.Sleep(r.After)
	if len(r.Packets) == 0 {
		return nil
	}
	return append([]byte{ncsi.MCTPType}, r.Packets[len(r.Packets)-1]...)
}
