// SPDX-License-Identifier: Apache-2.0

package dbus_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/introspect"

	"github.com/bluefield-go/bmc-rshim/dbus"
	"github.com/bluefield-go/bmc-rshim/dbus/bustest"
	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/rshim/bfb"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
	"github.com/bluefield-go/bmc-rshim/usbbackend"
	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

// limit is for whatever a test waits for: the machine may stall.
const limit = 60 * time.Second

// Interfaces and beginnings of enumerations, as a client has them.
const (
	own        = "xyz.openbmc_project.Rshim"
	deviceI    = own + ".Device"
	pushI      = own + ".Push"
	managerI   = own + ".Manager"
	activation = "xyz.openbmc_project.Software.Activation"
	progressI  = "xyz.openbmc_project.Software.ActivationProgress"
	statusI    = "xyz.openbmc_project.Common.Progress"
	updateI    = "xyz.openbmc_project.Software.Update"
	deleteI    = "xyz.openbmc_project.Object.Delete"
	properties = "org.freedesktop.DBus.Properties"
	rshim0     = "/xyz/openbmc_project/rshim/rshim0"
	dpuOS      = "/xyz/openbmc_project/software/DPU_OS"
	dpuUpdate  = "/xyz/openbmc_project/software/BF_DPU_BFB_UPDATE"
	immediate  = "xyz.openbmc_project.Software.ApplyTime.RequestedApplyTimes.Immediate"
	commonErr  = "xyz.openbmc_project.Common.Error."
)

// rig is a daemon without files: simulated DPUs, the core, the service on a
// private bus, and a client that knows nothing of ours.
type rig struct {
	t   testing.TB
	bus *bustest.Bus
	usb *usbdev.Bus
	set *rshim.Set
	c   *client
	end func() // ends the daemon, and waits for it

	service *dbus.Service
	nic     bool // with HostAccess
}

type rigOptions struct {
	bus     bustest.Options
	service dbus.Options
	device  rshim.Options
	before  func(b *bustest.Bus) // the service comes
	again   time.Duration        // after which Progress is said again; 0: as usual
}

func newRig(t testing.TB, o rigOptions) *rig {
	t.Helper()
	r := &rig{t: t, bus: bustest.New(t, o.bus), usb: usbdev.NewBus()}
	if o.before != nil {
		o.before(r.bus)
	}
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("DBUS_TEST_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	o.service.Address, o.service.Logger, o.service.Version = r.bus.Address(), log, "1.2.3"
	if o.service.Settle == 0 {
		o.service.Settle = 10 * time.Millisecond
	}
	o.device.Logger = log
	s := dbus.New(o.service)
	if o.again > 0 {
		s.SayAgain(o.again)
	}
	r.service, r.nic = s, o.service.HostAccess != nil
	r.set = rshim.NewSet(rshim.SetOptions{Device: o.device, Present: s.Present})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = r.set.Run(ctx) })
	wg.Go(func() { _ = s.Run(ctx, r.set) })
	finder := usbbackend.Finder{Host: r.usb, Wake: r.usb.Changes(), Logger: log}
	wg.Go(func() {
		_ = finder.Run(ctx, func(d *usbbackend.Device) func(context.Context) error { return r.set.Adopt(d) })
	})
	r.end = func() {
		cancel()
		wg.Wait()
	}
	t.Cleanup(r.end)
	r.c = r.client()
	return r
}

// plug plugs a DPU in and runs it.
func (r *rig) plug(at usb.Location, cfg bluefield.Config, o usbdev.Options) *usbdev.Function {
	fn := usbdev.New(bluefield.New(cfg), o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = fn.Run(ctx)
	}()
	r.t.Cleanup(func() {
		cancel()
		<-done
	})
	r.usb.Plug(at, fn)
	return fn
}

// bf3 is a rig with one DPU, attached.
func bf3(t testing.TB, o rigOptions, cfg bluefield.Config) *rig {
	t.Helper()
	r := newRig(t, o)
	r.plug("1-1", cfg, usbdev.Options{})
	r.c.until(own, rshim0, deviceI, "State", deviceI+".States.Attached")
	return r
}

// connected waits until the daemon has all its connections, and returns the names
// of those with objects. The NIC's is there only where HostAccess is set.
func (r *rig) connected() (names []string) {
	r.t.Helper()
	for name, path := range map[string]string{
		own: rshim0, updater: dpuOS, "com.Nvidia.Software.Rshim": "/com/nvidia/software/rshim",
		"xyz.openbmc_project.Software.DPU.Version": "/xyz/openbmc_project/control/lfwp",
		"xyz.openbmc_project.State.Host":           "/xyz/openbmc_project/state/host0",
		"xyz.openbmc_project.Console.rshim0":       "/xyz/openbmc_project/console/rshim0",
		"xyz.openbmc_project.Settings.connectx":    "/xyz/openbmc_project/network/connectx/host_access/HOST_PRIV_RSHIM",
	} {
		if name == "xyz.openbmc_project.Settings.connectx" && !r.nic {
			continue
		}
		r.c.ready(name, path)
		names = append(names, name)
	}
	return names
}

// client is a connection of godbus, which keeps all signals in order.
type client struct {
	t    testing.TB
	conn *godbus.Conn

	mu      sync.Mutex
	signals []*godbus.Signal
	more    chan struct{}
}

func (r *rig) client() *client {
	r.t.Helper()
	conn, err := godbus.Connect(r.bus.Address())
	if err != nil {
		r.t.Fatal(err)
	}
	c := &client{t: r.t, conn: conn, more: make(chan struct{})}
	ch := make(chan *godbus.Signal, 4096)
	conn.Signal(ch)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for s := range ch {
			c.mu.Lock()
			c.signals = append(c.signals, s)
			close(c.more)
			c.more = make(chan struct{})
			c.mu.Unlock()
		}
	}()
	r.t.Cleanup(func() {
		conn.Close()
		<-done
	})
	return c
}

