// SPDX-License-Identifier: Apache-2.0

package bluefield

import (
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

type badRead struct {
	addr        reg.Addr
	value       uint64
	skip, count int
}

// BadReads makes count reads of a, after the next skip of them, return value,
// and have no side effect.
func (d *DPU) BadReads(a reg.Addr, value uint64, skip, count int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults = append(d.faults, badRead{a, value, skip, count})
}

// BadAll makes every register read as value for a while.
func (d *DPU) BadAll(value uint64, span time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.badAll.value, d.badAll.until = value, time.Now().Add(span)
}

// badRead reports what a fault makes of a read. The caller holds mu.
func (d *DPU) badRead(a reg.Addr) (uint64, bool) {
	for i := range d.faults {
		f := &d.faults[i]
		if f.addr != a {
			continue
		}
		if f.skip > 0 {
			f.skip--
			continue
		}
		v := f.value
		if f.count--; f.count <= 0 {
			d.faults = append(d.faults[:i], d.faults[i+1:]...)
		}
		return v, true
	}
	if !d.badAll.until.IsZero() && time.Now().Before(d.badAll.until) {
		return d.badAll.value, true
	}
	return 0, false
}

// Record starts to record register accesses from outside, up to limit of them.
func (d *DPU) Record(limit int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.trace.acc, d.trace.left = nil, limit
}

// Recorded returns what was recorded since Record.
func (d *DPU) Recorded() []Access {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]Access(nil), d.trace.acc...)
}

// record notes an access. The caller holds mu.
func (d *DPU) record(a Access) {
	if d.trace.left > 0 {
		d.trace.left--
		d.trace.acc = append(d.trace.acc, a)
	}
}
