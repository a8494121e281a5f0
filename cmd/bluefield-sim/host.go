// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
)

// device is a DPU on its USB bus, and the driver of the host that it is in.
type device struct {
	*usbdev.Function

	mu   sync.Mutex
	host *bluefield.Host // the last one that was started
	kill context.CancelFunc
	done chan struct{} // closed when it has ended
}

var (
	errRunning = errors.New("the host's driver is running already")
	errNoHost  = errors.New("the host has no driver running")
)

// alive reports whether a driver is running. The caller holds mu.
func (d *device) alive() bool {
	select {
	case <-d.done:
		return false
	default:
		return d.host != nil
	}
}

// startHost starts a driver, which lives until ctx ends.
func (d *device) startHost(ctx context.Context, o bluefield.HostOptions) (*bluefield.Host, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.alive() {
		return nil, errRunning
	}
	o.Logger = d.DPU().Config().Logger
	ctx, kill := context.WithCancel(ctx)
	h, done := bluefield.NewHost(d.DPU(), o), make(chan struct{})
	d.host, d.kill, d.done = h, kill, done
	go func() {
		defer close(done)
		h.Run(ctx) // how it ends is an event
	}()
	return h, nil
}

// endHost ends the driver, as SIGTERM does or by a crash, and waits until it
// has ended: one that is granting the ownership does that first.
func (d *device) endHost(crash bool) error {
	d.mu.Lock()
	alive, done := d.alive(), d.done
	if alive && crash {
		d.kill()
	} else if alive {
		d.host.Stop()
	}
	d.mu.Unlock()
	if !alive {
		return errNoHost
	}
	<-done
	return nil
}

func (d *device) hostState() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.host == nil {
		return "state=none owns=false"
	}
	s := d.host.State()
	return fmt.Sprintf("state=%v owns=%t", s, s == bluefield.HostAttached)
}

type hostCommand struct {
	name string
	do   func(ctx context.Context, d *device) error
}

// hostCommands are what the command host can do.
var hostCommands = []hostCommand{
	{"start", starting(bluefield.HostOptions{})},
	{"start-force", starting(bluefield.HostOptions{Force: true})},
	{"stop", func(_ context.Context, d *device) error { return d.endHost(false) }},
	{"kill", func(_ context.Context, d *device) error { return d.endHost(true) }},
	{"deaf", telling(func(h *bluefield.Host) error { h.SetDeaf(true); return nil })},
	{"hear", telling(func(h *bluefield.Host) error { h.SetDeaf(false); return nil })},
	{"force", telling((*bluefield.Host).ForceCmd)},
	{"drop", telling(func(h *bluefield.Host) error { h.SetDrop(true); return nil })},
	{"undrop", telling(func(h *bluefield.Host) error { h.SetDrop(false); return nil })},
	{"state", func(context.Context, *device) error { return nil }},
}

func starting(o bluefield.HostOptions) func(context.Context, *device) error {
	return func(ctx context.Context, d *device) error {
		h, err := d.startHost(ctx, o)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		h.WaitState(ctx, bluefield.HostChecking) // for the reply alone
		return nil
	}
}

func telling(do func(h *bluefield.Host) error) func(context.Context, *device) error {
	return func(_ context.Context, d *device) error {
		d.mu.Lock()
		defer d.mu.Unlock()
		if !d.alive() {
			return errNoHost
		}
		return do(d.host)
	}
}

// readHost reads the arguments of the command host.
func readHost(a *args) action {
	var names []string
	for _, c := range hostCommands {
		names = append(names, c.name)
	}
	i := a.oneOf(names...)
	return func(ctx context.Context, d *device) (string, error) {
		err := hostCommands[i].do(ctx, d)
		return d.hostState(), err
	}
}

// hostDrivers are the values of -host.
var hostDrivers = map[string]*bluefield.HostOptions{
	"none":  nil,
	"owner": {Attached: true},
	"deaf":  {Attached: true, Deaf: true},
}
