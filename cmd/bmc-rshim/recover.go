// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/bluefield-go/bmc-rshim/dbus/client"
	"github.com/bluefield-go/bmc-rshim/internal/hostaccess"
)

const recoverHelp = `Rescues a DPU whose host is dead, hung or hostile, in one go:

  lock     keep the host from the RShim at run time, through NC-SI where NCSI
           says in ` + defaultConf + ` how; the host's access is remembered
  force    take the RShim over from whoever has it
  push     check the image, push it, and follow the DPU until it is ready
  restore  give the host the access back that it had

Each step is reported. What is done is kept in a file (BMC_RSHIM_STATE, a
directory, or /run/bmc-rshim), so that the same command goes on where one was
interrupted: a push that the daemon does goes on meanwhile and is joined. After
a failure the host stays locked out until the command has succeeded, or until
bmc-rshim recover -restore, which does nothing but the last step.

A host that cannot be locked out is no reason to give up, and told of.

`

// recoverOptions are the flags of recover.
type recoverOptions struct {
	push    pushOptions
	conf    string
	dryRun  bool
	restore bool
}

// Steps of a recovery.
const (
	stepLock    = "lock"
	stepForce   = "force"
	stepPush    = "push"
	stepRestore = "restore"
)

func recoverCommand(ctx context.Context, e *env, args []string) error {
	var o recoverOptions
	fs := flags("recover", " FILE|-", recoverHelp+exitCodes)
	o.push.target.register(fs)
	fs.StringVar(&o.push.config, "config", "", "bf.cfg `file` to send after the image")
	fs.StringVar(&o.push.rootfs, "rootfs", "", "root file system to send after the image, a `file`")
	fs.StringVar(&o.push.sha256, "sha256", "", "refuse an image without this sum, 64 hexadecimal `digits`")
	fs.BoolVar(&o.push.noCheck, "no-check", false, "push what is no good BFB for this DPU, too")
	fs.BoolVar(&o.push.json, "json", false, "report in JSON, an object a line")
	fs.BoolVar(&o.push.quiet, "q", false, "report nothing but errors")
	fs.DurationVar(&o.push.timeout, "timeout", 30*time.Minute, "for the DPU to be ready after it has the image, and for an input that pauses")
	fs.StringVar(&o.conf, "conf", "", "configuration `file` with NCSI, if there is no daemon on D-Bus")
	fs.BoolVar(&o.dryRun, "dry-run", false, "tell what would be done, and touch nothing")
	fs.BoolVar(&o.restore, "restore", false, "just give the host back the access that an interrupted recovery took")
	least := 1
	for _, a := range args {
		if a == "-restore" || a == "--restore" {
			least = 0
		}
	}
	if err := parseBetween(e, fs, args, least, 1); err != nil {
		return err
	}
	o.push.wait = outcomeReady
	switch {
	case o.push.json && o.push.quiet:
		return usageError("recover: -json and -q exclude each other")
	case o.push.timeout <= 0:
		return usageError("recover: -timeout has to be positive")
	case o.push.sha256 != "" && !isSHA256(o.push.sha256):
		return usageError("recover: -sha256 is 64 hexadecimal digits, not %q", o.push.sha256)
	case o.restore && fs.NArg() > 0:
		return usageError("recover: -restore takes no FILE")
	}
	r := &recovery{o: o, image: fs.Arg(0)}
	r.p = &push{o: o.push, out: newReporter(e, o.push), began: time.Now(), begun: r.begun}
	err := r.run(ctx, e)
	res := r.p.finish(err)
	if err == nil {
		res.Outcome = "recovered"
		if o.dryRun {
			res.Outcome = "dry_run"
		} else if o.restore {
			res.Outcome = "restored"
		}
	}
	r.p.out.result(res)
	return err
}

// newReporter is how the flags of a push want it to be reported.
func newReporter(e *env, o pushOptions) reporter {
	switch {
	case o.json:
		return events{e.stdout}
	case o.quiet:
		return people{w: io.Discard}
	}
	return newPeople(e.stdout)
}

// recovery is a run of recover.
type recovery struct {
	o     recoverOptions
	image string
	p     *push
	t     target
	host  hostControl // nil: there is no way to the NIC
	file  string
	state recoverState
}

func (r *recovery) run(ctx context.Context, e *env) (err error) {
	defer func() {
		if err != nil && ctx.Err() != nil && exitCode(err) != exitInterrupted {
			err = exitWith(exitInterrupted, "interrupted: %v", err)
		}
		if err != nil && r.state.Host == hostaccess.Enabled && !r.o.dryRun && exitCode(err) != exitHost {
			r.p.out.note("the host stays locked out: the same command goes on, and bmc-rshim recover -restore gives up")
		}
	}()
	if r.t, err = r.o.push.target.one(ctx, e); err != nil {
		return err
	}
	defer func() { r.t.close() }()
	name := nameOf(r.t)
	r.p.result.Device = name
	if err := r.find(ctx); err != nil {
		return err
	}
	r.file = statePath(name)
	if r.state, err = loadState(r.file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the state of an interrupted recovery cannot be read: %w", err)
	}
	switch resumed := err == nil; {
	case r.o.restore && !resumed:
		return exitWith(exitDevice, "%s: no recovery was interrupted, there is nothing to restore", name)
	case resumed:
		r.p.out.note(fmt.Sprintf("%s: an interrupted recovery goes on", name))
	}
	if r.o.dryRun {
		return r.plan(ctx)
	}
	if !r.o.restore {
		for _, s := range []struct {
			step string
			do   func(ctx context.Context, e *env) error
		}{{stepLock, r.lock}, {stepForce, r.force}, {stepPush, r.push}} {
			if err := s.do(ctx, e); err != nil {
				r.step(s.step, "failed", err.Error())
				return err
			}
		}
	}
	if err := r.restore(ctx); err != nil {
		r.step(stepRestore, "failed", err.Error())
		return exitWith(exitHost, "the host's access to the RShim was not restored: %w", err)
	}
	return removeState(r.file)
}

// find finds the way to the NIC.
func (r *recovery) find(ctx context.Context) error {
	var c *client.Client
	switch t := r.t.(type) {
	case *busDevice:
		c = t.c
	case *local:
		if r.o.conf == "" {
			return nil // a simulated DPU's NIC is not the machine's
		}
	}
	h, err := findHost(ctx, c, r.o.conf)
	if err != nil && !errors.Is(err, errNoNCSI) {
		return err
	}
	if err == nil {
		r.host = h
	}
	return nil
}

// step reports a step: "done", "skipped", "failed", or what "would" be done.
func (r *recovery) step(step, status, text string) {
	if ev, ok := r.p.out.(events); ok {
		ev.put(fields(func(o *object) {
			o.text("event", "step")
			o.text("step", step)
			o.text("status", status)
			o.text("text", text)
		}))
		return
	}
	if status != "failed" { // which is the command's error
		r.p.out.note(fmt.Sprintf("%-8s %s", step+":", text))
	}
}
