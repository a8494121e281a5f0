// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"log/slog"

	"golang.org/x/sync/errgroup"

	"github.com/bluefield-go/bmc-rshim/internal/uevent"
	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/usbbackend"
	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

// usbBus is a USB bus, the kernel's or a simulated one.
type usbBus struct {
	host usb.Host
	wake <-chan struct{}                 // something has changed; nil: not told
	ping <-chan struct{}                 // see usbbackend.Finder; nil: nobody asks
	run  func(ctx context.Context) error // what has to run for it; nil: nothing
}

// newBus is the bus of a host, with the kernel's word on what comes and goes.
func newBus(host usb.Host, log *slog.Logger) *usbBus {
	wake := make(chan struct{}, 1)
	return &usbBus{host: host, wake: wake, run: func(ctx context.Context) error {
		if err := listen(ctx, wake); err != nil && ctx.Err() == nil {
			log.Warn("hotplug takes some seconds now", "op", "uevent", "err", err)
		}
		return nil
	}}
}

// listen turns the kernel's events of USB devices into wakes.
func listen(ctx context.Context, wake chan<- struct{}) error {
	c, err := uevent.Listen("usb")
	if err != nil {
		return err
	}
	defer c.Close()
	for {
		if _, err := c.Receive(ctx); err != nil && !errors.Is(err, uevent.ErrLost) {
			return err
		}
		select {
		case wake <- struct{}{}:
		default:
		}
	}
}

// serve serves every RShim on the bus as one of the set's devices until ctx
// ends.
func (b *usbBus) serve(ctx context.Context, set *rshim.Set, log *slog.Logger) error {
	finder := usbbackend.Finder{Host: b.host, Wake: b.wake, Ping: b.ping, Wants: set.Wants, Logger: log}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return set.Run(ctx) })
	g.Go(func() error {
		return finder.Run(ctx, func(d *usbbackend.Device) func(context.Context) error { return set.Adopt(d) })
	})
	if b.run != nil {
		g.Go(func() error { return b.run(ctx) })
	}
	return g.Wait()
}
