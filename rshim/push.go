// SPDX-License-Identifier: Apache-2.0

package rshim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/bootlog"
)

// PushPhase says how far the boot stream of a push has come.
type PushPhase string

// Phases of a push.
const (
	PushNone      PushPhase = ""          // none since the daemon started
	PushResetting PushPhase = "resetting" // waiting for the chip to come back
	PushStreaming PushPhase = "streaming"
	PushDone      PushPhase = "done" // every byte was taken by the chip
	PushFailed    PushPhase = "failed"
)

// PushStatus is the state of a push: of its stream, and of the boot that comes
// after it.
type PushStatus struct {
	ID      int64 // 1, 2, 3, ... of the device; 0: there was none
	Phase   PushPhase
	Bytes   int64  // of the stream, accepted from the writer
	Total   int64  // bytes of the whole stream, as PushOptions has it; 0: not known
	Missing int64  // bytes that must still come, as far as is known; 0 for what is no BFB
	Image   string // of the BFB, that is passing
	Started time.Time
	Elapsed time.Duration // of the stream
	// Err is why it failed: of OutcomeDPUError it is ErrDPU with the line, of
	// OutcomeStreamed ErrGivenUp, or nil if that was all that was asked for.
	Err error

	Outcome Outcome
	Stage   bootlog.Stage // that the DPU has come to; once the outcome is final, when it was
	Ready   bool          // the DPU has said that it is up, whatever it has said before
	Line    string        // of the boot log: the error if there was one, otherwise the last one
	Ended   time.Time     // when the outcome was final; zero: it is pending
}

// PushOptions are what is known about a push besides its stream. The zero value
// will do.
type PushOptions struct {
	Total int64 // bytes of the whole stream; 0: not known
	// Limit is how long the DPU may take to be ready once it has the stream;
	// 0 means Options.ReadyTimeout.
	Limit time.Duration
	// Streamed means that the push is over when the DPU has all of the stream:
	// its boot is not followed. It ends as OutcomeStreamed without an error
	// then, or as OutcomeDPUError if the DPU has reported one by then.
	Streamed bool
	// Begun, if set, is called with the push's number before the chip is
	// touched; Push and Status have it by then. OpenPush may fail after that,
	// which is then how the push ends.
	Begun func(id int64)
}

// Push returns the state of the last push.
func (d *Device) Push() PushStatus {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lastPush()
}

func (d *Device) lastPush() PushStatus {
	p := d.push
	if p.Phase == PushResetting || p.Phase == PushStreaming {
		p.Elapsed = time.Since(p.Started)
	}
	if p.Outcome == OutcomePending {
		p = d.told(p)
	}
	return p
}

// PushByID returns the state of one of the last 8 pushes.
func (d *Device) PushByID(id int64) (PushStatus, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if id == d.push.ID && id != 0 {
		return d.lastPush(), true
	}
	for _, p := range d.verdict.before {
		if p.ID == id {
			return p, true
		}
	}
	return PushStatus{}, false
}

// CancelPush ends a push that is pending. Its stream, if it is still open, is
// cut off, which its writer gets ErrCancelled for, and the device can be pushed
// to again; a DPU that has all of it boots on, but nobody waits for it any
// longer. The error is ErrNoPush if no push with this id is pending.
func (d *Device) CancelPush(ctx context.Context, id int64) error {
	var b *BootStream
	found := false
	d.update(func() {
		if found = d.push.ID == id && d.push.Outcome == OutcomePending; found {
			b = d.boot
			d.conclude(OutcomeCancelled, ErrCancelled, time.Now())
		}
	})
	if !found {
		return d.opError("cancel push", fmt.Errorf("%w: %d", ErrNoPush, id))
	}
	if b == nil {
		return nil
	}
	_ = b.end(ctx, ErrCancelled)
	return d.opError("cancel push", d.await(ctx, func() bool { return d.boot != b }))
}

// ID is the number of the push, as in PushStatus.
func (b *BootStream) ID() int64 { return b.id }

// fill brings a push up to date with its stream.
func (b *BootStream) fill(p *PushStatus) {
	p.Phase = PushResetting
	if b.s != nil {
		p.Phase = PushStreaming
	}
	if n := b.follow.Offset(); n != p.Bytes {
		b.d.counts.PushBytes += n - p.Bytes
		b.d.watch.Moved(time.Now())
		p.Bytes = n
	}
	p.Missing, p.Image, p.Elapsed = b.follow.Remaining(), "", time.Since(b.opened)
	if i, ok := b.follow.Image(); ok {
		p.Image = i.Header.String()
	}
}

func (b *BootStream) report() { b.d.update(func() { b.fill(&b.d.push) }) }

// finish ends the stream's hold on the device.
func (b *BootStream) finish(err error) {
	var p PushStatus
	now := time.Now()
	b.d.update(func() {
		d := b.d
		d.boot = nil
		b.fill(&d.push)
		d.push.Phase = PushDone
		d.verdict.due = now.Add(d.verdict.limit)
		if err != nil {
			d.push.Phase, d.verdict.due = PushFailed, now
			if d.push.Bytes > 0 && !ownFault(err) {
				d.verdict.due = now.Add(lastWords)
			}
		}
		if d.push.Outcome == OutcomePending {
			d.push.Err = err
		}
		if d.sess == nil {
			d.verdict.lost = now.Add(d.back)
		}
		switch {
		case err == nil && d.verdict.streamed:
			d.endPush(OutcomeStreamed, nil, now)
		case slices.Contains([]State{Contended, Requesting, Granting, Dropped, Locked}, d.state):
			// The RShim was given up when the stream was as good as over.
			d.released(d.reason, now)
		}
		d.judge(now)
		p = d.push
	})
	log := b.d.log.With("bytes", p.Bytes, "elapsed", p.Elapsed.Round(time.Millisecond))
	if err != nil {
		what := "failed"
		if errors.Is(err, os.ErrDeadlineExceeded) {
			what = "timeout" // the C daemon's word, which people search logs for
		}
		log.Error(fmt.Sprintf("rshim%d boot %s", b.d.index, what), "op", "boot", "err", err)
		return
	}
	log.Info(fmt.Sprintf("rshim%d boot close", b.d.index))
}
