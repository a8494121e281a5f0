// SPDX-License-Identifier: Apache-2.0

package afmctp

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bluefield-go/bmc-rshim/mctp"
	"github.com/bluefield-go/bmc-rshim/mctp/ncsimctp"
)

// NewPlain is New on a kernel that cannot reserve tags.
func NewPlain(o Options) *ncsimctp.Transport {
	return ncsimctp.New(&link{network: o.Network, peer: o.Peer, noAlloc: true},
		ncsimctp.Options{Peer: o.Peer, Timeout: o.Timeout, Logger: o.Logger})
}

// Explain is the error of a send that failed with err.
func Explain(o Options, err error) error {
	return (&link{network: o.Network, peer: o.Peer}).failSend(err)
}

// LeaveOpen sends a request and leaves its socket open until the test's end.
func LeaveOpen(t testing.TB, o Options, data []byte) {
	t.Helper()
	s, err := open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	to := sockaddr{family: unix.AF_MCTP, network: o.Network, eid: uint8(o.Peer), typ: uint8(mctp.NCSI), tag: tagOwner}
	if err := s.send(to, data); err != nil {
		t.Fatal(err)
	}
}
