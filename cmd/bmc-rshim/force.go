// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"github.com/bluefield-go/bmc-rshim/rshim"
)

const forceHelp = `Asks the owner of the RShim, once, to hand it over, for up to 10 s. An owner that
is in the middle of a push refuses. Afterwards the RShim is the BMC's until the
host asks for it.

` + exitCodes

const releaseHelp = `The daemon leaves the DPU alone then, so that the host, or whoever wants it, can
have its RShim, until "bmc-rshim force" or "DROP_MODE 0" in misc. During a push
it refuses.

` + exitCodes

// takeover is the result of force and release.
type takeover struct {
	Device string
	Result string // "granted", "no owner", "not needed", "released"
}

func (t takeover) json(o *object) {
	o.text("device", t.Device)
	o.text("result", t.Result)
}

func forceCommand(ctx context.Context, e *env, args []string) error {
	return ownership(ctx, e, "force", forceHelp, args, func(t target, name string) (r takeover, text string, err error) {
		result, err := t.force(ctx)
		return takeover{name, result.String()}, forced(name, result), err
	})
}

// forced tells people how a Force has succeeded.
func forced(name string, r rshim.ForceResult) string {
	switch r {
	case rshim.ForceGranted:
		return name + " is ours: its owner has handed it over"
	case rshim.ForceNoOwner:
		return name + " is ours: it had no owner"
	}
	return name + " is ours already"
}

func releaseCommand(ctx context.Context, e *env, args []string) error {
	return ownership(ctx, e, "release", releaseHelp, args, func(t target, name string) (r takeover, text string, err error) {
		err = t.release(ctx)
		return takeover{name, "released"}, name + " is released; bmc-rshim force takes it back", err
	})
}

// ownership runs a command that changes it.
func ownership(ctx context.Context, e *env, name, help string, args []string, do func(t target, name string) (takeover, string, error)) error {
	var t targetFlags
	fs := flags(name, "", help)
	t.register(fs)
	asJSON := fs.Bool("json", false, "report in JSON")
	quiet := fs.Bool("q", false, "report nothing but errors")
	if err := parse(e, fs, args, 0); err != nil {
		return err
	}
	dev, err := t.one(ctx, e)
	if err != nil {
		return err
	}
	defer dev.close()
	st, err := dev.status(ctx)
	if err != nil {
		return unavailable(err)
	}
	r, text, err := do(dev, st.Device)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", st.summary(), err)
	case *asJSON:
		return printJSON(e.stdout, r)
	case !*quiet:
		fmt.Fprintln(e.stdout, text)
	}
	return nil
}
