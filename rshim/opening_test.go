// SPDX-License-Identifier: Apache-2.0

package rshim_test

import (
	"errors"
	"testing"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
)

// TestCancelOpening: a push that is cancelled while it is being opened leaves the
// chip as it was or, once it was reset, does not let it wait for a boot stream
// after the next reset.
func TestCancelOpening(t *testing.T) {
	for _, after := range []time.Duration{-1, 0, 50 * time.Microsecond, 200 * time.Microsecond, 400 * time.Microsecond, 600 * time.Microsecond, 800 * time.Microsecond, time.Millisecond} {
		t.Run(after.String(), func(t *testing.T) {
			verdictBy(t, bluefield.Config{}, rshim.Options{}, func(r *verdictRig) {
				cancelled := make(chan error, 1)
				b, err := r.d.OpenPush(r.ctx, rshim.PushOptions{Begun: func(id int64) {
					cancel := func() { cancelled <- r.d.CancelPush(r.ctx, id) }
					if after < 0 {
						cancel()
						return
					}
					time.AfterFunc(after, cancel)
				}})
				if err == nil {
					_, err = b.Write(r.ctx, image(r.t, r.g, 100_000))
				}
				if !errors.Is(err, rshim.ErrCancelled) {
					r.t.Errorf("the push: %v", err)
				}
				if err := <-cancelled; err != nil {
					r.t.Errorf("cancelling it: %v", err)
				}
				r.ended(r.d.Push(), rshim.OutcomeCancelled)
				time.Sleep(time.Minute)
				r.state(r.d, rshim.Attached)
				bootSource(r.t, r.fn, reg.BootEMMC)
				if st := r.d.Status(); st.Counters.Resets == 0 && r.dpu.Stage() != bluefield.StageReady || after < 0 && st.Counters.Resets > 0 {
					r.t.Errorf("the DPU is %v, after %d resets", r.dpu.Stage(), st.Counters.Resets)
				}
				r.mustPush()
				r.outcome(rshim.OutcomeReady)
			})
		})
	}
}

// TestBootSourceNoReset: the boot source is set back also when the chip did not
// reset, and the stream had ended before that was clear.
func TestBootSourceNoReset(t *testing.T) {
	generations(t, func(t *testing.T, g reg.Generation) {
		cfg := bluefield.Config{Generation: g, Reset: bluefield.ResetBehaviour{Held: time.Hour}}
		bubble(t, cfg, usbdev.Options{}, func(r *rig, fn *usbdev.Function, d *rshim.Device) {
			b, err := d.OpenBoot(r.ctx)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			if err := b.Close(r.ctx); !errors.Is(err, rshim.ErrIncomplete) {
				t.Errorf("Close: %v", err)
			}
			time.Sleep(30 * time.Second)
			r.state(d, rshim.Attached)
			bootSource(t, fn, reg.BootEMMC)
		})
	})
}

// TestCancelThenPush: when the writer of a push that was cancelled has closed it,
// the device can be pushed to again.
func TestCancelThenPush(t *testing.T) {
	generations(t, func(t *testing.T, g reg.Generation) {
		bubble(t, bluefield.Config{Generation: g, DrainRate: 1 << 20}, usbdev.Options{}, func(r *rig, _ *usbdev.Function, d *rshim.Device) {
			for range 20 {
				b := open(t, r, d)
				cancelled := make(chan error, 1)
				time.AfterFunc(3*time.Second, func() { cancelled <- d.CancelPush(r.ctx, b.ID()) })
				for {
					if _, err := b.Write(r.ctx, make([]byte, 4096)); err != nil {
						if !errors.Is(err, rshim.ErrCancelled) {
							t.Fatal(err)
						}
						break
					}
				}
				if err := b.Close(r.ctx); !errors.Is(err, rshim.ErrCancelled) {
					t.Errorf("Close: %v", err)
				}
				next, err := d.OpenBoot(r.ctx)
				if err != nil {
					t.Fatalf("the next push: %v", err)
				}
				if err := next.Close(r.ctx); !errors.Is(err, rshim.ErrIncomplete) {
					t.Error(err)
				}
				if err := <-cancelled; err != nil {
					t.Error(err)
				}
			}
		})
	})
}
