// SPDX-License-Identifier: Apache-2.0

package oem

import (
	"context"
	"errors"
	"fmt"

	"github.com/bluefield-go/bmc-rshim/ncsi"
)

// tries is how often a Client sends what only reads.
const tries = 3

// Client gets and sets the host's access to RShim. All errors are *OpError.
//
// What only reads is tried up to three times when no response comes, or none
// that makes sense. What sets is sent once, read back and compared; only if the
// response was missing and what is read back proves that nothing was done, it
// is sent once more. On a Direct transport a repeated question has the instance
// ID of the first, and where the NIC asks for it ("interface initialization
// required"), Clear Initial State is sent to the channel, which is the package's
// channel 0 if Channel is the whole package, and the command once more.
//
// A Client is safe for concurrent use if its Transport is, but two that set the
// same parameter spoil each other's reading back.
type Client struct {
	Transport Transport
	Channel   ncsi.Channel
}

// Get returns whether the host may use RShim. NVIDIA does not say whether,
// between Set and the DPU's reboot, this is what was set or what is in force.
func (c *Client) Get(ctx context.Context) (HostAccess, error) {
	n, err := c.get(ctx, hostAccess)
	return HostAccess(n), c.opError("get host access", err)
}

// Set changes whether the host may use RShim from the next reboot of the DPU
// on. It returns nil only after having read the new state back. Otherwise the
// error is the NIC's refusal (*StatusError), ErrNotTaken, or ErrOutcomeUnknown
// together with its causes; when nothing was sent, it is the transport's or the
// context's alone.
//
// ErrNotTaken after a command that was answered as done has two explanations:
// the NIC has not done it, or its firmware reports the state in force, which
// does not change before the DPU reboots.
func (c *Client) Set(ctx context.Context, a HostAccess) error {
	return c.opError("set host access", c.set(ctx, hostAccess, uint8(a)))
}

// GetRuntime returns whether the host may use RShim now. Not all firmware
// answers it.
func (c *Client) GetRuntime(ctx context.Context) (RuntimeAccess, error) {
	n, err := c.get(ctx, runtimeAccess)
	return RuntimeAccess(n), c.opError("get run-time access", err)
}

// SetRuntime is Set for run-time access, which changes at once and is lost at
// the next reset. Firmware that can set it and not tell it is taken at its word:
// the error is then ErrNotReadBack, after an answer that it is done.
func (c *Client) SetRuntime(ctx context.Context, a RuntimeAccess) error {
	return c.opError("set run-time access", c.set(ctx, runtimeAccess, uint8(a)))
}

// Raw sends any OEM command of the manufacturer, once, and returns the data of
// its response without what that repeats of the command.
func (c *Client) Raw(ctx context.Context, cmd Command, p Parameter, data []byte) (rsp []byte, err error) {
	if len(data) > MaxData {
		err = fmt.Errorf("%d bytes of data: an OEM command has room for %d", len(data), MaxData)
	} else {
		err = c.command(ctx, 1, Request(cmd, p, data), func(payload []byte) (err error) {
			rsp, err = ParseResponse(cmd, p, payload)
			return err
		})
	}
	return rsp, c.opError(fmt.Sprintf("OEM command 0x%02x parameter 0x%02x", uint8(cmd), uint8(p)), err)
}

func (c *Client) opError(op string, err error) error {
	if err == nil {
		return nil
	}
	return &OpError{Op: op, Channel: c.Channel, Err: err}
}

func (c *Client) get(ctx context.Context, s setting) (state uint8, err error) {
	err = c.command(ctx, tries, Request(Get, s.param, nil), func(payload []byte) (err error) {
		state, err = s.parse(payload)
		return err
	})
	return state, err
}

func (c *Client) set(ctx context.Context, s setting, want uint8) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if int(want) >= len(s.names) {
		return fmt.Errorf("%s %d has no name", s.what, want)
	}
	var got uint8
	var sent error
	for range 2 {
		sent = c.command(ctx, 1, s.request(want), func(payload []byte) error {
			_, err := ParseResponse(Set, s.param, payload)
			return err
		})
		status, answered := errors.AsType[*StatusError](sent)
		delayed := answered && status.NCSI.Code == ncsi.DelayedResponse
		if answered && !delayed || IsNotSent(sent) {
			return sent
		}
		var err error
		if got, err = c.get(ctx, s); err != nil {
			if sent == nil && s.param == ParamRuntimeAccess && cannotTell(err) {
				return fmt.Errorf("%w: %w", ErrNotReadBack, err)
			}
			if sent == nil {
				return fmt.Errorf("%w: the NIC answered that it is done, but reading back failed: %w", ErrOutcomeUnknown, err)
			}
			return fmt.Errorf("%w: %w; reading back: %w", ErrOutcomeUnknown, sent, err)
		}
		switch {
		case got == want:
			return nil
		case delayed:
			return fmt.Errorf("%w: the NIC still reports %s: %w", ErrOutcomeUnknown, s.names[got], sent)
		case sent == nil:
			return fmt.Errorf("%w: the NIC answered that it is done, and reports %s", ErrNotTaken, s.names[got])
		}
	}
	return fmt.Errorf("%w: sent twice, and the NIC reports %s: %w", ErrNotTaken, s.names[got], sent)
}

// command sends an OEM command as try does, after Clear Initial State if need
// be.
func (c *Client) command(ctx context.Context, n int, payload []byte, parse func([]byte) error) error {
	err := c.try(ctx, n, c.Channel, ncsi.OEM, payload, parse)
	if _, direct := c.Transport.(Direct); !direct || !errors.Is(err, ncsi.ErrInitRequired) {
		return err
	}
	one := c.Channel
	if one == one.Whole() { // which has no Initial State
		one = one.First()
	}
	cleared := c.try(ctx, tries, one, ncsi.ClearInitialState, nil, func(payload []byte) error {
		r, err := ncsi.ParseResponse(payload)
		if err != nil {
			return err
		}
		return r.Err()
	})
	if cleared != nil {
		return fmt.Errorf("%w; Clear Initial State: %w", err, cleared)
	}
	return c.try(ctx, n, c.Channel, ncsi.OEM, payload, parse)
}

// try sends a command up to n times until it has a response that parse takes.
func (c *Client) try(ctx context.Context, n int, ch ncsi.Channel, typ ncsi.Type, payload []byte, parse func([]byte) error) error {
	do := c.Transport.Do
	if d, ok := c.Transport.(Direct); ok {
		iid := d.NextIID()
		do = func(ctx context.Context, ch ncsi.Channel, typ ncsi.Type, payload []byte) ([]byte, error) {
			return d.DoIID(ctx, iid, ch, typ, payload)
		}
	}
	if err := ctx.Err(); err != nil {
		return NotSent(err)
	}
	var err error
	for range n {
		var rsp []byte
		if rsp, err = do(ctx, ch, typ, payload); err == nil {
			err = parse(rsp)
		}
		if again := IsTimeout(err) || errors.Is(err, ncsi.ErrMalformed); !again || ctx.Err() != nil {
			return err
		}
	}
	if n > 1 {
		err = fmt.Errorf("%d tries: %w", n, err)
	}
	return err
}
