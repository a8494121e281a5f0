// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"os"
	"slices"

	"github.com/bluefield-go/bmc-rshim/dbus/client"
	"github.com/bluefield-go/bmc-rshim/internal/hostaccess"
)

// giveUp does the last step alone, for any device, or the one that the flags
// name. What the host had is known without them.
func (r *recovery) giveUp(ctx context.Context) error {
	t := &r.o.push.target
	files := statePaths()
	if t.device != "" {
		if _, err := t.index(); err != nil {
			return err
		}
		files = []string{statePath(t.device)}
		r.p.result.Device = t.device
	}
	if c, err := t.connect(ctx); err != nil {
		r.away = err
	} else if c != nil {
		b := &busDevice{c: c}
		defer func() { b.close() }()
		r.t = b
	}
	if r.away == nil {
		if err := r.find(ctx); err != nil {
			r.away = err
		}
	}
	done, err := r.turn()
	if err != nil {
		return err
	}
	defer done()
	if r.was, err = loadHost(); err != nil {
		return err
	}
	files = slices.DeleteFunc(files, func(name string) bool {
		_, err := os.Stat(name)
		return errors.Is(err, os.ErrNotExist)
	})
	if r.was == "" && len(files) == 0 {
		return exitWith(exitDevice, "no recovery was interrupted, there is nothing to restore")
	}
	if r.o.dryRun {
		return r.planRestore(ctx)
	}
	if err := r.restore(ctx); err != nil {
		return r.notRestored(err)
	}
	r.forget(files...)
	return nil
}

// restore gives the host back what it had. Should the daemon, or the bus, have
// ended meanwhile, it looks for them, and then asks the NIC without them.
func (r *recovery) restore(ctx context.Context) error {
	if r.was == "" {
		r.step(stepRestore, "skipped", "the host's access was not changed")
		return nil
	}
	err := r.away
	if r.host != nil {
		err = r.giveBack(ctx)
	}
	if (errors.Is(err, client.ErrLost) || errors.Is(err, client.ErrNoDaemon)) && r.again(ctx) {
		err = r.giveBack(ctx)
	}
	if err != nil && ctx.Err() == nil && r.direct(ctx) {
		r.p.out.note("the daemon cannot do it (" + err.Error() + "), so the NIC is asked without it")
		err = r.giveBack(ctx)
	}
	if err != nil {
		return err
	}
	r.was = ""
	r.forget(hostPath())
	return nil
}

func (r *recovery) giveBack(ctx context.Context) error {
	// The DPU's reset may have done it.
	_, now, err := r.host.Get(ctx)
	if err != nil {
		return err
	}
	if now == r.was {
		r.step(stepRestore, "done", "the host's access is "+now+", as it was")
		return nil
	}
	if err := r.host.SetRuntime(ctx, r.was); err != nil {
		return err
	}
	r.step(stepRestore, "done", "the host's access is "+r.was+" again")
	return nil
}

// again connects to the daemon again.
func (r *recovery) again(ctx context.Context) bool {
	h, ok := r.host.(busHost)
	if !ok {
		return false
	}
	c, err := rejoin(ctx, &r.o.push.target, rejoinPatience)
	if err != nil {
		return false
	}
	h.b.c.Close()
	h.b.c = c
	return true
}

// direct finds a way to the NIC without the daemon, if it was not that.
func (r *recovery) direct(ctx context.Context) bool {
	if _, is := r.host.(*hostaccess.Tool); is || r.o.push.target.sim.on() && r.o.conf == "" {
		return false
	}
	h, err := findHost(ctx, nil, r.o.conf)
	if err != nil {
		return false
	}
	r.host = h
	return true
}

var errNotRestored = errors.New("the host's access to the RShim was not restored")

// notRestored is the error of a last step that has failed.
func (r *recovery) notRestored(err error) error {
	r.step(stepRestore, "failed", err.Error())
	return exitWith(exitHost, "%w: %w; bmc-rshim recover -restore tries it again, and bmc-rshim host-access set %s does it by hand",
		errNotRestored, err, r.was)
}

// planRestore tells what restore would do.
func (r *recovery) planRestore(ctx context.Context) error {
	would := func(text string) error {
		r.step(stepRestore, "would", text)
		return nil
	}
	if r.was == "" {
		return would("nothing: the host's access was not changed")
	}
	err := r.away
	if r.host != nil || r.direct(ctx) {
		var now string
		if _, now, err = r.host.Get(ctx); err == nil && now == r.was {
			return would("nothing: the host's access is " + now + ", as it was")
		}
	}
	if err != nil {
		return would("set the host's access to " + r.was + ", which fails as it is now: " + err.Error())
	}
	return would("set the host's access to " + r.was)
}
