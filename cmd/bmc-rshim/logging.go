// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
)

// logLevels are the values of -log-level: slog's names, and the numbers of the
// C daemon. What the C daemon tells as a notice is info here, so that both
// names are the same.
var logLevels = map[string]slog.Level{
	"error": slog.LevelError, "1": slog.LevelError,
	"warn": slog.LevelWarn, "2": slog.LevelWarn,
	"notice": slog.LevelInfo, "info": slog.LevelInfo, "3": slog.LevelInfo,
	"debug": slog.LevelDebug, "4": slog.LevelDebug,
	"0": slog.LevelError + 1, // nothing
}

// newLogger makes the daemon's logger of a -log-level.
func newLogger(w io.Writer, level string) (*slog.Logger, error) {
	l, ok := logLevels[level]
	if !ok {
		return nil, fmt.Errorf("-log-level is error, warn, notice, info, debug, or 0 to 4, not %q", level)
	}
	o := &slog.HandlerOptions{Level: l}
	if os.Getenv("JOURNAL_STREAM") == "" {
		return slog.New(slog.NewTextHandler(w, o)), nil
	}
	return slog.New(newJournal(w, o)), nil
}

// journal is a handler for systemd's journal, which has its own time, and
// takes the priority from the start of a line. Source: sd-daemon(3).
type journal struct {
	levels [4]slog.Handler // error, warn, info, debug
}

func newJournal(w io.Writer, o *slog.HandlerOptions) (j journal) {
	o.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
			return slog.Attr{}
		}
		return a
	}
	for i, priority := range []string{"<3>", "<4>", "<6>", "<7>"} {
		j.levels[i] = slog.NewTextHandler(prefixed{w, priority}, o)
	}
	return j
}

func (j journal) at(l slog.Level) slog.Handler {
	switch {
	case l >= slog.LevelError:
		return j.levels[0]
	case l >= slog.LevelWarn:
		return j.levels[1]
	case l >= slog.LevelInfo:
		return j.levels[2]
	}
	return j.levels[3]
}

func (j journal) Enabled(ctx context.Context, l slog.Level) bool { return j.at(l).Enabled(ctx, l) }

func (j journal) Handle(ctx context.Context, r slog.Record) error {
	return j.at(r.Level).Handle(ctx, r)
}

func (j journal) WithAttrs(attrs []slog.Attr) slog.Handler {
	for i, h := range j.levels {
		j.levels[i] = h.WithAttrs(attrs)
	}
	return j
}

func (j journal) WithGroup(name string) slog.Handler {
	for i, h := range j.levels {
		j.levels[i] = h.WithGroup(name)
	}
	return j
}

// prefixed puts a prefix before each Write, which a slog handler does once for
// a record.
type prefixed struct {
	w      io.Writer
	prefix string
}

func (p prefixed) Write(b []byte) (int, error) {
	n, err := p.w.Write(append([]byte(p.prefix), b...))
	return max(0, n-len(p.prefix)), err
}
