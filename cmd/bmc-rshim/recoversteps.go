// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/bluefield-go/bmc-rshim/dbus/client"
	"github.com/bluefield-go/bmc-rshim/internal/hostaccess"
)

// lock keeps the host out.
func (r *recovery) lock(ctx context.Context, _ *env) error {
	if r.host == nil {
		r.step(stepLock, "skipped", "the host cannot be locked out: "+errNoNCSI.Error())
		return nil
	}
	_, now, err := r.host.Get(ctx)
	if err == nil && now == hostaccess.Unknown {
		err = errors.New("the NIC does not tell the host's access at run time")
	}
	if err == nil {
		// It is written down first: a lock that nobody knows of would stay.
		if r.state.Host == "" {
			r.state.Host = now
		}
		if err := r.save(); err != nil {
			return err
		}
		if now == hostaccess.Locked {
			text := "the host is locked out already"
			if r.state.Host != now {
				text += ", by the recovery that was interrupted"
			}
			r.step(stepLock, "skipped", text)
			return nil
		}
		err = r.host.SetRuntime(ctx, hostaccess.Locked)
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		r.step(stepLock, "skipped", "the host is not locked out: "+err.Error())
		return nil
	}
	r.step(stepLock, "done", "the host is locked out at run time, it was "+now)
	return nil
}

// force takes the RShim over.
func (r *recovery) force(ctx context.Context, _ *env) error {
	st, err := r.t.status(ctx)
	if err != nil {
		return unavailable(err)
	}
	if st.State == "attached" {
		r.step(stepForce, "skipped", st.Device+" is ours already")
		return nil
	}
	result, err := r.t.force(ctx)
	if err != nil {
		return unavailable(err)
	}
	r.step(stepForce, "done", forced(st.Device, result))
	return nil
}

// push pushes the image, or joins the push that has begun.
func (r *recovery) push(ctx context.Context, e *env) error {
	p := r.p
	joined, err := r.join(ctx)
	if !joined {
		if err := r.save(); err != nil {
			return err
		}
		p.o.force = true // should the host have taken it back meanwhile
		p.shared = r.t
		err = p.run(ctx, e, r.image)
	}
	if err != nil {
		return err
	}
	r.state.Done = true
	if err := r.save(); err != nil {
		return err
	}
	r.step(stepPush, "done", r.p.result.Device+" is ready")
	return nil
}

// join joins the push of a recovery that was interrupted, if it is of the same
// image and still runs or has ended well.
func (r *recovery) join(ctx context.Context) (bool, error) {
	b, ok := r.t.(*busDevice)
	if !ok || r.state.Push == "" || r.image != "-" && r.state.Image != imageID(r.image) {
		if r.state.Done && r.image != "-" && r.state.Image == imageID(r.image) {
			r.p.out.note("the image was pushed already")
			return true, nil
		}
		return false, nil
	}
	was, err := b.c.Push(ctx, client.Path(r.state.Push))
	if err != nil || was.Started.UnixMicro() != r.state.Started || was.Ended() && was.Outcome != client.Ready {
		return false, nil
	}
	r.p.out.note(fmt.Sprintf("the push of %s has gone on meanwhile", was.Name))
	return true, r.p.followBus(ctx, b, was.Path)
}

// begun is told that the daemon pushes.
func (r *recovery) begun(bp *busPush) {
	r.state.Push, r.state.Image, r.state.Done = string(bp.path), imageID(r.image), false
	ctx, cancel := context.WithTimeout(context.Background(), cancelPatience)
	defer cancel()
	if now, err := bp.b.c.Push(ctx, bp.path); err == nil {
		r.state.Started = now.Started.UnixMicro()
	}
	if err := r.save(); err != nil {
		r.p.out.note("an interruption will not be noticed: " + err.Error())
	}
}

// restore gives the host back what it had.
func (r *recovery) restore(ctx context.Context) error {
	was := r.state.Host
	switch {
	case was == "":
		r.step(stepRestore, "skipped", "the host's access was not changed")
		return nil
	case r.host == nil:
		return errNoNCSI
	}
	// The DPU's reset may have done it.
	_, now, err := r.host.Get(ctx)
	if err != nil {
		return err
	}
	if now == was {
		r.step(stepRestore, "done", "the host's access is "+now+", as it was")
		return nil
	}
	if err := r.host.SetRuntime(ctx, was); err != nil {
		return err
	}
	r.step(stepRestore, "done", "the host's access is "+was+" again")
	return nil
}

func (r *recovery) save() error { return r.state.save(r.file) }
