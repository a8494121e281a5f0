// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"
)

// logger returns what -v has the transports report to: all they send and
// receive.
func (e *env) logger(o options) *slog.Logger {
	if !o.trace {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(&tracer{mu: new(sync.Mutex), w: e.stderr, start: time.Now()})
}

// tracer is a handler that writes a line for each record, of the seconds since
// the start, the message, and the attributes.
type tracer struct {
	mu    *sync.Mutex
	w     io.Writer
	start time.Time
	attrs string // of With
}

func (t *tracer) Enabled(context.Context, slog.Level) bool { return true }

func (t *tracer) Handle(_ context.Context, r slog.Record) error {
	line := fmt.Appendf(nil, "%+8.3f s  %s%s", r.Time.Sub(t.start).Seconds(), r.Message, t.attrs)
	r.Attrs(func(a slog.Attr) bool {
		line = fmt.Appendf(line, "  %s %v", a.Key, a.Value.Resolve())
		return true
	})
	t.mu.Lock()
	defer t.mu.Unlock()
	_, err := t.w.Write(append(line, '\n'))
	return err
}

func (t *tracer) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := *t
	for _, a := range attrs {
		with.attrs += fmt.Sprintf("  %s %v", a.Key, a.Value.Resolve())
	}
	return &with
}

func (t *tracer) WithGroup(string) slog.Handler { return t }
