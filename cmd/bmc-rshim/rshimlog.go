// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/bluefield-go/bmc-rshim/internal/syslog"
)

// rshimLevels are the values of rshim's -l: the numbers of -log-level.
var rshimLevels = []slog.Level{logLevels["0"], logLevels["1"], logLevels["2"], logLevels["3"], logLevels["4"]}

// plainLog is a log handler whose lines are the C daemon's, for who searches its
// log: the message first, and then what belongs to it and is not in it.
type plainLog struct {
	level slog.Level
	out   func(slog.Level, string)
	attrs []slog.Attr
	group string
}

func (p *plainLog) Enabled(_ context.Context, l slog.Level) bool { return l >= p.level }

func (p *plainLog) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	b.WriteString(printable(r.Message))
	for _, a := range p.attrs {
		writeAttr(&b, r.Message, "", a)
	}
	r.Attrs(func(a slog.Attr) bool {
		writeAttr(&b, r.Message, p.group, a)
		return true
	})
	p.out(r.Level, b.String())
	return nil
}

// writeAttr writes " key=value", unless the message says it already.
func writeAttr(b *strings.Builder, message, group string, a slog.Attr) {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			group += a.Key + "."
		}
		for _, a := range v.Group() {
			writeAttr(b, message, group, a)
		}
		return
	}
	text := v.String()
	if a.Equal(slog.Attr{}) || (a.Key == "device" || a.Key == "name") && contains(message, text) {
		return
	}
	if q := strconv.Quote(text); q != `"`+text+`"` || strings.ContainsAny(text, " =") || text == "" {
		text = q
	}
	b.WriteString(" " + group + a.Key + "=" + text)
}

// contains reports whether text has word as one of its words.
func contains(text, word string) bool {
	for _, w := range strings.Fields(text) {
		if w == word {
			return true
		}
	}
	return false
}

// printable keeps a line one line, whatever a device has sent.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

func (p *plainLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *p
	c.attrs = append([]slog.Attr(nil), p.attrs...)
	for _, a := range attrs {
		if p.group != "" {
			a.Key = p.group + a.Key
		}
		c.attrs = append(c.attrs, a)
	}
	return &c
}

func (p *plainLog) WithGroup(name string) slog.Handler {
	c := *p
	if name != "" {
		c.group += name + "."
	}
	return &c
}

// toStdout prints lines, with a priority in front if the journal reads them.
func toStdout(w io.Writer, journal bool) func(slog.Level, string) {
	var mu sync.Mutex
	return func(l slog.Level, line string) {
		prefix := ""
		if journal {
			prefix = fmt.Sprintf("<%d>", priority(l))
		}
		mu.Lock()
		defer mu.Unlock()
		io.WriteString(w, prefix+line+"\n")
	}
}

// toSyslog sends lines to syslog, as the C daemon does in the background;
// without one they are dropped.
func toSyslog() func(slog.Level, string) {
	w := syslog.New("rshim")
	return func(l slog.Level, line string) { w.Write(priority(l), line) }
}

// isJournal reports whether w is the journal of systemd.
func isJournal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && syslog.IsJournal(f)
}

// priority is that of the C daemon, for which what is usual is a notice.
func priority(l slog.Level) syslog.Priority {
	if p := syslog.Of(l); p != syslog.Info {
		return p
	}
	return syslog.Notice
}
