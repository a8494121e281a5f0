// SPDX-License-Identifier: Apache-2.0

package bluefield

import (
	"cmp"
	"context"
	"encoding/binary"
	"slices"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

// The hardware's boot FIFO holds words. The model holds bytes, so that a test
// sees exactly what was sent, also when it is not whole words.

// ring8 is a bounded queue of bytes.
type ring8 struct {
	buf     []byte
	head, n int
}

func (r *ring8) words() int { return (r.n + 7) / 8 }
func (r *ring8) room() int  { return len(r.buf) - r.n }

func (r *ring8) put(p []byte) {
	at := (r.head + r.n) % len(r.buf)
	copy(r.buf, p[copy(r.buf[at:], p):])
	r.n += len(p)
}

func (r *ring8) get(p []byte) int {
	p = p[:min(len(p), r.n)]
	copy(p[copy(p, r.buf[r.head:]):], r.buf)
	r.head = (r.head + len(p)) % len(r.buf)
	r.n -= len(p)
	return len(p)
}

type pause struct {
	after int64
	span  time.Duration
}

// maxDrain is how much the DPU takes from the FIFO in one go.
const maxDrain = 4096

// The DPU's Linux takes a boot stream's tail, which has no length, for complete
// when nothing has come for tailEnd, and a stream for broken off when nothing
// has come for upgradePause. The latter is a guess.
const (
	tailEnd      = 500 * time.Millisecond
	upgradePause = 30 * time.Second
)

// BootWrite offers p to the boot FIFO as USB packets of the given size. It
// takes whole packets as far as there is room for them, without waiting, and
// returns how many bytes that is and a channel that is closed when there may be
// more room. While the chip is not ready it swallows everything.
func (d *DPU) BootWrite(p []byte, packet int) (n int, more <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.notReady {
		d.boot.lost += int64(len(p))
		return len(p), nil
	}
	if n = min(len(p), d.boot.fifo.room()); n < len(p) {
		n -= n % packet
	}
	d.accept(p[:n])
	return n, d.boot.room.wait()
}

// bootWord is a write of the data register. The caller holds mu.
func (d *DPU) bootWord(v uint64) {
	if d.boot.fifo.room() < 8 {
		d.boot.overflow += 8
		return
	}
	d.accept(binary.LittleEndian.AppendUint64(nil, v))
}

// accept records p and puts it into the FIFO, which has room. The caller
// holds mu.
func (d *DPU) accept(p []byte) {
	if len(p) == 0 {
		return
	}
	b := &d.boot
	b.count += int64(len(p))
	b.sum.Write(p)
	if d.cfg.Capture {
		b.captured = append(b.captured, p...)
	}
	b.fifo.put(p)
	b.data.ring()
}

// clearBoot empties the FIFO, and begins a new record if the chip is to boot
// from it. The caller holds mu.
func (d *DPU) clearBoot() {
	b := &d.boot
	b.fifo.head, b.fifo.n = 0, 0
	b.room.ring()
	if reg.BootMode(d.plain[d.m.BootControl]) == reg.BootRShim {
		b.count, b.drained, b.captured = 0, 0, nil
		b.sum.Reset()
	}
}

// readBoot reads at least one byte from the boot FIFO, at the drain rate and
// with the pauses asked for. With idle above 0 it gives up, returning 0, when
// nothing came for so long; otherwise only when ctx ends.
func (d *DPU) readBoot(ctx context.Context, p []byte, idle time.Duration) int {
	for {
		d.mu.Lock()
		b := &d.boot
		var wait time.Duration
		switch {
		case len(b.pauses) > 0 && b.pauses[0].after <= b.drained:
			wait = b.pauses[0].span
			b.pauses = b.pauses[1:]
			resume := b.resume.wait()
			d.mu.Unlock()
			if !await(ctx, resume, wait) && ctx.Err() != nil {
				return 0
			}
			continue
		case b.hold || b.fifo.n == 0:
			if !b.hold {
				wait = idle
			}
			data := b.data.wait()
			d.mu.Unlock()
			if !await(ctx, data, wait) {
				return 0
			}
			continue
		}
		n := min(len(p), b.fifo.n, maxDrain)
		if b.rate > 0 {
			n = min(n, max(512, int(min(b.rate/500, maxDrain))))
		}
		if len(b.pauses) > 0 {
			n = int(min(int64(n), b.pauses[0].after-b.drained))
		}
		now := time.Now()
		wait = b.pacer.Reserve(now, n, b.rate)
		d.mu.Unlock()

		if wait > 0 && !sleep(ctx, wait) {
			return 0
		}

		d.mu.Lock()
		if wait > 0 {
			b.pacer.Woke(time.Since(now) - wait)
		}
		n = b.fifo.get(p[:n])
		b.drained += int64(n)
		b.room.ring()
		d.mu.Unlock()
		if d.cfg.Sink != nil {
			if _, err := d.cfg.Sink.Write(p[:n]); err != nil {
				d.log.Error("sink", "err", err)
			}
		}
		return n
	}
}

// await waits for ch, at most for limit if that is above 0.
func await(ctx context.Context, ch <-chan struct{}, limit time.Duration) bool {
	var expired <-chan time.Time
	if limit > 0 {
		t := time.NewTimer(limit)
		defer t.Stop()
		expired = t.C
	}
	select {
	case <-ch:
		return true
	case <-expired:
		return false
	case <-ctx.Done():
		return false
	}
}

// SetDrainRate changes Config.DrainRate.
func (d *DPU) SetDrainRate(bytesPerSecond int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.boot.rate = bytesPerSecond
}

// HoldDrain stops the DPU from reading its boot FIFO, and lets it go on, also
// from a pause that is under way.
func (d *DPU) HoldDrain(on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.boot.hold = on
	d.boot.data.ring()
	if !on {
		d.boot.resume.ring()
	}
}

// PauseDrain makes the DPU stop reading its boot FIFO for a while once it has
// read after bytes since the last reset into the boot ROM, at once if it has.
func (d *DPU) PauseDrain(after int64, span time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.boot.pauses = append(d.boot.pauses, pause{after, span})
	slices.SortStableFunc(d.boot.pauses, func(a, b pause) int { return cmp.Compare(a.after, b.after) })
	d.boot.data.ring()
}

// BootSum returns the number of bytes that arrived in the boot FIFO since the
// last reset into the boot ROM (or New), and their SHA-256.
func (d *DPU) BootSum() (n int64, sum [32]byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.boot.sum.Sum(sum[:0])
	return d.boot.count, sum
}

// BootBytes returns the bytes that BootSum sums up, if Config.Capture is set.
func (d *DPU) BootBytes() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.boot.captured)
}

// BootLost returns how many bytes the boot FIFO did not take: because it was
// full when they were written to its register, or because the chip was not
// ready.
func (d *DPU) BootLost() (overflow, notReady int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.boot.overflow, d.boot.lost
}
