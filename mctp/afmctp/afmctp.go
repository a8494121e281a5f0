// SPDX-License-Identifier: Apache-2.0

// Package afmctp sends NC-SI commands through the kernel's MCTP sockets
// (AF_MCTP, Linux 5.15 and later). It needs CAP_NET_RAW, and an endpoint that
// somebody has set up: by mctpd, or by hand with mctp.
//
// Every exchange has a socket of its own, which is closed whatever happens. The
// kernel's I2C driver keeps the bus locked from a request to its response, for
// everybody: other drivers, /dev/i2c-N. When the response does not come, only
// closing the socket unlocks the bus before six seconds have gone by.
package afmctp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bluefield-go/bmc-rshim/mctp"
	"github.com/bluefield-go/bmc-rshim/mctp/ncsimctp"
	"github.com/bluefield-go/bmc-rshim/ncsi/oem"
)

// Why a command could not be sent. They come in an *OpError, with what to do.
// The error of a process that may not send is os.ErrPermission. A link that is
// down and a device that is not there are no errors: the kernel drops what goes
// there, and no response comes.
var (
	ErrNoMCTP  = errors.New("the kernel has no MCTP (CONFIG_MCTP)")
	ErrNoRoute = errors.New("no route to the endpoint")
	// ErrBusy: the eight tags that there are for requests to one endpoint are
	// all in use, by whatever programs.
	ErrBusy = errors.New("too many requests to the endpoint are under way")
)

// OpError is an error of the kernel's sockets.
type OpError struct {
	Op     string // "socket", "send" or "receive"
	Device string // the endpoint
	Err    error
}

func (e *OpError) Error() string { return fmt.Sprintf("mctp: %s: %s: %v", e.Device, e.Op, e.Err) }

// Unwrap returns the cause.
func (e *OpError) Unwrap() error { return e.Err }

// Options say which NIC.
type Options struct {
	Network uint32 // of the endpoint; 0 means the kernel's default one
	Peer    mctp.EID
	Timeout time.Duration // of a command; 0 means ncsimctp.DefaultTimeout
	Logger  *slog.Logger  // nil discards
}

// New returns a transport. It opens nothing yet.
func New(o Options) *ncsimctp.Transport {
	return ncsimctp.New(&link{network: o.Network, peer: o.Peer},
		ncsimctp.Options{Peer: o.Peer, Timeout: o.Timeout, Logger: o.Logger})
}

// link implements ncsimctp.Link.
type link struct {
	network uint32
	peer    mctp.EID
	noAlloc bool // for tests: as on a kernel that cannot reserve tags
}

func (l *link) Exchange(ctx context.Context, body []byte, take func(mctp.Message) bool) error {
	s, err := open()
	if err != nil {
		return oem.NotSent(l.fail("socket", err))
	}
	defer s.Close()
	stop := context.AfterFunc(ctx, func() { s.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	to := sockaddr{family: unix.AF_MCTP, network: l.network, eid: uint8(l.peer), typ: body[0], tag: tagOwner}
	if !l.noAlloc {
		if to.tag, err = s.reserveTag(l.network, l.peer); err != nil {
			return oem.NotSent(l.fail("send", err))
		}
	}
	if err := s.send(to, body[1:]); err != nil {
		return l.failSend(err)
	}
	buf := make([]byte, mctp.MaxMessage)
	for {
		n, from, err := s.receive(buf[1:])
		if err != nil {
			return l.fail("receive", err)
		}
		// Older kernels do not look at the network when they look for who has
		// asked.
		if n > len(buf)-1 || l.network != 0 && from.network != l.network {
			continue
		}
		buf[0] = from.typ
		if take(mctp.Message{Src: mctp.EID(from.eid), TO: from.tag&tagOwner != 0, Tag: from.tag & 7, Body: buf[: n+1 : n+1]}) {
			return nil
		}
		buf = make([]byte, mctp.MaxMessage) // take may have kept the other one
	}
}

func (l *link) fail(op string, err error) error {
	return &OpError{Op: op, Device: l.String(), Err: l.explain(err)}
}

// failSend is the error of a send. What the kernel refuses before it makes
// packets has not left; of other errors nobody knows.
func (l *link) failSend(err error) error {
	failed := l.fail("send", err)
	for _, refusal := range []unix.Errno{unix.EACCES, unix.EPERM, unix.EHOSTUNREACH, unix.EBUSY, unix.EMSGSIZE} {
		if errors.Is(err, refusal) {
			return oem.NotSent(failed)
		}
	}
	return failed
}

func (l *link) String() string {
	if l.network == 0 {
		return fmt.Sprintf("EID %d", l.peer)
	}
	return fmt.Sprintf("network %d EID %d", l.network, l.peer)
}

// explain adds to an error number what it means here and what to do.
func (l *link) explain(err error) error {
	switch {
	case errors.Is(err, unix.EAFNOSUPPORT):
		return fmt.Errorf("%w: %w", ErrNoMCTP, err)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fmt.Errorf("MCTP needs root or CAP_NET_RAW: %w", err)
	case errors.Is(err, unix.EHOSTUNREACH):
		return fmt.Errorf(`%w (%w): look at "mctp link", "mctp addr", "mctp route" and "mctp neigh"; `+
			`"mctp route add %d via LINK" and, on a bus, "mctp neigh add %d dev LINK lladdr ADDRESS" may be missing, or our own "mctp addr add EID dev LINK"`,
			ErrNoRoute, err, l.peer, l.peer)
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%w: %w", ErrBusy, err)
	}
	return err
}
