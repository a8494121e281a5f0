// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// progress is how far something has come.
type progress struct {
	Phase string // checking, resetting, streaming, booting
	Bytes int64
	Total int64   // 0 if not known
	Rate  float64 // in bytes a second, of late
	Image string  // of the BFB, that is passing
	Stage string  // what the DPU is doing, if the daemon tells
}

func (g progress) json(o *object) {
	o.text("event", "progress")
	o.text("phase", g.Phase)
	o.int("bytes", g.Bytes)
	o.count("total", g.Total)
	o.float("rate", g.Rate)
	o.some("image", g.Image)
	o.some("stage", g.Stage)
}

// result is how a push ended.
type result struct {
	Outcome  string
	ExitCode int
	Device   string
	Bytes    int64 // that the DPU took
	Ready    bool  // the DPU is up
	Stream   float64
	Elapsed  float64
	Push     string // path on D-Bus
	SHA256   string // of what was sent, if the daemon tells
	Error    string
}

func (r result) json(o *object) {
	o.text("event", "result")
	o.text("outcome", r.Outcome)
	o.int("exit_code", int64(r.ExitCode))
	o.some("device", r.Device)
	o.int("bytes", r.Bytes)
	o.bool("ready", r.Ready)
	o.float("stream_seconds", r.Stream)
	o.float("elapsed_seconds", r.Elapsed)
	o.some("push", r.Push)
	o.some("sha256", r.SHA256)
	o.some("error", r.Error)
}

// Outcomes of a push that went well.
const (
	outcomeReady    = "ready"
	outcomeStreamed = "streamed" // but with exitGivenUp it has not
	outcomeStarted  = "started"  // -detach: the daemon pushes
)

// outcomes are the exit codes of the others in words.
var outcomes = map[int]string{
	exitFailed: "failed", exitRefused: "refused", exitDPU: "dpu_error",
	exitTimeout: "timed_out", exitDevice: "unavailable", exitHost: "not_restored",
	exitGivenUp: outcomeStreamed, exitInterrupted: "interrupted",
}

// reporter tells how a push goes. It is used by one goroutine.
type reporter interface {
	// every is how often progress wants to be called.
	every() time.Duration
	progress(p progress)
	note(text string) // something is done
	line(text string) // of the boot log
	status(s status)
	result(r result)
}

// people reports to a terminal, or in lines to a log.
type people struct {
	w   io.Writer
	bar bool
}

// newPeople draws a bar if w is a terminal that can.
func newPeople(w io.Writer) people {
	p := people{w: w}
	if o, ok := w.(*output); ok {
		w = o.w
	}
	if f, ok := w.(*os.File); ok {
		st, err := f.Stat()
		term := os.Getenv("TERM")
		p.bar = err == nil && st.Mode()&os.ModeCharDevice != 0 && term != "" && term != "dumb"
	}
	return p
}

func (p people) every() time.Duration {
	if p.bar {
		return 100 * time.Millisecond
	}
	return 5 * time.Second
}

const clearLine = "\r\x1b[K"

func (p people) print(text string) {
	if p.bar {
		text = clearLine + text
	}
	fmt.Fprintln(p.w, text)
}

func (p people) progress(g progress) {
	switch {
	case p.bar:
		fmt.Fprint(p.w, clearLine+g.drawn())
	case g.Phase != "booting": // where the log itself shows how it goes
		p.print(g.String())
	}
}

func (p people) note(text string) { p.print(text) }
func (p people) line(text string) { p.print("  " + strings.TrimSpace(text)) }

func (p people) status(s status) {
	p.print("")
	s.print(p.w)
}

func (p people) result(result) {
	if p.bar {
		fmt.Fprint(p.w, clearLine)
	}
}

// String is "streaming: 14.4 MiB of 32.0 MiB (45 %), 11.7 MiB/s, 2s left, image-v0".
func (g progress) String() string {
	var b strings.Builder
	b.WriteString(g.Phase)
	if g.Bytes > 0 {
		b.WriteString(": " + size(g.Bytes))
		if g.Total > 0 {
			fmt.Fprintf(&b, " of %s (%d %%)", size(g.Total), g.percent())
		}
		fmt.Fprintf(&b, ", %s/s", size(int64(g.Rate)))
		if left, ok := g.left(); ok {
			fmt.Fprintf(&b, ", %v left", left)
		}
	}
	if g.Image != "" {
		b.WriteString(", " + g.Image)
	}
	return b.String()
}

// drawn is String as a bar, in less than 80 columns.
func (g progress) drawn() string {
	const width = 24
	if g.Bytes == 0 || g.Phase == "booting" {
		return g.Phase + "..."
	}
	if g.Total == 0 {
		return fmt.Sprintf("%-9s %10s  %10s/s  %.20s", g.Phase, size(g.Bytes), size(int64(g.Rate)), g.Image)
	}
	full := int(width * g.percent() / 100)
	bar := strings.Repeat("#", full) + strings.Repeat("-", width-full)
	eta := ""
	if left, ok := g.left(); ok {
		eta = left.String()
	}
	return fmt.Sprintf("%-9s [%s] %3d%% %10s/s %6s  %.16s", g.Phase, bar, g.percent(), size(int64(g.Rate)), eta, g.Image)
}

func (g progress) percent() int64 {
	return min(100, 100*g.Bytes/g.Total)
}

// left is how long the rest takes at the rate of late.
func (g progress) left() (time.Duration, bool) {
	if g.Total == 0 || g.Rate < 1 || g.Bytes > g.Total {
		return 0, false
	}
	s := float64(g.Total-g.Bytes) / g.Rate
	if s > 100*60*60 {
		return 0, false
	}
	return time.Duration(s+0.5) * time.Second, true
}

// meter measures a rate over the last few seconds.
type meter struct{ samples []sample }

type sample struct {
	at    time.Time
	bytes int64
}

const meterSpan = 5 * time.Second

// rate takes how many bytes there were now, and none at since.
func (m *meter) rate(since time.Time, bytes int64, now time.Time) float64 {
	if m.samples == nil {
		m.samples = []sample{{since, 0}}
	}
	m.samples = append(m.samples, sample{now, bytes})
	for len(m.samples) > 2 && now.Sub(m.samples[1].at) >= meterSpan {
		m.samples = m.samples[1:]
	}
	first := m.samples[0]
	if span := now.Sub(first.at).Seconds(); span > 0 {
		return float64(bytes-first.bytes) / span
	}
	return 0
}

// events reports in JSON, an object a line. Names are an interface.
type events struct{ w io.Writer }

func (e events) every() time.Duration { return time.Second }

// put writes an event. What a reader that is gone does not get, it does not
// miss.
func (e events) put(event jsoner) { _ = printJSON(e.w, event) }

func (e events) progress(p progress) { e.put(p) }
func (e events) result(r result)     { e.put(r) }

func (e events) note(text string) {
	e.put(fields(func(o *object) {
		o.text("event", "note")
		o.text("text", text)
	}))
}

func (e events) line(text string) {
	e.put(fields(func(o *object) {
		o.text("event", "log")
		o.text("line", strings.TrimSpace(text))
	}))
}

func (e events) status(s status) {
	e.put(fields(func(o *object) {
		o.text("event", "status")
		s.json(o)
	}))
}
