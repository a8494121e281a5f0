// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/bluefield-go/bmc-rshim/dbus/client"
)

const watchHelp = `Shows what the devices are and do, a line for each change, until interrupted:
their states, pushes, the host's access and the DPUs' boot logs. A daemon that
ends is waited for.

`

func watchCommand(ctx context.Context, e *env, args []string) error {
	var t targetFlags
	fs := flags("watch", "", watchHelp+exitCodes)
	t.registerNodes(fs)
	asJSON := fs.Bool("json", false, "print JSON, an object a line")
	noLog := fs.Bool("no-log", false, "without the boot logs")
	if err := parse(e, fs, args, 0); err != nil {
		return err
	}
	only, err := t.index()
	if err != nil {
		return err
	}
	c, err := t.must(ctx)
	if err != nil {
		return err
	}
	w := &watcher{only: only, noLog: *noLog, out: e.stdout, json: *asJSON}
	for {
		err := w.run(ctx, c)
		c.Close()
		if ctx.Err() != nil {
			return nil
		}
		if !errors.Is(err, client.ErrLost) && !errors.Is(err, client.ErrNoDaemon) {
			return remote(err)
		}
		w.put("daemon", "the daemon has ended, waiting for it", fields(func(o *object) { o.text("state", "gone") }))
		if c, err = rejoin(ctx, &t, 0); err != nil {
			return nil // ctx has ended
		}
		w.put("daemon", "the daemon is there again", fields(func(o *object) { o.text("state", "running") }))
	}
}

// watcher prints what changes.
type watcher struct {
	only        int // index of the device; -1: all
	noLog, json bool
	out         io.Writer
	said        map[string]string // last text by what it is about
}

// run watches until ctx or the daemon ends.
func (w *watcher) run(ctx context.Context, c *client.Client) error {
	watch, err := c.Watch(ctx)
	if err != nil {
		return err
	}
	defer watch.Close()
	w.said = make(map[string]string)
	for {
		ev, err := watch.Next(ctx)
		if err != nil {
			return err
		}
		w.event(ev)
	}
}

func (w *watcher) event(ev client.Event) {
	switch {
	case ev.Device != nil:
		if d := ev.Device; w.wants(d.Index) {
			s := busStatus(d)
			text := s.summary()
			if s.Stage != "" {
				text += ", " + s.Stage
			}
			if ev.Removed {
				text = s.Device + " is removed"
			}
			w.change("device", s.Device, text, ev.Removed, s)
		}
	case ev.Push != nil:
		if p := ev.Push; w.wants(p.Device) {
			w.change("push", string(p.Path), pushText(p), ev.Removed, pushJSON(p))
		}
	case ev.HostAccess != nil:
		h := ev.HostAccess
		w.change("host-access", "", "the host's access to the RShim: "+hostText(h), false, hostJSON(h))
	case !w.noLog && w.wants(ev.Index):
		for _, l := range ev.Lines {
			name := fmt.Sprintf("rshim%d", ev.Index)
			if w.json {
				_ = printJSON(w.out, logLineJSON(name, l))
			} else {
				w.print(name + ": " + strings.TrimSpace(l.Text))
			}
		}
	}
}

func (w *watcher) wants(index int) bool { return w.only < 0 || w.only == index }

// change puts what is another text than the last about the same.
func (w *watcher) change(event, about, text string, removed bool, x jsoner) {
	key := event + about
	if w.said[key] == text && !w.json {
		return
	}
	w.said[key] = text
	if removed {
		delete(w.said, key)
	}
	w.put(event, text, fields(func(o *object) {
		x.json(o)
		if removed {
			o.bool("removed", true)
		}
	}))
}

func (w *watcher) put(event, text string, x jsoner) {
	if !w.json {
		w.print(text)
		return
	}
	_ = printJSON(w.out, fields(func(o *object) {
		o.text("event", event)
		x.json(o)
	}))
}

func (w *watcher) print(text string) {
	fmt.Fprintln(w.out, time.Now().Format(time.TimeOnly)+" "+text)
}

// pushText is a push for people. It changes each 10 %, not with every byte.
func pushText(p *client.Push) string {
	text := fmt.Sprintf("rshim%d: push of %s: ", p.Device, cmp.Or(p.Name, "an image"))
	switch {
	case p.Ended():
		text += strings.ReplaceAll(outcomeNames[p.Outcome], "_", " ")
		if p.Error != "" {
			text += ": " + p.Error
		}
		return text
	case p.Phase == "Streaming" && p.Total > 0:
		return text + fmt.Sprintf("streaming, %d %%", p.Bytes*100/p.Total/10*10)
	case p.Phase == "Booting" && p.Stage != "":
		return text + p.Stage
	}
	return text + phases[p.Phase]
}

func pushJSON(p *client.Push) fields {
	return func(o *object) {
		o.text("push", string(p.Path))
		o.text("device", fmt.Sprintf("rshim%d", p.Device))
		o.text("name", p.Name)
		o.text("origin", strings.ToLower(p.Origin))
		o.text("phase", strings.ToLower(p.Phase))
		if p.Ended() {
			o.text("outcome", outcomeNames[p.Outcome])
		}
		o.int("bytes", p.Bytes)
		o.count("total", p.Total)
		o.int("rate", p.Rate)
		o.int("percent", int64(p.Percent))
		o.some("stage", p.Stage)
		o.some("line", p.Line)
		o.some("sha256", p.SHA256)
		o.some("error", p.Error)
	}
}

func dumpCommand(ctx context.Context, e *env, args []string) error {
	var t targetFlags
	fs := flags("dump", "", "Prints the daemon's whole state, for people. SIGUSR1 has it write the same into its log.\n\n"+exitCodes)
	t.registerNodes(fs)
	asJSON := fs.Bool("json", false, "print JSON: an object with the text")
	if err := parse(e, fs, args, 0); err != nil {
		return err
	}
	c, err := t.must(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	text, err := c.DumpState(ctx)
	switch {
	case err != nil:
		return remote(err)
	case *asJSON:
		return printJSON(e.stdout, fields(func(o *object) { o.text("dump", text) }))
	}
	fmt.Fprintln(e.stdout, strings.TrimSuffix(text, "\n"))
	return nil
}
