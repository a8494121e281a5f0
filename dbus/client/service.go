// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/bluefield-go/bmc-rshim/dbus/bus"
	"github.com/bluefield-go/bmc-rshim/dbus/wire"
)

// Serving reports whether the daemon serves the DPUs.
func (c *Client) Serving(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	v, err := c.c.Get(ctx, name, pathService, ifService, "Running")
	if err != nil {
		return false, c.opError("service", "", err)
	}
	b, ok := v.(bool)
	if !ok {
		err = wrongType("Running", v)
	}
	return b, c.opError("service", "", err)
}

// SetServing has the daemon serve the DPUs, or leave them alone.
func (c *Client) SetServing(ctx context.Context, on bool) error {
	return c.set(ctx, "service", pathService, ifService, "Running", on)
}

func (c *Client) set(ctx context.Context, op string, path Path, iface, property string, v any) error {
	ctx, cancel := context.WithTimeout(ctx, resetLimit)
	defer cancel()
	return c.opError(op, "", c.c.Set(ctx, name, path, iface, property, v))
}

// HostAccess is what the host may do with the RShim, as the NIC says.
type HostAccess struct {
	Persistent string // Disabled, Enabled, Locked, Unknown: from the DPU's next reset on
	Runtime    string // Disabled, Enabled, Unknown: until then
	Locked     bool
}

// HostAccess asks the NIC, or with fresh false the daemon for what it knows.
// The error is ErrUnsupported if the daemon has no way to the NIC.
func (c *Client) HostAccess(ctx context.Context, fresh bool) (*HostAccess, error) {
	if fresh {
		if _, err := c.call(ctx, nicLimit, "host access", "", root, ifHostAccess, "Refresh", nil); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	p, err := c.c.GetAll(ctx, name, root, ifHostAccess)
	if err != nil {
		return nil, c.opError("host access", "", err)
	}
	if _, ok := p["Runtime"]; !ok {
		// Of an interface that an object has not, some services give nothing.
		return nil, c.opError("host access", "", ErrUnsupported)
	}
	h, err := decodeHostAccess(p)
	if err != nil {
		return nil, c.opError("host access", "", err)
	}
	return h, nil
}

func decodeHostAccess(p bus.Properties) (*HostAccess, error) {
	f := &fields{p: p}
	h := &HostAccess{
		Persistent: f.enum("Persistent", ifHostAccess+".Modes"),
		Runtime:    f.enum("Runtime", ifHostAccess+".Modes"),
		Locked:     field[bool](f, "Locked"),
	}
	return h, f.err
}

// SetHostAccess sets what counts from the DPU's next reset on: Disabled,
// Enabled or Locked.
func (c *Client) SetHostAccess(ctx context.Context, mode string) error {
	return c.set(ctx, "host access", root, ifHostAccess, "Persistent", ifHostAccess+".Modes."+mode)
}

// SetRuntimeHostAccess sets what counts until the DPU's next reset: Disabled
// or Enabled.
func (c *Client) SetRuntimeHostAccess(ctx context.Context, mode string) error {
	return c.set(ctx, "host access", root, ifHostAccess, "Runtime", ifHostAccess+".Modes."+mode)
}

// OpenConsole connects to a device's console. The file is the caller's to
// close.
func (c *Client) OpenConsole(ctx context.Context, index int) (*os.File, error) {
	id := deviceName(index)
	r, err := c.callName(ctx, callLimit, "console", id,
		"xyz.openbmc_project.Console."+id, Path("/xyz/openbmc_project/console/"+id), ifConsole, "Connect", nil)
	if errors.Is(err, ErrNoDaemon) {
		return nil, c.opError("console", id, fmt.Errorf("%w: nobody has its name on D-Bus, which the daemon takes when that has been free for 30 s", ErrUnavailable))
	}
	if err != nil {
		return nil, err
	}
	i, err := one[wire.FD](r.Body)
	if err == nil && int(i) >= len(r.Files) {
		err = fmt.Errorf("%w: file %d of %d", ErrAnswer, i, len(r.Files))
	}
	if err != nil {
		closeAll(r.Files)
		return nil, c.opError("console", id, err)
	}
	f := r.Files[i]
	for _, other := range r.Files {
		if other != f {
			other.Close()
		}
	}
	return f, nil
}
