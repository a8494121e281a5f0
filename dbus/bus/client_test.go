// SPDX-License-Identifier: Apache-2.0

package bus_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/bluefield-go/bmc-rshim/dbus/bus"
	"github.com/bluefield-go/bmc-rshim/dbus/bustest"
	"github.com/bluefield-go/bmc-rshim/dbus/wire"
)

// dial connects a client, which runs until the test ends.
func dial(t *testing.T, b *bustest.Bus) *bus.Conn {
	t.Helper()
	c, err := bus.Dial(t.Context(), b.Address())
	if err != nil {
		t.Fatal(err)
	}
	var run sync.WaitGroup
	run.Go(func() { c.Run(context.Background()) })
	t.Cleanup(func() {
		c.Close()
		run.Wait()
	})
	return c
}

// echo is an object of godbus's.
type echo struct{ release chan struct{} }

func (echo) Echo(s string) (string, *godbus.Error) {
	if s == "fail" {
		return "", godbus.NewError("org.example.Error.Own", []any{"why"})
	}
	return s, nil
}

func (e echo) Wait() *godbus.Error {
	<-e.release
	return nil
}

// Swap takes a file and gives another.
func (echo) Swap(h godbus.UnixFD) (godbus.UnixFD, string, *godbus.Error) {
	f := os.NewFile(uintptr(h), "")
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		return 0, "", godbus.MakeFailedError(err)
	}
	// godbus sends it later.
	pr, pw, err := os.Pipe()
	if err != nil {
		return 0, "", godbus.MakeFailedError(err)
	}
	fmt.Fprint(pw, "back")
	pw.Close()
	fd := pr.Fd()
	keep <- pr
	return godbus.UnixFD(fd), string(b), nil
}

// keep has room for the files of one test.
var keep = make(chan *os.File, 100)

func TestClientCalls(t *testing.T) {
	b := bustest.New(t, bustest.Options{})
	g := dialGodbus(t, b)
	release := make(chan struct{})
	defer close(release)
	if err := g.Export(echo{release}, "/echo", "org.example.Echo"); err != nil {
		t.Fatal(err)
	}
	if _, err := g.RequestName("org.example.Echo", 0); err != nil {
		t.Fatal(err)
	}
	c := dial(t, b)
	ctx := t.Context()
	const dest, path, iface = "org.example.Echo", "/echo", "org.example.Echo"
	if body, err := c.Call(ctx, dest, path, iface, "Echo", "Grüße"); err != nil || len(body) != 1 || body[0] != "Grüße" {
		t.Errorf("%v, %v", body, err)
	}
	_, err := c.Call(ctx, dest, path, iface, "Echo", "fail")
	if e, ok := errors.AsType[*bus.Error](err); !ok || *e != (bus.Error{Name: "org.example.Error.Own", Message: "why"}) {
		t.Errorf("%v", err)
	}
	if _, err := c.Call(ctx, "org.example.Nobody", path, iface, "Echo"); errorName(err) != bus.ErrNameServiceUnknown {
		t.Errorf("%v", err)
	}
	if _, err := c.Call(ctx, dest, path, iface, "Echo", 1); !errors.Is(err, wire.ErrInvalid) {
		t.Errorf("an int: %v", err)
	}
	if _, err := c.Call(ctx, dest, "no path", iface, "Echo"); !errors.Is(err, wire.ErrInvalid) {
		t.Errorf("no path: %v", err)
	}
	short, cancel := context.WithTimeout(ctx, time.Millisecond)
	if _, err := c.Call(short, dest, path, iface, "Wait"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	cancel()
	if _, err := c.Send(ctx, &bus.Request{Destination: dest, Path: path, Interface: iface, Member: "Wait", Flags: wire.NoReplyExpected}); err != nil {
		t.Error(err)
	}
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			if body, err := c.Call(ctx, dest, path, iface, "Echo", fmt.Sprint(i)); err != nil || body[0] != fmt.Sprint(i) {
				t.Errorf("%v, %v", body, err)
			}
		})
	}
	wg.Wait()

	// A call to a client is answered.
	if err := g.Object(c.Name(), "/").Call("a.b.C", 0).Err; errorName(err) != bus.ErrNameUnknownObject {
		t.Errorf("%v", err)
	}
}

