// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"github.com/bluefield-go/bmc-rshim/internal/devnode"
	"github.com/bluefield-go/bmc-rshim/internal/sdnotify"
	"github.com/bluefield-go/bmc-rshim/rshim"
)

// daemonOptions are the flags of daemon.
type daemonOptions struct {
	conf     string
	usb      string
	devRoot  string        // "": no device files
	dbus     string        // address of the bus; "": the system's, noBus: none
	settle   time.Duration // see dbus.Options
	metrics  string        // file for metrics; "": what the configuration says
	logLevel string
	version  bool
	check    bool
	pidFile  string // "": others may run beside this daemon
	net      netOptions
	sim      simFlags

	hup  <-chan os.Signal // to read conf again
	usr1 <-chan os.Signal // to write the state into the log
	said conf             // what it said last

	force bool // ask once for the ownership of a device that another has

	// Of rshim's command line alone.
	onlyName  string // the one device to serve, such as usb-2-1.7; "": all
	onlyIndex *int   // its index; nil: as usual

	notify *sdnotify.Notifier
	ready  func() // called when what is on the bus is being served; may be nil
}

func daemon(ctx context.Context, e *env, args []string) error {
	var o daemonOptions
	fs := flags("daemon", "", "")
	fs.StringVar(&o.conf, "conf", "", "configuration `file`; "+defaultConf+" is read if there is one")
	fs.BoolVar(&o.check, "check-conf", false, "print what there is to say about the configuration file, as FILE:LINE: TEXT, and end:\n"+
		"with exit code 0 if nothing is wrong, otherwise 1; notes say what is of no effect here")
	fs.StringVar(&o.usb, "usb", "usbfs", "USB `backend`: "+backendNames())
	fs.StringVar(&o.devRoot, "dev-root", "/dev", "`directory` of the device files")
	fs.StringVar(&o.dbus, "bus", "", "`address` of the D-Bus to be on, or none; \"\" is the system's")
	fs.StringVar(&o.metrics, "metrics-file", "", "`file` for node_exporter's textfile collector, such as\n"+
		"/var/lib/node_exporter/bmc_rshim.prom (METRICS_FILE in the configuration)")
	fs.StringVar(&o.logLevel, "log-level", "notice", "`level`: error, warn, notice, info or debug, or 0 (nothing) to 4 (debug)")
	fs.BoolVar(&o.force, "force", false, "ask the owner of each device once for the RShim, should it have one")
	fs.BoolVar(&o.version, "version", false, "print the version")
	fs.StringVar(&o.pidFile, "pid-file", pidFileByPlace, "`file` that lets a single daemon run, \"\" for none; by default\n"+
		defaultPIDFile+", and none with -simulate or another -dev-root")
	o.net.register(fs)
	o.sim.register(fs)
	if err := parse(e, fs, args, 0); err != nil {
		return err
	}
	if o.pidFile == pidFileByPlace {
		o.pidFile = ""
		if o.devRoot == "/dev" && !o.sim.on() {
			o.pidFile = defaultPIDFile
		}
	}
	if o.version {
		return versionCommand(ctx, e, nil)
	}
	if o.check {
		return o.checkConf(e.stdout)
	}
	log, err := newLogger(e.stderr, o.logLevel)
	if err != nil {
		return usageError("daemon: %v", err)
	}
	o.notify = sdnotify.FromEnv()
	return o.run(ctx, e, log)
}

// run is the daemon.
func (o *daemonOptions) run(ctx context.Context, e *env, log *slog.Logger) error {
	if e.hangups != nil {
		o.hup = e.hangups()
	}
	o.settle = e.settle
	if e.dumps != nil {
		o.usr1 = e.dumps()
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
	if o.pidFile != "" {
		l, err := takeLock(o.pidFile)
		if err != nil {
			return err
		}
		defer l.release()
		log.Info("Created PID file: " + o.pidFile)
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

// serveDevices serves what is on the bus until ctx ends.
func (o *daemonOptions) serveDevices(ctx context.Context, c conf, bus *usbBus, log *slog.Logger) error {
	so := rshim.SetOptions{
		Device: c.options(), Index: c.index, Blocked: c.blocked, OnlyName: o.onlyName, OnlyIndex: o.onlyIndex,
	}
	so.Device.Logger, so.Device.Force = log, so.Device.Force || o.force
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
	return o.notified(ctx, bus, so, log)
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
