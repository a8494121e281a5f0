// SPDX-License-Identifier: Apache-2.0

// Package netlink sends NC-SI commands through the kernel, by its generic
// netlink family NCSI, and lists the packages and channels that the kernel has
// found.
//
// The kernel owns the cable to the NIC: it brings packages and channels up,
// gives commands their instance IDs, headers and checksums, and waits one second
// for a response. Its interface has a few properties of its own, which are this
// package's business: see Transport.
package netlink

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"

	"github.com/bluefield-go/bmc-rshim/ncsi/oem"
)

// kernelTimeout is how long the kernel waits for a response
// (net/ncsi/ncsi-cmd.c).
const kernelTimeout = time.Second

// DefaultTimeout is how long a command takes at most. It must be longer than
// the kernel's own second, by enough for a loaded machine.
const DefaultTimeout = 3 * time.Second

// What callers may want to tell apart. Beyond these, errors are
// os.ErrPermission for who may not send commands, os.ErrDeadlineExceeded, and
// ncsi.ErrMalformed for a response that is none.
var (
	ErrNoFamily = errors.New("the kernel has no NC-SI (CONFIG_NET_NCSI)")
	ErrNoDevice = errors.New("no NC-SI device")
	ErrDown     = errors.New("the interface is down")
)

// OpError says which operation failed on which network interface.
type OpError struct {
	Op     string // "send command", "list packages", "list interfaces"
	Device string // the interface's name; empty for none
	Err    error
}

func (e *OpError) Error() string {
	if e.Device == "" {
		return e.Op + ": " + e.Err.Error()
	}
	return e.Op + " on " + e.Device + ": " + e.Err.Error()
}

// Unwrap returns Err.
func (e *OpError) Unwrap() error { return e.Err }

// system is what this package asks of the operating system; tests have their
// own.
type system struct {
	dial       func() (*genetlink.Conn, error)
	interfaces func() ([]net.Interface, error)
}

var kernel = system{dial: dial, interfaces: net.Interfaces}

// dial opens a socket with a random port ID. Those that the kernel gives out,
// the process's own ID first, are given out again as soon as they are free, and
// then a late answer to one command would come to the next one's socket.
func dial() (*genetlink.Conn, error) {
	for try := 0; ; try++ {
		// The upper half is out of reach of process IDs.
		c, err := genetlink.Dial(&netlink.Config{PID: 1<<31 | rand.Uint32()})
		if errors.Is(err, syscall.EADDRINUSE) && try < 10 {
			continue
		}
		return c, err
	}
}

// find returns the interface of that name.
func (s *system) find(name string) (*net.Interface, error) {
	all, err := s.interfaces()
	if err != nil {
		return nil, err
	}
	for i := range all {
		if all[i].Name == name {
			return &all[i], nil
		}
	}
	return nil, fmt.Errorf("%w: there is no network interface of this name", ErrNoDevice)
}

// execute sends one request over a connection of its own and returns the
// kernel's answers to it. Nothing is left over for a later request then: the
// kernel reports some errors twice, and answers some commands long after
// everybody has stopped waiting.
func (s *system) execute(ctx context.Context, timeout time.Duration, cmd uint8, flags netlink.HeaderFlags, attrs []byte) ([]genetlink.Message, error) {
	if err := ctx.Err(); err != nil {
		return nil, oem.NotSent(err)
	}
	c, err := s.dial()
	if err != nil {
		return nil, oem.NotSent(err)
	}
	defer c.Close()
	if err := c.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return nil, oem.NotSent(err)
	}
	stop := context.AfterFunc(ctx, func() { c.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()

	family, err := c.GetFamily(familyName)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			err = ErrNoFamily
		}
		return nil, oem.NotSent(cause(ctx, err))
	}
	// No acknowledgement: it would be one more message, in no certain order.
	req, err := c.Send(genetlink.Message{
		Header: genetlink.Header{Command: cmd, Version: family.Version},
		Data:   attrs,
	}, family.ID, netlink.Request|flags)
	if err != nil {
		return nil, oem.NotSent(err)
	}
	for {
		msgs, headers, err := c.Receive()
		if err != nil {
			oe, ok := errors.AsType[*netlink.OpError](err)
			if ok && oe.Sequence != 0 && oe.Sequence != req.Header.Sequence {
				continue // somebody else's error
			}
			return nil, cause(ctx, err)
		}
		// Whoever has CAP_NET_ADMIN may send to our socket too.
		var ours []genetlink.Message
		for i, m := range msgs {
			if h := headers[i].Header; h.Sequence == req.Header.Sequence && h.PID == req.Header.PID && m.Header.Command == cmd {
				ours = append(ours, m)
			}
		}
		if ours != nil || len(msgs) == 0 {
			return ours, nil
		}
	}
}

// cause returns the context's error in place of one that its end has led to.
func cause(ctx context.Context, err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// explain makes an error number of the kernel one of this package's errors.
func explain(err error) error {
	switch {
	case errors.Is(err, syscall.EPERM):
		return fmt.Errorf("%w: sending NC-SI commands takes CAP_NET_ADMIN", os.ErrPermission)
	case errors.Is(err, syscall.ENODEV):
		return fmt.Errorf("%w: the interface does no NC-SI (use-ncsi in the device tree?)", ErrNoDevice)
	}
	return err
}