func TestClientFiles(t *testing.T) {
	b := bustest.New(t, bustest.Options{})
	g := dialGodbus(t, b)
	if err := g.Export(echo{}, "/echo", "org.example.Echo"); err != nil {
		t.Fatal(err)
	}
	c := dial(t, b)
	send := func(n int) (*bus.Reply, error) {
		pr, pw, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer pr.Close()
		fmt.Fprint(pw, "image")
		pw.Close()
		return c.Send(t.Context(), &bus.Request{Destination: g.Names()[0], Path: "/echo", Interface: "org.example.Echo", Member: "Swap",
			Args: []any{wire.FD(0)}, Files: slices.Repeat([]*os.File{pr}, n)})
	}
	if _, err := c.Owner(t.Context(), "a.b"); err != nil {
		t.Fatal(err)
	}
	before := openFDs(t)
	for range 10 {
		r, err := send(1)
		if err != nil || len(r.Body) != 2 || r.Body[1] != "image" || len(r.Files) != 1 || r.Body[0] != wire.FD(0) {
			t.Fatalf("%+v, %v", r, err)
		}
		if b, err := io.ReadAll(r.Files[0]); err != nil || string(b) != "back" {
			t.Errorf("%q, %v", b, err)
		}
		r.Files[0].Close()
	}
	for range 10 {
		(<-keep).Close()
	}
	noLeak(t, before)
	closed, _, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	if _, err := c.Send(t.Context(), &bus.Request{Destination: "a.b", Path: "/", Member: "M", Files: []*os.File{os.Stdin, closed}}); err == nil || errors.Is(err, bus.ErrClosed) {
		t.Errorf("a closed file: %v", err)
	}
	// The bus ends the connection of who sends too many.
	if _, err := send(wire.MaxFDs + 1); !errors.Is(err, bus.ErrClosed) {
		t.Errorf("too many files: %v", err)
	}
}

// The client against our own service.
func TestClientProperties(t *testing.T) {
	r := newRig(t, bus.Options{})
	c := dial(t, r.bus)
	ctx := t.Context()
	if v, err := c.Get(ctx, name, devPath, devIface, "Uptime"); err != nil || v != uint64(42) {
		t.Errorf("%v, %v", v, err)
	}
	if err := c.Set(ctx, name, devPath, devIface, "DropMode", false); err != nil {
		t.Error(err)
	}
	if err := c.Set(ctx, name, devPath, devIface, "Name", ""); errorName(err) != bus.ErrNameReadOnly {
		t.Error(err)
	}
	if p, err := c.GetAll(ctx, name, devPath, actIface); err != nil || len(p) != 1 || p["Activation"] != "Ready" {
		t.Errorf("%v, %v", p, err)
	}
	m, err := c.GetManagedObjects(ctx, name, "/")
	if err != nil || len(m) != 1 || len(m[devPath]) != 2 || m[devPath][devIface]["Name"] != "usb-1-1.2" {
		t.Errorf("%v, %v", m, err)
	}
	if _, err := c.GetAll(ctx, "org.freedesktop.DBus", "/org/freedesktop/DBus", "a.b"); err == nil {
		t.Error("properties of nothing")
	}
}

func next(t *testing.T, s *bus.Subscription) (bus.Signal, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	sig, lost, err := s.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return sig, lost
}

