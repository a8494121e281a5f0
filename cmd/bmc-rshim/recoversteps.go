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
		r.step(stepLock, "skipped", "the host cannot be locked out: "+r.away.Error())
		return nil
	}
	_, now, err := r.host.Get(ctx)
	if err == nil && now == hostaccess.Unknown {
		err = errors.New("the NIC does not tell the host's access at run time")
	}
	if err == nil && now == hostaccess.Locked {
		r.lockedAlready()
		return nil
	}
	if err == nil {
		// It is written down first: a lock that nobody knows of would stay.
		if err := r.remember(now); err != nil {
			return fmt.Errorf("the host is not locked out, since what it has cannot be written down: %w; "+
				"BMC_RSHIM_STATE names another directory; nothing was touched", err)
		}
		if err = r.host.SetRuntime(ctx, hostaccess.Locked); err != nil && r.isLocked() {
			err = nil
		}
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		text := "the host is not locked out: "
		if r.unsure = r.unsure || r.was == hostaccess.Enabled; r.unsure {
			text = "whether the host is locked out is not known: "
		}
		r.step(stepLock, "skipped", text+err.Error())
		return nil
	}
	r.step(stepLock, "done", "the host is locked out at run time, it was "+now)
	return nil
}

// lockedAlready is of a host that needs no lock. Its access is set again at the
// end, as the DPU's reset may open it.
func (r *recovery) lockedAlready() {
	text := "the host is locked out already"
	switch r.was {
	case "":
		r.was = hostaccess.Locked
		if err := saveHost(r.was); err != nil {
			r.p.out.note("an interruption will not be noticed: " + err.Error())
		}
		fallthrough
	case hostaccess.Locked:
		text += ", and stays so afterwards: bmc-rshim host-access set enabled lets it in"
	default:
		text += ", by the recovery that was interrupted"
	}
	r.step(stepLock, "skipped", text)
}

// remember writes down what the host had, unless a recovery that was interrupted
// has done so.
func (r *recovery) remember(now string) error {
	if r.was != "" {
		return nil
	}
	if r.alone != nil {
		return r.alone
	}
	if err := r.save(); err != nil {
		return err
	}
	if err := saveHost(now); err != nil {
		return err
	}
	r.was, r.mine = now, true
	return nil
}

// lockPatience is with a NIC that has not said whether it has locked the host out.
const lockPatience = cancelPatience

// isLocked asks the NIC what has come of a lock that has failed. If it does not
// say, the host may be locked out.
func (r *recovery) isLocked() bool {
	ctx, cancel := context.WithTimeout(context.Background(), lockPatience)
	defer cancel()
	_, now, err := r.host.Get(ctx)
	switch {
	case err != nil || now == hostaccess.Unknown:
		r.unsure = true
	case now == hostaccess.Locked:
		return true
	case r.was == now:
		r.was, r.mine = "", false
		r.forget(hostPath())
	}
	return false
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
	how, was, err := r.before(ctx)
	if err != nil {
		return err
	}
	if how == pushRuns {
		p.out.note(fmt.Sprintf("the push of %s has gone on meanwhile", was.Name))
		err = p.followBus(ctx, r.t.(*busDevice), was.Path)
	} else {
		r.state = recoverState{}
		r.keep()
		p.o.force = true // should the host have taken it back meanwhile
		p.shared = r.t
		err = p.run(ctx, e, r.image)
	}
	if err != nil {
		return err
	}
	r.state.Image, r.state.Done = r.id, true
	r.keep()
	r.step(stepPush, "done", p.result.Device+" is ready")
	return nil
}

// What has become of the push of a recovery that was interrupted.
const (
	pushNone = iota // nothing that counts: the image is to be pushed
	pushRuns        // it runs, or has ended well since
	pushDone        // it had ended well, and nobody has pushed since
)

// before looks for the push of a recovery that was interrupted. It counts if it
// was of the same files, which of standard input nobody can know, and if it is
// the last one that the device has had. One that was done counts while the host's
// access is still to be given back: otherwise nothing was interrupted.
func (r *recovery) before(ctx context.Context) (how int, was *client.Push, err error) {
	if r.image == "-" || r.state.Image != r.id || r.state.Done && r.was == "" {
		return pushNone, nil, nil
	}
	b, ok := r.t.(*busDevice)
	if !ok {
		if r.state.Done {
			how = pushDone
		}
		return how, nil, nil
	}
	d, err := b.c.Device(ctx, b.index)
	if err != nil {
		return pushNone, nil, remote(err)
	}
	if d.Push == "" || d.Push == "/" {
		// Another daemon, or somebody has deleted it.
		if r.state.Done {
			how = pushDone
		}
		return how, nil, nil
	}
	was, err = b.c.Push(ctx, d.Push)
	switch {
	case errors.Is(err, client.ErrNotFound):
		return pushNone, nil, nil // deleted right now
	case err != nil:
		return pushNone, nil, remote(err)
	case string(d.Push) != r.state.Push || was.Started.UnixMicro() != r.state.Started:
		return pushNone, nil, nil
	case r.state.Done:
		return pushDone, was, nil
	case !was.Ended() || was.Outcome == client.Ready:
		return pushRuns, was, nil
	}
	return pushNone, nil, nil
}

// begun is told that the daemon pushes.
func (r *recovery) begun(bp *busPush) {
	r.pushed = true
	r.state = recoverState{Image: r.id, Push: string(bp.path)}
	ctx, cancel := context.WithTimeout(context.Background(), cancelPatience)
	defer cancel()
	if now, err := bp.b.c.Push(ctx, bp.path); err == nil {
		r.state.Started = now.Started.UnixMicro()
	}
	r.keep()
}

// refused reports whether a push was refused before anything was touched.
func (r *recovery) refused(err error) bool {
	return exitCode(err) == exitRefused || !r.pushed &&
		(errors.Is(err, client.ErrUnavailable) || errors.Is(err, client.ErrNotAllowed) || errors.Is(err, client.ErrPermission))
}

// save writes down what is done.
func (r *recovery) save() error {
	if r.file == "" {
		return nil
	}
	return r.state.save(r.file)
}

// keep is save where the rescue does not depend on it.
func (r *recovery) keep() {
	if err := r.save(); err != nil {
		r.p.out.note("an interruption will not be noticed: " + err.Error())
	}
}

// forget removes what was kept for the next recovery.
func (r *recovery) forget(files ...string) {
	for _, name := range files {
		if name == "" {
			continue
		}
		if err := removeState(name); err != nil {
			r.p.out.note("remove what is left behind, or the next recovery goes by it: " + err.Error())
		}
	}
}
