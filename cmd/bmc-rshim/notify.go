// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/bluefield-go/bmc-rshim/internal/metrics"
	"github.com/bluefield-go/bmc-rshim/rshim"
)

// notified serves the bus and keeps the service's supervisor informed: that the
// daemon is ready, what its devices are, that it is not stuck, and that it
// ends.
func (o *daemonOptions) notified(ctx context.Context, bus *usbBus, so rshim.SetOptions, log *slog.Logger) error {
	told := func(err error) {
		if err != nil {
			log.Warn("the service manager was not told", "op", "notify", "err", err)
		}
	}
	var set *rshim.Set
	if present := so.Present; o.notify != nil {
		so.Present = func(ctx context.Context, d *rshim.Device) {
			var wg sync.WaitGroup
			defer wg.Wait()
			wg.Go(func() { o.follow(ctx, set, d) })
			if present != nil {
				present(ctx, d)
			}
		}
	}
	onBus := o.onBus(&so, log)
	set = rshim.NewSet(so)

	// A beat goes through the finder, which takes it only between two looks at
	// the bus, and the set, whose lock everything that comes and goes needs. No
	// device is part of it: one that is stuck is that one's trouble.
	pings := make(chan struct{})
	bus.ping = pings
	beat := func(ctx context.Context) error {
		select {
		case pings <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		set.Devices()
		return nil
	}
	life, end := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer end()
	wg.Go(func() { o.reload(life, set, log) })
	wg.Go(func() { dumpAt(life, o.usr1, set, log) })
	wg.Go(func() { onBus(life, set) })
	if name := cmp.Or(o.metrics, o.said.metrics); name != "" {
		began := time.Now()
		f := metrics.File{Name: name, Logger: log, Collect: func(x *metrics.Text) { collect(x, set, began) }}
		wg.Go(func() { f.Run(life) })
	}
	wg.Go(func() {
		defer func() { told(o.notify.Stopping()) }()
		if beat(life) != nil {
			return
		}
		if o.ready != nil {
			o.ready()
		}
		told(o.notify.Ready(describe(set.Devices())))
		o.notify.Watch(life, beat, told)
		<-life.Done()
	})
	return bus.serve(ctx, set, log)
}

// follow keeps the service's status line at what the devices are, each time
// when d changes, until ctx ends.
func (o *daemonOptions) follow(ctx context.Context, set *rshim.Set, d *rshim.Device) {
	var last string
	for {
		changed := d.Changed()
		if s := describe(set.Devices()); s != last {
			last = s
			o.notify.Status(s) // for people alone: a lost one is replaced soon
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// describe puts the devices and what they are into one line.
func describe(devices []*rshim.Device) string {
	if len(devices) == 0 {
		return "no device"
	}
	var parts []string
	for _, d := range devices {
		s := d.Status()
		part := fmt.Sprintf("rshim%d %v", s.Index, s.State)
		if s.State != rshim.Attached && s.Reason != "" {
			part += " (" + s.Reason + ")"
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ", ")
}
