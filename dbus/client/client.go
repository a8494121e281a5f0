// SPDX-License-Identifier: Apache-2.0

// Package client is the daemon's service on D-Bus as Go types: what the
// operator's commands and the Redfish bridge use. It knows the service by its
// interfaces alone (dbus/interfaces/*.xml) and trusts nothing of what it
// answers: values of a wrong type are errors, and texts have no control
// characters.
package client

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/bluefield-go/bmc-rshim/dbus/bus"
	"github.com/bluefield-go/bmc-rshim/dbus/wire"
)

// Names of the service. They are its interface; see docs/dbus.md.
const (
	name        = "xyz.openbmc_project.Rshim"
	root        = "/xyz/openbmc_project/rshim"
	pathService = "/xyz/openbmc_project/control/service/rshim"

	ifManager    = name + ".Manager"
	ifDevice     = name + ".Device"
	ifPush       = name + ".Push"
	ifHostAccess = name + ".HostAccess"
	ifProgress   = "xyz.openbmc_project.Common.Progress"
	ifPercent    = "xyz.openbmc_project.Software.ActivationProgress"
	ifDelete     = "xyz.openbmc_project.Object.Delete"
	ifService    = "xyz.openbmc_project.Control.Service.Attributes"
	ifConsole    = "xyz.openbmc_project.Console.Access"
)

// Time limits of calls. The daemon has its own for what a DPU may take.
const (
	dialLimit  = 5 * time.Second
	callLimit  = 30 * time.Second
	nicLimit   = time.Minute     // the daemon gives the NIC 30 s
	pushLimit  = 2 * time.Minute // it may have to force the RShim from its owner first
	resetLimit = 5 * time.Minute
)

// Client is a connection to the daemon. Its methods may be called from any
// goroutine, and return soon after their context has ended.
type Client struct {
	c    *bus.Conn
	done chan struct{} // the connection has ended; then
	err  error         // why
}

// Connect connects to the daemon on the bus at address, such as
// unix:path=/run/dbus/system_bus_socket; "" is the system bus. The error is
// ErrNoBus or ErrNoDaemon if there is none.
func Connect(ctx context.Context, address string) (*Client, error) {
	dial, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	conn, err := bus.Dial(dial, address)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, &OpError{"connect", "", fmt.Errorf("%w: %w", ErrNoBus, err)}
	}
	c := &Client{c: conn, done: make(chan struct{})}
	go func() {
		// It ends by Close, as it has to outlive ctx.
		c.err = conn.Run(context.Background())
		close(c.done)
	}()
	owner, err := conn.Owner(dial, name)
	if err == nil && owner == "" {
		err = &OpError{"connect", "", ErrNoDaemon}
	} else if err != nil && ctx.Err() == nil {
		err = &OpError{"connect", "", fmt.Errorf("%w: %w", ErrNoBus, err)}
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Close closes the connection and ends all that waits for it.
func (c *Client) Close() {
	_ = c.c.Close()
	<-c.done
}

// Version returns the daemon's version.
func (c *Client) Version(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	v, err := c.c.Get(ctx, name, root, ifManager, "Version")
	if err != nil {
		return "", c.opError("version", "", err)
	}
	s, ok := v.(string)
	if !ok {
		return "", c.opError("version", "", wrongType("Version", v))
	}
	return printable(s), nil
}

// DumpState returns the daemon's state as text, for people: what it writes
// into its log when it gets SIGUSR1.
func (c *Client) DumpState(ctx context.Context) (string, error) {
	r, err := c.call(ctx, callLimit, "dump", "", root, ifManager, "DumpState", nil)
	if err != nil {
		return "", err
	}
	s, err := one[string](r.Body)
	return lines(s), c.opError("dump", "", err)
}

// call calls a method.
func (c *Client) call(ctx context.Context, limit time.Duration, op, device string, path wire.ObjectPath, iface, member string, files []*os.File, args ...any) (*bus.Reply, error) {
	return c.callName(ctx, limit, op, device, name, path, iface, member, files, args...)
}

func (c *Client) callName(ctx context.Context, limit time.Duration, op, device, dest string, path wire.ObjectPath, iface, member string, files []*os.File, args ...any) (*bus.Reply, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	r, err := c.c.Send(ctx, &bus.Request{
		Destination: dest, Path: path, Interface: iface, Member: member, Args: args, Files: files,
	})
	if err != nil {
		return nil, c.opError(op, device, err)
	}
	return r, nil
}

// one is the only value of a reply.
func one[T any](body []any) (T, error) {
	var none T
	if len(body) != 1 {
		return none, fmt.Errorf("%w: %d values instead of one", ErrAnswer, len(body))
	}
	v, ok := body[0].(T)
	if !ok {
		return none, wrongType("the reply", body[0])
	}
	return v, nil
}

// closeAll closes files that nobody has asked for.
func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// Path is where an object of the daemon is, such as a push.
type Path = wire.ObjectPath

// devicePath is the path of rshim<index>.
func devicePath(index int) Path { return Path(root + "/rshim" + strconv.Itoa(index)) }

func deviceName(index int) string { return "rshim" + strconv.Itoa(index) }

// Index is the index of the device at a path, -1 if that is no device's.
func Index(p Path) int {
	s, ok := strings.CutPrefix(string(p), root+"/rshim")
	n, err := strconv.Atoi(s)
	if !ok || err != nil || n < 0 || strconv.Itoa(n) != s {
		return -1
	}
	return n
}

// isPush reports whether a path is that of a push.
func isPush(p Path) bool {
	s, ok := strings.CutPrefix(string(p), root+"/push/")
	return ok && s != "" && !strings.Contains(s, "/")
}

// gone reports whether an error is one of a connection that has ended.
func gone(err error) bool { return errors.Is(err, bus.ErrClosed) }
