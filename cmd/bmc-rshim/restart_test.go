// SPDX-License-Identifier: Apache-2.0

//go:build !nosim

package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/internal/sdnotify"
	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

// R15: told to end at 500 random points of attaching, a push, a console, misc
// and a replug, the daemon ends in less than a second, and leaves no goroutine:
// a bubble of synctest fails with those that do not end.
func TestR15EndAtAnyPoint(t *testing.T) {
	image := map[reg.Generation][]byte{}
	for _, g := range []reg.Generation{reg.BlueField2, reg.BlueField3} {
		image[g] = testBFB(t, g, 150_000)
	}
	var seen [useSteps + 1]atomic.Int32 // ends by what had been done
	for seed := range uint64(500) {
		rnd := rand.New(rand.NewPCG(15, seed))
		g := reg.BlueField2 + reg.Generation(seed%2)
		synctest.Test(t, func(t *testing.T) {
			fn := usbdev.New(bluefield.New(bluefield.Config{Generation: g, Revision: 1, Console: true}), usbdev.Options{LinkRate: 80_000})
			ctx, cancel := context.WithCancel(t.Context())
			if rnd.IntN(4) == 0 {
				time.AfterFunc(time.Duration(rnd.Int64N(int64(8*time.Second))), fn.Unplug)
				time.AfterFunc(8*time.Second+time.Duration(rnd.Int64N(int64(time.Second))), fn.Plug)
			}
			if rnd.IntN(4) == 0 { // the chip goes deaf: control transfers get no answer
				time.AfterFunc(time.Duration(rnd.Int64N(int64(8*time.Second))), func() { fn.SetLatency(time.Hour) })
			}
			var done atomic.Int32
			so := rshim.SetOptions{Present: func(ctx context.Context, d *rshim.Device) {
				use(ctx, d, image[g], &done)
			}}
			var asked time.Time
			time.AfterFunc(time.Duration(rnd.Int64N(int64(9*time.Second))), func() { asked = time.Now(); cancel() })
			o := &daemonOptions{dbus: noBus}
			err := o.notified(ctx, plug(fn), so, slog.New(slog.DiscardHandler))
			if took := time.Since(asked); ctx.Err() == nil || took >= time.Second {
				t.Errorf("seed %d: the daemon ended %v after it was told to, with %v", seed, took, err)
			}
			seen[done.Load()].Add(1)
			synctest.Wait()
		})
	}
	for i := range seen {
		if seen[i].Load() == 0 {
			t.Errorf("no end after %d of %d steps, so that this proves less than it says: %v", i, useSteps, &seen)
		}
	}
}

const useSteps = 3 // boot open, half and all of it written

// use does with a device all that one can, until ctx ends.
func use(ctx context.Context, d *rshim.Device, image []byte, done *atomic.Int32) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for ctx.Err() == nil {
			d.Misc(ctx)
			_ = d.WriteMisc(ctx, "DISPLAY_LEVEL 2\n")
			pause(ctx, 50*time.Millisecond)
		}
	})
	wg.Go(func() { // as the nodes do it: a reader that waits, and one who types
		for ctx.Err() == nil {
			c := d.Console().Open(false)
			wait, stop := context.WithTimeout(ctx, time.Second)
			_, _ = c.Write(wait, []byte("\r"))
			_, _ = c.Read(wait, make([]byte, 512))
			stop()
			c.Close()
		}
	})
	for ctx.Err() == nil {
		b, err := d.OpenBoot(ctx)
		if err != nil {
			pause(ctx, 100*time.Millisecond)
			continue
		}
		step := func(n int32) { done.Store(max(n, done.Load())) }
		step(1)
		n, err := b.Write(ctx, image[:len(image)/2])
		if err == nil && n == len(image)/2 {
			step(2)
			if _, err = b.Write(ctx, image[n:]); err == nil {
				step(3)
			}
		}
		_ = b.Close(ctx)
		pause(ctx, time.Second)
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// stuckHost is a USB host that at some time does not list its devices any more.
type stuckHost struct {
	usb.Host
	on atomic.Bool
}

func (h *stuckHost) Devices(ctx context.Context, vendor uint16) ([]usb.Info, error) {
	if h.on.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return h.Host.Devices(ctx, vendor)
}

// The daemon tells systemd when it serves, what its devices are, that it lives
// for as long as the bus is being looked at, and that it ends.
func TestNotifyDaemon(t *testing.T) {
	name := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	t.Setenv("NOTIFY_SOCKET", name)
	t.Setenv("WATCHDOG_USEC", "1000000")
	t.Setenv("WATCHDOG_PID", "")

	ctx, cancel := context.WithCancel(t.Context())
	fn := usbdev.New(bluefield.New(bluefield.Config{Generation: reg.BlueField3}), usbdev.Options{})
	stuck := &stuckHost{}
	ended := make(chan error, 1)
	hup := make(chan os.Signal)
	e := &env{stdout: io.Discard, stderr: &bytes.Buffer{}, hangups: func() <-chan os.Signal { return hup }, simulate: func(simFlags) (*usbBus, error) {
		bus := plug(fn)
		stuck.Host = bus.host
		bus.host = stuck
		return bus, nil
	}}
	go func() { ended <- dispatch(ctx, e, []string{"daemon", "-simulate", "bf3", "-dev-root", os.DevNull}) }()
	await := func(want string) {
		t.Helper()
		b := make([]byte, 4096)
		c.SetReadDeadline(time.Now().Add(30 * time.Second))
		for {
			n, err := c.Read(b)
			if err != nil {
				t.Fatalf("waiting for %q: %v", want, err)
			}
			if bytes.HasPrefix(b[:n], []byte(want)) {
				return
			}
		}
	}
	await("READY=1\nSTATUS=")
	await("STATUS=rshim0 attached")
	await("WATCHDOG=1")
	hup <- syscall.SIGHUP
	await("RELOADING=1\nMONOTONIC_USEC=")
	await("READY=1\nSTATUS=rshim0 attached")
	fn.Unplug()
	await("STATUS=rshim0 gone")
	fn.Plug()
	await("STATUS=rshim0 attached")

	// A device that hangs does not stop it, a daemon that does not look at the
	// bus any more does.
	fn.SetLatency(time.Hour)
	for range 5 {
		await("WATCHDOG=1")
	}
	stuck.on.Store(true)
	for end := time.Now().Add(time.Minute); ; {
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Read(make([]byte, 4096)); err != nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the daemon is stuck, and says that it is not")
		}
	}
	cancel()
	await("STOPPING=1")
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if n := sdnotify.FromEnv(); n != nil {
		t.Error("the environment still asks for notifications, of children")
	}
}
