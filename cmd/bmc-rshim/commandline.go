// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
)

// flags returns a flag set of a command whose -h prints usage, the flags, and
// what else is to know. It is not inlined, for the size of the program.
//
//go:noinline
func flags(name, args, more string) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {
		fmt.Fprintf(fs.Output(), "usage: bmc-rshim %s [flags]%s\n\n", name, args)
		fs.PrintDefaults()
		if more != "" {
			fmt.Fprint(fs.Output(), "\n"+more)
		}
	}
	return fs
}

// parse parses a command's arguments, of which there are want beside the flags.
//
//go:noinline
func parse(e *env, fs *flag.FlagSet, args []string, want int) error {
	return parseBetween(e, fs, args, want, want)
}

// parseBetween is parse for least to most arguments. Flags may stand between
// them, and behind.
func parseBetween(e *env, fs *flag.FlagSet, args []string, least, most int) error {
	var words []string
	err := fs.Parse(args)
	for err == nil && fs.NArg() > 0 {
		rest := fs.Args()
		if end := len(args) - len(rest); end > 0 && args[end-1] == "--" { // no flags from there on
			words = append(words, rest...)
			break
		}
		words, args = append(words, rest[0]), rest[1:]
		err = fs.Parse(args)
	}
	if err == nil {
		err = fs.Parse(append([]string{"--"}, words...)) // for Args
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
		fs.SetOutput(e.stdout)
		fs.Usage()
		return err
	case err == nil && fs.NArg() < least:
		err = fmt.Errorf("%s is missing", missing(fs.Name()))
	case err == nil && fs.NArg() > most:
		err = fmt.Errorf("too many arguments: %q", fs.Args()[most:])
		if extra := fs.Arg(most); strings.HasPrefix(extra, "rshim") && fs.Lookup("device") != nil {
			err = fmt.Errorf("%w; -device %s chooses the device", err, extra)
		}
	}
	if err != nil {
		return usageError("%s: %v; bmc-rshim %s -h shows the flags", fs.Name(), err, fs.Name())
	}
	return nil
}

// missing is what a command needs beside its flags.
func missing(command string) string {
	switch command {
	case "reg":
		return "ADDRESS"
	case "completion":
		return "the shell"
	}
	return "FILE"
}
