// SPDX-License-Identifier: Apache-2.0

package rshim_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
)

// send pushes a stream with options, as push does.
func (r *verdictRig) send(o rshim.PushOptions, stream []byte) error {
	b, err := r.d.OpenPush(r.ctx, o)
	if err != nil {
		return err
	}
	_, err = b.Write(r.ctx, stream)
	return errors.Join(err, b.Close(r.ctx))
}

// TestStreamed: a push that is about its stream alone ends with it, without an
// error, and nothing that happens later changes that.
func TestStreamed(t *testing.T) {
	verdictBy(t, bluefield.Config{}, rshim.Options{}, func(r *verdictRig) {
		if err := r.send(rshim.PushOptions{Streamed: true}, image(r.t, r.g, 300_000)); err != nil {
			r.t.Fatal(err)
		}
		p := r.d.Push() // from when Close has returned on
		r.ended(p, rshim.OutcomeStreamed)
		if p.Err != nil || p.Phase != rshim.PushDone || p.Ready {
			r.t.Errorf("%+v", p)
		}
		r.dpu.Log(context.Background(), "ERR[MISC]: mkfs failed")
		time.Sleep(time.Hour)
		if later := r.d.Push(); later != p {
			r.t.Errorf("%+v has become %+v", p, later)
		}

		// One that fails is told as any other.
		err := r.send(rshim.PushOptions{Streamed: true}, image(r.t, r.g, 300_000)[:200_000])
		if !errors.Is(err, rshim.ErrIncomplete) {
			r.t.Errorf("half an image: %v", err)
		}
		r.outcome(rshim.OutcomeFailed)

		// So is an error that the DPU has reported by then.
		b, err := r.d.OpenPush(r.ctx, rshim.PushOptions{Streamed: true})
		if err != nil {
			r.t.Fatal(err)
		}
		stream := image(r.t, r.g, 300_000)
		_, err = b.Write(r.ctx, stream[:200_000])
		r.dpu.Log(context.Background(), "ERR[UEFI]: no variables")
		time.Sleep(3 * time.Second)
		_, werr := b.Write(r.ctx, stream[200_000:])
		if err = errors.Join(err, werr, b.Close(r.ctx)); err != nil {
			r.t.Error(err)
		}
		r.ended(r.d.Push(), rshim.OutcomeDPUError)

		// The next one is followed again.
		r.mustPush()
		r.outcome(rshim.OutcomeReady)
	})
}

// TestBegun: the number of a push is known before the chip is touched, also of
// one that cannot begin.
func TestBegun(t *testing.T) {
	verdictBy(t, bluefield.Config{}, rshim.Options{}, func(r *verdictRig) {
		var told []int64
		o := rshim.PushOptions{Begun: func(id int64) {
			told = append(told, id)
			if p := r.d.Push(); p.ID != id || p.Outcome != rshim.OutcomePending {
				r.t.Errorf("push %d is %+v", id, p)
			}
			bootSource(r.t, r.fn, reg.BootEMMC)
			if r.dpu.Stage() != bluefield.StageReady {
				r.t.Errorf("the DPU is %v", r.dpu.Stage())
			}
		}}
		r.dpu.BadReads(r.dpu.Map().ResetControl, bluefield.BadRegister, 0, 1)
		if _, err := r.d.OpenPush(r.ctx, o); !errors.Is(err, rshim.ErrNotReady) {
			r.t.Fatalf("a chip whose reset control cannot be read: %v", err)
		}
		r.ended(r.d.Push(), rshim.OutcomeFailed)
		b, err := r.d.OpenPush(r.ctx, o)
		if err != nil {
			r.t.Fatal(err)
		}
		if _, err := r.d.OpenPush(r.ctx, o); !errors.Is(err, rshim.ErrBusy) {
			r.t.Errorf("a second push at once: %v", err)
		}
		_ = b.Close(r.ctx)
		if len(told) != 2 || told[0] != 1 || told[1] != 2 || b.ID() != 2 {
			r.t.Errorf("told of %v", told)
		}
	})
}

// TestKnownError: an error that the DPU has reported is how a push has ended,
// whatever it is that ends it before the patience with the DPU is over.
func TestKnownError(t *testing.T) {
	const line = "ERR[MISC]: mkfs failed"
	for name, c := range map[string]struct {
		limit time.Duration
		do    func(r *verdictRig)
	}{
		"dropped": {0, func(r *verdictRig) {
			if err := r.d.SetDrop(r.ctx, true); err != nil {
				r.t.Error(err)
			}
		}},
		"handed over": {0, func(r *verdictRig) {
			r.dpu.WriteReg(r.dpu.Map().Scratchpad1, 8, reg.OwnershipRequest)
		}},
		"another push": {0, func(r *verdictRig) { r.mustPush() }},
		"reset": {0, func(r *verdictRig) {
			if err := r.d.Reset(r.ctx); err != nil {
				r.t.Error(err)
			}
		}},
		"the daemon ends":  {0, func(r *verdictRig) { r.stop() }},
		"limit":            {30 * time.Second, func(*verdictRig) { time.Sleep(20 * time.Second) }},
		"does not return":  {0, func(r *verdictRig) { r.fn.Unplug(); time.Sleep(2 * time.Minute) }},
		"limit, then gone": {30 * time.Second, func(r *verdictRig) { r.fn.Unplug(); time.Sleep(20 * time.Second) }},
	} {
		t.Run(name, func(t *testing.T) {
			// It says nothing more than that.
			cfg := bluefield.Config{FailAfter: "Installing OS", FailLine: line}
			verdictBy(t, cfg, rshim.Options{}, func(r *verdictRig) {
				if err := r.send(rshim.PushOptions{Limit: c.limit}, image(r.t, r.g, 100_000)); err != nil {
					r.t.Fatal(err)
				}
				time.Sleep(20 * time.Second)
				if p := r.d.Push(); p.Outcome != rshim.OutcomePending || p.Line != line {
					r.t.Fatalf("before: %+v", p)
				}
				c.do(r)
				time.Sleep(10 * time.Second)
				p, _ := r.d.PushByID(1)
				r.ended(p, rshim.OutcomeDPUError)
				if !errors.Is(p.Err, rshim.ErrDPU) || !strings.Contains(p.Err.Error(), line) || p.Line != line {
					r.t.Errorf("%+v", p)
				}
			})
		})
	}
}
