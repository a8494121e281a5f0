// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/bfb"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

const pushHelp = `A FILE is checked as a whole before anything is touched. Of a pipe only the
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
	if err := parse(e, fs, args, 1); err != nil {
		return err
	}
	switch {
	case o.wait != "ready" && o.wait != "streamed":
		return usageError("push: -wait is ready or streamed, not %q", o.wait)
	case o.json && o.quiet:
		return usageError("push: -json and -q exclude each other")
	case o.timeout <= 0:
		return usageError("push: -timeout has to be positive")
	}
	p := &push{o: o, out: newPeople(e.stdout), began: time.Now()}
	if o.quiet {
		p.out = people{w: io.Discard}
	}
	if o.json {
		p.out = events{json.NewEncoder(e.stdout)}
	}
	err := p.run(ctx, e, fs.Arg(0))
	p.out.result(p.finish(err))
	return err
}

// push is one push.
type push struct {
	o     pushOptions
	out   reporter
	began time.Time

	img    *image
	stream io.Reader // the image and what is sent after it
	total  int64     // bytes of it; 0 if not known
	t      target
	sender sender
	result result

	watch  bootWatch
	deaf   error // why the boot log cannot be read now
	meter  meter
	opened time.Time // when the boot stream was; zero: nothing was touched
	ended  time.Time // when it was over
	failed error     // how, if not well
}

func (p *push) run(ctx context.Context, e *env, name string) (err error) {
	defer func() {
		// Whatever an interrupt made fail.
		if err != nil && ctx.Err() != nil {
			err = exitWith(exitInterrupted, "interrupted %s", p.where())
		}
	}()
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
	if p.t, err = p.o.target.one(ctx, e); err != nil {
		return err
	}
	defer p.t.close()
	st, err := p.attached(ctx)
	if err != nil {
		return err
	}
	if err := p.inspect(ctx, st); err != nil {
		return err
	}
	readers := []io.Reader{p.img.src, nil, nil}
	for i, f := range extras {
		readers[i+1] = f
	}
	p.stream = bfb.Join(readers[0], readers[1], readers[2])
	err = p.drive(ctx)
	if p.o.status && ctx.Err() == nil {
		if st, serr := p.t.status(ctx); serr == nil {
			p.out.status(st)
		}
	}
	return err
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
			return st, exitWith(exitDevice, "%s, nothing was touched", st.summary())
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
	for _, name := range []string{p.o.config, p.o.rootfs} {
		if name == "" {
			continue
		}
		f, err := os.Open(name)
		if err != nil {
			return files, err
		}
		files = append(files, f)
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

// inspect checks the image before anything is touched.
func (p *push) inspect(ctx context.Context, st status) error {
	p.sender = sender{check: !p.o.noCheck, patience: p.o.timeout, begun: make(chan struct{})}
	if p.o.noCheck {
		return nil
	}
	g, err := generation(st.Generation)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, p.o.timeout)
	defer cancel()
	type checked struct {
		sum *bfb.Summary
		err error
	}
	done := make(chan checked, 1)
	go func() {
		sum, err := p.img.inspect(ctx, g)
		done <- checked{sum, err}
	}()
	tick, since := time.NewTicker(p.out.every()), time.Now()
	defer tick.Stop()
	for {
		select {
		case c := <-done:
			if errors.Is(c.err, context.DeadlineExceeded) {
				return exitWith(exitTimeout, "%s could not be checked within %v, nothing was touched", p.img.title(), p.o.timeout)
			}
			if c.err != nil {
				return c.err
			}
			p.sender.skipCRC = p.img.file != nil
			p.noteCheck(c.sum, g)
			return nil
		case now := <-tick.C:
			n := p.img.read.Load()
			p.out.progress(progress{Phase: "checking", Bytes: n, Total: max(p.img.length, 0), Rate: p.meter.rate(since, n, now)})
		}
	}
}

func (p *push) noteCheck(sum *bfb.Summary, g reg.Generation) {
	if p.img.file == nil {
		p.out.note(fmt.Sprintf("%s: starts like a BFB for %v, the rest is checked on its way", p.img.title(), g))
		return
	}
	p.out.note(fmt.Sprintf("%s: a good BFB for %v, %d images, %s", p.img.title(), g, len(sum.Images), size(sum.Length+sum.Tail)))
}

// generation is the inverse of reg.Generation's String.
func generation(name string) (reg.Generation, error) {
	for g := reg.BlueField1; g <= reg.BlueField3; g++ {
		if name == g.String() {
			return g, nil
		}
	}
	return 0, fmt.Errorf("the device is a %q, which is unknown", name)
}
