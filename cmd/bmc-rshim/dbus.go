// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
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
		do.HostAccess = hostTool{&hostaccess.Tool{Args: o.said.ncsi}}
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

// hostTool tells the errors of ncsi-oem in the service's words.
type hostTool struct{ t *hostaccess.Tool }

func (h hostTool) Get(ctx context.Context) (persistent, runtime string, err error) {
	persistent, runtime, err = h.t.Get(ctx)
	return persistent, runtime, busHostError(err)
}

func (h hostTool) SetPersistent(ctx context.Context, mode string) error {
	return busHostError(h.t.SetPersistent(ctx, mode))
}

func (h hostTool) SetRuntime(ctx context.Context, mode string) error {
	return busHostError(h.t.SetRuntime(ctx, mode))
}

// busHostError makes an error one of the service's as well. Its text stays.
func busHostError(err error) error {
	switch {
	case errors.Is(err, hostaccess.ErrRefused):
		return hostErr{err, dbus.ErrHostAccessRefused}
	case errors.Is(err, hostaccess.ErrNoNIC), errors.Is(err, hostaccess.ErrNoTool):
		return hostErr{err, dbus.ErrNoHostAccess}
	}
	return err
}

type hostErr struct {
	error
	is error
}

func (e hostErr) Unwrap() []error { return []error{e.error, e.is} }
