// SPDX-License-Identifier: Apache-2.0

package syslog

import (
	"context"
	"io"
	"log/slog"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// IsJournal reports whether f is systemd's journal. The variable alone does not
// tell: who runs this program may have redirected its output. Source:
// systemd.exec(5), JOURNAL_STREAM.
func IsJournal(f *os.File) bool {
	var st unix.Stat_t
	want := os.Getenv("JOURNAL_STREAM")
	if want == "" || unix.Fstat(int(f.Fd()), &st) != nil {
		return false
	}
	return want == strconv.FormatUint(uint64(st.Dev), 10)+":"+strconv.FormatUint(st.Ino, 10)
}

// journal is a handler for systemd's journal, which has its own time, and
// takes the priority from the start of a line. Source: sd-daemon(3).
type journal struct {
	levels [Debug + 1]slog.Handler // by priority; nil for those that no level has
}

// NewJournal returns a handler whose lines begin with their priority, as <6>,
// and have neither time nor level. It sets o.ReplaceAttr.
func NewJournal(w io.Writer, o *slog.HandlerOptions) slog.Handler {
	o.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
			return slog.Attr{}
		}
		return a
	}
	var j journal
	for _, p := range []Priority{Err, Warning, Info, Debug} {
		j.levels[p] = slog.NewTextHandler(prefixed{w, "<" + strconv.Itoa(int(p)) + ">"}, o)
	}
	return j
}

func (j journal) Enabled(ctx context.Context, l slog.Level) bool {
	return j.levels[Of(l)].Enabled(ctx, l)
}

func (j journal) Handle(ctx context.Context, r slog.Record) error {
	return j.levels[Of(r.Level)].Handle(ctx, r)
}

func (j journal) WithAttrs(attrs []slog.Attr) slog.Handler {
	return j.each(func(h slog.Handler) slog.Handler { return h.WithAttrs(attrs) })
}

func (j journal) WithGroup(name string) slog.Handler {
	return j.each(func(h slog.Handler) slog.Handler { return h.WithGroup(name) })
}

func (j journal) each(f func(slog.Handler) slog.Handler) slog.Handler {
	for i, h := range j.levels {
		if h != nil {
			j.levels[i] = f(h)
		}
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
