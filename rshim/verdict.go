// SPDX-License-Identifier: Apache-2.0

package rshim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/bootlog"
)

// How a push ends. Its stream is over when the chip has it; what it was for is
// only known from the boot log, minutes later. Nothing runs for that: whatever
// is told about the boot, and a single timer while a push is pending, lead to
// judge.

const (
	// lastWords is how long a stream that the chip did not take waits for the
	// boot log to say why.
	lastWords = time.Second
	// pushesKept is how many pushes before the last one PushByID knows.
	pushesKept = 7
)

// errResetAgain is why a push has failed whose boot somebody ended.
var errResetAgain = errors.New("the chip was reset on request before it was ready")

// verdict is what it takes to decide how the last push has ended.
type verdict struct {
	limit time.Duration // from the end of the stream until the DPU is ready
	due   time.Time     // when that is over; zero: the stream has not ended
	lost  time.Time     // when the device counts as lost; zero: it is on the bus
	alarm *time.Timer   // for the next of them, or of the watch

	streamed bool // PushOptions.Streamed of the last push

	before []PushStatus // the pushes before, oldest first
	over   []PushStatus // those whose outcome has not been logged yet
}

// beginPush makes a push that begins the current one, and returns its number.
func (d *Device) beginPush(o PushOptions, skip bool, now time.Time) int64 {
	v := &d.verdict
	d.endPush(OutcomeStreamed, givenUp("another push has begun"), now)
	if d.push.ID != 0 {
		v.before = append(slices.Delete(v.before, 0, max(0, len(v.before)-pushesKept+1)), d.push)
	}
	d.counts.Pushes++
	d.push = PushStatus{
		ID: d.counts.Pushes, Phase: PushResetting, Total: o.Total, Started: now, Outcome: OutcomePending,
	}
	v.limit, v.due, v.lost, v.streamed = orDefault(o.Limit, d.ripe), time.Time{}, time.Time{}, o.Streamed
	stage := bootlog.StageUnknown // until the reset
	if skip {
		stage = d.watch.Stage()
	}
	d.watch = bootlog.Watch{Upgrade: skip && stage != bootlog.StageROM}
	d.watch.Begin(stage)
	return d.push.ID
}

// judge decides how the push has ended, if that is clear by now, and otherwise
// sees to being called again when it is time. It is called with the lock held.
func (d *Device) judge(now time.Time) {
	p, v, w := &d.push, &d.verdict, &d.watch
	if p.Outcome != OutcomePending {
		return
	}
	late := func(t time.Time) bool { return !t.IsZero() && !now.Before(t) }
	line, _ := w.Error()
	switch {
	case late(w.Over()),
		line != "" && p.Phase == PushFailed && !ownFault(p.Err),
		line != "" && p.Phase == PushDone && (w.Ready() || late(v.due) || late(v.lost)):
		d.conclude(OutcomeDPUError, dpuError(line, p.Err), now)
	case p.Phase == PushFailed && late(v.due):
		d.conclude(outcomeOf(p.Err, d.sess == nil), p.Err, now)
	case p.Phase != PushDone:
	case w.Ready():
		d.conclude(OutcomeReady, nil, now)
	case late(v.lost):
		d.conclude(OutcomeDeviceLost, fmt.Errorf("%w, and has not come back for %v", ErrGone, d.back), now)
	case late(v.due):
		d.conclude(OutcomeTimeout, fmt.Errorf("the DPU was not ready %v after it had the image: %w", v.limit, os.ErrDeadlineExceeded), now)
	}
	if p.Outcome != OutcomePending {
		return
	}
	next := w.Over()
	if p.Phase == PushFailed || p.Phase == PushDone {
		next = sooner(next, v.due)
	}
	if p.Phase == PushDone {
		next = sooner(next, v.lost)
	}
	switch {
	case next.IsZero():
		v.stop()
	case v.alarm == nil:
		v.alarm = time.AfterFunc(next.Sub(now), func() { d.update(func() { d.judge(time.Now()) }) })
	default:
		v.alarm.Reset(next.Sub(now))
	}
}

// sooner returns the earlier of two times, of which a zero one is none.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func (v *verdict) stop() {
	if v.alarm != nil {
		v.alarm.Stop()
	}
}

// conclude ends the push. A stream that is still open fails with err.
func (d *Device) conclude(o Outcome, err error, now time.Time) {
	d.push = d.told(d.push)
	p := &d.push
	p.Outcome, p.Err, p.Ended = o, err, now
	d.verdict.stop()
	d.verdict.over = append(d.verdict.over, *p)
	if d.boot != nil {
		d.boot.cut(err)
	}
}

