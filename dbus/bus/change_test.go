// SPDX-License-Identifier: Apache-2.0

package bus_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/bluefield-go/bmc-rshim/dbus/bus"
	"github.com/bluefield-go/bmc-rshim/dbus/wire"
)

// ear is a godbus connection that writes down what it receives, in order.
type ear struct {
	*godbus.Conn
	mu    sync.Mutex
	heard []string
}

// describe makes one line of a message.
func describe(m *godbus.Message) string {
	if m.Type != godbus.TypeSignal {
		return m.Type.String()
	}
	head := fmt.Sprintf("%s %s", m.Headers[godbus.FieldPath].Value(), m.Headers[godbus.FieldMember].Value())
	if len(m.Body) == 3 && strings.HasSuffix(head, "PropertiesChanged") {
		var changes []string
		for name, v := range m.Body[1].(map[string]godbus.Variant) {
			changes = append(changes, fmt.Sprintf("%s=%v", name, v.Value()))
		}
		slices.Sort(changes)
		return head + " " + strings.Join(changes, " ")
	}
	if len(m.Body) == 2 && strings.HasSuffix(head, "InterfacesAdded") {
		var interfaces []string
		for name, p := range m.Body[1].(map[string]map[string]godbus.Variant) {
			interfaces = append(interfaces, fmt.Sprintf("%s(%d)", name, len(p)))
		}
		slices.Sort(interfaces)
		return fmt.Sprint(head, " ", m.Body[0], " ", interfaces)
	}
	return fmt.Sprint(head, " ", m.Body)
}

// listen connects an ear that hears the rig's signals.
func (r *rig) listen() *ear {
	r.t.Helper()
	e := &ear{}
	c, err := godbus.Connect(r.bus.Address(), godbus.WithIncomingInterceptor(func(m *godbus.Message) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.heard = append(e.heard, describe(m))
	}))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	e.Conn = c
	if err := c.AddMatchSignal(godbus.WithMatchSender(name)); err != nil {
		r.t.Fatal(err)
	}
	e.take()
	return e
}

// take returns what was heard since the last time.
func (e *ear) take() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	heard := e.heard
	e.heard = nil
	return heard
}

// sync returns what was heard before the answer to a call that is sent now.
func (r *rig) sync(e *ear) []string {
	r.t.Helper()
	if err := r.call(e.Conn, devPath, "org.freedesktop.DBus.Peer.Ping").Err; err != nil {
		r.t.Fatal(err)
	}
	heard := e.take()
	if n := len(heard); n == 0 || heard[n-1] != "reply" {
		r.t.Fatalf("heard %q", heard)
	}
	return heard[:len(heard)-1]
}

func (r *rig) expect(e *ear, want ...string) {
	r.t.Helper()
	if got := r.sync(e); !slices.Equal(got, want) {
		r.t.Errorf("heard %q,\nwant  %q", got, want)
	}
}

func TestPropertiesChanged(t *testing.T) {
	r := newRig(t, bus.Options{})
	e := r.listen()
	set := func(changes ...bus.Change) {
		t.Helper()
		if err := r.o.Update(changes...); err != nil {
			t.Error(err)
		}
	}
	const changed = devPath + " PropertiesChanged "
	set(bus.Change{Interface: devIface, Property: "Progress", Value: byte(100)}, bus.Change{Interface: actIface, Property: "Activation", Value: "Active"})
	r.expect(e, changed+"Progress=100", changed+"Activation=Active")
	set(bus.Change{Interface: devIface, Property: "Progress", Value: byte(100)}, bus.Change{Interface: actIface, Property: "Activation", Value: "Active"})
	r.expect(e)
	set(bus.Change{Interface: devIface, Property: "Progress", Value: byte(100), Repeat: true})
	r.expect(e, changed+"Progress=100")
	set(bus.Change{Interface: devIface, Property: "Name", Value: "a"}, bus.Change{Interface: devIface, Property: "Progress", Value: byte(1)},
		bus.Change{Interface: actIface, Property: "Activation", Value: "x"}, bus.Change{Interface: devIface, Property: "Name", Value: "b"})
	r.expect(e, changed+"Name=a Progress=1", changed+"Activation=x", changed+"Name=b")
	if err := r.o.Set(devIface, "Index", uint32(8)); err != nil || r.o.Value(devIface, "Index") != uint32(8) {
		t.Error(err)
	}
	r.expect(e)

	// What is wrong is refused, and the rest done.
	err := r.o.Update(bus.Change{Interface: devIface, Property: "Name", Value: "\xff"}, bus.Change{Interface: devIface, Property: "Progress", Value: 1},
		bus.Change{Interface: devIface, Property: "Nothing", Value: "x"}, bus.Change{Interface: "a.b", Property: "Name", Value: "x"},
		bus.Change{Interface: devIface, Property: "Uptime", Value: uint64(1)}, bus.Change{Interface: devIface, Property: "DropMode", Value: true})
	if err == nil || strings.Count(err.Error(), "\n") != 4 || !errors.Is(err, wire.ErrInvalid) {
		t.Errorf("five mistakes: %v", err)
	}
	r.expect(e, changed+"DropMode=true")
}