// call calls a method and returns what it answers.
func (c *client) call(name, path, member string, args ...any) ([]any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	call := c.conn.Object(name, godbus.ObjectPath(path)).CallWithContext(ctx, member, 0, args...)
	return call.Body, call.Err
}

func (c *client) must(name, path, member string, args ...any) []any {
	c.t.Helper()
	body, err := c.call(name, path, member, args...)
	if err != nil {
		c.t.Fatalf("%s %s %s: %v", name, path, member, err)
	}
	return body
}

// fails calls a method that has to fail with an error of a name.
func (c *client) fails(want, name, path, member string, args ...any) {
	c.t.Helper()
	_, err := c.call(name, path, member, args...)
	if e, ok := err.(godbus.Error); !ok || e.Name != want {
		c.t.Errorf("%s %s %v: %v, want %s", path, member, args, err, want)
	}
}

func (c *client) get(name, path, iface, property string) any {
	c.t.Helper()
	return c.must(name, path, properties+".Get", iface, property)[0].(godbus.Variant).Value()
}

func (c *client) set(name, path, iface, property string, v any) error {
	_, err := c.call(name, path, properties+".Set", iface, property, godbus.MakeVariant(v))
	return err
}

func (c *client) setFails(want, name, path, iface, property string, v any) {
	c.t.Helper()
	c.fails(want, name, path, properties+".Set", iface, property, godbus.MakeVariant(v))
}

// until waits until a property has a value. The object need not be there yet.
func (c *client) until(name, path, iface, property string, want any) {
	c.t.Helper()
	var got any
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		body, err := c.call(name, path, properties+".Get", iface, property)
		if got = err; err == nil {
			got = body[0].(godbus.Variant).Value()
		}
		if got == want {
			return
		}
	}
	c.t.Fatalf("%s %s is %v, want %v", path, property, got, want)
}

// match asks for signals.
func (c *client) match(rule string) {
	c.t.Helper()
	c.must("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus.AddMatch", rule)
}

// seen returns the signals so far, and a channel that is closed with the next.
func (c *client) seen() ([]*godbus.Signal, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.signals), c.more
}

// await waits for a signal.
func (c *client) await(what string, is func(s *godbus.Signal) bool) *godbus.Signal {
	c.t.Helper()
	end := time.After(limit)
	for {
		all, more := c.seen()
		for _, s := range all {
			if is(s) {
				return s
			}
		}
		select {
		case <-more:
		case <-end:
			c.t.Fatalf("no signal: %s", what)
		}
	}
}

// change is one property in a PropertiesChanged.
type change struct {
	path, iface, property string
	value                 any
}

// changes are the changes of a path so far, in order.
func (c *client) changes(path string) (all []change) {
	signals, _ := c.seen()
	for _, s := range signals {
		if s.Name != properties+".PropertiesChanged" || string(s.Path) != path {
			continue
		}
		for p, v := range s.Body[1].(map[string]godbus.Variant) {
			all = append(all, change{path, s.Body[0].(string), p, v.Value()})
		}
	}
	return all
}

// awaitChange waits until a property was said to have a value.
func (c *client) awaitChange(path, iface, property string, want any) {
	c.t.Helper()
	c.await(path+" "+property, func(s *godbus.Signal) bool {
		if s.Name != properties+".PropertiesChanged" || string(s.Path) != path || s.Body[0] != iface {
			return false
		}
		v, ok := s.Body[1].(map[string]godbus.Variant)[property]
		return ok && v.Value() == want
	})
}

// image makes a BFB for a generation that is about size bytes long.
func image(t testing.TB, g reg.Generation, size int) []byte {
	t.Helper()
	rnd := rand.New(rand.NewPCG(1, uint64(size)))
	data := func(n int) io.ReadSeeker {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		return bytes.NewReader(b)
	}
	v := bfb.VersionOf(g)
	var b bytes.Buffer
	err := bfb.Write(&b,
		bfb.Part{ID: bfb.IDBL2R, Version: v, Data: data(1000)},
		bfb.Part{ID: bfb.IDBL2, Version: v, Data: data(3001)},
		bfb.Part{ID: bfb.IDBL31, Version: v, Data: data(2000)},
		bfb.Part{ID: bfb.IDBL33, Version: v, Data: data(5000)},
		bfb.Part{ID: bfb.IDImage, Version: 0, Data: data(size / 4)},
		bfb.Part{ID: bfb.IDInitramfs, Version: 0, Data: data(size - size/4)},
	)
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// file makes an open file with some content, at its start.
func file(t testing.TB, content []byte) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "image")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.Write(content); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	return f
}

func fd(f *os.File) godbus.UnixFD { return godbus.UnixFD(f.Fd()) }

// last is the last word of an enumeration's value.
func last(v any) string {
	s, _ := v.(string)
	return s[strings.LastIndexByte(s, '.')+1:]
}

// eventually waits until something holds.
func (c *client) eventually(what string, holds func() bool) {
	c.t.Helper()
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if holds() {
			return
		}
	}
	c.t.Fatalf("not so: %s", what)
}

// objects are the objects of a name with their interfaces.
func (c *client) objects(name string) map[string]map[string]struct{} {
	c.t.Helper()
	found := make(map[string]map[string]introspect.Interface)
	c.walk(name, "/", found)
	all := make(map[string]map[string]struct{})
	for path, is := range found {
		all[path] = make(map[string]struct{})
		for i := range is {
			all[path][i] = struct{}{}
		}
	}
	return all
}
