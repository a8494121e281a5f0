// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"log/slog"
	"sync"

	"github.com/bluefield-go/bmc-rshim/dbus"
	"github.com/bluefield-go/bmc-rshim/internal/hostaccess"
	"github.com/bluefield-go/bmc-rshim/rshim"
)

// onBus has the devices of the set to be published on D-Bus. What it returns
// runs the service until ctx ends.
func (o *daemonOptions) onBus(so *rshim.SetOptions, log *slog.Logger) func(ctx context.Context, set *rshim.Set) {
	if o.dbus == noBus {
		return func(context.Context, *rshim.Set) {}
	}
	do := dbus.Options{Address: o.dbus, Version: version(), DevRoot: o.devRoot, Dump: dumpState, Settle: o.settle, Logger: log}
	if o.said.ncsi != nil {
		do.HostAccess = &hostaccess.Tool{Args: o.said.ncsi}
	}
	service := dbus.New(do)
	present := so.Present
	so.Present = func(ctx context.Context, d *rshim.Device) {
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() { service.Present(ctx, d) })
		if present != nil {
			present(ctx, d)
		}
	}
	return func(ctx context.Context, set *rshim.Set) { _ = service.Run(ctx, set) }
}
