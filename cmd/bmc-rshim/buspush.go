// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bluefield-go/bmc-rshim/dbus/client"
)

const (
	// cancelPatience is how long a cancelled push may take to end.
	cancelPatience = 10 * time.Second
	// undoPatience is how long a push that was asked for may take to show.
	undoPatience = time.Second
)

// rejoinPatience is with a bus that has ended while the daemon pushes; a
// variable for tests.
var rejoinPatience = 30 * time.Second

// busPush is a push that the daemon does, and this command follows.
type busPush struct {
	p    *push
	t    *targetFlags
	b    *busDevice
	path client.Path
	tail logTail
	now  *client.Push // as last heard
	// Own clock, as the BMC's may be set meanwhile.
	streaming, booting time.Time
	runsOn             bool // it was to be cancelled, and nobody knows whether it was
}

// viaBus has the daemon push, and follows that.
func (p *push) viaBus(ctx context.Context, b *busDevice) error {
	bp := &busPush{p: p, t: &p.o.target, b: b, tail: logTail{b: b}}
	p.bus = bp
	w, err := b.c.Watch(ctx)
	if err != nil {
		return remote(err)
	}
	if _, err := bp.tail.read(ctx); err != nil { // what was before
		w.Close()
		return remote(err)
	}
	if bp.path, err = bp.start(ctx); err != nil {
		w.Close()
		return err
	}
	p.result.Push = string(bp.path)
	if p.begun != nil {
		p.begun(bp)
	}
	if p.o.detach {
		w.Close()
		p.detached = true
		p.out.note(fmt.Sprintf("%s: the daemon pushes %s; bmc-rshim push -follow follows it", b.name(), p.img.title()))
		return nil
	}
	return bp.follow(ctx, w)
}

// start hands the image over.
func (bp *busPush) start(ctx context.Context) (client.Path, error) {
	p := bp.p
	f := p.img.file
	if f == nil {
		var err error
		if f, err = p.img.pipe(); err != nil {
			return "", err
		}
		defer f.Close()
	}
	was := ""
	if last, err := bp.b.c.LastPush(ctx, bp.b.index); err == nil {
		was = string(last.Path)
	}
	path, err := bp.b.c.StartPush(ctx, bp.b.index, f, client.PushOptions{
		Config: p.configFile, Rootfs: p.rootfsFile, SHA256: p.o.sha256, NoCheck: p.o.noCheck,
		Size: max(p.img.length, 0), Name: p.img.title(), Streamed: p.o.wait == outcomeStreamed, Timeout: p.o.timeout,
	})
	if errors.Is(err, client.ErrImage) || errors.Is(err, client.ErrWrongChip) {
		return "", refusal(err)
	}
	if err != nil && ctx.Err() != nil {
		bp.undo(was)
	}
	return path, remote(err)
}

// undo cancels the push that the daemon may have begun although nobody waited
// for its answer; was is the one before.
func (bp *busPush) undo(was string) {
	ctx, cancel := context.WithTimeout(context.Background(), undoPatience)
	defer cancel()
	for {
		last, err := bp.b.c.LastPush(ctx, bp.b.index)
		if err == nil && string(last.Path) != was && last.Origin == "Bus" {
			bp.path, bp.now = last.Path, last
			bp.interrupted()
			return
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return
		}
	}
}

// followBus follows a push that has begun.
func (p *push) followBus(ctx context.Context, b *busDevice, path client.Path) error {
	bp := &busPush{p: p, t: &p.o.target, b: b, path: path, tail: logTail{b: b}}
	p.bus, p.result.Push = bp, string(path)
	w, err := b.c.Watch(ctx)
	if err != nil {
		return remote(err)
	}
	if _, err := bp.tail.read(ctx); err != nil {
		w.Close()
		return remote(err)
	}
	return bp.follow(ctx, w)
}

// news is an event, or why there are no more.
type news struct {
	ev  client.Event
	err error
}

