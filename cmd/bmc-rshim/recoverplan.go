// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/bluefield-go/bmc-rshim/internal/hostaccess"
	corepush "github.com/bluefield-go/bmc-rshim/rshim/push"
)

// plan tells what would be done. It asks, and changes nothing.
func (r *recovery) plan(ctx context.Context, e *env) error {
	st, err := r.t.status(ctx)
	if err != nil {
		return unavailable(err)
	}
	how, was, err := r.before(ctx)
	if err != nil {
		return err
	}
	if how == pushDone {
		r.step(stepPush, "would", "nothing: "+st.Device+" was ready with this image before")
		return r.planRestore(ctx)
	}
	r.planLock(ctx)
	switch st.State {
	case "attached":
		r.step(stepForce, "would", "nothing: "+st.Device+" is ours")
	case "locked", "gone":
		r.step(stepForce, "would", "fail, as it is now: "+st.summary())
	default:
		r.step(stepForce, "would", "take the RShim over: "+st.summary())
	}
	switch {
	case how == pushNone:
		err = r.planPush(ctx, e, st)
	case was.Ended():
		r.step(stepPush, "would", "nothing: the push of "+was.Name+" has gone on meanwhile, and has ended well")
	default:
		r.step(stepPush, "would", "join the push of "+was.Name+", which goes on, and wait until the DPU is ready")
	}
	if err != nil {
		return err
	}
	if r.was == "" {
		r.step(stepRestore, "would", "nothing: the host's access is not changed")
	} else {
		r.step(stepRestore, "would", "set the host's access to "+r.was)
	}
	return nil
}

func (r *recovery) planLock(ctx context.Context) {
	would := func(text string) { r.step(stepLock, "would", text) }
	if r.host == nil {
		would("nothing: " + r.away.Error())
		return
	}
	_, now, err := r.host.Get(ctx)
	switch {
	case err != nil:
		would("nothing: " + err.Error())
		return
	case now == hostaccess.Unknown:
		would("nothing: the NIC does not tell the host's access at run time")
		return
	case now == hostaccess.Locked:
		would("nothing: the host is locked out already")
	default:
		would("lock the host out at run time, its access is " + now)
	}
	r.was = cmp.Or(r.was, now)
}

// planPush checks what would be pushed.
func (r *recovery) planPush(ctx context.Context, e *env, st status) error {
	img, done, err := r.open(ctx, e)
	if err != nil {
		return err
	}
	defer done()
	if img.whole == nil {
		r.step(stepPush, "would", "push "+img.title()+", which is no file and not looked at now")
		return nil
	}
	what := "push " + img.title()
	if g, gerr := generation(st.Generation); gerr == nil && !r.o.push.noCheck {
		sum, err := img.whole.Check(ctx, corepush.CheckOptions{Generation: g, Digest: digestOf(r.o.push.sha256)})
		var bad *corepush.RefusedError
		if errors.As(err, &bad) {
			return refusal(bad)
		}
		if err != nil {
			return err
		}
		what += fmt.Sprintf(", a good BFB for %v, %d images, %s", g, len(sum.Images), size(sum.Length+sum.Tail))
	} else {
		what += ", unchecked"
	}
	r.step(stepPush, "would", what+", and wait until the DPU is ready")
	return nil
}

// check finds out what is wrong with what is to be pushed before anything is
// touched. Of a pipe, nothing is read.
func (r *recovery) check(ctx context.Context, e *env) error {
	st, err := r.t.status(ctx)
	if err != nil {
		return unavailable(err)
	}
	img, done, err := r.open(ctx, e)
	if err != nil {
		return err
	}
	defer done()
	if img.whole == nil {
		return nil
	}
	if _, err := generation(st.Generation); err != nil && !r.p.o.noCheck {
		// The push checks it, when the chip is known.
		r.p.o.noCheck = true
		defer func() { r.p.o.noCheck = false }()
	}
	defer func() { r.p.meter = meter{} }()
	return r.p.inspect(ctx, img.whole, st)
}

// open opens all that is to be pushed, until done is called. A FIFO is left alone:
// it can be opened once.
func (r *recovery) open(ctx context.Context, e *env) (img *image, done func(), err error) {
	img = &image{name: r.image, length: -1}
	info, err := os.Stat(r.image)
	if r.image == "-" || err != nil || info.Mode().IsRegular() || info.IsDir() {
		if img, err = openImage(ctx, r.image, e.stdin); err != nil {
			return nil, nil, err
		}
	}
	r.p.img = img
	files, err := r.p.extras()
	done = func() {
		for _, f := range files {
			f.Close()
		}
		img.close()
	}
	if err != nil {
		done()
		return nil, nil, err
	}
	return img, done, nil
}
