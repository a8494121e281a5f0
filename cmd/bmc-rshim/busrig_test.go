// SPDX-License-Identifier: Apache-2.0

//go:build !nosim

package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bluefield-go/bmc-rshim/dbus/bustest"
	"github.com/bluefield-go/bmc-rshim/dbus/client"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
)

// busPatience is with everything that happens in real time.
const busPatience = 2 * time.Minute

// busRig is a daemon with a simulated DPU on a bus of its own, in real time.
type busRig struct {
	t   *testing.T
	bus *bustest.Bus
	cfg bluefield.Config
	fn  *usbdev.Function
	// second is another DPU on the bus; nil: there is none.
	second *usbdev.Function
	conf   string // configuration file
	host   *bluefield.HostOptions
	stdin  io.Reader
	usr1   chan os.Signal
	log    lockedBuffer // the daemon's

	stdout, stderr lockedBuffer // of the last command
}

// lockedBuffer may be read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *lockedBuffer) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b.Reset()
}

// newBusRig makes a rig without its daemon.
func newBusRig(t *testing.T) *busRig {
	t.Helper()
	r := &busRig{t: t, bus: bustest.New(t, bustest.Options{}), cfg: bluefield.Config{
		Generation: reg.BlueField3, Revision: 1, OPN: "900-9D3B6-00CV-A", StageScale: 0.01, Console: true,
	}}
	return r
}

// daemon starts the daemon and waits until it is on the bus with its device. It
// returns what ends it.
func (r *busRig) daemon() (stop func()) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r.fn = usbdev.New(bluefield.New(r.cfg), usbdev.Options{})
	if r.host != nil {
		o := *r.host
		o.Attached = true
		host := bluefield.NewHost(r.fn.DPU(), o)
		done := make(chan struct{})
		hctx, end := context.WithCancel(context.Background())
		go func() { defer close(done); _ = host.Run(hctx) }()
		r.t.Cleanup(func() { end(); <-done })
	}
	bus, devices := plug(r.fn), 1
	if r.second != nil {
		run := bus.run
		bus.host.(*usbdev.Bus).Plug("2-1.6", r.second)
		bus.run = func(ctx context.Context) error {
			var wg sync.WaitGroup
			defer wg.Wait()
			wg.Go(func() { _ = r.second.Run(ctx) })
			return run(ctx)
		}
		devices++
	}
	e := &env{
		stdin: strings.NewReader(""), stdout: &r.log, stderr: &r.log, settle: time.Millisecond,
		simulate: func(simFlags) (*usbBus, error) { return bus, nil },
	}
	if r.usr1 != nil {
		e.dumps = func() <-chan os.Signal { return r.usr1 }
	}
	args := []string{"daemon", "-simulate", "bf3", "-bus", r.bus.Address(), "-dev-root", r.t.TempDir(), "-log-level", "debug"}
	if r.conf != "" {
		args = append(args, "-conf", r.conf)
	}
	ended := make(chan int, 1)
	go func() { ended <- runIn(ctx, e, args) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			select {
			case <-ended:
			case <-time.After(busPatience):
				r.t.Error("the daemon does not end")
			}
		})
	}
	r.t.Cleanup(func() {
		stop()
		if r.t.Failed() {
			r.t.Logf("the daemon's log:\n%s", &r.log)
		}
	})
	r.await("the daemon to be there with a device", func() bool {
		c, err := client.Connect(r.t.Context(), r.bus.Address())
		if err != nil {
			return false
		}
		defer c.Close()
		ds, err := c.Devices(r.t.Context())
		if err != nil || len(ds) != devices {
			return false
		}
		for _, d := range ds {
			switch d.State {
			case "Attached", "Contended", "Dropped":
			default:
				return false
			}
		}
		return true
	})
	return stop
}

func (r *busRig) await(what string, done func() bool) {
	r.t.Helper()
	for end := time.Now().Add(busPatience); !done(); {
		if time.Now().After(end) {
			r.t.Fatalf("waited in vain for %s; stdout:\n%s\nstderr:\n%s", what, &r.stdout, &r.stderr)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// run runs a command on the bus and returns its exit code.
func (r *busRig) run(ctx context.Context, args ...string) int {
	r.t.Helper()
	r.stdout.Reset()
	r.stderr.Reset()
	ctx, cancel := context.WithTimeoutCause(ctx, busPatience, context.Canceled)
	defer cancel()
	e := &env{stdin: r.stdin, stdout: &r.stdout, stderr: &r.stderr}
	return runIn(ctx, e, append([]string{args[0], "-bus", r.bus.Address()}, args[1:]...))
}

// want checks an exit code, and that what was printed contains texts.
func (r *busRig) want(got, want int, texts ...string) {
	r.t.Helper()
	all := r.stdout.String() + r.stderr.String()
	bad := got != want
	for _, text := range texts {
		if !strings.Contains(all, text) {
			r.t.Errorf("no %q in the output", text)
			bad = true
		}
	}
	if bad {
		r.t.Fatalf("exit code %d, want %d; output:\n%s", got, want, all)
	}
}

// script writes an executable shell script.
func script(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}
