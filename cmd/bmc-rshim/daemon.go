// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"

	"golang.org/x/sync/errgroup"

	"github.com/bluefield-go/bmc-rshim/internal/devnode"
	"github.com/bluefield-go/bmc-rshim/internal/uevent"
	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/usbbackend"
	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

// defaultConf is read if it exists.
const defaultConf = "/etc/rshim.conf"

// daemonOptions are the flags of daemon.
type daemonOptions struct {
	conf     string
	usb      string
	devRoot  string
	logLevel string
	version  bool
	sim      simFlags
}

func daemon(ctx context.Context, e *env, args []string) error {
	var o daemonOptions
	fs := flags(e, "daemon", "", "")
	fs.StringVar(&o.conf, "conf", "", "configuration `file`; "+defaultConf+" is read if there is one")
	fs.StringVar(&o.usb, "usb", "usbfs", "USB `backend`: "+backendNames())
	fs.StringVar(&o.devRoot, "dev-root", "/dev", "`directory` of the device files")
	fs.StringVar(&o.logLevel, "log-level", "notice", "`level`: error, warn, notice, info or debug, or 0 (nothing) to 4 (debug)")
	fs.BoolVar(&o.version, "version", false, "print the version")
	o.sim.register(fs)
	if err := parse(e, fs, args, 0); err != nil {
		return err
	}
	if o.version {
		return versionCommand(ctx, e, nil)
	}
	log, err := newLogger(e.stderr, o.logLevel)
	if err != nil {
		return usageError("daemon: %v", err)
	}
	bus, err := o.bus(e)
	if err != nil {
		return err
	}
	c, err := o.readConf(log)
	if err != nil {
		return err
	}
	if err := haveCUSE(o.devRoot); err != nil {
		// Without files nobody can use a device. A simulated one may still
		// be of use for its log.
		if !o.sim.on() {
			return err
		}
		log.Warn("no device files", "op", "cuse", "err", err)
	}
	saveMemory()
	err = serve(ctx, o, c, bus, log)
	if ctx.Err() != nil {
		log.Info("ended by a signal")
		return nil
	}
	return err
}

// bus returns the USB host that the flags select.
func (o *daemonOptions) bus(e *env) (*simulated, error) {
	if o.sim.on() {
		return e.simulate(o.sim)
	}
	open, ok := backends[o.usb]
	if !ok {
		return nil, usageError("daemon: no USB backend %q; this build has %s", o.usb, backendNames())
	}
	return &simulated{host: open(o.devRoot)}, nil
}