func TestSubscribe(t *testing.T) {
	r := newRig(t, bus.Options{})
	c := dial(t, r.bus)
	ctx := t.Context()
	subscribe := func(m bus.Match, size int) *bus.Subscription {
		t.Helper()
		s, err := c.Subscribe(ctx, m, size)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	changes := subscribe(bus.Match{Sender: name, PathNamespace: "/org/example/rshim", Member: "PropertiesChanged"}, 0)
	of := subscribe(bus.Match{Path: devPath, Interface: "org.freedesktop.DBus.Properties", Arg0: actIface}, 0)
	objects := subscribe(bus.Match{Sender: name, Path: "/", Interface: "org.freedesktop.DBus.ObjectManager"}, 0)
	other := subscribe(bus.Match{Sender: "org.example.Other", Member: "PropertiesChanged"}, 0)
	few := subscribe(bus.Match{Member: "PropertiesChanged"}, 3)

	for i := range byte(10) {
		if err := r.o.Update(bus.Change{Interface: devIface, Property: "Progress", Value: 10 + i}, bus.Change{Interface: actIface, Property: "Activation", Value: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	o, err := r.s.Add("/new", actInterface())
	if err != nil {
		t.Fatal(err)
	}
	o.Remove()
	for i := range byte(10) {
		sig, lost := next(t, changes)
		iface, p, ok := bus.Changed(sig)
		if !ok || iface != devIface || p["Progress"] != 10+i || lost != 0 || sig.Path != devPath {
			t.Fatalf("%d: %+v, %d", i, sig, lost)
		}
		next(t, changes)
		sig, _ = next(t, of)
		if iface, p, ok := bus.Changed(sig); !ok || iface != actIface || p["Activation"] != fmt.Sprint(i) {
			t.Fatalf("%d: %+v", i, sig)
		}
	}
	sig, _ := next(t, objects)
	if path, interfaces, ok := bus.Added(sig); !ok || path != "/new" || interfaces[actIface]["Activation"] != "Ready" {
		t.Errorf("%+v", sig)
	}
	if _, _, ok := bus.Removed(sig); ok {
		t.Error("added is removed")
	}
	sig, _ = next(t, objects)
	if path, interfaces, ok := bus.Removed(sig); !ok || path != "/new" || !slices.Equal(interfaces, []string{actIface}) {
		t.Errorf("%+v", sig)
	}
	// Of 20 the last 3 are kept.
	if sig, lost := next(t, few); lost != 17 {
		t.Errorf("%d lost before %+v", lost, sig)
	}
	if sig, lost := next(t, few); lost != 0 || sig.Body[1].(wire.Dict).Entries[0].Value.(wire.Variant).Value != byte(19) {
		t.Errorf("%d lost before %+v", lost, sig)
	}

	// A well-known name is whoever owns it at the time.
	g := r.peer()
	if _, err := g.RequestName("org.example.Other", 0); err != nil {
		t.Fatal(err)
	}
	emit := func(i int) {
		t.Helper()
		if err := g.Emit("/x", "org.freedesktop.DBus.Properties.PropertiesChanged", "a.b", map[string]godbus.Variant{"I": godbus.MakeVariant(int32(i))}, []string{}); err != nil {
			t.Fatal(err)
		}
	}
	emit(1)
	if _, err := g.ReleaseName("org.example.Other"); err != nil {
		t.Fatal(err)
	}
	emit(2)
	if _, err := g.RequestName("org.example.Other", 0); err != nil {
		t.Fatal(err)
	}
	emit(3)
	for _, want := range []int32{1, 3} {
		sig, _ := next(t, other)
		if _, p, _ := bus.Changed(sig); p["I"] != want {
			t.Errorf("%+v, want %d", sig, want)
		}
	}

	changes.Close()
	if _, _, err := changes.Next(ctx); !errors.Is(err, bus.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	short, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	if _, _, err := of.Next(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if _, err := c.Subscribe(ctx, bus.Match{Member: "no member"}, 0); errorName(err) != "org.freedesktop.DBus.Error.MatchRuleInvalid" {
		t.Errorf("%v", err)
	}
	c.Close()
	if _, _, err := of.Next(ctx); !errors.Is(err, bus.ErrClosed) {
		t.Errorf("after the connection's end: %v", err)
	}
	if _, err := c.Subscribe(ctx, bus.Match{}, 0); !errors.Is(err, bus.ErrClosed) {
		t.Errorf("%v", err)
	}
}

func TestWatchOwner(t *testing.T) {
	b := bustest.New(t, bustest.Options{})
	c, g := dial(t, b), dialGodbus(t, b)
	owners := make(chan string)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- c.WatchOwner(ctx, name, func(owner string) { owners <- owner })
	}()
	unique := g.Names()[0]
	for i, want := range []string{"", unique, "", unique} {
		var err error
		switch {
		case i > 0 && want != "":
			_, err = g.RequestName(name, 0)
		case i > 0:
			_, err = g.ReleaseName(name)
		}
		if err != nil {
			t.Fatal(err)
		}
		select {
		case got := <-owners:
			if got != want {
				t.Errorf("%d: owner %q, want %q", i, got, want)
			}
		case <-time.After(patience):
			t.Fatal("nothing is told")
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestDo(t *testing.T) {
	b := bustest.New(t, bustest.Options{})
	before := openFDs(t)
	want := errors.New("mine")
	err := bus.Do(t.Context(), b.Address(), func(ctx context.Context, c *bus.Conn) error {
		if owner, err := c.Owner(ctx, c.Name()); err != nil || owner != c.Name() {
			t.Errorf("%q, %v", owner, err)
		}
		return want
	})
	if !errors.Is(err, want) {
		t.Error(err)
	}
	// The bus goes while f waits.
	err = bus.Do(t.Context(), b.Address(), func(ctx context.Context, c *bus.Conn) error {
		b.Kill()
		<-ctx.Done()
		_, err := c.Owner(context.Background(), name)
		return err
	})
	if !errors.Is(err, bus.ErrClosed) {
		t.Error(err)
	}
	b.Restart()
	noLeak(t, before)
}

func TestDial(t *testing.T) {
	b := bustest.New(t, bustest.Options{})
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nothing/here;"+b.Address())
	c, err := bus.Dial(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if err := c.Run(t.Context()); !errors.Is(err, bus.ErrClosed) {
		t.Errorf("Run after Close: %v", err)
	}
	for _, address := range []string{"unix:path=/nothing/here", "tcp:host=localhost", "unix:path=%zz", "unix:path=", "unix:abstract=", "nonsense"} {
		if _, err := bus.Dial(t.Context(), address); err == nil {
			t.Errorf("%s answers", address)
		} else if _, ok := errors.AsType[*bus.OpError](err); !ok {
			t.Errorf("%s: %v", address, err)
		}
	}
	b.Stop()
	defer b.Continue()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := bus.Dial(ctx, b.Address()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a stopped bus: %v", err)
	}
}
