// SPDX-License-Identifier: Apache-2.0

// Bmc-rshim is the BMC's side of a BlueField DPU's RShim: the daemon that owns
// the RShim over USB and serves /dev/rshimN, and the operator's commands that
// go with it.
//
//	bmc-rshim daemon       serve the DPUs on the USB bus
//	bmc-rshim status       show the devices
//	bmc-rshim push FILE    boot a DPU from a BFB, and follow it until it is up
//	bmc-rshim recover FILE the same for a DPU whose host is in the way
//	bmc-rshim watch        show what the devices do
//	bmc-rshim log          show a DPU's boot log
//	bmc-rshim console      be on a DPU's console
//	bmc-rshim force        take the RShim over from the host
//	bmc-rshim release      give it up, and leave it alone
//
// and others, which bmc-rshim -h lists. They talk to the daemon over D-Bus, and
// where there is none through its device files.
//
// Each command lists its flags with -h; exit codes are in exit.go. Called as
// rshim, it has the command line of the C daemon; see rshim.go.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal kills
	e := newEnv(os.Stdin, os.Stdout, os.Stderr)
	if isRshim(os.Args[0]) {
		os.Exit(rshimMain(ctx, e, os.Args[1:]))
	}
	os.Exit(runIn(ctx, e, os.Args[1:]))
}

// env is what a command runs in.
type env struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	simulate       func(simFlags) (*usbBus, error)
	hangups        func() <-chan os.Signal // SIGHUPs from now on; nil: they are not caught
	dumps          func() <-chan os.Signal // SIGUSR1s, as hangups
	settle         time.Duration           // for tests; see dbus.Options
	place          func(*daemonOptions)    // moves rshim's daemon, for tests; nil: it is the machine's
}

type subcommand struct {
	name, summary string
	run           func(ctx context.Context, e *env, args []string) error
}

// commands is a function, as the completion is made of them.
func commands() []subcommand {
	return []subcommand{
		{"daemon", "serve the DPUs on the USB bus", daemon},
		{"status", "show the devices", statusCommand},
		{"push", "boot a DPU from a BFB, and follow it until it is up", pushCommand},
		{"recover", "rescue a DPU: lock the host out, take the RShim, push, give all back", recoverCommand},
		{"watch", "show what the devices are and do, as it changes", watchCommand},
		{"log", "show a DPU's boot log", logCommand},
		{"console", "be on a DPU's console", consoleCommand},
		{"force", "take the RShim over from the host", forceCommand},
		{"release", "give the RShim up, and leave it alone", releaseCommand},
		{"host-access", "show, or set, what the host may do with the RShim", hostAccessCommand},
		{"reset", "reset a DPU", resetCommand},
		{"boot-mode", "show, or set, what a DPU boots from", bootModeCommand},
		{"misc", "show a DPU's misc, or write a line to it", miscCommand},
		{"reg", "read, or write, a register", regCommand},
		{"dump", "show the daemon's whole state", dumpCommand},
		{"completion", "print the completion of a shell: bash", completionCommand},
		{"version", "print the version", versionCommand},
	}
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return runIn(ctx, newEnv(stdin, stdout, stderr), args)
}

func newEnv(stdin io.Reader, stdout, stderr io.Writer) *env {
	return &env{stdin: stdin, stdout: stdout, stderr: stderr, simulate: simulate, hangups: hangups, dumps: dumps}
}

// runIn runs the command that args begin with and returns the exit code.
func runIn(ctx context.Context, e *env, args []string) int {
	err := runOn(ctx, e, args)
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return exitOK
	}
	fmt.Fprintln(e.stderr, "bmc-rshim:", err)
	return exitCode(err)
}

func dispatch(ctx context.Context, e *env, args []string) error {
	if len(args) == 0 {
		usage(e.stderr)
		return usageError("no command given")
	}
	switch args[0] {
	case "-h", "-help", "--help", "help":
		usage(e.stdout)
		return nil
	case "-version", "--version":
		return versionCommand(ctx, e, nil)
	}
	for _, c := range commands() {
		if c.name == args[0] {
			return c.run(ctx, e, args[1:])
		}
	}
	return usageError("no such command: %q; bmc-rshim -h lists them", args[0])
}

func usage(w io.Writer) {
	fmt.Fprint(w, "usage: bmc-rshim COMMAND [flags]\n\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-11s %s\n", c.name, c.summary)
	}
	fmt.Fprint(w, "\nbmc-rshim COMMAND -h shows the flags of a command.\n\n"+exitCodes)
}
