// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"flag"

	"github.com/bluefield-go/bmc-rshim/rshim"
)

// target is the device that a command works on: one of the running daemon,
// through its files, or a simulated one in this process. All methods return
// soon after ctx has ended.
type target interface {
	status(ctx context.Context) (status, error)
	misc(ctx context.Context) (string, error)
	setMisc(ctx context.Context, commands string) error
	// force asks the owner for the RShim, for up to 10 s.
	force(ctx context.Context) (rshim.ForceResult, error)
	// openBoot opens the boot stream, which resets the DPU.
	openBoot(ctx context.Context) (bootStream, error)
	close()
}

// bootStream is rshim.BootStream, or what is like it.
type bootStream interface {
	Write(ctx context.Context, p []byte) (int, error)
	Close(ctx context.Context) error
}

// targetFlags select targets.
type targetFlags struct {
	device  string
	devRoot string
	sim     simFlags
}

func (t *targetFlags) register(fs *flag.FlagSet) {
	t.registerNodes(fs)
	t.sim.register(fs)
}

// registerNodes registers the flags of a command that needs a running daemon.
func (t *targetFlags) registerNodes(fs *flag.FlagSet) {
	fs.StringVar(&t.device, "device", "", "`name` of the device, such as rshim0")
	fs.StringVar(&t.devRoot, "dev-root", "/dev", "`directory` of the device files")
}

// all returns the devices that the flags select, at least one.
func (t *targetFlags) all(ctx context.Context, e *env) ([]target, error) {
	if t.sim.on() {
		sim, err := e.simulate(t.sim)
		if err != nil {
			return nil, err
		}
		l, err := newLocal(ctx, sim, t.device)
		if err != nil {
			return nil, err
		}
		return []target{l}, nil
	}
	names, err := findNodes(t.devRoot, t.device)
	if err != nil {
		return nil, err
	}
	var ts []target
	for _, name := range names {
		ts = append(ts, nodes{t.devRoot, name})
	}
	return ts, nil
}

// one returns the device that the flags select, which has to be just one.
func (t *targetFlags) one(ctx context.Context, e *env) (target, error) {
	ts, err := t.all(ctx, e)
	if err != nil {
		return nil, err
	}
	if len(ts) > 1 {
		return nil, usageError("there are %d devices: choose one with -device", len(ts))
	}
	return ts[0], nil
}