// follow follows the push to its end. It closes w.
func (bp *busPush) follow(ctx context.Context, w *client.Watch) error {
	p := bp.p
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	listen := func() <-chan news {
		heard := make(chan news)
		go func(w *client.Watch) {
			defer w.Close()
			for {
				ev, err := w.Next(inner)
				select {
				case heard <- news{ev, err}:
				case <-inner.Done():
					return
				}
				if err != nil {
					return
				}
			}
		}(w)
		return heard
	}
	heard := listen()
	tick := time.NewTicker(p.out.every())
	defer tick.Stop()
	for {
		select {
		case n := <-heard:
			err := n.err
			if err == nil {
				err = bp.take(ctx, n.ev)
			}
			if ctx.Err() != nil {
				continue
			}
			if errors.Is(err, client.ErrLost) {
				if w, err = bp.rejoin(ctx); err == nil {
					heard = listen()
				} else if ctx.Err() != nil {
					continue
				}
			}
			if err != nil {
				return remote(err)
			}
			if bp.now != nil && bp.now.Ended() {
				return bp.verdict(ctx)
			}
		case <-tick.C:
			if bp.now != nil {
				p.out.progress(bp.progress())
			}
		case <-ctx.Done():
			bp.interrupted()
			return ctx.Err()
		}
	}
}

// take takes an event.
func (bp *busPush) take(ctx context.Context, ev client.Event) error {
	if ev.Push != nil && ev.Push.Path == bp.path {
		if ev.Removed {
			return fmt.Errorf("somebody has removed the push %s", bp.path)
		}
		bp.see(ev.Push)
		return nil
	}
	if ev.Index != bp.b.index || ev.Lines == nil && !ev.Lost {
		return nil
	}
	lines, err := ev.Lines, error(nil)
	if ev.Lost {
		lines, err = bp.tail.read(ctx)
	} else {
		lines, err = bp.tail.take(ctx, lines)
	}
	bp.print(lines)
	return err
}

func (bp *busPush) print(lines []client.LogLine) {
	for _, l := range lines {
		bp.p.out.line(l.Text)
	}
}

// see takes what the push is now.
func (bp *busPush) see(now *client.Push) {
	p := bp.p
	bp.now = now
	switch now.Phase {
	case "Streaming":
		if bp.streaming.IsZero() {
			bp.streaming = time.Now()
		}
	case "Booting", "Ended":
		if bp.booting.IsZero() {
			bp.booting = time.Now()
			if now.Phase == "Booting" || now.Outcome == client.Streamed || now.Outcome == client.Ready {
				p.sentNote(now.Bytes, bp.booting.Sub(bp.streaming), bp.streaming.IsZero())
			}
		}
	}
}

// rejoin finds the push again after the bus was restarted. A daemon that was
// has no push any more.
func (bp *busPush) rejoin(ctx context.Context) (*client.Watch, error) {
	bp.p.out.note("the connection to the daemon is lost, looking for it")
	lost := func(err error) error {
		return fmt.Errorf("%w, and the push with it, unless it goes on unseen: %v; bmc-rshim push -follow finds one that goes on, and bmc-rshim push starts anew", client.ErrLost, err)
	}
	c, err := rejoin(ctx, bp.t, rejoinPatience)
	if err != nil {
		return nil, lost(err)
	}
	bp.b.c.Close()
	bp.b.c = c
	now, err := c.Push(ctx, bp.path)
	if err == nil && bp.now != nil && !now.Started.Equal(bp.now.Started) {
		err = errors.New("the daemon is another one")
	}
	if err != nil {
		return nil, lost(err)
	}
	bp.p.out.note("the daemon is there again, and pushes on")
	w, err := c.Watch(ctx)
	if err == nil {
		var lines []client.LogLine
		lines, err = bp.tail.read(ctx)
		bp.print(lines)
		if err != nil {
			w.Close()
		}
	}
	return w, err
}

// phases are those of D-Bus in this command's words.
var phases = map[string]string{
	"Waiting": "checking", "Resetting": "resetting", "Streaming": "streaming", "Booting": "booting", "Ended": "booting",
}

func (bp *busPush) progress() progress {
	n := bp.now
	return progress{Phase: phases[n.Phase], Bytes: n.Bytes, Total: n.Total, Rate: float64(n.Rate), Stage: n.Stage}
}
