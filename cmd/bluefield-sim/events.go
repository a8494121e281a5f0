// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
)

// events writes lines, from several DPUs at once.
type events struct {
	mu sync.Mutex
	w  io.Writer
}

func (e *events) Write(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.w.Write(p)
}

// device returns a handler for the events of one DPU.
func (e *events) device(n int) slog.Handler { return eventHandler{e, " dev=" + strconv.Itoa(n)} }

// eventHandler writes a record as an event: "name key=value ...".
type eventHandler struct {
	w     io.Writer
	attrs string
}

func (h eventHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h eventHandler) Handle(_ context.Context, r slog.Record) error {
	line := r.Message + h.attrs
	r.Attrs(func(a slog.Attr) bool {
		line += pair(a)
		return true
	})
	_, err := io.WriteString(h.w, line+"\n")
	return err
}

func (h eventHandler) WithAttrs(as []slog.Attr) slog.Handler {
	for _, a := range as {
		h.attrs += pair(a)
	}
	return h
}

func (h eventHandler) WithGroup(string) slog.Handler { return h }

func pair(a slog.Attr) string {
	v := a.Value.String()
	if v == "" || strings.ContainsAny(v, " =\"\\") || strconv.Quote(v) != `"`+v+`"` {
		v = strconv.Quote(v)
	}
	return " " + a.Key + "=" + v
}
