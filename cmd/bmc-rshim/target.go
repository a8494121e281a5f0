// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"strconv"
	"strings"

	"github.com/bluefield-go/bmc-rshim/dbus/client"
	"github.com/bluefield-go/bmc-rshim/rshim"
	corepush "github.com/bluefield-go/bmc-rshim/rshim/push"
)

// target is the device that a command works on: one of the running daemon,
// through D-Bus or its files, or a simulated one in this process. All methods
// return soon after ctx has ended.
type target interface {
	status(ctx context.Context) (status, error)
	misc(ctx context.Context) (string, error)
	setMisc(ctx context.Context, commands string) error
	// force asks the owner for the RShim, for up to 10 s.
	force(ctx context.Context) (rshim.ForceResult, error)
	// release gives the RShim up.
	release(ctx context.Context) error
	// reset resets the chip. It reports whether the chip is back, or is only
	// being reset.
	reset(ctx context.Context) (back bool, err error)
	// openBoot opens the boot stream, which resets the DPU.
	openBoot(ctx context.Context) (corepush.Stream, error)
	// readReg and writeReg access a register; addresses are channel<<16|offset,
	// sizes 4 or 8 bytes.
	readReg(ctx context.Context, addr uint32, size int) (uint64, error)
	writeReg(ctx context.Context, addr uint32, size int, v uint64) error
	close()
}

// targetFlags select targets.
type targetFlags struct {
	device  string
	bus     string
	devRoot string
	sim     simFlags
}

const (
	// noBus is the -bus of who wants the device files.
	noBus = "none"
	// byPlace is the -dev-root of who says nothing: /dev, if it comes to that.
	byPlace = ""
)

func (t *targetFlags) register(fs *flag.FlagSet) {
	t.registerNodes(fs)
	t.sim.register(fs)
}

// registerNodes registers the flags of a command that needs a running daemon.
func (t *targetFlags) registerNodes(fs *flag.FlagSet) {
	fs.StringVar(&t.device, "device", "", "`name` of the device, such as rshim0")
	fs.StringVar(&t.bus, "bus", "", "`address` of the D-Bus to find the daemon on, or none; \"\" is the system's, and\n"+
		"where that has no daemon, the device files are used")
	fs.StringVar(&t.devRoot, "dev-root", byPlace, "use the device files in this `directory`, and no D-Bus (default /dev, where it comes to that)")
}

func (t *targetFlags) root() string { return cmp.Or(t.devRoot, "/dev") }

// onBus reports whether the daemon is to be looked for on D-Bus.
func (t *targetFlags) onBus() bool {
	return !t.sim.on() && t.bus != noBus && (t.devRoot == byPlace || t.bus != "")
}

// connect connects to the daemon. It is nil without an error if there is none
// on the bus and the device files are there to be tried.
func (t *targetFlags) connect(ctx context.Context) (*client.Client, error) {
	if !t.onBus() {
		return nil, nil
	}
	c, err := client.Connect(ctx, t.bus)
	if (errors.Is(err, client.ErrNoBus) || errors.Is(err, client.ErrNoDaemon)) && t.bus == "" {
		return nil, nil
	}
	return c, remote(err)
}

// must connects to the daemon, for what there is on D-Bus alone.
func (t *targetFlags) must(ctx context.Context) (*client.Client, error) {
	if t.sim.on() || t.bus == noBus || t.devRoot != byPlace {
		return nil, usageError("this needs the daemon on D-Bus, and uses no device files")
	}
	c, err := client.Connect(ctx, t.bus)
	return c, remote(err)
}

// index is the index of the device that the flags name, -1 if they name none.
func (t *targetFlags) index() (int, error) {
	if t.device == "" {
		return -1, nil
	}
	n, err := strconv.Atoi(strings.TrimPrefix(t.device, "rshim"))
	if err != nil || n < 0 || t.device != fmt.Sprintf("rshim%d", n) {
		return -1, exitWith(exitDevice, "no device %q: they are rshim0, rshim1, ...", t.device)
	}
	return n, nil
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
	c, err := t.connect(ctx)
	if err != nil {
		return nil, err
	}
	if c != nil {
		return t.busDevices(ctx, c)
	}
	names, err := findNodes(t.root(), t.device)
	if err != nil {
		return nil, err
	}
	var ts []target
	for _, name := range names {
		ts = append(ts, nodes{t.root(), name})
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
		ts[0].close()
		return nil, usageError("there are %d devices: choose one with -device", len(ts))
	}
	return ts[0], nil
}
