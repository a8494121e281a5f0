// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/bluefield-go/bmc-rshim/internal/hostaccess"
	corepush "github.com/bluefield-go/bmc-rshim/rshim/push"
)

// plan tells what would be done. It asks, and changes nothing.
func (r *recovery) plan(ctx context.Context) error {
	st, err := r.t.status(ctx)
	if err != nil {
		return unavailable(err)
	}
	would := func(step, format string, args ...any) { r.step(step, "would", fmt.Sprintf(format, args...)) }
	was := r.state.Host
	if r.host == nil {
		would(stepLock, "nothing: %v", errNoNCSI)
	} else if _, now, err := r.host.Get(ctx); err != nil {
		would(stepLock, "nothing: %v", err)
	} else if now == hostaccess.Locked {
		would(stepLock, "nothing: the host is locked out already")
		was = cmp.Or(was, now)
	} else {
		would(stepLock, "lock the host out at run time, its access is %s", now)
		was = cmp.Or(was, now)
	}
	if r.o.restore {
		would(stepRestore, "set the host's access to %s", was)
		return nil
	}
	switch st.State {
	case "attached":
		would(stepForce, "nothing: %s is ours", st.Device)
	case "locked", "gone":
		would(stepForce, "fail, as it is now: %s", st.summary())
	default:
		would(stepForce, "take the RShim over: %s", st.summary())
	}
	if err := r.planPush(ctx, st); err != nil {
		return err
	}
	switch was {
	case "":
		would(stepRestore, "nothing: the host's access is not changed")
	default:
		would(stepRestore, "set the host's access to %s", was)
	}
	return nil
}

// planPush checks a file as a whole. Of a pipe, nothing is read.
func (r *recovery) planPush(ctx context.Context, st status) error {
	if r.image == "-" {
		r.step(stepPush, "would", "push standard input, which is not looked at now")
		return nil
	}
	img, err := openImage(ctx, r.image, nil)
	if err != nil {
		return err
	}
	defer img.close()
	if img.whole == nil {
		r.step(stepPush, "would", "push "+r.image+", which is no file and not looked at now")
		return nil
	}
	what := "push " + r.image
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
