// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bluefield-go/bmc-rshim/dbus/client"
)

// followPoll is how often the boot log is looked at. A DPU that reboots is
// gone for longer, so that the end of its log is not missed.
const followPoll = 250 * time.Millisecond

// displayLog is the DISPLAY_LEVEL at which misc has the boot log.
const displayLog = 2

// readLog reads the boot log from misc, at the DISPLAY_LEVEL for it. restore
// sets back the level that was found, and may be called more than once.
type readLog struct {
	t     target
	level int // that was found, if changed
	set   bool

	dropped bool // as read last: the RShim is not the daemon's
}

// lines returns the lines of the current boot.
func (r *readLog) lines(ctx context.Context) ([]string, error) {
	text, err := r.t.misc(ctx)
	if err != nil {
		return nil, err
	}
	m := parseMisc(text)
	r.dropped = m.number("DROP_MODE") != 0
	level := m.number("DISPLAY_LEVEL")
	if level == displayLog {
		return m.log, nil
	}
	if !r.set {
		r.level, r.set = level, true
	}
	if err := r.t.setMisc(ctx, "DISPLAY_LEVEL 2\n"); err != nil {
		return nil, err
	}
	if text, err = r.t.misc(ctx); err != nil {
		return nil, err
	}
	return parseMisc(text).log, nil
}

func (r *readLog) restore(ctx context.Context) {
	if !r.set {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second/2)
	defer cancel()
	if r.t.setMisc(ctx, fmt.Sprintf("DISPLAY_LEVEL %d\n", r.level)) == nil {
		r.set = false
	}
}

// follow gives the boot log's lines to emit as they come, until ctx ends. A log
// that cannot be read is tried again, as the DPU may be rebooting, and emit is
// told why.
func follow(ctx context.Context, r *readLog, emit func(lines []string, err error)) {
	defer r.restore(ctx)
	var seen []string
	for {
		lines, err := r.lines(ctx)
		if err == nil {
			emit(unseen(seen, lines), nil)
			seen = lines
		} else if ctx.Err() == nil {
			emit(nil, err)
		}
		timer := time.NewTimer(followPoll)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// unseen returns the lines of now that come after those of seen. The log may
// have lost lines at its front, or have begun anew with another boot: lines
// are the same if they stand at the end of seen and at the start of now.
func unseen(seen, now []string) []string {
	for from := max(0, len(seen)-len(now)); from < len(seen); from++ {
		if known := seen[from:]; slices.Equal(known, now[:len(known)]) {
			return now[len(known):]
		}
	}
	return now
}

func logCommand(ctx context.Context, e *env, args []string) error {
	var tf targetFlags
	fs := flags("log", "", "")
	tf.register(fs)
	forever := fs.Bool("f", false, "follow the log until interrupted")
	asJSON := fs.Bool("json", false, "print JSON, an object a line")
	if err := parse(e, fs, args, 0); err != nil {
		return err
	}
	t, err := tf.one(ctx, e)
	if err != nil {
		return err
	}
	defer t.close()
	name := nameOf(t)
	put := func(l client.LogLine) {
		l.Text = strings.TrimPrefix(l.Text, " ")
		if *asJSON {
			_ = printJSON(e.stdout, logLineJSON(name, l))
			return
		}
		fmt.Fprintln(e.stdout, l.Text)
	}
	if b, ok := t.(*busDevice); ok {
		return busLog(ctx, &tf, b, *forever, put, func(err error) { fmt.Fprintln(e.stderr, "bmc-rshim:", err) })
	}
	count := uint64(0)
	print := func(lines []string) {
		for _, l := range lines {
			count++
			put(client.LogLine{Seq: count, Text: l})
		}
	}
	if *forever {
		told := ""
		follow(ctx, &readLog{t: t}, func(lines []string, err error) {
			print(lines)
			if err == nil {
				told = ""
			} else if told != err.Error() {
				told = err.Error()
				fmt.Fprintln(e.stderr, "bmc-rshim:", told)
			}
		})
		return nil
	}
	r := readLog{t: t}
	defer r.restore(ctx)
	lines, err := r.lines(ctx)
	print(lines)
	return err
}
