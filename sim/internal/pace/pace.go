// SPDX-License-Identifier: Apache-2.0

// Package pace spaces simulated data out to a rate: a link's, or that of the
// DPU reading its boot FIFO.
package pace

import "time"

// maxCredit bounds how much of an overslept wait is made up for.
const maxCredit = 10 * time.Millisecond

// Pacer is one thing that moves data at a limited rate. Timers are coarse, a
// millisecond on Linux, and 8 KiB at 40 MB/s are a fifth of that: time
// overslept is therefore credited to what follows. Under testing/synctest,
// which never oversleeps, the rate is exact.
//
// A Pacer is not safe for concurrent use.
type Pacer struct {
	next   time.Time // when what was reserved so far has passed
	credit time.Duration
}

// Reserve books n bytes at rate bytes a second, behind those booked before,
// and returns how long it takes until they have passed, not above 0 when they
// already have. Rate 0 is unlimited.
func (p *Pacer) Reserve(now time.Time, n int, rate int64) time.Duration {
	if rate <= 0 {
		return 0
	}
	if earliest := now.Add(-p.credit); p.next.Before(earliest) {
		p.next = earliest
	}
	p.next = p.next.Add(time.Duration(float64(n) / float64(rate) * float64(time.Second)))
	return p.next.Sub(now)
}

// Woke tells how late a wait for a Reserve ended.
func (p *Pacer) Woke(late time.Duration) { p.credit = max(0, min(late, maxCredit)) }
