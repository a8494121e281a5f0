// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/bluefield-go/bmc-rshim/dbus/client"
)

// rejoinPause is between attempts to find a daemon, or a bus, that has ended.
const rejoinPause = time.Second

// logTail gives a boot log's lines once each, by their numbers.
type logTail struct {
	b    *busDevice
	next uint64
	last client.LogLine // that was given
}

// read returns the lines that have not been given yet.
func (l *logTail) read(ctx context.Context) ([]client.LogLine, error) {
	lines, next, err := l.b.c.Log(ctx, l.b.index, l.next)
	if err != nil {
		return nil, err
	}
	if l.next == 0 {
		// After the bus has gone, the daemon may be the one of before.
		if i := slices.Index(lines, l.last); i >= 0 {
			lines = lines[i+1:]
		}
	}
	l.next = next
	l.gave(lines)
	return lines, nil
}

func (l *logTail) gave(lines []client.LogLine) {
	if len(lines) > 0 {
		l.last = lines[len(lines)-1]
	}
}

// take takes lines that have come as a signal. Should some be missing before
// them, the log is read.
func (l *logTail) take(ctx context.Context, lines []client.LogLine) ([]client.LogLine, error) {
	for len(lines) > 0 && lines[0].Seq < l.next {
		lines = lines[1:]
	}
	if len(lines) == 0 {
		return nil, nil
	}
	if lines[0].Seq > l.next {
		return l.read(ctx)
	}
	l.next = lines[len(lines)-1].Seq + 1
	l.gave(lines)
	return lines, nil
}

// logLineJSON is a line as log -json has it.
func logLineJSON(device string, l client.LogLine) jsoner {
	return fields(func(o *object) {
		o.text("event", "log")
		o.text("device", device)
		o.int("seq", int64(l.Seq))
		if !l.At.IsZero() {
			o.text("time", l.At.UTC().Format(time.RFC3339Nano))
		}
		o.text("line", l.Text)
	})
}

// busLog prints the boot log, and with forever what comes, until ctx ends. A
// daemon that ends is waited for.
func busLog(ctx context.Context, t *targetFlags, b *busDevice, forever bool, emit func(client.LogLine), complain func(error)) error {
	tail := logTail{b: b}
	if !forever {
		lines, err := tail.read(ctx)
		for _, l := range lines {
			emit(l)
		}
		return remote(err)
	}
	for {
		err := tail.follow(ctx, emit)
		if ctx.Err() != nil {
			return nil
		}
		if !errors.Is(err, client.ErrLost) && !errors.Is(err, client.ErrNoDaemon) {
			return remote(err)
		}
		complain(err)
		c, err := rejoin(ctx, t, 0)
		if err != nil {
			return nil // ctx has ended
		}
		b.c.Close()
		b.c, tail.next = c, 0 // another daemon counts anew
	}
}

// follow emits the lines until ctx, or the daemon, ends.
func (l *logTail) follow(ctx context.Context, emit func(client.LogLine)) error {
	w, err := l.b.c.Watch(ctx)
	if err != nil {
		return err
	}
	defer w.Close()
	lines, err := l.read(ctx)
	for {
		for _, line := range lines {
			emit(line)
		}
		if err != nil {
			return err
		}
		var ev client.Event
		if ev, err = w.Next(ctx); err != nil {
			return err
		}
		lines = nil
		switch {
		case ev.Index != l.b.index:
		case ev.Lost:
			lines, err = l.read(ctx)
		case ev.Lines != nil:
			lines, err = l.take(ctx, ev.Lines)
		}
	}
}

// rejoin connects to the daemon again, for up to limit; 0: until ctx ends.
func rejoin(ctx context.Context, t *targetFlags, limit time.Duration) (*client.Client, error) {
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	for {
		c, err := client.Connect(ctx, t.bus)
		if err == nil {
			return c, nil
		}
		timer := time.NewTimer(rejoinPause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, err
		}
	}
}
