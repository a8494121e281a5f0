// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/bluefield-go/bmc-rshim/internal/sdnotify"
	"github.com/bluefield-go/bmc-rshim/rshim"
)

// Called as rshim, this program has the command line of the C daemon, whose
// place it then takes: the same options, output and exit status. Source:
// main() in rshim.c and rshim_cmdmode.c of rshim 2.8.2, rshim(8).
const (
	rshimName    = "rshim"
	rshimVersion = "rshim 2.8.2" // scripts take this apart: nothing else is printed

	// Exit status of a wrong command line, -EINVAL as a shell sees it.
	exitRshimUsage = 256 - int(syscall.EINVAL)
)

const rshimHelp = `Usage: rshim [options]

OPTIONS:
  -b, --backend             backend name (usb, pcie or pcie-lf)
  -c, --cmdmode             command line mode ('-c --help' for sub-commands)
  -d, --device              device to attach
  -f, --foreground          run in foreground
  -F, --force               run in force mode
  -h, --help                show help info
  -i, --index               use device path /dev/rshim<i>/
  -l, --log-level           log level(0:none, 1:error, 2:warning, 3:notice, 4:debug)
  -n, --nonet               no network interface
  -v, --version             version
`

var rshimLongOptions = []longOption{
	{"backend", 'b', true}, {"cmdmode", 'c', false}, {"device", 'd', true}, {"foreground", 'f', false},
	{"force", 'F', false}, {"help", 'h', false}, {"index", 'i', true}, {"log-level", 'l', true},
	{"nonet", 'n', false}, {"version", 'v', false},
}

// rshimOptions are the options of rshim.
type rshimOptions struct {
	backend    string
	device     string
	foreground bool
	force      bool
	index      int // -1: none given
	level      int
	noNet      bool
	cmdmode    bool
	commands   []rshimCommand // of cmdmode
}

// rshimExit ends rshim before it has done anything.
type rshimExit struct {
	code           int
	stdout, stderr string
}

//go:noinline
func rshimUsage(format string, args ...any) *rshimExit {
	return &rshimExit{code: exitRshimUsage, stderr: fmt.Sprintf(format, args...) + "\n"}
}

// parseRshim takes the command line apart.
func parseRshim(args []string) (*rshimOptions, *rshimExit) {
	o := &rshimOptions{index: -1, level: 3}
	g := &getopt{options: rshimLongOptions, args: args}
	for {
		letter, arg, err := g.next()
		var bad *badOption
		switch {
		case err == nil && letter == 0:
			return o, nil
		case err == nil:
		case errors.As(err, &bad) && !o.cmdmode && bad.letter != 0:
			return nil, rshimUsage("Invalid option: -%c", bad.letter)
		case !o.cmdmode:
			return nil, rshimUsage("Invalid option")
		default:
			return nil, rshimUsage("rshim: %v", err)
		}
		switch letter {
		case 'b':
			o.backend = arg
		case 'c':
			o.cmdmode = true
			g.options = append(cmdmodeLongOptions[:len(cmdmodeLongOptions):len(cmdmodeLongOptions)], rshimLongOptions...)
		case 'd':
			o.device = arg
		case 'f':
			o.foreground = true
		case 'F':
			o.force = true
		case 'n':
			o.noNet = true
		case 'v':
			return nil, &rshimExit{stdout: rshimVersion + "\n"}
		case 'l':
			if o.level, err = strconv.Atoi(arg); err != nil {
				return nil, rshimUsage("Invalid log level: %s", arg)
			}
			o.level = min(max(o.level, 0), len(rshimLevels)-1)
		case 'i':
			if arg == "" && o.cmdmode {
				arg = bareIndex(g, o.index)
			}
			if o.index, err = strconv.Atoi(arg); err != nil {
				return nil, rshimUsage("Invalid index: %s", arg)
			}
			if o.index >= rshim.MaxDevices {
				return nil, rshimUsage("Index exceeds max value %d", rshim.MaxDevices-1)
			}
		case 'h':
			if !o.cmdmode {
				return nil, &rshimExit{stdout: rshimHelp}
			}
			fallthrough
		default: // of cmdmode, or it would have been an error
			c, exit := newRshimCommand(letter, arg, g)
			if exit != nil {
				return nil, exit
			}
			o.commands = append(o.commands, c)
		}
	}
}

// rshimMain is the program when it is called as rshim.
func rshimMain(ctx context.Context, e *env, args []string) int {
	o, exit := parseRshim(args)
	if exit != nil {
		fmt.Fprint(e.stdout, exit.stdout)
		fmt.Fprint(e.stderr, exit.stderr)
		return exit.code
	}
	if o.cmdmode {
		return runCmdmode(ctx, e, o)
	}
	d, err := o.daemon()
	if err != nil {
		fmt.Fprintln(e.stderr, "rshim:", err)
		return exitFailed
	}
	if e.place != nil {
		e.place(d)
	}
	parent := toParent()
	if !o.foreground && parent == nil {
		return background(ctx, e)
	}
	signal.Ignore(syscall.SIGPIPE) // who reads the log may go
	loadCUSE(d.devRoot)
	d.notify = sdnotify.FromEnv()
	return o.serve(ctx, e, d, parent)
}

// daemon is the daemon that the options ask for.
func (o *rshimOptions) daemon() (*daemonOptions, error) {
	const only = "this rshim is the one of a BMC, which reaches its DPU over USB alone"
	if o.backend != "" && o.backend != "usb" {
		return nil, fmt.Errorf("no backend %q: %s (-b usb)", o.backend, only)
	}
	if o.device != "" && !strings.HasPrefix(o.device, "usb-") {
		return nil, fmt.Errorf("no device %q: %s (-d usb-2-1.7)", o.device, only)
	}
	d := &daemonOptions{usb: "usbfs", devRoot: "/dev", pidFile: defaultPIDFile, onlyName: o.device, force: o.force}
	d.net.off = o.noNet
	if o.device != "" {
		d.pidFile = "" // others may have the other devices
	}
	if o.index >= 0 {
		d.onlyIndex = &o.index
	}
	return d, nil
}

// serve runs the daemon in this process.
func (o *rshimOptions) serve(ctx context.Context, e *env, d *daemonOptions, parent *parentReport) int {
	out := toSyslog()
	if o.foreground {
		out = toStdout(e.stdout, isJournal(e.stdout))
	}
	log := slog.New(&plainLog{level: rshimLevels[o.level], out: out})
	d.ready = parent.ready
	if err := d.run(ctx, e, log); err != nil {
		log.Error(err.Error())
		parent.failed(err)
		return exitFailed
	}
	return exitOK
}

// loadCUSE loads the driver of device files, as the C daemon does: not every
// system has that done by opening /dev/cuse.
func loadCUSE(devRoot string) {
	if devRoot == "/dev" && errors.Is(haveCUSE(devRoot), fs.ErrNotExist) {
		// Should it fail, the daemon says what is missing.
		_ = exec.Command("modprobe", "cuse").Run()
	}
}

// isRshim reports whether the program was called by that name.
func isRshim(argv0 string) bool {
	return argv0[strings.LastIndexByte(argv0, os.PathSeparator)+1:] == rshimName
}
