// SPDX-License-Identifier: Apache-2.0

package pace_test

import (
	"testing"
	"time"

	"github.com/bluefield-go/bmc-rshim/sim/internal/pace"
)

func TestReserve(t *testing.T) {
	var p pace.Pacer
	now := time.Unix(1000, 0)
	after := func(d time.Duration) time.Time { return now.Add(d) }
	for i, c := range []struct {
		at   time.Duration // since now
		late time.Duration // of the wait before, if above 0
		rate int64
		want time.Duration
	}{
		{rate: 0, want: 0},
		{rate: 1000, want: time.Second},                     // 1000 bytes
		{rate: 1000, want: 2 * time.Second},                 // queue behind
		{at: time.Minute, rate: 1000, want: 1e9},            // idle time is not saved up
		{at: 61005 * 1e6, late: 5e6, rate: 1e6, want: -4e6}, // what was overslept is made up for
		{at: 61005 * 1e6, rate: 1e6, want: -3e6},
		{at: 2 * time.Hour, late: time.Hour, rate: 1e6, want: -9e6}, // within bounds
	} {
		if c.late > 0 {
			p.Woke(c.late)
		}
		if got := p.Reserve(after(c.at), 1000, c.rate); got != c.want {
			t.Errorf("%d: %v, want %v", i, got, c.want)
		}
	}
}
