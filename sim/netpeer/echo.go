// SPDX-License-Identifier: Apache-2.0

// Package netpeer is a host on the network of a simulated DPU, in the same
// process: it answers ARP and neighbour solicitations for its addresses, and
// pings.
package netpeer

import (
	"io"
	"net/netip"
	"os"
	"sync"
)

// Options of an Echo. The zero value is what stands behind a real DPU's
// interface.
type Options struct {
	MAC  [6]byte    // zero: 00:1a:ca:ff:ff:01
	IPv4 netip.Addr // zero: 192.168.100.2
	IPv6 netip.Addr // zero: fe80::2
}

// queueLen is how many answers wait to be read; what comes on top is dropped.
const queueLen = 256

// Echo is such a host. A Write is a frame that it receives, a Read gives the
// next one that it sends. Both are without checksum.
type Echo struct {
	o    Options
	out  chan []byte
	end  sync.Once
	done chan struct{}
}

// New returns an Echo.
func New(o Options) *Echo {
	if o.MAC == [6]byte{} {
		o.MAC = [6]byte{0x00, 0x1a, 0xca, 0xff, 0xff, 0x01}
	}
	if !o.IPv4.IsValid() {
		o.IPv4 = netip.AddrFrom4([4]byte{192, 168, 100, 2})
	}
	if !o.IPv6.IsValid() {
		o.IPv6 = netip.MustParseAddr("fe80::2")
	}
	return &Echo{o: o, out: make(chan []byte, queueLen), done: make(chan struct{})}
}

// Write never waits, and fails only after Close.
func (e *Echo) Write(frame []byte) (int, error) {
	select {
	case <-e.done:
		return 0, os.ErrClosed
	default:
	}
	if r := e.answer(frame); r != nil {
		select {
		case e.out <- r:
		default:
		}
	}
	return len(frame), nil
}

// Read waits for a frame, and copies what fits of it to p. It returns io.EOF
// after Close.
func (e *Echo) Read(p []byte) (int, error) {
	select {
	case r := <-e.out:
		return copy(p, r), nil
	case <-e.done:
		return 0, io.EOF
	}
}

// Close ends Reads. It always returns nil.
func (e *Echo) Close() error {
	e.end.Do(func() { close(e.done) })
	return nil
}

var _ io.ReadWriteCloser = (*Echo)(nil)
