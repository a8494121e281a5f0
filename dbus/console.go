// SPDX-License-Identifier: Apache-2.0

package dbus

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/bluefield-go/bmc-rshim/dbus/bus"
	"github.com/bluefield-go/bmc-rshim/rshim"
)

// maxConsoles is how many connections one console has: callers that never close
// theirs must not use the daemon's files up.
const maxConsoles = 16

// consoleBuffer is what is moved at once, in bytes.
const consoleBuffer = 4 << 10

// console is Console.Access of one device.
type console struct {
	c     *rshim.Console
	tasks *tasks
	open  atomic.Int32
}

func (c *console) iface() bus.Interface {
	return describe(bus.Interface{Name: ifaceConsole, Methods: []bus.Method{
		{Name: "Connect", Out: "h", Handle: c.connect},
	}})
}

// connect gives the caller one end of a socket, the other of which is the
// console, from now on.
func (c *console) connect(_ context.Context, call *bus.Call) ([]any, error) {
	if c.open.Add(1) > maxConsoles {
		c.open.Add(-1)
		return nil, bus.Errorf(errorTooMany, "the console has %d connections", maxConsoles)
	}
	ours, theirs, err := socketpair()
	if err != nil {
		c.open.Add(-1)
		return nil, err
	}
	defer theirs.Close()
	fd, err := call.AttachFile(theirs)
	if err == nil && !c.tasks.run(func(ctx context.Context) { c.serve(ctx, ours) }) {
		err = rshim.ErrGone
	}
	if err != nil {
		c.open.Add(-1)
		ours.Close()
		return nil, err
	}
	return []any{fd}, nil
}

// serve moves bytes between the socket and the console until one of them ends.
func (c *console) serve(ctx context.Context, sock *os.File) {
	defer c.open.Add(-1)
	ctx, end := context.WithCancel(ctx)
	cc := c.c.Open(false)
	context.AfterFunc(ctx, func() { sock.Close() }) // ends what waits for the caller
	var in sync.WaitGroup
	in.Go(func() {
		defer end()
		p := make([]byte, consoleBuffer)
		for {
			n, err := sock.Read(p)
			if err != nil {
				return
			}
			if _, err := cc.Write(ctx, p[:n]); err != nil {
				return
			}
		}
	})
	p := make([]byte, consoleBuffer)
	for {
		n, err := cc.Read(ctx, p)
		if err != nil || ctx.Err() != nil {
			break
		}
		if _, err := sock.Write(p[:n]); err != nil {
			break
		}
	}
	end()
	in.Wait()
	cc.Close()
}

// socketpair makes the two ends of a stream. Ours is used by Go's poller, so that
// closing it ends what waits in it; theirs blocks, as callers expect.
func socketpair() (ours, theirs *os.File, err error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err == nil {
		if err = syscall.SetNonblock(fds[0], true); err != nil {
			syscall.Close(fds[0])
			syscall.Close(fds[1])
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "console"), os.NewFile(uintptr(fds[1]), "console"), nil
}
