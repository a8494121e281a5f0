// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bluefield-go/bmc-rshim/dbus/bus"
	"github.com/bluefield-go/bmc-rshim/dbus/bustest"
	"github.com/bluefield-go/bmc-rshim/dbus/wire"
)

// answers is a daemon that answers what a test says.
type answers struct {
	mu     sync.Mutex
	force  answer
	lines  answer
	object *bus.Object
	device *bus.Object
}

type answer func() ([]any, error)

// handle answers with what is in a field of a then.
func (a *answers) handle(f *answer) func(context.Context, *bus.Call) ([]any, error) {
	return func(context.Context, *bus.Call) ([]any, error) {
		a.mu.Lock()
		defer a.mu.Unlock()
		return (*f)()
	}
}

func (a *answers) set(f *answer, to answer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	*f = to
}

const (
	deviceXML = `<interface name="` + ifDevice + `">
<property name="State" type="s" access="read"/><property name="Revision" type="u" access="read"/>
<property name="Reason" type="s" access="read"/>
<method name="Force"><arg type="u" direction="in"/><arg type="s" direction="out"/></method>
<method name="ReadLog"><arg type="t" direction="in"/><arg type="a(tts)" direction="out"/><arg type="t" direction="out"/></method>
<signal name="LogAdded"><arg type="a(tts)"/></signal></interface>`
	pushXML = `<interface name="` + ifPush + `"><property name="Device" type="o" access="read"/>
<property name="Phase" type="s" access="read"/><property name="Outcome" type="s" access="read"/>
<property name="Bytes" type="t" access="read"/></interface>`
)