// endPush is the end of a push whose boot cannot be followed any more, or need
// not. Its outcome is o, unless more is known: that its stream failed, or an
// error that the DPU has reported.
func (d *Device) endPush(o Outcome, err error, now time.Time) {
	p := &d.push
	if p.Outcome != OutcomePending || d.boot != nil {
		return // an open stream ends by itself
	}
	line, _ := d.watch.Error()
	switch {
	case line != "" && !ownFault(p.Err):
		d.conclude(OutcomeDPUError, dpuError(line, p.Err), now)
	case p.Phase == PushFailed:
		d.conclude(outcomeOf(p.Err, d.sess == nil), p.Err, now)
	default:
		d.conclude(o, err, now)
	}
}

// givenUp is the error of a push whose boot nobody can follow any more.
func givenUp(why string) error { return fmt.Errorf("%w: %s", ErrGivenUp, why) }

// released takes note that the RShim is ours no longer, and why, so that nothing
// will be known about the boot.
func (d *Device) released(why string, now time.Time) {
	d.endPush(OutcomeStreamed, givenUp(why), now)
	if d.boot == nil {
		d.watch.Begin(bootlog.StageUnknown)
	}
}

// freshBoot takes note that the chip comes from a reset, ours or, in the boot of
// a push, most likely its own. The lock is held.
func (d *Device) freshBoot(ours bool, now time.Time) {
	switch {
	case ours:
		d.watch.Begin(bootlog.StageROM)
	case d.push.Outcome != OutcomePending:
		d.watch.Begin(bootlog.StageUnknown)
	}
	if ours || d.counts.Attaches > 0 {
		d.resetAt = now
	}
}

// told adds to a push what the boot log has told so far.
func (d *Device) told(p PushStatus) PushStatus {
	p.Stage, p.Ready = d.watch.Stage(), d.watch.Ready()
	if p.Line, _ = d.watch.Error(); p.Line == "" {
		p.Line = d.watch.Last()
	}
	return p
}

// heard takes entries of the boot log that have just been read.
func (d *Device) heard(entries []bootlog.Entry, lines int) {
	now := time.Now()
	d.update(func() {
		d.counts.LogLines += int64(lines)
		// What comes before the reset that a stream begins with is of the boot
		// before.
		old := d.boot != nil && !d.boot.skip && d.resets == d.boot.resets
		for _, e := range entries {
			if !old {
				d.watch.See(e, now)
			}
		}
		d.judge(now)
	})
}

// dpuError is the error of a boot in which the DPU has logged one, and of its
// stream, if that failed.
func dpuError(line string, stream error) error {
	if stream == nil {
		return fmt.Errorf("%w: %s", ErrDPU, line)
	}
	return fmt.Errorf("%w: %s; the boot stream: %w", ErrDPU, line, stream)
}

// outcomeOf is the outcome of a stream that failed.
func outcomeOf(err error, absent bool) Outcome {
	switch {
	case errors.Is(err, ErrCancelled):
		return OutcomeCancelled
	case errors.Is(err, ErrIncomplete): // whatever made its writer stop
		return OutcomeFailed
	case errors.Is(err, ErrGone), absent && errors.Is(err, errReturn):
		return OutcomeDeviceLost
	case errors.Is(err, os.ErrDeadlineExceeded):
		return OutcomeTimeout
	}
	return OutcomeFailed
}

// ownFault reports whether a stream failed for a reason that the boot log knows
// nothing about.
func ownFault(err error) bool {
	return errors.Is(err, ErrIncomplete) || errors.Is(err, ErrNotOwner) || errors.Is(err, ErrCancelled) || errors.Is(err, os.ErrClosed)
}

func (d *Device) logOutcome(p PushStatus) {
	level := slog.LevelInfo
	switch {
	case p.Outcome == OutcomeStreamed && p.Err != nil:
		level = slog.LevelWarn
	case p.Outcome != OutcomeReady && p.Outcome != OutcomeStreamed && p.Outcome != OutcomeCancelled:
		level = slog.LevelError
	}
	args := []any{"op", "boot", "push", p.ID, "outcome", p.Outcome.String(), "stage", p.Stage.String(), "bytes", p.Bytes,
		"elapsed", p.Ended.Sub(p.Started).Round(time.Millisecond)}
	if p.Err != nil {
		args = append(args, "err", p.Err)
	}
	d.log.Log(context.Background(), level, "push ended", args...)
}
