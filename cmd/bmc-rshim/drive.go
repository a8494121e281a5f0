// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/bluefield-go/bmc-rshim/dbus/client"
	corepush "github.com/bluefield-go/bmc-rshim/rshim/push"
)

// lastWords is how long a stream that failed waits for the boot log to say why.
const lastWords = time.Second

// drive has s send the stream and follows the boot log at the same time, until it
// is decided how the push went.
func (p *push) drive(ctx context.Context, s *corepush.Sender) error {
	inner, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()

	p.opened, p.meter = time.Now(), meter{}
	streamed := make(chan error, 1)
	wg.Go(func() { streamed <- s.Send(inner, p.t.openBoot) })
	type news struct {
		lines   []string
		dropped bool
		err     error
	}
	log := make(chan news)
	wg.Go(func() {
		// Once the chip is back from its reset, all that misc shows is of
		// this boot.
		select {
		case <-p.sent.begun:
		case <-inner.Done():
			return
		}
		r := &readLog{t: p.t}
		follow(inner, r, func(lines []string, err error) {
			select {
			case log <- news{lines, r.dropped, err}:
			case <-inner.Done():
			}
		})
	})

	tick := time.NewTicker(p.out.every())
	defer tick.Stop()
	for moved := int64(0); ; {
		select {
		case err := <-streamed:
			p.streamEnded(err)
		case n := <-log:
			p.deaf, p.dropped = n.err, n.dropped
			for _, line := range n.lines {
				p.out.line(line)
				p.see(line)
			}
		case now := <-tick.C:
			p.out.progress(p.progress(now))
		case <-time.After(p.alarm()):
		case <-ctx.Done():
			return ctx.Err()
		}
		now := time.Now()
		if n := p.sent.get().Bytes; n != moved {
			moved = n
			p.watch.Moved(now)
		}
		if over, err := p.verdict(now); over {
			return err
		}
	}
}

func (p *push) progress(now time.Time) progress {
	s := p.sent.get()
	g := progress{Phase: "streaming", Bytes: s.Bytes, Total: p.total, Image: s.Image}
	switch {
	case !p.ended.IsZero():
		g.Phase = "booting"
	case s.Begun.IsZero():
		g.Phase = "resetting"
	default:
		g.Rate = p.meter.rate(s.Begun, s.Bytes, now)
	}
	return g
}

func (p *push) streamEnded(err error) {
	p.ended, p.failed = time.Now(), err
	if err != nil {
		return
	}
	s := p.sent.get()
	p.sentNote(s.Bytes, p.ended.Sub(s.Begun), s.Begun.IsZero())
}

// sentNote tells that the DPU has taken all, and if that is known how fast.
func (p *push) sentNote(bytes int64, took time.Duration, unknown bool) {
	text := fmt.Sprintf("sent %s", size(bytes))
	if s := took.Seconds(); s >= 0.1 && !unknown {
		text += fmt.Sprintf(" in %.1f s, %s/s", s, size(int64(float64(bytes)/s)))
	}
	p.out.note(text)
}

// deadline is when waiting for what comes after the stream ends; zero while
// there is no end to it.
func (p *push) deadline() time.Time {
	switch {
	case p.ended.IsZero():
		return time.Time{}
	case p.failed != nil:
		return p.ended.Add(lastWords)
	}
	return p.ended.Add(p.o.timeout)
}

// alarm is how long it takes until something has to be decided.
func (p *push) alarm() time.Duration {
	at := p.deadline()
	if over := p.watch.Over(); !over.IsZero() && (at.IsZero() || over.Before(at)) {
		at = over
	}
	if at.IsZero() {
		return time.Hour
	}
	return time.Until(at)
}

// verdict decides whether the push is over, and how it went.
func (p *push) verdict(now time.Time) (over bool, err error) {
	w := &p.watch
	line, _ := w.Error()
	late := func(t time.Time) bool { return !t.IsZero() && !now.Before(t) }
	switch bytes := p.sent.get().Bytes; {
	case late(w.Over()):
		return true, p.dpuError("")
	case p.ended.IsZero():
		return false, nil
	case p.failed != nil:
		switch {
		case bytes > 0 && !late(p.deadline()):
			return false, nil
		case line != "":
			return true, p.dpuError(fmt.Sprintf(", and the push failed after %s: %v", p.amount(), p.failed))
		case bytes > 0:
			return true, fmt.Errorf("the push failed after %s: %w", p.amount(), p.failed)
		}
		return true, p.failed
	case p.o.wait == outcomeStreamed, w.Ready():
		if line != "" {
			return true, p.dpuError("")
		}
		if w.Ready() {
			p.out.note(fmt.Sprintf("%s is ready, %.1f s after the start", p.result.Device, now.Sub(p.began).Seconds()))
		}
		return true, nil
	case p.dropped && line != "":
		return true, p.dpuError("")
	case p.dropped:
		return true, givenUp("")
	case late(p.deadline()):
		more := doing(w)
		if p.deaf != nil {
			more += "; its boot log cannot be read: " + p.deaf.Error()
		}
		return true, exitWith(exitTimeout, "the DPU was not ready %v after it had the image; %s", p.o.timeout, more)
	}
	return false, nil
}

// dpuError is the error of a boot that the DPU reported an error of.
func (p *push) dpuError(more string) error {
	who := "the DPU reported an error"
	if p.watch.Ready() {
		who = "the DPU is up, but reported an error"
	}
	line, _ := p.watch.Error()
	return exitWith(exitDPU, "%s: %s%s", who, line, more)
}

// amount is how much was sent, of how much if that is known.
func (p *push) amount() string {
	bytes := p.sent.get().Bytes
	if p.total == 0 {
		return size(bytes)
	}
	return size(bytes) + " of " + size(p.total)
}

// where says where an interrupted push was.
func (p *push) where() string {
	if p.bus != nil {
		return p.bus.where()
	}
	switch {
	case p.opened.IsZero():
		return "before anything was touched"
	case p.sent.get().Begun.IsZero():
		return "while the DPU was being reset; it waits for an image: push again"
	case p.ended.IsZero() || p.failed != nil:
		return fmt.Sprintf("after %s; the DPU waits for the rest: push again", p.amount())
	}
	return "while the DPU, which has the image, was booting; " + doing(&p.watch)
}

// finish completes the result.
func (p *push) finish(err error) result {
	r := &p.result
	r.ExitCode = exitCode(err)
	r.Ready = r.Ready || p.watch.Ready()
	switch {
	case err != nil:
		r.Outcome, r.Error = cmp.Or(r.Outcome, outcomes[r.ExitCode]), err.Error()
	case p.detached:
		r.Outcome = outcomeStarted
	case p.o.wait == outcomeStreamed, p.bus != nil && p.bus.now != nil && p.bus.now.Outcome == client.Streamed:
		r.Outcome = outcomeStreamed
	default:
		r.Outcome = outcomeReady
	}
	s := p.sent.get()
	if p.bus != nil {
		s.Begun = p.bus.streaming
		if p.bus.now != nil {
			s.Bytes = p.bus.now.Bytes
		}
	}
	r.Bytes = s.Bytes
	if !p.ended.IsZero() && !s.Begun.IsZero() {
		r.Stream = seconds(p.ended.Sub(s.Begun))
	}
	r.Elapsed = seconds(time.Since(p.began))
	return *r
}
