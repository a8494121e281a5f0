// SPDX-License-Identifier: Apache-2.0

package bus

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/bluefield-go/bmc-rshim/dbus/wire"
)

// clientStuck is how long a bus may leave a client's messages unread.
const clientStuck = time.Minute

// Conn is a client's connection to a bus. Its methods may be called from any
// goroutine; replies and signals arrive only while Run runs.
type Conn struct {
	c *conn

	mu   sync.Mutex
	subs []*Subscription
}

// Dial connects to the bus at address (unix:path=... or unix:abstract=..., the
// first that answers if there are several; "" is the system bus),
// authenticates and says Hello. The error is an *OpError.
func Dial(ctx context.Context, address string) (*Conn, error) {
	l, err := connect(ctx, address)
	if err != nil {
		return nil, err
	}
	c := &Conn{c: newConn(l, clientStuck)}
	c.c.onSignal = c.signal
	c.c.onCall = func(_ context.Context, in *incoming) {
		in.discard()
		c.c.refuse(in, Errorf(ErrNameUnknownObject, "a client has no objects"), nil)
	}
	return c, nil
}

// Run sends and receives until ctx is done, Close is called or the connection
// breaks, and returns why: ctx's error, or an *OpError, of ErrClosed if the
// bus or Close ended it. Afterwards the connection is closed. To be called
// once.
func (c *Conn) Run(ctx context.Context) error { return c.c.run(ctx) }

// Close ends Run and closes the connection.
func (c *Conn) Close() error {
	c.c.fail(&OpError{"close", c.c.address, ErrClosed})
	return nil
}

// Do dials, runs the connection beside f, and closes it when f has returned.
// It returns the error of Dial or f. f's ctx ends when the connection does.
func Do(ctx context.Context, address string, f func(ctx context.Context, c *Conn) error) error {
	c, err := Dial(ctx, address)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var run sync.WaitGroup
	run.Go(func() { cancel(c.Run(ctx)) })
	defer run.Wait()
	defer c.Close()
	return f(ctx, c)
}

// Name returns the connection's unique name.
func (c *Conn) Name() string { return c.c.name }

// Request is a method call.
type Request struct {
	Destination string
	Path        wire.ObjectPath
	Interface   string
	Member      string
	Args        []any
	Files       []*os.File // wire.FD(0) in Args is the first; they remain the caller's
	Flags       wire.Flags // NoReplyExpected: Send returns when the call is queued
}

// Reply is the answer to a Request. The files are the caller's to close.
type Reply struct {
	Body  []any
	Files []*os.File
}

// Send sends a call and waits for its answer, for as long as ctx allows. The
// error is an *Error if one was answered, else an *OpError.
func (c *Conn) Send(ctx context.Context, r *Request) (*Reply, error) {
	var fds []int
	for _, f := range r.Files {
		fd, err := duplicate(f)
		if err != nil {
			closeFDs(fds)
			return nil, &OpError{"call " + r.Member, c.c.address, err}
		}
		fds = append(fds, fd)
	}
	in, err := c.c.call(ctx, &wire.Message{
		Destination: r.Destination, Path: r.Path, Interface: r.Interface, Member: r.Member, Body: r.Args, Flags: r.Flags,
	}, fds)
	if err != nil {
		return nil, err
	}
	reply := &Reply{}
	if in != nil {
		reply.Body = in.Body
		for _, fd := range in.fds {
			reply.Files = append(reply.Files, os.NewFile(uintptr(fd), r.Member))
		}
	}
	return reply, nil
}

// Call is Send without files.
func (c *Conn) Call(ctx context.Context, dest string, path wire.ObjectPath, iface, member string, args ...any) ([]any, error) {
	r, err := c.Send(ctx, &Request{Destination: dest, Path: path, Interface: iface, Member: member, Args: args})
	if err != nil {
		return nil, err
	}
	for _, f := range r.Files {
		f.Close()
	}
	return r.Body, nil
}

// call1 is Call for an answer of one value of type T.
func call1[T any](ctx context.Context, c *Conn, dest string, path wire.ObjectPath, iface, member string, args ...any) (v T, err error) {
	body, err := c.Call(ctx, dest, path, iface, member, args...)
	if err != nil {
		return v, err
	}
	if len(body) == 1 {
		if v, ok := body[0].(T); ok {
			return v, nil
		}
	}
	return v, &OpError{"call " + member, c.c.address, fmt.Errorf("%s answers what it should not: %d values", dest, len(body))}
}

// Properties are the values of properties, by name.
type Properties map[string]any

// Get reads a property.
func (c *Conn) Get(ctx context.Context, dest string, path wire.ObjectPath, iface, property string) (any, error) {
	v, err := call1[wire.Variant](ctx, c, dest, path, ifaceProperties, "Get", iface, property)
	return v.Value, err
}

// Set writes a property.
func (c *Conn) Set(ctx context.Context, dest string, path wire.ObjectPath, iface, property string, value any) error {
	_, err := c.Call(ctx, dest, path, ifaceProperties, "Set", iface, property, wire.Variant{Value: value})
	return err
}

// GetAll reads the properties of an interface, or of all ("").
func (c *Conn) GetAll(ctx context.Context, dest string, path wire.ObjectPath, iface string) (Properties, error) {
	d, err := call1[wire.Dict](ctx, c, dest, path, ifaceProperties, "GetAll", iface)
	return properties(d), err
}

// GetManagedObjects asks the ObjectManager at path for objects, interfaces, properties.
func (c *Conn) GetManagedObjects(ctx context.Context, dest string, path wire.ObjectPath) (map[wire.ObjectPath]map[string]Properties, error) {
	d, err := call1[wire.Dict](ctx, c, dest, path, ifaceObjectManager, "GetManagedObjects")
	if err != nil {
		return nil, err
	}
	objects := make(map[wire.ObjectPath]map[string]Properties)
	for _, e := range d.Entries {
		path, _ := e.Key.(wire.ObjectPath)
		interfaces, _ := e.Value.(wire.Dict)
		objects[path] = interfaceProperties(interfaces)
	}
	return objects, nil
}

// Owner returns the unique name of a name's owner, or "" if it has none.
func (c *Conn) Owner(ctx context.Context, name string) (string, error) {
	return c.c.owner(ctx, name)
}

// WatchOwner calls f with the unique name of name's owner ("": none), now and
// whenever it changes, until ctx is done or the connection ends; it returns
// why. f runs in the caller's goroutine; of changes that come faster than it returns, some may
// be left out, never the last.
func (c *Conn) WatchOwner(ctx context.Context, name string, f func(owner string)) error {
	sub, err := c.Subscribe(ctx, ownerMatch(name), 1)
	if err != nil {
		return err
	}
	defer sub.Close()
	owner, err := c.Owner(ctx, name)
	for err == nil {
		f(owner)
		for last := owner; owner == last && err == nil; {
			var sig Signal
			if sig, _, err = sub.Next(ctx); err == nil && len(sig.Body) == 3 {
				owner, _ = sig.Body[2].(string)
			}
		}
	}
	return err
}

// remove takes a subscription out of the list.
func (c *Conn) remove(s *Subscription) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.subs = slices.DeleteFunc(c.subs, func(have *Subscription) bool { return have == s })
}
