// SPDX-License-Identifier: Apache-2.0

package rshim_test

import (
	"testing"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
)

// R14: a device with which nobody does anything costs next to nothing: each
// register access is a wake-up of the daemon, two of the controller, and time of
// a bus that others use. What the daemon as a whole may cost is measured by
// TestIdleBudget in e2e/guest.
func TestR14Idle(t *testing.T) {
	const span = 10 * time.Minute
	for _, tc := range []struct {
		name  string
		o     rshim.Options
		begin func(r *shared) // up to where its state is the one in question
		state rshim.State
		most  float64 // accesses a second
	}{
		{"attached", rshim.Options{}, func(r *shared) {
			r.plugIn()
			r.attached(0)
			time.Sleep(10 * time.Minute) // the boot log is quiet by then
		}, rshim.Attached, 4},
		{"contended", rshim.Options{}, func(r *shared) {
			r.host(bluefield.HostOptions{Attached: true})
			r.plugIn()
			r.state(r.d, rshim.Contended)
		}, rshim.Contended, 4},
		{"contended, AUTO_ATTACH 0", rshim.Options{NoAutoAttach: true}, func(r *shared) {
			r.host(bluefield.HostOptions{Attached: true})
			r.plugIn()
			r.state(r.d, rshim.Contended)
		}, rshim.Contended, 0},
		{"dropped", rshim.Options{Drop: true}, func(r *shared) {
			r.plugIn()
			r.state(r.d, rshim.Dropped)
		}, rshim.Dropped, 0},
		{"locked", rshim.Options{}, func(r *shared) {
			r.say(reg.Locked)
			r.plugIn()
			r.state(r.d, rshim.Locked)
		}, rshim.Locked, 1.5},
		{"gone", rshim.Options{}, func(r *shared) {
			r.plugIn()
			r.attached(0)
			r.fn.Unplug()
			r.state(r.d, rshim.Gone)
		}, rshim.Gone, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sharedBy(t, bluefield.Config{Console: true}, tc.o, func(r *shared) {
				time.Sleep(time.Second)
				tc.begin(r)
				time.Sleep(time.Minute)
				r.ours.forget()
				time.Sleep(span)
				r.is(tc.state)
				rate := float64(len(r.ours.all())) / span.Seconds()
				r.t.Logf("%.2f accesses a second", rate)
				if rate > tc.most {
					r.t.Errorf("%.2f accesses a second, more than %v", rate, tc.most)
				}
			})
		})
	}
}
