// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/bootlog"
)

const pushHelp = `The daemon sends the image by itself if it is on D-Bus. Ctrl-C cancels the push; a
command that is killed, or whose terminal is gone, leaves it to the daemon, and
-follow joins it again.

A FILE is checked as a whole before anything is touched. Of a pipe only the
first MiB can be: what shows to be wrong with it later ends the push with an
error, but by then the DPU has been reset.

`

// pushOptions are the flags of push.
type pushOptions struct {
	target         targetFlags
	config, rootfs string
	json, quiet    bool
	noCheck        bool
	force          bool
	status         bool
	wait           string
	timeout        time.Duration
	sha256         string
	detach, follow bool
}

func pushCommand(ctx context.Context, e *env, args []string) error {
	var o pushOptions
	fs := flags("push", " FILE|-", pushHelp+exitCodes)
	o.target.register(fs)
	fs.StringVar(&o.config, "config", "", "bf.cfg `file` to send after the image")
	fs.StringVar(&o.rootfs, "rootfs", "", "root file system to send after the image, a `file`")
	fs.BoolVar(&o.json, "json", false, "report in JSON, an object a line")
	fs.BoolVar(&o.quiet, "q", false, "report nothing but errors")
	fs.BoolVar(&o.noCheck, "no-check", false, "push what is no good BFB for this DPU, too")
	fs.BoolVar(&o.force, "force", false, "if the host, or another backend, has the RShim, take it over first")
	fs.BoolVar(&o.status, "status", false, "show the device's status at the end")
	fs.StringVar(&o.wait, "wait", "ready", "until the DPU is `ready`, or just until the image is streamed")
	fs.DurationVar(&o.timeout, "timeout", 30*time.Minute, "for the DPU to be ready after it has the image, and for an input that pauses")
	fs.StringVar(&o.sha256, "sha256", "", "refuse an image without this sum, 64 hexadecimal `digits`")
	fs.BoolVar(&o.detach, "detach", false, "end when the daemon has begun to push, which it does by itself")
	fs.BoolVar(&o.follow, "follow", false, "follow the push that the device has, such as a detached one, without a FILE")
	if err := parseBetween(e, fs, args, 0, 1); err != nil {
		return err
	}
	vain := withoutEffect(fs)
	switch {
	case fs.NArg() == 0 && !o.follow:
		return usageError("push: FILE is missing; bmc-rshim push -h shows the flags")
	case fs.NArg() == 1 && o.follow:
		return usageError("push: -follow is for a push that has begun, and takes no FILE")
	case o.follow && o.detach:
		return usageError("push: -follow and -detach exclude each other")
	case (o.follow || o.detach) && !o.target.onBus():
		return usageError("push: -follow and -detach need the daemon on D-Bus")
	case o.follow && vain != "":
		return usageError("push: -%s is for a push that begins, and -follow joins one", vain)
	case o.sha256 != "" && !isSHA256(o.sha256):
		return usageError("push: -sha256 is 64 hexadecimal digits, not %q", o.sha256)
	case o.wait != "ready" && o.wait != "streamed":
		return usageError("push: -wait is ready or streamed, not %q", o.wait)
	case o.json && o.quiet:
		return usageError("push: -json and -q exclude each other")
	case o.timeout <= 0:
		return usageError("push: -timeout has to be positive")
	}
	signal.Ignore(syscall.SIGPIPE) // the verdict outlives who reads the progress
	p := &push{o: o, out: newReporter(e, o), began: time.Now()}
	err := p.run(ctx, e, fs.Arg(0))
	p.out.result(p.finish(err))
	return err
}

// withoutEffect is a flag that was given, and has none with -follow; "": there
// is no such.
func withoutEffect(fs *flag.FlagSet) (name string) {
	fs.Visit(func(f *flag.Flag) {
		switch f.Name {
		case "config", "rootfs", "no-check", "force", "wait", "timeout", "sha256":
			name = f.Name
		}
	})
	return name
}

