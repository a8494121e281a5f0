// SPDX-License-Identifier: Apache-2.0

package rshim_test

import (
	"strings"
	"testing"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
)

// starts is how often a boot begins in the boot log, and how many lines it has.
func (r *shared) starts() (n, lines int) {
	ls, _, _ := r.d.Log(0)
	for _, l := range ls {
		if strings.Contains(l.Text, "INFO[BL2]: start") {
			n++
		}
	}
	return n, len(ls)
}

// TestResetUnseen: a chip that has reset without being asked to, and without
// leaving the bus, is seen to have as soon as it is looked at, also when the
// RShim has been given up before. Its log is read from the beginning.
func TestResetUnseen(t *testing.T) {
	for _, dropped := range []bool{false, true} {
		cfg := bluefield.Config{StageScale: 1, Reset: bluefield.ResetBehaviour{Stay: true}}
		sharedBy(t, cfg, rshim.Options{}, func(r *shared) {
			r.plugIn()
			r.attached(0)
			time.Sleep(20 * time.Second)
			if dropped {
				for _, drop := range []bool{true, false} {
					if err := r.d.SetDrop(r.ctx, drop); err != nil {
						r.t.Fatal(err)
					}
				}
			}
			once, before := r.starts()
			r.say(reg.Locked)
			r.state(r.d, rshim.Locked)
			began := time.Now()
			r.dpu.Reset()
			time.Sleep(60 * time.Second)
			r.is(rshim.Attached)
			if at := r.d.Status().Reset; at.Before(began) {
				r.t.Errorf("dropped %v: the reset at %v is not seen, the last is at %v", dropped, began, at)
			}
			if n, lines := r.starts(); once != 1 || n != 2 || lines != 2*before {
				r.t.Errorf("dropped %v: %d boots in %d lines, %d and %d before", dropped, n, lines, once, before)
			}
		})
	}
}

// TestZeroOfOurs: what we leave in scratchpad 1 when a FORCE is given up is not
// taken for a reset, and no line of the log is read twice.
func TestZeroOfOurs(t *testing.T) {
	sharedBy(t, bluefield.Config{StageScale: 1}, rshim.Options{}, func(r *shared) {
		r.plugIn()
		r.attached(0)
		time.Sleep(20 * time.Second)
		h, kill := r.host(bluefield.HostOptions{Drop: true})
		time.Sleep(time.Second)
		if err := h.ForceCmd(); err != nil {
			r.t.Fatal(err)
		}
		r.state(r.d, rshim.Contended)
		_ = h.WaitState(r.ctx, bluefield.HostAttached)
		kill()
		_ = h.WaitState(r.ctx, bluefield.HostDead)
		before := r.d.Status()
		go func() { _, _ = r.d.Force(r.ctx) }()
		time.Sleep(500 * time.Millisecond)
		r.is(rshim.Requesting)
		for _, drop := range []bool{true, false} {
			if err := r.d.SetDrop(r.ctx, drop); err != nil {
				r.t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Second)
		r.is(rshim.Attached)
		after := r.d.Status()
		if !after.Reset.Equal(before.Reset) || after.Counters.LogLines != before.Counters.LogLines {
			r.t.Errorf("%+v has become %+v", before, after)
		}
	})
}
