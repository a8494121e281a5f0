// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bluefield-go/bmc-rshim/dbus/client"
)

// interrupted cancels the push, if it is this command's own.
func (bp *busPush) interrupted() {
	if bp.p.o.follow {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), cancelPatience)
	defer cancel()
	if err := bp.b.c.Cancel(ctx, bp.path); err != nil {
		bp.runsOn = !errors.Is(err, client.ErrNotFound)
		return
	}
	for {
		now, err := bp.b.c.Push(ctx, bp.path)
		if err != nil {
			return
		}
		if now.Ended() {
			bp.cancelled(now)
			return
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return
		}
	}
}

// cancelled keeps the phase in which the push was before it was cancelled.
func (bp *busPush) cancelled(end *client.Push) {
	if bp.now != nil {
		end.Phase = bp.now.Phase
	}
	bp.now = end
}

// verdict is how the push has ended.
func (bp *busPush) verdict(ctx context.Context) error {
	// The signal of the end may have overtaken the last lines.
	if lines, err := bp.tail.read(ctx); err == nil {
		bp.print(lines)
	}
	p, n := bp.p, bp.now
	r := &p.result
	r.Bytes, r.SHA256 = n.Bytes, n.SHA256
	r.Ready = n.Outcome == client.Ready || n.Outcome == client.DPUError && n.Stage == "ready"
	p.ended = bp.booting
	why := cmp.Or(n.Error, n.Line, "the daemon does not say why")
	switch n.Outcome {
	case client.Ready:
		p.out.note(fmt.Sprintf("%s is ready, %.1f s after the start", r.Device, time.Since(p.began).Seconds()))
		return nil
	case client.Streamed:
		// An end like that has no error if nobody wanted to wait any longer.
		if n.Error == "" && (p.o.follow || p.o.wait == outcomeStreamed) {
			return nil
		}
		return givenUp(n.Error)
	case client.DPUError:
		who := "the DPU reported an error"
		if r.Ready {
			who = "the DPU is up, but reported an error"
		}
		return exitWith(exitDPU, "%s: %s", who, cmp.Or(n.Line, why))
	case client.TimedOut:
		return exitWith(exitTimeout, "%s", why)
	case client.Cancelled:
		r.Outcome = outcomeNames[n.Outcome]
		return exitWith(exitFailed, "the push was cancelled after %s", bp.amount())
	case client.DeviceLost:
		r.Outcome = outcomeNames[n.Outcome]
		return exitWith(exitFailed, "the DPU was lost after %s: %s", bp.amount(), why)
	}
	err := &client.Remote{Name: n.ErrorName, Message: why}
	if n.Bytes == 0 {
		if errors.Is(err, client.ErrImage) || errors.Is(err, client.ErrWrongChip) {
			return refusal(err)
		}
		return remote(err)
	}
	if errors.Is(err, client.ErrTimeout) {
		return exitWith(exitTimeout, "the push failed after %s: %w", bp.amount(), err)
	}
	return exitWith(exitFailed, "the push failed after %s: %w", bp.amount(), err)
}

func (bp *busPush) amount() string {
	if bp.now == nil {
		return size(0)
	}
	if bp.now.Total == 0 {
		return size(bp.now.Bytes)
	}
	return size(bp.now.Bytes) + " of " + size(bp.now.Total)
}

// where says where an interrupted push was.
func (bp *busPush) where() string {
	if bp.p.o.follow {
		return "; the push goes on"
	}
	if bp.runsOn {
		return "; the push could not be cancelled, and may go on: see bmc-rshim push -follow, or bmc-rshim status"
	}
	phase := ""
	if bp.now != nil {
		phase = bp.now.Phase
	}
	switch phase {
	case "", "Waiting":
		return "before anything was touched"
	case "Resetting":
		return "while the DPU was being reset; it waits for an image: push again"
	case "Streaming":
		return fmt.Sprintf("after %s; the DPU waits for the rest: push again", bp.amount())
	}
	return "while the DPU, which has the image, was booting; " + cmp.Or(bp.now.Stage, "it goes on")
}