func serve(t *testing.T, b *bustest.Bus, a *answers) (stop func()) {
	t.Helper()
	s := bus.New(bus.Options{Name: name, Address: b.Address()})
	s.Manage(root)
	add := func(path Path, i bus.Interface) *bus.Object {
		o, err := s.Add(path, i)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	a.device = add(devicePath(0), bus.Interface{
		Name: ifDevice, XML: deviceXML,
		Properties: []bus.Property{
			{Name: "State", Sig: "s", Value: ifDevice + ".States.Attached"},
			{Name: "Revision", Sig: "u", Value: uint32(1)},
			{Name: "Reason", Sig: "s", Value: "all\x1b[2J\nis well"},
		},
		Methods: []bus.Method{
			{Name: "Force", In: "u", Out: "s", Handle: a.handle(&a.force)},
			{Name: "ReadLog", In: "t", Out: "a(tts)t", Handle: a.handle(&a.lines)},
		},
	})
	a.object = add(root+"/push/1", bus.Interface{
		Name: ifPush, XML: pushXML,
		Properties: []bus.Property{
			{Name: "Device", Sig: "o", Value: devicePath(0)},
			{Name: "Phase", Sig: "s", Value: ifPush + ".Phases.Streaming"},
			{Name: "Outcome", Sig: "s", Value: ifPush + ".Outcomes.None"},
			{Name: "Bytes", Sig: "t", Value: uint64(0)},
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Run(ctx) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

func connect(t *testing.T, b *bustest.Bus) *Client {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		c, err := Connect(t.Context(), b.Address())
		if err == nil {
			t.Cleanup(c.Close)
			return c
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

func TestConnect(t *testing.T) {
	if _, err := Connect(t.Context(), "unix:path=/nonexistent/bus"); !errors.Is(err, ErrNoBus) {
		t.Errorf("without a bus: %v", err)
	}
	b := bustest.New(t, bustest.Options{})
	if _, err := Connect(t.Context(), b.Address()); !errors.Is(err, ErrNoDaemon) {
		t.Errorf("without a daemon: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Connect(ctx, b.Address()); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// The names of errors become errors, and their text is what the daemon said.
func TestErrors(t *testing.T) {
	b := bustest.New(t, bustest.Options{})
	a := new(answers)
	serve(t, b, a)
	c := connect(t, b)
	for _, x := range []struct {
		name string
		want error
	}{
		{commonError + "Unavailable", ErrUnavailable},
		{commonError + "Timeout", os.ErrDeadlineExceeded},
		{commonError + "InsufficientPermission", os.ErrPermission},
		{updateError + "Incompatible", ErrWrongChip},
		{updateError + "InvalidImage", ErrImage},
		{bus.ErrNameUnknownMethod, ErrUnsupported},
	} {
		a.set(&a.force, func() ([]any, error) { return nil, bus.Errorf(x.name, "rshim0: force: no\x1b[31m") })
		_, err := c.Force(t.Context(), 0, time.Second)
		var op *OpError
		if !errors.Is(err, x.want) || !errors.As(err, &op) || op.Device != "rshim0" {
			t.Errorf("%s: %v", x.name, err)
		} else if err.Error() != "rshim0: force: no?[31m" {
			t.Errorf("%s: text %q", x.name, err)
		}
	}
	if _, err := c.Device(t.Context(), 7); !errors.Is(err, ErrNotFound) {
		t.Errorf("no device: %v", err)
	}
	if _, err := c.HostAccess(t.Context(), true); err == nil {
		t.Error("host access of a daemon without it")
	}
	if _, err := c.OpenConsole(t.Context(), 0); !errors.Is(err, ErrUnavailable) || strings.Contains(err.Error(), ".service") {
		t.Errorf("no console: %v", err)
	}
	// The bus's own refusal is not in words for operators.
	a.set(&a.force, func() ([]any, error) {
		return nil, bus.Errorf(bus.ErrNameAccessDenied, "Rejected send message, 2 matched rules; type=...")
	})
	if _, err := c.Force(t.Context(), 0, 0); !errors.Is(err, ErrPermission) || err.Error() != "rshim0: force: "+ErrPermission.Error() {
		t.Errorf("refused by the bus: %v", err)
	}
	for _, s := range sentinels {
		if !errors.Is(&Remote{Name: s.name}, s.err) {
			t.Errorf("%s is not its sentinel", s.name)
		}
	}
	if ErrorOf("org.example.Other") != nil {
		t.Error("a sentinel for what has none")
	}
}

// What makes no sense is an error, not a crash.
func TestHostile(t *testing.T) {
	b := bustest.New(t, bustest.Options{})
	a := new(answers)
	serve(t, b, a)
	c := connect(t, b)
	d, err := c.Device(t.Context(), 0)
	if err != nil || d.State != "Attached" || d.Revision != 1 || d.Reason != "all?[2J?is well" {
		t.Errorf("%+v, %v", d, err)
	}
	for _, result := range []string{"", "Granted", ifDevice + ".ForceResults.", ifDevice + ".ForceResults.a.b", "x.ForceResults.Granted"} {
		a.set(&a.force, func() ([]any, error) { return []any{result}, nil })
		if got, err := c.Force(t.Context(), 0, 0); result != "" && !errors.Is(err, ErrAnswer) {
			t.Errorf("%q: %q, %v", result, got, err)
		}
	}
	a.set(&a.lines, func() ([]any, error) {
		return []any{wire.Array{Elem: "(tts)", Items: []any{wire.Struct{uint64(1), uint64(1 << 63), "a\nb"}}}, uint64(2)}, nil
	})
	lines, next, err := c.Log(t.Context(), 0, 1)
	if err != nil || next != 2 || len(lines) != 1 || lines[0].Text != "a?b" || !lines[0].At.IsZero() {
		t.Errorf("%v, %d, %v", lines, next, err)
	}
	if _, _, err := c.Log(t.Context(), 0, 3); !errors.Is(err, ErrAnswer) {
		t.Errorf("a log that goes back: %v", err)
	}
	_ = a.device.Set(ifDevice, "State", "nonsense")
	if _, err := c.Devices(t.Context()); !errors.Is(err, ErrAnswer) {
		t.Errorf("a state that is none: %v", err)
	}
}

// Watch tells what there is, what changes, and that the daemon has ended.
func TestWatch(t *testing.T) {
	b := bustest.New(t, bustest.Options{})
	a := new(answers)
	stop := serve(t, b, a)
	c := connect(t, b)
	w, err := c.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	until := func(what string, done func(Event) bool) {
		t.Helper()
		for {
			ev, err := w.Next(ctx)
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if done(ev) {
				return
			}
		}
	}
	until("the push", func(e Event) bool { return e.Push != nil && e.Push.Phase == "Streaming" && e.Push.Device == 0 })
	until("the device", func(e Event) bool { return e.Device != nil && e.Device.State == "Attached" })
	_ = a.object.Set(ifPush, "Bytes", uint64(7))
	until("bytes", func(e Event) bool { return e.Push != nil && e.Push.Bytes == 7 })
	_ = a.device.Emit(ifDevice, "LogAdded", wire.Array{Elem: "(tts)", Items: []any{wire.Struct{uint64(5), uint64(1), "INFO[BL2]: start"}}})
	until("the line", func(e Event) bool { return len(e.Lines) == 1 && e.Lines[0].Seq == 5 && e.Index == 0 })
	// More than there is room for: whatever is lost, the last state is told.
	for i := range 5000 {
		_ = a.object.Set(ifPush, "Bytes", uint64(100+i))
	}
	_ = a.object.Update(bus.Change{Interface: ifPush, Property: "Phase", Value: ifPush + ".Phases.Ended"},
		bus.Change{Interface: ifPush, Property: "Outcome", Value: ifPush + ".Outcomes.Ready"})
	until("the end", func(e Event) bool { return e.Push != nil && e.Push.Ended() && e.Push.Bytes == 5099 })
	a.object.Remove()
	until("its removal", func(e Event) bool { return e.Push != nil && e.Removed })
	stop()
	for {
		if _, err := w.Next(ctx); err != nil {
			if !errors.Is(err, ErrLost) {
				t.Errorf("after the daemon's end: %v", err)
			}
			break
		}
	}
}

func TestBusEnds(t *testing.T) {
	b := bustest.New(t, bustest.Options{})
	a := new(answers)
	serve(t, b, a)
	c := connect(t, b)
	w, err := c.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	b.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		if _, err := w.Next(ctx); err != nil {
			if !errors.Is(err, ErrLost) {
				t.Errorf("after the bus's end: %v", err)
			}
			break
		}
	}
	if _, err := c.Devices(ctx); !errors.Is(err, ErrLost) || !strings.Contains(err.Error(), "ended") {
		t.Errorf("a call after the bus's end: %v", err)
	}
}

func TestIndex(t *testing.T) {
	for p, want := range map[Path]int{
		root + "/rshim0": 0, root + "/rshim12": 12, root + "/rshim": -1, root + "/rshim-1": -1, root + "/rshim01": -1,
		root + "/rshim1/x": -1, "/": -1, "": -1, root + "/push/1": -1,
	} {
		if got := Index(p); got != want {
			t.Errorf("%q: %d", p, got)
		}
	}
}
