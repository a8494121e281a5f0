// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim"
)

// maxDump is what a state dump has at most, in bytes.
const maxDump = 64 << 10

// dumps catches SIGUSR1, which would end the daemon.
func dumps() <-chan os.Signal {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGUSR1)
	return c
}

// dumpAt writes the state into the log at each signal, until ctx ends.
func dumpAt(ctx context.Context, asked <-chan os.Signal, set *rshim.Set, log *slog.Logger) {
	for {
		select {
		case <-asked:
		case <-ctx.Done():
			return
		}
		// A record a line, so that it can be read.
		for line := range strings.Lines(dumpState(set)) {
			log.Info(strings.TrimSuffix(line, "\n"), "op", "dump")
		}
	}
}

// dumpState is the daemon's state for people: the devices, what they are and
// do, and what they have done.
func dumpState(set *rshim.Set) string {
	var b strings.Builder
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	serving := ""
	if !set.Serving() {
		serving = ", not serving"
	}
	devices := set.Devices()
	fmt.Fprintf(&b, "bmc-rshim %s: %d devices%s, %d goroutines, heap %s, from the system %s\n",
		version(), len(devices), serving, runtime.NumGoroutine(), size(int64(m.HeapAlloc)), size(int64(m.Sys)))
	for _, d := range devices {
		dumpDevice(&b, d)
	}
	text := b.String()
	if len(text) > maxDump {
		const cut = "\n(and more)\n"
		text = strings.ToValidUTF8(text[:maxDump-len(cut)], "") + cut
	}
	return text
}

func dumpDevice(b *strings.Builder, d *rshim.Device) {
	s, t := d.Status(), d.TMFIFO()
	chip := "no chip attached"
	if s.Generation != 0 {
		chip = fmt.Sprintf("%v, revision %d, part number %q", s.Generation, s.Revision, s.OPN)
	}
	dumpLine(b, "rshim%d: %s, %s", s.Index, s.Name, chip)
	dumpLine(b, "  state: %v since %s, owner %v, drop %v: %s", s.State, ago(s.Attached), s.Owner, s.Drop, s.Reason)
	dumpLine(b, "  boot: %v, last reset seen %s", s.Stage, ago(s.Reset))
	c := s.Counters
	dumpLine(b, "  counters: attached %d, pushes %d (%d bytes), resets %d, forced %d, granted %d, log lines %d",
		c.Attaches, c.Pushes, c.PushBytes, c.Resets, c.Forced, c.Granted, c.LogLines)
	if p := s.Push; p.Phase != rshim.PushNone {
		dumpLine(b, "  push %d: %s, %v, %d of %d bytes in %v, %v", p.ID, p.Phase, p.Outcome, p.Bytes, p.Total, p.Elapsed.Round(time.Millisecond), p.Stage)
		if p.Line != "" {
			dumpLine(b, "    line: %s", p.Line)
		}
		if p.Err != nil {
			dumpLine(b, "    error: %v", p.Err)
		}
	}
	dumpLine(b, "  TMFIFO: running %v, starts %d, resyncs %d, errors %d", t.Running, t.Starts, t.Resyncs, t.Errors)
	for _, k := range trafficKinds {
		to, from := k.of(t)
		dumpLine(b, "    %-8s to the DPU %d (%d bytes, %d dropped), from it %d (%d bytes, %d dropped)", k.name,
			to.Messages, to.Bytes, to.DroppedMessages, from.Messages, from.Bytes, from.DroppedMessages)
	}
}

//go:noinline
func dumpLine(b *strings.Builder, format string, args ...any) {
	b.WriteString(printable(fmt.Sprintf(format, args...)))
	b.WriteByte('\n')
}

// ago is how long something is past.
func ago(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return time.Since(t).Round(time.Second).String()
}

// trafficKinds are what goes through the TMFIFO.
var trafficKinds = []struct {
	name string
	of   func(rshim.TMFIFOStats) (toDPU, fromDPU rshim.Traffic)
}{
	{"console", func(t rshim.TMFIFOStats) (a, b rshim.Traffic) { return t.ConsoleToDPU, t.ConsoleFromDPU }},
	{"net", func(t rshim.TMFIFOStats) (a, b rshim.Traffic) { return t.NetToDPU, t.NetFromDPU }},
	{"control", func(t rshim.TMFIFOStats) (a, b rshim.Traffic) { return t.ControlToDPU, t.ControlFromDPU }},
}
