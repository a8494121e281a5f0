// SPDX-License-Identifier: Apache-2.0

package rshim

import (
	"errors"
	"fmt"
	"os"
	"time"
)

// PushPhase says how far a push has come.
type PushPhase string

// Phases of a push.
const (
	PushNone      PushPhase = ""          // none since the daemon started
	PushResetting PushPhase = "resetting" // waiting for the chip to come back
	PushStreaming PushPhase = "streaming"
	PushDone      PushPhase = "done" // every byte was taken by the chip
	PushFailed    PushPhase = "failed"
)

// PushStatus is the state of the last push.
type PushStatus struct {
	Phase   PushPhase
	Bytes   int64  // of the stream, accepted from the writer
	Missing int64  // bytes that must still come, as far as is known; 0 for what is no BFB
	Image   string // of the BFB, that is passing
	Started time.Time
	Elapsed time.Duration
	Err     error // why it failed
}

// Push returns the state of the last push.
func (d *Device) Push() PushStatus {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.push
	if p.Phase == PushResetting || p.Phase == PushStreaming {
		p.Elapsed = time.Since(p.Started)
	}
	return p
}

func (b *BootStream) state() PushStatus {
	p := PushStatus{
		Phase:   PushResetting,
		Bytes:   b.follow.Offset(),
		Missing: b.follow.Remaining(),
		Started: b.opened,
		Elapsed: time.Since(b.opened),
	}
	if b.s != nil {
		p.Phase = PushStreaming
	}
	if i, ok := b.follow.Image(); ok {
		p.Image = i.Header.String()
	}
	return p
}

func (b *BootStream) report(p PushStatus) { b.d.update(func() { b.d.push = p }) }

// finish ends the stream's hold on the device.
func (b *BootStream) finish(err error) {
	p := b.state()
	p.Phase, p.Err = PushDone, err
	if err != nil {
		p.Phase = PushFailed
	}
	b.d.update(func() { b.d.push, b.d.boot = p, nil })
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
