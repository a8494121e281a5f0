// SPDX-License-Identifier: Apache-2.0

package bluefield

import (
	"context"
	"strings"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/bootlog"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

// logLimit is the index at which the writers of the boot log stop.
const logLimit = int(reg.LogIndexMask) - 1

// semWait is how long a writer waits for the semaphore before it gives up.
const semWait = 100 * time.Millisecond

var levels, modules = func() (map[string]bootlog.Level, map[string]bootlog.Module) {
	l, m := map[string]bootlog.Level{}, map[string]bootlog.Module{}
	for i := range bootlog.Level(4) {
		l[i.String()] = i
	}
	for i := range bootlog.Module(7) {
		m[i.String()] = i
	}
	return l, m
}()

// logLine writes a line such as "INFO[BL2]: start" into the log ring as the
// DPU's software does. What does not start like this is logged as INFO[MISC].
func (d *DPU) logLine(ctx context.Context, text string) {
	d.event("log", "line", text)
	level, module := bootlog.Info, bootlog.MISC
	if head, rest, ok := strings.Cut(text, "]: "); ok {
		if l, m, ok := strings.Cut(head, "["); ok {
			level, module = levels[l], modules[m]
			text = rest
		}
	}
	d.writeLog(ctx, func(room int) []uint64 {
		if room < 2 {
			return nil
		}
		return bootlog.EncodeMessage(module, level, text[:min(len(text), 8*(room-1))])
	})
}

// logPanic writes the record of a panic in the boot ROM.
func (d *DPU) logPanic(ctx context.Context) {
	const pc, elrEL3 = 0x4001d3c8, 0xf201
	d.writeLog(ctx, func(room int) []uint64 {
		if room < 3 {
			return nil
		}
		return bootlog.EncodePanic(bootlog.BL1, pc, bootlog.Register{Encoding: elrEL3, Value: pc})
	})
}

// writeLog takes the semaphore, appends what words makes of the room that is
// left, and releases it. A line for which there is no semaphore or no room is
// lost.
func (d *DPU) writeLog(ctx context.Context, words func(room int) []uint64) {
	deadline := time.Time{}
	for {
		d.mu.Lock()
		if d.sem == 0 {
			w := words(logLimit - d.ringIdx)
			if w == nil {
				d.lost++
			}
			d.ringIdx += copy(d.ring[d.ringIdx:], w)
			d.mu.Unlock()
			return
		}
		free := d.semFree.wait()
		d.mu.Unlock()
		if deadline.IsZero() {
			deadline = time.Now().Add(semWait)
		}
		left := time.Until(deadline)
		if left <= 0 || !await(ctx, free, left) {
			d.mu.Lock()
			d.lost++
			d.mu.Unlock()
			return
		}
	}
}

// Log makes the DPU log a line such as "INFO[MISC]: text" now.
func (d *DPU) Log(ctx context.Context, line string) { d.logLine(ctx, line) }

// LogLost returns how many log lines found no room or no semaphore.
func (d *DPU) LogLost() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lost
}

// SetLog puts anything at all into the log ring, and its index at idx.
func (d *DPU) SetLog(words []uint64, idx int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ring = [reg.LogWords]uint64{}
	copy(d.ring[:], words)
	d.ringIdx = idx & int(reg.LogIndexMask)
}
