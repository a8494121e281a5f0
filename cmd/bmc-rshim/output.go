// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
	"slices"
	"sync"
)

// output is a command's standard output. It remembers the first error, as what
// prints does not look at each.
type output struct {
	w    io.Writer
	fail func() // called at that error; nil: nobody minds

	mu    sync.Mutex
	wrote bool
	err   error
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.w.Write(p)
	o.mu.Lock()
	o.wrote = o.wrote || n > 0
	first := err != nil && o.err == nil
	if first {
		o.err = err
	}
	o.mu.Unlock()
	if first && o.fail != nil {
		o.fail()
	}
	return n, err
}

func (o *output) state() (wrote bool, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.wrote, o.err
}

// printing reports whether a command is for its output alone, so that without
// it the command fails. The others end as what they do.
func printing(args []string) bool {
	return len(args) == 0 || !slices.Contains([]string{"daemon", "push", "recover", "console"}, args[0])
}

// runOn runs the command that args begin with, on an output that counts.
func runOn(ctx context.Context, e *env, args []string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	inner := *e
	out := &output{w: e.stdout}
	inner.stdout = out
	if printing(args) {
		out.fail = cancel // for what would go on for ever
	}
	err := dispatch(ctx, &inner, args)
	wrote, werr := out.state()
	if werr != nil && printing(args) {
		return exitWith(exitFailed, "standard output: %w", werr)
	}
	if err != nil && exitCode(err) != exitOK && !wrote && asksJSON(args) {
		_ = printJSON(e.stdout, fields(func(o *object) {
			o.text("error", err.Error())
			o.int("exit_code", int64(exitCode(err)))
		}))
	}
	return err
}

// asksJSON reports whether the flags ask for JSON, also those of a command line
// that could not be parsed.
func asksJSON(args []string) bool {
	if i := slices.Index(args, "--"); i >= 0 {
		args = args[:i]
	}
	return slices.ContainsFunc(args, func(a string) bool {
		return a == "-json" || a == "--json" || a == "-json=true" || a == "--json=true"
	})
}
