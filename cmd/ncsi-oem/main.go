// SPDX-License-Identifier: Apache-2.0

// Ncsi-oem shows and sets whether the host may use the RShim of its BlueField
// DPU, by NVIDIA's NC-SI OEM commands from the platform's BMC: through the
// kernel's NC-SI, through the kernel's MCTP, or by MCTP on an I2C bus.
//
//	ncsi-oem get                          show the persistent and the run-time state
//	ncsi-oem set disabled|enabled|locked  set it from the DPU's next reboot on
//	ncsi-oem runtime get
//	ncsi-oem runtime set enabled|locked   set it at once, until the DPU's next reset
//	ncsi-oem packages                     list the NC-SI packages
//	ncsi-oem raw CMD PARAM [HEX]          send any OEM command
//
// Flags are in args.go, exit codes in exit.go, and the names of -json's fields
// in report.go.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/bluefield-go/bmc-rshim/ncsi/netlink"
	"github.com/bluefield-go/bmc-rshim/ncsi/oem"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal kills
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// env is what a command runs in: the machine, or a test's.
type env struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	isTerminal     func(io.Reader) bool

	interfaces func(context.Context) ([]netlink.Interface, error) // that do NC-SI
	endpoints  func(context.Context) ([]address, error)           // of MCTP, that the kernel knows
	// open returns the way to an address, and what gives it up. It need not
	// find out whether anybody is there.
	open func(a address, timeout time.Duration, log *slog.Logger) (oem.Transport, func() error, error)
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return runIn(ctx, &env{
		stdin: stdin, stdout: stdout, stderr: stderr, isTerminal: isTerminal,
		interfaces: netlink.Interfaces, endpoints: endpoints, open: open,
	}, args)
}

// runIn runs the command line and returns the exit code.
func runIn(ctx context.Context, e *env, args []string) int {
	o, err := parse(args, e.stdout)
	if errors.Is(err, flag.ErrHelp) {
		return exitOK
	}
	r := &report{Command: strings.Join(o.words, " ")}
	switch {
	case err != nil:
	case o.version:
		r.Version = version()
		r.line("ncsi-oem %s", r.Version)
	default:
		err = command(ctx, e, o, r)
	}
	code, advice := outcome(err)
	r.ExitCode = code
	if err != nil {
		r.fail(err)
		if advice != "" {
			advice = "; " + advice
		}
		fmt.Fprintf(e.stderr, "ncsi-oem: %s%s\n", oneLine(err.Error()), advice)
	}
	if err := r.print(e.stdout, o.json); err != nil && code == exitOK {
		fmt.Fprintln(e.stderr, "ncsi-oem:", err)
		return exitFailed
	}
	return code
}

// command runs the command that the words are.
func command(ctx context.Context, e *env, o options, r *report) error {
	words := o.words
	if len(words) == 0 {
		return usageError("no command given")
	}
	is := func(first string, more int) bool { return words[0] == first && len(words) == 1+more }
	switch {
	case is("get", 0):
		return get(ctx, e, o, r)
	case is("set", 1):
		return set(ctx, e, o, r, words[1])
	case is("runtime", 1) && words[1] == "get":
		return runtimeGet(ctx, e, o, r)
	case is("runtime", 2) && words[1] == "set":
		return runtimeSet(ctx, e, o, r, words[2])
	case is("packages", 0):
		return packages(ctx, e, o, r)
	case is("raw", 2):
		return raw(ctx, e, o, r, words[1], words[2], "")
	case is("raw", 3):
		return raw(ctx, e, o, r, words[1], words[2], words[3])
	}
	return wrongWords(words)
}

// wrongWords says what is wrong with the words of a command line.
func wrongWords(words []string) error {
	forms := map[string]string{
		"get": "get", "set": "set disabled|enabled|locked", "packages": "packages", "raw": "raw CMD PARAM [HEX]",
		"runtime": "runtime get, or runtime set enabled|locked",
	}
	form, ok := forms[words[0]]
	if !ok {
		return usageError("no such command: %q", words[0])
	}
	return usageError("%q: it is %s", strings.Join(words, " "), form)
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
