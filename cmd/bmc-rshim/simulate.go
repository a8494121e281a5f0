// SPDX-License-Identifier: Apache-2.0

//go:build !nosim

package main

import (
	"context"
	"flag"

	"golang.org/x/sync/errgroup"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/netpeer"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
)

// simFlags are the flags of the simulated DPU.
type simFlags struct {
	chip  string
	rate  int64
	scale float64
	host  bool
}

func (s *simFlags) register(fs *flag.FlagSet) {
	fs.StringVar(&s.chip, "simulate", "", "use a simulated DPU, `bf2|bf3`, and no hardware")
	fs.Int64Var(&s.rate, "sim-rate", 40_000_000, "of the simulated DPU's USB link, in `bytes` a second; 0: no limit")
	fs.Float64Var(&s.scale, "sim-scale", 1, "`factor` on the time that the simulated DPU's boot takes")
	fs.BoolVar(&s.host, "sim-host", false, "the simulated DPU's host has the RShim when it begins, as the C daemon has it")
}

func (s *simFlags) on() bool { return s.chip != "" }

// simConfigs are the DPUs that can be simulated.
var simConfigs = map[string]bluefield.Config{
	"bf2": {Generation: reg.BlueField2, Revision: 1, OPN: "MBF2H516A-CEEOT"},
	"bf3": {Generation: reg.BlueField3, Revision: 1, OPN: "900-9D3B6-00CV-A"},
}

// simLocation is where it hangs on the bus: as on many a BMC, usb-2-1.7.
const simLocation = "2-1.7"

func simulate(s simFlags) (*usbBus, error) {
	cfg, ok := simConfigs[s.chip]
	if !ok {
		return nil, usageError("-simulate is bf2 or bf3, not %q", s.chip)
	}
	cfg.StageScale = s.scale
	cfg.Console = true
	cfg.Net = netpeer.New(netpeer.Options{})
	dpu := bluefield.New(cfg)
	bus := plug(usbdev.New(dpu, usbdev.Options{LinkRate: s.rate}))
	if s.host {
		host, run := bluefield.NewHost(dpu, bluefield.HostOptions{Attached: true}), bus.run
		bus.run = func(ctx context.Context) error {
			g, ctx := errgroup.WithContext(ctx)
			g.Go(func() error { return host.Run(ctx) })
			g.Go(func() error { return run(ctx) })
			return g.Wait()
		}
	}
	return bus, nil
}

// plug is a bus with a function on it.
func plug(fn *usbdev.Function) *usbBus {
	bus := usbdev.NewBus()
	bus.Plug(simLocation, fn)
	return &usbBus{host: bus, wake: bus.Changes(), run: fn.Run}
}
