// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/bluefield-go/bmc-rshim/internal/hostaccess"
)

const recoverHelp = `Rescues a DPU whose host is dead, hung or hostile, in one go:

  lock     keep the host from the RShim at run time, through NC-SI where NCSI
           says in ` + defaultConf + ` how; the host's access is remembered
  force    take the RShim over from whoever has it
  push     check the image, push it, and follow the DPU until it is ready
  restore  give the host the access back that it had

What can be found wrong with FILE, and with what is sent after it, is found
before the first step. Each step is reported. What is done is kept in files
(BMC_RSHIM_STATE, a directory, or /run/bmc-rshim), so that the same command goes
on where one was interrupted: a push of a FILE that the daemon does goes on
meanwhile and is joined. After a failure the host stays locked out until the
command has succeeded, or until bmc-rshim recover -restore, which does nothing
but the last step, and needs neither the DPU nor, where -conf has NCSI, the
daemon.

A host that cannot be locked out is no reason to give up, and told of. One that
was locked out already stays so. One recovery runs at a time.

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
	if err := parseBetween(e, fs, args, 0, 1); err != nil {
		return err
	}
	o.push.wait = outcomeReady
	switch {
	case fs.NArg() == 0 && !o.restore:
		return usageError("recover: FILE is missing; bmc-rshim recover -h shows the flags")
	case o.push.json && o.push.quiet:
		return usageError("recover: -json and -q exclude each other")
	case o.push.timeout <= 0:
		return usageError("recover: -timeout has to be positive")
	case o.push.sha256 != "" && !isSHA256(o.push.sha256):
		return usageError("recover: -sha256 is 64 hexadecimal digits, not %q", o.push.sha256)
	case o.restore && fs.NArg() > 0:
		return usageError("recover: -restore takes no FILE")
	}
	// A reader of the output that is gone must not leave the host locked out.
	signal.Ignore(syscall.SIGPIPE)
	r := &recovery{o: o, image: fs.Arg(0)}
	r.id = imageID(r.image, o.push.config, o.push.rootfs)
	if o.push.sha256 != "" {
		r.id += "\nsha256 " + strings.ToLower(o.push.sha256)
	}
	r.p = &push{o: o.push, out: newReporter(e, o.push), began: time.Now(), begun: r.begun}
	err := r.told(ctx, r.run(ctx, e))
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
	id    string // of it, and of what is sent after it
	p     *push
	t     target      // nil: there is none yet
	host  hostControl // nil: there is no way to the NIC, for
	away  error       // this reason
	alone error       // why other recoveries cannot be kept out

	file   string // of the state; "": none is kept
	state  recoverState
	was    string // what the host had before a recovery locked it out; "": none has
	mine   bool   // it was this run
	unsure bool   // and the NIC has not said what has come of it
	pushed bool   // the daemon has begun the push of this run
}

func (r *recovery) run(ctx context.Context, e *env) (err error) {
	if r.o.restore {
		return r.giveUp(ctx)
	}
	if r.t, err = r.o.push.target.one(ctx, e); err != nil {
		return err
	}
	defer func() { r.t.close() }()
	name := nameOf(r.t)
	r.p.result.Device = name
	if err := r.find(ctx); err != nil {
		return err
	}
	done, err := r.turn()
	if err != nil {
		return err
	}
	defer done()
	if err := r.load(name); err != nil {
		return err
	}
	if r.o.dryRun {
		return r.plan(ctx, e)
	}
	how, _, err := r.before(ctx)
	if err != nil {
		return err
	}
	if how == pushNone {
		if err := r.check(ctx, e); err != nil {
			return err
		}
	}
	if how == pushDone {
		r.step(stepPush, "skipped", name+" was ready with this image before")
	} else if err := r.rescue(ctx, e); err != nil {
		return err
	}
	if err := r.restore(ctx); err != nil {
		return r.notRestored(err)
	}
	r.forget(r.file)
	return nil
}

// rescue does all but the last step.
func (r *recovery) rescue(ctx context.Context, e *env) error {
	for _, s := range []struct {
		step string
		do   func(ctx context.Context, e *env) error
	}{{stepLock, r.lock}, {stepForce, r.force}, {stepPush, r.push}} {
		err := s.do(ctx, e)
		if err == nil {
			continue
		}
		r.step(s.step, "failed", err.Error())
		if s.step == stepPush && r.mine && ctx.Err() == nil && r.refused(err) {
			// Nothing has come of it: the host has what it had.
			if rerr := r.restore(ctx); rerr != nil {
				r.step(stepRestore, "failed", rerr.Error())
			} else {
				r.forget(r.file)
			}
		}
		return err
	}
	return nil
}

// turn keeps other recoveries out. Where there is no NIC, they have nothing in
// common but the daemon, which keeps pushes apart.
func (r *recovery) turn() (done func(), err error) {
	if r.o.dryRun || r.host == nil && !r.o.restore {
		return func() {}, nil
	}
	if done, err = takeTurn(); err == nil || errors.Is(err, errOtherRuns) {
		return done, err
	}
	// To lock a host out that is let in would be wrong now; to do the rest is not.
	r.alone = err
	return func() {}, nil
}

// load reads what a recovery that was interrupted has left.
func (r *recovery) load(name string) (err error) {
	_, simulated := r.t.(*local) // which ends with this process
	if !simulated || r.host != nil {
		if r.was, err = loadHost(); err != nil {
			return err
		}
	}
	if simulated {
		return nil
	}
	r.file = statePath(name)
	var resumed bool
	if r.state, resumed, err = loadState(r.file); err != nil {
		return err
	}
	if resumed {
		r.p.out.note(name + ": an interrupted recovery goes on")
	}
	return nil
}

// find finds the way to the NIC.
func (r *recovery) find(ctx context.Context) error {
	b, _ := r.t.(*busDevice)
	if b == nil && r.o.push.target.sim.on() && r.o.conf == "" {
		r.away = errNoNCSI // a simulated DPU's NIC is not the machine's
		return nil
	}
	h, err := findHost(ctx, b, r.o.conf)
	if errors.Is(err, errNoNCSI) {
		r.away = err
		return nil
	}
	if err == nil {
		r.host = h
	}
	return err
}

// told gives an error its exit code, and says what it means for the host.
func (r *recovery) told(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	var known *exitError
	if ctx.Err() != nil && (!errors.As(err, &known) || known.code != exitInterrupted) {
		err = exitWith(exitInterrupted, "interrupted: %w", err)
	}
	if r.was == hostaccess.Enabled && !r.o.dryRun && !errors.Is(err, errNotRestored) {
		stays := "stays"
		if r.unsure {
			stays = "may stay"
		}
		err = fmt.Errorf("%w; the host %s locked out: the same command goes on, and bmc-rshim recover -restore gives it its access back", err, stays)
	}
	if r.was == hostaccess.Locked && (r.pushed || !r.p.opened.IsZero()) && !errors.Is(err, errNotRestored) {
		err = fmt.Errorf("%w; the host was locked out before, and the DPU's reset may have let it in: bmc-rshim recover -restore locks it out again", err)
	}
	return err
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
