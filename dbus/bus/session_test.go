// SPDX-License-Identifier: Apache-2.0

package bus_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/bluefield-go/bmc-rshim/dbus/bus"
	"github.com/bluefield-go/bmc-rshim/dbus/bustest"
)

func TestRestart(t *testing.T) {
	r := newRig(t, bus.Options{})
	for range 3 {
		r.bus.Kill()
		await(t, "loss", func() bool { return !r.s.Owned() })
		if err := r.o.Set(devIface, "Name", "while it was gone"); err != nil {
			t.Fatal(err)
		}
		r.bus.Restart()
		await(t, "name", r.s.Owned)
		v, err := r.peer().Object(name, devPath).GetProperty(devIface + ".Name")
		if err != nil || v.Value() != "while it was gone" {
			t.Fatalf("after the restart: %v, %v", v, err)
		}
	}
}

// A service that starts before its bus waits for it.
func TestStartBeforeBus(t *testing.T) {
	b := bustest.New(t, bustest.Options{})
	b.Kill()
	s := bus.New(bus.Options{Name: name, Address: b.Address()})
	run(t, s)
	time.Sleep(300 * time.Millisecond)
	b.Restart()
	await(t, "name", s.Owned)
}

// Whoever sees the name sees the objects: it is asked for when all are there.
func TestExportBeforeName(t *testing.T) {
	b := bustest.New(t, bustest.Options{})
	c := dialGodbus(t, b)
	if err := c.AddMatchSignal(godbus.WithMatchMember("NameOwnerChanged"), godbus.WithMatchArg(0, name)); err != nil {
		t.Fatal(err)
	}
	signals := make(chan *godbus.Signal, 10)
	c.Signal(signals)
	s := bus.New(bus.Options{Name: name, Address: b.Address()})
	s.Manage("/")
	if _, err := s.Add(devPath, devInterface()); err != nil {
		t.Fatal(err)
	}
	run(t, s)
	for sig := range signals {
		if sig.Name != "org.freedesktop.DBus.NameOwnerChanged" {
			continue
		}
		var all map[godbus.ObjectPath]map[string]map[string]godbus.Variant
		if err := c.Object(name, "/").Call("org.freedesktop.DBus.ObjectManager.GetManagedObjects", 0).Store(&all); err != nil || len(all[devPath][devIface]) != 5 {
			t.Errorf("at once there is %v, %v", all, err)
		}
		return
	}
}

// A bus that reads nothing for too long is left, and found again.
func TestStuckBus(t *testing.T) {
	r := newRig(t, bus.Options{Stuck: 200 * time.Millisecond})
	r.bus.Stop()
	text := strings.Repeat("x", 100<<10)
	for i := range 100 {
		if err := r.o.Set(devIface, "Name", fmt.Sprint(text, i)); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "loss", func() bool { return !r.s.Owned() })
	r.bus.Continue()
	await(t, "name", r.s.Owned)
	if err := r.call(r.peer(), devPath, "org.freedesktop.DBus.Peer.Ping").Err; err != nil {
		t.Error(err)
	}
}

// What cannot be left out ends the connection when there is too much of it.
func TestHardBound(t *testing.T) {
	r := newRig(t, bus.Options{})
	r.bus.Stop()
	big := actInterface()
	big.Properties[0].Value = strings.Repeat("x", 256<<10)
	await(t, "loss", func() bool {
		o, err := r.s.Add("/big", big)
		if err != nil {
			t.Fatal(err)
		}
		o.Remove()
		return !r.s.Owned()
	})
	r.bus.Continue()
	await(t, "name", r.s.Owned)
}

