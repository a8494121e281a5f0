// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// lastWords is how long a stream that failed waits for the boot log to say why.
const lastWords = time.Second

// drive sends the stream and follows the boot log at the same time, until it
// is decided how the push went.
func (p *push) drive(ctx context.Context) error {
	inner, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()

	p.opened, p.meter = time.Now(), meter{}
	streamed := make(chan error, 1)
	wg.Go(func() { streamed <- p.sender.run(inner, p.t, p.stream) })
	type news struct {
		lines []string
		err   error
	}
	log := make(chan news)
	wg.Go(func() {
		// Once the chip is back from its reset, all that misc shows is of
		// this boot.
		select {
		case <-p.sender.begun:
		case <-inner.Done():
			return
		}
		follow(inner, p.t, func(lines []string, err error) {
			select {
			case log <- news{lines, err}:
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
			p.deaf = n.err
			for _, line := range n.lines {
				p.out.line(line)
				p.watch.see(line, time.Now())
			}
		case now := <-tick.C:
			p.out.progress(p.progress(now))
		case <-time.After(p.alarm()):
		case <-ctx.Done():
			return ctx.Err()
		}
		now := time.Now()
		if n, _, _ := p.sender.sent(); n != moved {
			moved = n
			p.watch.moved(now)
		}
		if over, err := p.verdict(now); over {
			return err
		}
	}
}

func (p *push) progress(now time.Time) progress {
	bytes, image, since := p.sender.sent()
	g := progress{Phase: "streaming", Bytes: bytes, Total: p.total, Image: image}
	switch {
	case !p.ended.IsZero():
		g.Phase = "booting"
	case since.IsZero():
		g.Phase = "resetting"
	default:
		g.Rate = p.meter.rate(since, bytes, now)
	}
	return g
}

func (p *push) streamEnded(err error) {
	p.ended, p.failed = time.Now(), err
	if err != nil {
		return
	}
	bytes, _, since := p.sender.sent()
	text := fmt.Sprintf("sent %s", size(bytes))
	if took := p.ended.Sub(since).Seconds(); took >= 0.1 && !since.IsZero() {
		text += fmt.Sprintf(" in %.1f s, %s/s", took, size(int64(float64(bytes)/took)))
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
	if over := p.watch.over; !over.IsZero() && (at.IsZero() || over.Before(at)) {
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
	late := func(t time.Time) bool { return !t.IsZero() && !now.Before(t) }
	switch bytes, _, _ := p.sender.sent(); {
	case late(w.over):
		return true, p.dpuError("")
	case p.ended.IsZero():
		return false, nil
	case p.failed != nil:
		switch {
		case bytes > 0 && !late(p.deadline()):
			return false, nil
		case w.error != "":
			return true, p.dpuError(fmt.Sprintf(", and the push failed after %s: %v", p.amount(), p.failed))
		case bytes > 0:
			return true, fmt.Errorf("the push failed after %s: %w", p.amount(), p.failed)
		}
		return true, p.failed
	case p.o.wait == outcomeStreamed, w.ready:
		if w.error != "" {
			return true, p.dpuError("")
		}
		if w.ready {
			p.out.note(fmt.Sprintf("%s is ready, %.1f s after the start", p.result.Device, now.Sub(p.began).Seconds()))
		}
		return true, nil
	case late(p.deadline()):
		more := w.doing()
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
	if p.watch.ready {
		who = "the DPU is up, but reported an error"
	}
	return exitWith(exitDPU, "%s: %s%s", who, p.watch.error, more)
}

// amount is how much was sent, of how much if that is known.
func (p *push) amount() string {
	bytes, _, _ := p.sender.sent()
	if p.total == 0 {
		return size(bytes)
	}
	return size(bytes) + " of " + size(p.total)
}

// where says where an interrupted push was.
func (p *push) where() string {
	_, _, since := p.sender.sent()
	switch {
	case p.opened.IsZero():
		return "before anything was touched"
	case since.IsZero():
		return "while the DPU was being reset; it waits for an image: push again"
	case p.ended.IsZero() || p.failed != nil:
		return fmt.Sprintf("after %s; the DPU waits for the rest: push again", p.amount())
	}
	return "while the DPU, which has the image, was booting; " + p.watch.doing()
}

// finish completes the result.
func (p *push) finish(err error) result {
	r := &p.result
	r.ExitCode = exitCode(err)
	r.Ready = p.watch.ready
	switch {
	case err != nil:
		r.Outcome, r.Error = outcomes[r.ExitCode], err.Error()
	case p.o.wait == outcomeStreamed:
		r.Outcome = outcomeStreamed
	default:
		r.Outcome = outcomeReady
	}
	var since time.Time
	r.Bytes, _, since = p.sender.sent()
	if !p.ended.IsZero() && !since.IsZero() {
		r.Stream = seconds(p.ended.Sub(since))
	}
	r.Elapsed = seconds(time.Since(p.began))
	return *r
}
