// SPDX-License-Identifier: Apache-2.0

//go:build !nosim

package main

import (
	"testing"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
)

func TestForce(t *testing.T) {
	bubble(t, func(r *rig, _ reg.Generation) {
		ctx := r.t.Context()
		r.want(r.run(ctx, "force"), exitOK, "rshim0 is ours already\n")
		r.want(r.run(ctx, "force", "-json"), exitOK, `{"device":"rshim0","result":"not needed"}`)
		r.want(r.run(ctx, "force", "-q", "-device", "rshim1"), exitDevice, "no rshim1")
		r.want(r.run(ctx, "force", "now"), exitUsage, "too many arguments")

		r.host(bluefield.HostOptions{})
		r.want(r.run(ctx, "status"), exitOK, "contended: another backend is attached")
		r.want(r.run(ctx, "force"), exitOK, "rshim0 is ours: its owner has handed it over\n")
		r.want(r.run(ctx, "force", "-json"), exitOK, `{"device":"rshim0","result":"granted"}`)
		r.want(r.run(ctx, "force", "-q"), exitOK)
		if r.stdout.Len() > 0 {
			r.t.Errorf("-q: %s", &r.stdout)
		}

		r.host(bluefield.HostOptions{Deaf: true})
		r.want(r.run(ctx, "force"), exitTimeout, "rshim0 is contended", "the owner of the RShim does not answer")
	})
}

func TestRelease(t *testing.T) {
	bubble(t, func(r *rig, g reg.Generation) {
		r.want(r.run(r.t.Context(), "release"), exitOK, "rshim0 is released")
		if v := r.fn.DPU().ReadReg(reg.For(g).Scratchpad1, 8); v != 0 {
			r.t.Errorf("scratchpad 1 is %#x, as if there was an owner", v)
		}
		r.want(r.run(r.t.Context(), "release", "-json"), exitOK, `{"device":"rshim0","result":"released"}`)
	})
}
