// SPDX-License-Identifier: Apache-2.0

// Vmrun runs the tests of packages in a test machine and shows their output as it comes.
//
//	vmrun [flags] uml|ast2600 [PACKAGE...] [-test.run=X ...]
//
// Packages are named from the module's root, as in ./internal/cuse; without any, vmrun only gets the machine's kernel
// into the cache. Exit code 1 means that a test or the machine
// failed, 2 a wrong command line.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/bluefield-go/bmc-rshim/internal/vmtest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	fs := flag.NewFlagSet("vmrun", flag.ContinueOnError)
	fs.SetOutput(stderr)
	tags := fs.String("tags", "", "build `tags`")
	cgo := fs.Bool("cgo", false, "build the tests with cgo (uml)")
	cmds := fs.String("cmd", "", "comma-separated `packages` of commands to put on the guest's PATH")
	mem := fs.Int("mem", 0, "memory in `MiB` (uml)")
	out := fs.String("out", "", "`directory` that the guest sees as /vm/out (uml)")
	timeout := fs.Duration("timeout", 0, "of each package")
	console := fs.Bool("console", false, "show the console at the end")
	fs.Usage = func() {
		fmt.Fprintln(stderr, "usage: vmrun [flags] uml|ast2600 [PACKAGE...] [-test.run=X ...]")
		fs.PrintDefaults()
	}
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	switch fs.NArg() {
	case 0:
		fs.Usage()
		return 2
	case 1:
		if err := vmtest.Prepare(ctx, vmtest.Lane(fs.Arg(0)), stdout); err != nil {
			fmt.Fprintln(stderr, "vmrun:", err)
			return 1
		}
		return 0
	}
	m := vmtest.Machine{Lane: vmtest.Lane(fs.Arg(0)), MemoryMiB: *mem, Out: *out}
	job := vmtest.Job{Log: stdout}
	if *cmds != "" {
		for path := range strings.SplitSeq(*cmds, ",") {
			job.Cmds = append(job.Cmds, vmtest.Cmd{Path: path})
		}
	}
	var testArgs []string
	for _, arg := range fs.Args()[1:] {
		if strings.HasPrefix(arg, "-") || testArgs != nil {
			testArgs = append(testArgs, arg)
			continue
		}
		job.Tests = append(job.Tests, vmtest.Package{Path: arg, Tags: *tags, Cgo: *cgo, Timeout: *timeout})
	}
	for i := range job.Tests {
		job.Tests[i].Args = testArgs
	}
	res, err := vmtest.Execute(ctx, m, job)
	if *console {
		fmt.Fprint(stdout, res.Console)
	}
	fmt.Fprintf(stdout, "%s: boot %v, in all %v\n", m.Lane, res.Boot.Round(time.Millisecond), res.Total.Round(time.Millisecond))
	code := 0
	for _, p := range res.Packages {
		verdict := "ok"
		if p.Err != "" {
			verdict, code = "FAIL: "+p.Err, 1
		}
		fmt.Fprintf(stdout, "%s\t%v\t%s\n", p.Path, p.Elapsed.Round(time.Millisecond), verdict)
	}
	if err != nil {
		fmt.Fprintln(stderr, "vmrun:", err)
		return 1
	}
	return code
}