func TestObjectManager(t *testing.T) {
	r := newRig(t, bus.Options{})
	e := r.listen()
	o, err := r.s.Add("/org/example/rshim/push/1", actInterface())
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Extend(devInterface()); err != nil {
		t.Fatal(err)
	}
	if err := o.Set(devIface, "Progress", byte(1)); err != nil {
		t.Fatal(err)
	}
	r.expect(e,
		"/ InterfacesAdded /org/example/rshim/push/1 [org.example.Activation(1)]", "/org/example/rshim InterfacesAdded /org/example/rshim/push/1 [org.example.Activation(1)]",
		"/ InterfacesAdded /org/example/rshim/push/1 [org.example.Rshim.Device(5)]", "/org/example/rshim InterfacesAdded /org/example/rshim/push/1 [org.example.Rshim.Device(5)]",
		"/org/example/rshim/push/1 PropertiesChanged Progress=1")
	if err := o.Extend(actInterface()); !errors.Is(err, bus.ErrExists) {
		t.Errorf("an interface twice: %v", err)
	}

	count := func(path godbus.ObjectPath) (objects, properties int) {
		t.Helper()
		var all map[godbus.ObjectPath]map[string]map[string]godbus.Variant
		if err := r.call(e.Conn, path, "org.freedesktop.DBus.ObjectManager.GetManagedObjects").Store(&all); err != nil {
			t.Fatal(err)
		}
		for _, interfaces := range all {
			for _, p := range interfaces {
				properties += len(p)
			}
		}
		e.take()
		return len(all), properties
	}
	for _, path := range []godbus.ObjectPath{"/", "/org/example/rshim"} {
		if objects, properties := count(path); objects != 2 || properties != 12 {
			t.Errorf("%s manages %d objects with %d properties", path, objects, properties)
		}
	}
	o.Retract(actIface, "a.b")
	o.Remove()
	o.Remove()
	if err := errors.Join(o.Set(devIface, "Progress", byte(2)), o.Extend(actInterface()), o.Emit(devIface, "LogAdded")); err != nil {
		t.Errorf("an object that is gone: %v", err)
	}
	r.expect(e,
		"/ InterfacesRemoved [/org/example/rshim/push/1 [org.example.Activation]]", "/org/example/rshim InterfacesRemoved [/org/example/rshim/push/1 [org.example.Activation]]",
		"/ InterfacesRemoved [/org/example/rshim/push/1 [org.example.Rshim.Device]]", "/org/example/rshim InterfacesRemoved [/org/example/rshim/push/1 [org.example.Rshim.Device]]")
	if objects, _ := count("/"); objects != 1 {
		t.Errorf("%d objects are left", objects)
	}
	if err := r.call(e.Conn, "/org/example/rshim/push", "org.freedesktop.DBus.Introspectable.Introspect").Err; errorName(err) != bus.ErrNameUnknownObject {
		t.Errorf("a node above what is gone: %v", err)
	}
}

func TestEmit(t *testing.T) {
	r := newRig(t, bus.Options{})
	e := r.listen()
	lines := wire.Array{Elem: "(tts)", Items: []any{wire.Struct{uint64(1), uint64(2), "INFO"}}}
	if err := r.o.Emit(devIface, "LogAdded", lines); err != nil {
		t.Fatal(err)
	}
	r.expect(e, devPath+" LogAdded [[[1 2 INFO]]]")
	if err := r.o.Emit(devIface, "LogAdded", 1); err == nil {
		t.Error("an int was sent")
	}
	if err := r.o.Emit(devIface, "no member"); err == nil {
		t.Error("a signal without a name was sent")
	}
	r.expect(e)
}

