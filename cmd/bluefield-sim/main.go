// SPDX-License-Identifier: Apache-2.0

// Bluefield-sim plugs simulated BlueField DPUs into this machine's kernel, by
// way of vhci_hcd, and runs until it is told to end.
//
//	bluefield-sim [-generation bf3] [-count 1] [flags]
//
// Behind its console a DPU has a shell, in which "help" lists the commands, and
// behind its network interface a host that answers pings, or, with -net, an
// interface of this machine. The documentation of package sim/bluefield says
// what is printed, byte for byte.
//
// What happens is told on standard output, one event a line: its name, then
// key=value pairs, quoted as Go strings where they have to be; dev is the
// number of the DPU. Commands are taken on standard input and, with -control,
// on a Unix socket; "help" lists them. Exit code 0 after SIGTERM or SIGINT, 1
// when something failed, 2 for a wrong command line.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
	"github.com/bluefield-go/bmc-rshim/sim/usbip"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	}
	if err := simulate(ctx, o, stdin, stdout); err != nil {
		fmt.Fprintln(stderr, "bluefield-sim:", err)
		return 1
	}
	return 0
}

// simulate runs the DPUs until ctx ends or one of them cannot go on.
func simulate(ctx context.Context, o options, stdin io.Reader, stdout io.Writer) error {
	ports, err := o.vhci.FreePorts()
	if err != nil {
		return err
	}
	if len(ports) < o.count {
		return fmt.Errorf("%w: %d free, %d needed", usbip.ErrNoPort, len(ports), o.count)
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var wg sync.WaitGroup
	out := &events{w: stdout}
	var devs control
	for i := range o.count {
		o.dpu.Logger = slog.New(out.device(i))
		if o.sink != "" {
			file, err := os.Create(o.sinkOf(i))
			if err != nil {
				return err
			}
			defer file.Close()
			o.dpu.Sink = file
		}
		if o.dpu.Net, err = o.net.open(i); err != nil {
			return err
		}
		if o.dpu.Net != nil {
			defer o.dpu.Net.Close()
		}
		devs = append(devs, &device{Function: usbdev.New(bluefield.New(o.dpu), o.usb)})
	}
	if o.control != "" {
		l, err := net.Listen("unix", o.control)
		if err != nil {
			return err
		}
		context.AfterFunc(ctx, func() { l.Close() })
		wg.Go(func() { devs.listen(ctx, l) })
	}
	for i, d := range devs {
		if o.host != nil {
			d.startHost(ctx, *o.host)
		}
		v := o.vhci
		v.Logger = slog.New(out.device(i))
		wg.Go(func() { d.Run(ctx) })
		wg.Go(func() { stop(v.Run(ctx, d.Function, ports[i])) })
	}
	go devs.serve(ctx, stdin, out) // ends with standard input, or the process
	wg.Wait()
	for i, d := range devs {
		d.endHost(true) // it has ended with ctx, but may not be done yet
		reply, _ := devs.do(ctx, fmt.Sprintf("sum %d", i))
		fmt.Fprintln(out, reply)
	}
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}
