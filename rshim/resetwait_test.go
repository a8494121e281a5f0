// SPDX-License-Identifier: Apache-2.0

package rshim_test

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
)

// TestResetWait: it returns when it is clear what has come of the reset.
func TestResetWait(t *testing.T) {
	for name, c := range map[string]struct {
		reset  bluefield.ResetBehaviour
		during func(r *verdictRig, cancel context.CancelFunc)
		want   error
		within time.Duration
	}{
		"leaves the bus":  {want: nil, within: 5 * time.Second},
		"stays on it":     {reset: bluefield.ResetBehaviour{Stay: true}, within: 5 * time.Second},
		"takes its time":  {reset: bluefield.ResetBehaviour{Held: 15 * time.Second, Drop: 30 * time.Second, Ready: 10 * time.Second}, within: 60 * time.Second},
		"never resets":    {reset: bluefield.ResetBehaviour{Held: time.Hour}, want: rshim.ErrNoReset, within: 22 * time.Second},
		"never returns":   {reset: bluefield.ResetBehaviour{Never: true}, want: rshim.ErrGone, within: 62 * time.Second},
		"does not answer": {reset: bluefield.ResetBehaviour{Ready: time.Hour}, want: os.ErrDeadlineExceeded, within: 81 * time.Second},
		"given up": {during: func(r *verdictRig, _ context.CancelFunc) {
			if err := r.d.SetDrop(r.ctx, true); err != nil {
				r.t.Error(err)
			}
		}, want: rshim.ErrNotOwner, within: 5 * time.Second},
		"cancelled": {during: func(_ *verdictRig, cancel context.CancelFunc) { cancel() }, want: context.Canceled, within: time.Second},
		"unplugged afterwards": {during: func(r *verdictRig, _ context.CancelFunc) {
			for r.d.Status().Counters.Resets == 0 {
				time.Sleep(time.Millisecond)
			}
			r.fn.Unplug()
			time.Sleep(5 * time.Second) // not for so long that it is forgotten
			r.fn.Plug()
		}, within: 25 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			verdictBy(t, bluefield.Config{Reset: c.reset}, rshim.Options{}, func(r *verdictRig) {
				ctx, cancel := context.WithCancel(r.ctx)
				defer cancel()
				if c.during != nil {
					time.AfterFunc(200*time.Millisecond, func() { c.during(r, cancel) })
				}
				began := time.Now()
				err := r.d.ResetWait(ctx)
				if !errors.Is(err, c.want) {
					r.t.Errorf("got %v, want %v", err, c.want)
				}
				if took := time.Since(began); took > c.within {
					r.t.Errorf("it took %v", took)
				}
				st := r.d.Status()
				if c.want == nil && (st.State != rshim.Attached || st.Counters.Resets != 1) {
					r.t.Errorf("%+v", st)
				}
			})
		})
	}
}

// TestResetWaitRefused: nothing is waited for if there is no reset.
func TestResetWaitRefused(t *testing.T) {
	verdictBy(t, bluefield.Config{}, rshim.Options{}, func(r *verdictRig) {
		r.dpu.BadReads(r.dpu.Map().ResetControl, bluefield.BadRegister, 0, 1)
		if err := r.d.ResetWait(r.ctx); !errors.Is(err, rshim.ErrNotReady) {
			r.t.Errorf("the reset control cannot be read: %v", err)
		}
		if err := r.d.SetDrop(r.ctx, true); err != nil {
			r.t.Fatal(err)
		}
		if err := r.d.ResetWait(r.ctx); !errors.Is(err, rshim.ErrNotOwner) {
			r.t.Errorf("dropped: %v", err)
		}
	})
}