// A terminal state that is told after the reply is heard after the reply.
func TestAfterReply(t *testing.T) {
	var o atomic.Pointer[bus.Object]
	release := make(chan struct{})
	r := newRig(t, bus.Options{}, bus.Method{Name: "Echo", Out: "o", Handle: func(ctx context.Context, c *bus.Call) ([]any, error) {
		if err := o.Load().Set(actIface, "Activation", "Activating"); err != nil {
			return nil, err
		}
		c.AfterReply(func(sent bool) {
			if !sent {
				t.Error("the reply was not sent")
			}
			_ = o.Load().Set(actIface, "Activation", "Active")
		})
		c.AfterReply(func(bool) { close(release) })
		return []any{wire.ObjectPath(devPath)}, nil
	}}, bus.Method{Name: "Fail", Handle: func(ctx context.Context, c *bus.Call) ([]any, error) {
		c.AfterReply(func(bool) { _ = o.Load().Set(actIface, "Activation", "Failed") })
		return nil, errBusy
	}})
	o.Store(r.o)
	e := r.listen()
	if err := r.call(e.Conn, devPath, devIface+".Echo").Err; err != nil {
		t.Fatal(err)
	}
	select {
	case <-release:
	case <-time.After(patience):
		t.Fatal("nothing came after the reply")
	}
	r.expect(e, devPath+" PropertiesChanged Activation=Activating", "reply", devPath+" PropertiesChanged Activation=Active")

	if err := r.call(e.Conn, devPath, devIface+".Fail").Err; err == nil {
		t.Fatal("no error")
	}
	await(t, "change", func() bool { return r.o.Value(actIface, "Activation") == "Failed" })
	r.expect(e, "error", devPath+" PropertiesChanged Activation=Failed")

	// With no reply wanted, what comes after it comes all the same.
	if err := r.o.Set(actIface, "Activation", "again"); err != nil {
		t.Fatal(err)
	}
	if err := e.Object(name, devPath).Call(devIface+".Fail", godbus.FlagNoReplyExpected).Err; err != nil {
		t.Fatal(err)
	}
	await(t, "change", func() bool { return r.o.Value(actIface, "Activation") == "Failed" })
}

// While the bus is stopped nothing waits for it; afterwards the last values are told
// in the order in which they were set.
func TestStoppedBus(t *testing.T) {
	r := newRig(t, bus.Options{})
	e := r.listen()
	text := strings.Repeat("x", 16<<10)
	r.bus.Stop()
	began := time.Now()
	var full error
	for i := range 400 { // 6 MiB
		if err := r.o.Update(
			bus.Change{Interface: actIface, Property: "Activation", Value: "Activating"},
			bus.Change{Interface: devIface, Property: "Name", Value: fmt.Sprint(text, i)},
			bus.Change{Interface: devIface, Property: "Progress", Value: byte(i % 100)}); err != nil {
			t.Fatal(err)
		}
		if err := r.o.Emit(devIface, "LogAdded", text); err != nil {
			full = err
		}
	}
	if !errors.Is(full, bus.ErrFull) {
		t.Errorf("6 MiB of signals: %v", full)
	}
	if err := r.o.Update(bus.Change{Interface: devIface, Property: "Progress", Value: byte(100)}, bus.Change{Interface: actIface, Property: "Activation", Value: "Active"}); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(began); d > patience/2 {
		t.Errorf("a stopped bus took %v", d)
	}
	r.bus.Continue()
	var heard []string
	await(t, "end", func() bool {
		for _, h := range e.take() {
			if !strings.Contains(h, "LogAdded") {
				heard = append(heard, h)
			}
		}
		return slices.Contains(heard, devPath+" PropertiesChanged Activation=Active")
	})
	if n := len(heard); n > 300 {
		t.Errorf("heard %d changes, that is all of them", n)
	}
	// The last three of them: 399's name, then the end.
	if n := len(heard); !strings.Contains(heard[n-3]+heard[n-2], fmt.Sprint(text, 399)) || !strings.HasSuffix(heard[n-2], "Progress=100") {
		for i := range heard {
			heard[i] = strings.ReplaceAll(heard[i], text, "...")
		}
		t.Errorf("heard %q", heard[max(0, n-10):])
	}
	if !r.s.Owned() {
		t.Error("the name is lost")
	}
}