// push is one push.
type push struct {
	o     pushOptions
	out   reporter
	began time.Time

	img    *image
	total  int64 // bytes of it and of what is sent after it; 0 if not known
	t      target
	sent   sent // without the daemon's help
	result result

	configFile, rootfsFile *os.File       // nil: none
	bus                    *busPush       // if the daemon pushes
	begun                  func(*busPush) // called when the daemon has begun; nil: nobody asks
	detached               bool
	shared                 target // the target, which is not to be closed; nil: the flags select it

	watch bootlog.Watch
	deaf  error // why the boot log cannot be read now
	// dropped says that the RShim is ours no longer: nothing will be known.
	dropped bool
	meter   meter
	opened  time.Time // when the boot stream was; zero: nothing was touched
	ended   time.Time // when it was over
	failed  error     // how, if not well
}

func (p *push) run(ctx context.Context, e *env, name string) (err error) {
	defer func() {
		// Whatever an interrupt made fail.
		if err != nil && ctx.Err() != nil {
			err = exitWith(exitInterrupted, "%s", strings.Replace("interrupted "+p.where(), " ;", ";", 1))
		}
	}()
	if p.o.follow {
		return p.join(ctx, e)
	}
	if p.img, err = openImage(ctx, name, e.stdin); err != nil {
		return err
	}
	defer p.img.close()
	extras, err := p.extras()
	for _, f := range extras {
		defer f.Close()
	}
	if err != nil {
		return err
	}
	if p.t = p.shared; p.t == nil {
		if p.t, err = p.o.target.one(ctx, e); err != nil {
			return err
		}
		defer func() { p.t.close() }()
	}
	st, err := p.attached(ctx)
	if err != nil {
		return err
	}
	if b, ok := p.t.(*busDevice); ok {
		err = p.viaBus(ctx, b)
	} else if p.o.detach {
		return exitWith(exitDevice, "-detach needs the daemon on D-Bus, and there is none; nothing was touched")
	} else {
		err = p.alone(ctx, st)
	}
	if p.o.status && ctx.Err() == nil {
		if st, serr := p.t.status(ctx); serr == nil {
			p.out.status(st)
		}
	}
	return err
}

// join follows a push that has begun.
func (p *push) join(ctx context.Context, e *env) (err error) {
	if p.t, err = p.o.target.one(ctx, e); err != nil {
		return err
	}
	defer p.t.close()
	b, ok := p.t.(*busDevice)
	if !ok {
		return exitWith(exitDevice, "-follow needs the daemon on D-Bus, and there is none")
	}
	p.result.Device = b.name()
	last, err := b.c.LastPush(ctx, b.index)
	if err != nil {
		return remote(err)
	}
	return p.followBus(ctx, b, last.Path)
}

// returnPatience is how long a device may be away before a push: one that
// reboots is back by then.
const returnPatience = 20 * time.Second

// attached waits for the device to be usable and returns its status.
func (p *push) attached(ctx context.Context) (status, error) {
	for end := time.Now().Add(returnPatience); ; {
		st, err := p.t.status(ctx)
		if err != nil {
			return st, unavailable(err)
		}
		p.result.Device = st.Device
		if st.State == "attached" {
			return st, nil
		}
		taken := st.State == "contended" || st.State == "dropped"
		if taken && p.o.force {
			p.out.note(st.summary())
			r, err := p.t.force(ctx)
			if err != nil {
				return st, err
			}
			p.out.note(forced(st.Device, r))
			continue
		}
		if taken && !p.o.force || st.State == "locked" || time.Now().After(end) {
			more := ""
			if taken {
				more = "; -force takes it over first"
			}
			return st, exitWith(exitDevice, "%s, nothing was touched%s", st.summary(), more)
		}
		select {
		case <-time.After(followPoll):
		case <-ctx.Done():
			return st, ctx.Err()
		}
	}
}

// extras opens what is sent after the image, and works out the total.
func (p *push) extras() (files []*os.File, err error) {
	p.total = max(p.img.length, 0)
	for _, x := range []struct {
		name string
		file **os.File
	}{{p.o.config, &p.configFile}, {p.o.rootfs, &p.rootfsFile}} {
		name := x.name
		if name == "" {
			continue
		}
		f, err := os.Open(name)
		if err != nil {
			return files, err
		}
		files, *x.file = append(files, f), f
		info, err := f.Stat()
		if err != nil {
			return files, err
		}
		if !info.Mode().IsRegular() {
			return files, fmt.Errorf("%s is not a regular file", name)
		}
		if p.total > 0 {
			p.total += info.Size()
		}
	}
	return files, nil
}
