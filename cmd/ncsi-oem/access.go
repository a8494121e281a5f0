// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"

	"github.com/bluefield-go/bmc-rshim/ncsi/oem"
)

func get(ctx context.Context, e *env, o options, r *report) error {
	t, err := find(ctx, e, o, r)
	if err != nil {
		return err
	}
	defer t.close()
	state, err := t.client().Get(ctx)
	if err != nil {
		return t.failed(err)
	}
	r.Persistent = state.String()
	r.line("Device:      %v", t)
	r.line("Persistent:  %v: %s (after a change: from the next reboot of the DPU on)", state, hostMeanings[state])

	now, err := t.client().GetRuntime(ctx)
	switch {
	case err == nil:
		r.Runtime = now.String()
		r.line("Run time:    %v: %s (now, until the next reset of the DPU)", now, runtimeMeanings[now])
	case errors.Is(err, oem.ErrUnavailable) && state == oem.Disabled:
		r.RuntimeError = "unavailable"
		r.line("Run time:    not available while the persistent state is disabled")
	case errors.Is(err, oem.ErrUnavailable):
		r.RuntimeError = "unavailable"
		r.line("Run time:    not available: the firmware refuses to tell")
	case errors.Is(err, oem.ErrUnsupported), errors.Is(err, oem.ErrUntrusted): // the BMC is trusted: it got the persistent state
		r.RuntimeError = "unsupported"
		r.line("Run time:    not known: the firmware cannot tell")
	default:
		return t.failed(err)
	}
	return nil
}

func set(ctx context.Context, e *env, o options, r *report, word string) error {
	state, err := oem.ParseHostAccess(word)
	if err != nil {
		return usageError("set: %v", err)
	}
	t, err := find(ctx, e, o, r)
	if err != nil {
		return err
	}
	defer t.close()
	if state == oem.Disabled && !o.yes {
		if err := confirm(ctx, e, t.String()); err != nil {
			return err
		}
	}
	if err := t.client().Set(ctx, state); err != nil {
		return t.failed(err)
	}
	r.Persistent, r.TakesEffect, r.ReadBack = state.String(), "dpu-reboot", new(true)
	r.line("%v: host access is set to %v, and was read back.", t, state)
	r.line("It takes effect when the DPU reboots: then %s.", hostMeanings[state])
	if state == oem.Disabled {
		r.line("Once it is enabled again, only a power cycle of the host brings the RShim back there.")
	} else {
		r.line("If it is disabled now, the host also needs a power cycle after that to see its RShim again.")
	}
	return nil
}

func runtimeGet(ctx context.Context, e *env, o options, r *report) error {
	t, err := find(ctx, e, o, r)
	if err != nil {
		return err
	}
	defer t.close()
	state, err := t.client().GetRuntime(ctx)
	if err != nil {
		return t.failed(err)
	}
	r.Runtime = state.String()
	r.line("Device:      %v", t)
	r.line("Run time:    %v: %s (now, until the next reset of the DPU)", state, runtimeMeanings[state])
	return nil
}

func runtimeSet(ctx context.Context, e *env, o options, r *report, word string) error {
	state, err := oem.ParseRuntimeAccess(word)
	if err != nil {
		hint := ""
		if word == oem.Disabled.String() {
			hint = "; only the persistent state can be disabled: ncsi-oem set disabled"
		}
		return usageError("runtime set: %v%s", err, hint)
	}
	t, err := find(ctx, e, o, r)
	if err != nil {
		return err
	}
	defer t.close()
	err = t.client().SetRuntime(ctx, state)
	readBack := !errors.Is(err, oem.ErrNotReadBack)
	if err != nil && readBack {
		return t.failed(err)
	}
	r.Runtime, r.TakesEffect, r.LastsUntil, r.ReadBack = state.String(), "now", "dpu-reset", &readBack
	if readBack {
		r.line("%v: run-time access is set to %v, and was read back.", t, state)
	} else {
		r.line("%v: the NIC answered that run-time access is set to %v. Its firmware cannot be asked for it: it was not read back.", t, state)
	}
	r.line("It is in force at once, and lost at the next reset of the DPU: %s.", runtimeMeanings[state])
	return nil
}
