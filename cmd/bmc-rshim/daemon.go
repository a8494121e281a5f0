// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"

	"github.com/bluefield-go/bmc-rshim/internal/devnode"
	"github.com/bluefield-go/bmc-rshim/rshim"
)

// defaultConf is read if it exists.
const defaultConf = "/etc/rshim.conf"

// daemonOptions are the flags of daemon.
type daemonOptions struct {
	conf     string
	usb      string
	devRoot  string // "": no device files
	logLevel string
	version  bool
	net      netOptions
	sim      simFlags
}

func daemon(ctx context.Context, e *env, args []string) error {
	var o daemonOptions
	fs := flags("daemon", "", "")
	fs.StringVar(&o.conf, "conf", "", "configuration `file`; "+defaultConf+" is read if there is one")
	fs.StringVar(&o.usb, "usb", "usbfs", "USB `backend`: "+backendNames())
	fs.StringVar(&o.devRoot, "dev-root", "/dev", "`directory` of the device files")
	fs.StringVar(&o.logLevel, "log-level", "notice", "`level`: error, warn, notice, info or debug, or 0 (nothing) to 4 (debug)")
	fs.BoolVar(&o.version, "version", false, "print the version")
	o.net.register(fs)
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
	bus, err := o.bus(e, log)
	if err != nil {
		return err
	}
	c, err := o.readConf(log)
	if err != nil {
		return err
	}
	if err := haveCUSE(o.devRoot); err != nil {
		// Nobody could use a device without its files. A simulated one may
		// still be looked at in the log.
		if !o.sim.on() {
			return err
		}
		log.Warn("no device files", "op", "cuse", "err", err)
		o.devRoot = ""
	}
	saveMemory()
	saveWakeups()
	err = o.serveDevices(ctx, c, bus, log)
	if ctx.Err() != nil {
		log.Info("ended by a signal")
		return nil
	}
	return err
}

// bus returns the USB bus that the flags select.
func (o *daemonOptions) bus(e *env, log *slog.Logger) (*usbBus, error) {
	if o.sim.on() {
		return e.simulate(o.sim)
	}
	open, ok := backends[o.usb]
	if !ok {
		return nil, usageError("daemon: no USB backend %q; this build has %s", o.usb, backendNames())
	}
	return newBus(open(o.devRoot), log), nil
}

// readConf reads the configuration file and logs what there is to say.
func (o *daemonOptions) readConf(log *slog.Logger) (conf, error) {
	name := cmp.Or(o.conf, defaultConf)
	f, err := os.Open(name)
	if o.conf == "" && errors.Is(err, fs.ErrNotExist) {
		return conf{}, nil
	}
	if err != nil {
		return conf{}, err
	}
	defer f.Close()
	c, remarks, err := readConf(f)
	for _, r := range remarks {
		level := slog.LevelInfo
		if r.bad {
			level = slog.LevelWarn
		}
		log.Log(context.Background(), level, fmt.Sprintf("%s:%d: %s", name, r.line, r.text))
	}
	if err != nil {
		return c, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
}

// serveDevices serves what is on the bus until ctx ends.
func (o *daemonOptions) serveDevices(ctx context.Context, c conf, bus *usbBus, log *slog.Logger) error {
	so := rshim.SetOptions{Device: rshim.Options{
		BootTimeout: c.bootTimeout, USBTimeout: c.usbTimeout, DisplayLevel: c.displayLevel, Logger: log,
	}}
	if o.devRoot != "" {
		so.Present = func(ctx context.Context, d *rshim.Device) {
			var net sync.WaitGroup
			defer net.Wait()
			net.Go(func() { o.net.serve(ctx, d, o.devRoot, log) })
			err := devnode.Run(ctx, d, devnode.Options{DevRoot: o.devRoot, Logger: log})
			if err != nil && ctx.Err() == nil {
				log.Error("the device has no files", "device", fmt.Sprintf("rshim%d", d.Index()), "op", "cuse", "err", err)
			}
		}
	}
	return bus.serve(ctx, rshim.NewSet(so), log)
}

// haveCUSE says what is missing if device files cannot be made.
func haveCUSE(devRoot string) error {
	f, err := os.OpenFile(filepath.Join(devRoot, "cuse"), os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("%w: device files need the kernel's cuse driver (modprobe cuse, or CONFIG_CUSE=y)", err)
	}
	return f.Close()
}

// saveMemory suits Go's memory management to a BMC, where the daemon has 14
// MiB: the heap is about 1 MiB and hardly changes, so that collecting it at
// half of what is usual (at 2 MiB instead of 4) costs next to nothing. What a
// push has needed is given back. Who sets GOGC or GOMEMLIMIT knows better.
func saveMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(10 << 20)
	}
}

// saveWakeups lets the kernel be late by some milliseconds when it wakes one of
// the daemon's threads by time, none of which is in such a hurry. Go's monitor
// thread looks around every 20 us while anything runs, so that each of the few
// things that an idle daemon does costs a handful of wake-ups instead of one or
// two. Threads pass the setting on to those that they start. Without it (a
// kernel before 4.6, no CAP_SYS_NICE) all works.
func saveWakeups() {
	threads, _ := filepath.Glob("/proc/self/task/*")
	for _, t := range threads {
		os.WriteFile(filepath.Join("/proc", filepath.Base(t), "timerslack_ns"), []byte("4000000"), 0)
	}
}
