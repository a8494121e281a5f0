// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const consoleHelp = `On a terminal, all keys go to the DPU, Ctrl-C too. An escape is typed at the
beginning of a line: ~. ends, ~? lists the others. Under ssh, which knows the
same escapes, type ~~. instead. The size of the window is not told to the DPU:
see stty(1) there. A console that goes away, as when the daemon is restarted,
is waited for; what is typed meanwhile is dropped.

Input that is no terminal is sent as it is, every byte of it, and the command
ends by itself: when the DPU has taken all and has then printed nothing for
-linger. There is no escape unless -escape is given, and no waiting for a
console that goes away (unless -once=false), as nobody knows how much of the
input has arrived: that is a failure. For what never ends there is timeout(1).

To record the console, with nothing sent and nobody there:
  bmc-rshim console -n -q -log FILE >/dev/null

`

// consoleOptions are the flags of console.
type consoleOptions struct {
	target  targetFlags
	replay  bool
	log     string
	escape  string
	noInput bool
	once    bool
	linger  time.Duration
	timeout time.Duration
	quiet   bool
}

func consoleCommand(ctx context.Context, e *env, args []string) error {
	var o consoleOptions
	fs := flags("console", " [rshimN]", consoleHelp+exitCodes)
	o.target.registerNodes(fs)
	fs.BoolVar(&o.replay, "replay", false, "begin with what the DPU has printed before, as far as the daemon has kept it\n(through its device file alone)")
	fs.StringVar(&o.log, "log", "", "append all that the DPU prints to a `file`")
	fs.StringVar(&o.escape, "escape", "~", "escape `character`, ^X for a control character, or none")
	fs.BoolVar(&o.noInput, "n", false, "read no input: print until interrupted")
	fs.BoolVar(&o.once, "once", false, "fail if the console goes away (default for input that is no terminal)")
	fs.DurationVar(&o.linger, "linger", 2*time.Second, "how long the DPU has to be silent after the input's end")
	fs.DurationVar(&o.timeout, "timeout", time.Minute, "for the DPU to take input that is no terminal; 0: none")
	fs.BoolVar(&o.quiet, "q", false, "report nothing but errors")
	if err := o.parse(e, fs, args); err != nil {
		return err
	}
	s := &session{o: o, stdout: e.stdout, stderr: e.stderr, screen: newTerminal(e.stderr) != nil}
	if !o.noInput {
		s.stdin, s.term = e.stdin, newTerminal(e.stdin)
	}
	if s.stdin != nil && s.term == nil {
		given := make(map[string]bool)
		fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
		if !given["escape"] {
			s.o.escape = "none"
		}
		s.o.once = o.once || !given["once"]
	}
	var err error
	if s.keys, err = parseEscape(s.o.escape); err != nil {
		return usageError("console: %v", err)
	}
	return s.start(ctx)
}

// parse parses the command line, where the device may stand anywhere.
func (o *consoleOptions) parse(e *env, fs *flag.FlagSet, args []string) error {
	for {
		if err := parseBetween(e, fs, args, 0, len(args)); err != nil {
			return err
		}
		if fs.NArg() == 0 {
			break
		}
		if o.target.device != "" {
			return usageError("console: one device at a time, not %s and %s", o.target.device, fs.Arg(0))
		}
		o.target.device, args = fs.Arg(0), fs.Args()[1:]
	}
	if o.linger < 0 || o.timeout < 0 {
		return usageError("console: -linger and -timeout cannot be negative")
	}
	return nil
}

// start opens what the session needs and runs it.
func (s *session) start(ctx context.Context) error {
	if err := s.find(ctx); err != nil {
		return err
	}
	if s.o.log != "" {
		f, err := os.OpenFile(s.o.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		s.log = f
	}
	patient, cancel := context.WithTimeout(ctx, nodePatience)
	defer cancel()
	f, unkept, err := s.source.openConsole(patient, s.o.replay)
	if err != nil {
		return unavailable(err)
	}
	if unkept != nil {
		s.say("%s has no output of before: %v", s.name, unkept)
	}

	// Whatever ends the process has to pass by the terminal's restoration, and
	// the end of who reads the output is to be an error like any other.
	deadly := []os.Signal{syscall.SIGQUIT}
	if !signal.Ignored(syscall.SIGHUP) { // as it is under nohup(1)
		deadly = append(deadly, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(ctx, deadly...)
	defer stop()
	other := make(chan os.Signal, 1)
	signal.Notify(other, syscall.SIGPIPE, syscall.SIGCONT)
	defer func() {
		signal.Stop(other)
		close(other)
	}()
	go func() {
		for sig := range other {
			if sig == syscall.SIGCONT {
				s.term.again()
			}
		}
	}()
	defer s.term.restore(false) // for a panic here
	if err := s.term.raw(); err != nil {
		return err
	}
	s.banner()
	within, end := context.WithCancelCause(ctx)
	defer end(nil)
	s.end = end
	restore := func() { s.term.restore(context.Cause(within) == errLeft) }
	context.AfterFunc(within, restore) // at once, whatever run is about
	s.run(within, f)
	restore()

	switch why := context.Cause(within); {
	case why == errLeft:
		s.note("left the console of %s", s.name)
	case why == errSilent:
	case !errors.Is(why, context.Cause(ctx)):
		s.tell("")
		return why
	case s.stdin != nil:
		s.tell("")
		return exitWith(exitInterrupted, "interrupted")
	}
	return nil
}

// find finds the console. The device file does what D-Bus cannot: breaks,
// waiting until the DPU has taken all, and what was printed before. Who has no
// right to it, or has none, is connected by the daemon on D-Bus.
func (s *session) find(ctx context.Context) error {
	t := &s.o.target
	names, err := findNodes(t.root(), t.device)
	switch {
	case t.bus != "" && t.bus != noBus, err != nil && t.onBus():
	case err != nil:
		return err
	case len(names) > 1:
		return usageError("there are %d devices: choose one of %s", len(names), strings.Join(names, ", "))
	case !t.onBus() || t.bus == noBus || unix.Access(filepath.Join(t.root(), names[0], "console"), unix.R_OK|unix.W_OK) == nil:
		n := nodes{t.root(), names[0]}
		s.source, s.name = n, n.name
		return nil
	}
	c, cerr := t.connect(ctx)
	if c == nil {
		if cerr != nil {
			return cerr
		}
		if err != nil {
			return err
		}
		n := nodes{t.root(), names[0]} // it says why it cannot be used
		s.source, s.name = n, n.name
		return nil
	}
	defer c.Close()
	ds, err := t.busDevices(ctx, c)
	if err != nil {
		return err
	}
	if len(ds) > 1 {
		return usageError("there are %d devices: choose one with -device", len(ds))
	}
	d := ds[0].(*busDevice)
	s.source, s.name = busConsole{t, d.index}, d.name()
	return nil
}

func (s *session) banner() {
	switch {
	case s.stdin == nil:
		s.note("console of %s, output alone: interrupt it to end", s.name)
	case s.keys.char != 0:
		s.note("console of %s: %s. at the beginning of a line ends, %s? lists the escapes", s.name, &s.keys, &s.keys)
	case s.term != nil:
		s.note("console of %s, without escapes: end it from elsewhere", s.name)
	default:
		s.note("console of %s", s.name)
	}
}