// Run ends within its time with the bus stopped, calls in progress and all.
func TestStopWithStoppedBus(t *testing.T) {
	began := make(chan struct{})
	r := newRig(t, bus.Options{}, bus.Method{Name: "Echo", Handle: func(ctx context.Context, c *bus.Call) ([]any, error) {
		close(began)
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	r.peer().Object(name, devPath).Go(devIface+".Echo", 0, nil)
	<-began
	r.bus.Stop()
	if err := r.o.Set(devIface, "Name", strings.Repeat("x", 500<<10)); err != nil {
		t.Fatal(err)
	}
	r.stop()
	r.bus.Continue()
}

// Run leaves nothing behind, however often the connection was lost.
func TestNothingLeft(t *testing.T) {
	b := bustest.New(t, bustest.Options{})
	s := bus.New(bus.Options{Name: name, Address: b.Address()})
	if _, err := s.Add(devPath, devInterface()); err != nil {
		t.Fatal(err)
	}
	b.Restart()
	goroutines, fds := runtime.NumGoroutine(), openFDs(t)
	stop := run(t, s)
	for range 3 {
		await(t, "name", s.Owned)
		b.Kill()
		await(t, "loss", func() bool { return !s.Owned() })
		b.Restart()
	}
	stop()
	await(t, "end of goroutines", func() bool { return runtime.NumGoroutine() <= goroutines })
	noLeak(t, fds)
}

// A name that is another's is waited for, not taken.
func TestNameTaken(t *testing.T) {
	b := bustest.New(t, bustest.Options{})
	c := dialGodbus(t, b)
	if _, err := c.RequestName(name, 0); err != nil {
		t.Fatal(err)
	}
	s := bus.New(bus.Options{Name: name, Address: b.Address()})
	run(t, s)
	time.Sleep(200 * time.Millisecond)
	if s.Owned() {
		t.Fatal("the name was taken from its owner")
	}
	if _, err := c.ReleaseName(name); err != nil {
		t.Fatal(err)
	}
	await(t, "name", s.Owned)
	// It is not given up to others.
	if reply, err := c.RequestName(name, godbus.NameFlagReplaceExisting|godbus.NameFlagDoNotQueue); err != nil || reply != godbus.RequestNameReplyExists {
		t.Errorf("somebody else got %v, %v", reply, err)
	}
}

func TestYield(t *testing.T) {
	b := bustest.New(t, bustest.Options{Activatable: []string{"org.example.Activatable"}})
	const settle = 500 * time.Millisecond
	service := func(name string) *bus.Service {
		s := bus.New(bus.Options{Name: name, Address: b.Address(), Yield: true, Settle: settle})
		if _, err := s.Add(devPath, actInterface()); err != nil {
			t.Fatal(err)
		}
		run(t, s)
		return s
	}
	c := dialGodbus(t, b)
	if _, err := c.RequestName(name, 0); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	owned, activatable, free := service(name), service("org.example.Activatable"), service("org.example.Free")
	await(t, "name that is free", free.Owned)
	if d := time.Since(began); d < settle {
		t.Errorf("taken after %v", d)
	}
	if owned.Owned() || activatable.Owned() {
		t.Error("names of others were taken")
	}

	// An owner that restarts in time gets its name back.
	for range 2 {
		released := time.Now()
		if _, err := c.ReleaseName(name); err != nil {
			t.Fatal(err)
		}
		reply, err := c.RequestName(name, godbus.NameFlagDoNotQueue)
		if err != nil {
			t.Fatal(err)
		}
		if reply != godbus.RequestNameReplyPrimaryOwner {
			if time.Since(released) < settle {
				t.Error("the name was taken from an owner that restarted")
			}
			break // or the machine has stalled, and the name is ours now
		}
	}
	if _, err := c.ReleaseName(name); err != nil {
		t.Fatal(err)
	}
	await(t, "name that was another's", owned.Owned)

	// One who wants to replace us may, and gets it back to us by going.
	if reply, err := c.RequestName(name, godbus.NameFlagReplaceExisting|godbus.NameFlagDoNotQueue); err != nil || reply != godbus.RequestNameReplyPrimaryOwner {
		t.Fatal(reply, err)
	}
	await(t, "loss", func() bool { return !owned.Owned() })
	if _, err := c.ReleaseName(name); err != nil {
		t.Fatal(err)
	}
	await(t, "name that was replaced", owned.Owned)
}

// Without a policy that allows it there is no name, and no storm of attempts.
func TestNameDenied(t *testing.T) {
	b := bustest.New(t, bustest.Options{Policy: []string{`<busconfig><policy user="root"><allow own="org.example.Other"/></policy></busconfig>`}})
	denied, allowed := bus.New(bus.Options{Name: name, Address: b.Address()}), bus.New(bus.Options{Name: "org.example.Other", Address: b.Address()})
	run(t, denied)
	run(t, allowed)
	await(t, "name", allowed.Owned)
	time.Sleep(200 * time.Millisecond)
	if denied.Owned() {
		t.Error("a name against the policy")
	}
}
