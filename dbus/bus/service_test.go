// SPDX-License-Identifier: Apache-2.0

package bus_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/introspect"

	"github.com/bluefield-go/bmc-rshim/dbus/bus"
	"github.com/bluefield-go/bmc-rshim/dbus/bustest"
	"github.com/bluefield-go/bmc-rshim/dbus/wire"
)

const (
	name     = "org.example.Rshim"
	devPath  = "/org/example/rshim/rshim0"
	devIface = "org.example.Rshim.Device"
	actIface = "org.example.Activation"
	// what the machine may take while it stalls
	patience = time.Minute
)

const devXML = `<node><interface name="org.example.Rshim.Device">
  <property name="Name" type="s" access="read"/>
  <property name="Progress" type="y" access="read"/>
  <property name="DropMode" type="b" access="readwrite"/>
  <property name="Uptime" type="t" access="read">
   <annotation name="org.freedesktop.DBus.Property.EmitsChangedSignal" value="false"/>
  </property>
  <property name="Index" type="u" access="read">
   <annotation name="org.freedesktop.DBus.Property.EmitsChangedSignal" value="const"/>
  </property>
  <method name="Echo">
   <arg name="In" type="sa{sv}" direction="in"/>
  </method>
 </interface></node>`

const actXML = `<interface name="org.example.Activation"><property name="Activation" type="s" access="read"/></interface>`

// rig is a service with one object on a private bus.
type rig struct {
	t    *testing.T
	bus  *bustest.Bus
	s    *bus.Service
	o    *bus.Object
	stop func()
}

var errBusy = errors.New("device is busy")

func devInterface(methods ...bus.Method) bus.Interface {
	return bus.Interface{
		Name: devIface, XML: devXML, Methods: methods,
		Properties: []bus.Property{
			{Name: "Name", Sig: "s", Value: "usb-1-1.2"},
			{Name: "Progress", Sig: "y", Value: byte(0)},
			{Name: "DropMode", Sig: "b", Value: false, Set: func(_ context.Context, _ *bus.Call, v any) error {
				if v.(bool) {
					return fmt.Errorf("set drop mode: %w", errBusy)
				}
				return nil
			}},
			{Name: "Uptime", Sig: "t", Get: func() any { return uint64(42) }},
			{Name: "Index", Sig: "u", Value: uint32(7), Emits: bus.EmitsNothing},
		},
	}
}

func actInterface() bus.Interface {
	return bus.Interface{Name: actIface, XML: actXML, Properties: []bus.Property{{Name: "Activation", Sig: "s", Value: "Ready"}}}
}

func mapError(err error) *bus.Error {
	if errors.Is(err, errBusy) {
		return &bus.Error{Name: "xyz.openbmc_project.Common.Error.Unavailable", Message: err.Error()}
	}
	return nil
}

// newRig starts a bus and the service, and waits for its name.
func newRig(t *testing.T, o bus.Options, methods ...bus.Method) *rig {
	t.Helper()
	r := &rig{t: t, bus: bustest.New(t, bustest.Options{})}
	o.Name, o.Address, o.MapError = name, r.bus.Address(), mapError
	o.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	r.s = bus.New(o)
	r.s.Manage("/")
	r.s.Manage("/org/example/rshim")
	var err error
	if r.o, err = r.s.Add(devPath, devInterface(methods...), actInterface()); err != nil {
		t.Fatal(err)
	}
	r.stop = run(t, r.s)
	await(t, "the name", r.s.Owned)
	return r
}

// run runs a service until the test ends or the returned function is called.
func run(t *testing.T, s *bus.Service) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			t.Error("Run does not return")
		}
	})
	t.Cleanup(stop)
	return stop
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no %s", what)
		}
	}
}

// peer connects godbus to the bus.
func (r *rig) peer() *godbus.Conn {
	r.t.Helper()
	return dialGodbus(r.t, r.bus)
}

func dialGodbus(t *testing.T, b *bustest.Bus) *godbus.Conn {
	t.Helper()
	c, err := godbus.Connect(b.Address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func (r *rig) context() context.Context {
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	r.t.Cleanup(cancel)
	return ctx
}

func (r *rig) call(c *godbus.Conn, path godbus.ObjectPath, method string, args ...any) *godbus.Call {
	r.t.Helper()
	return c.Object(name, path).CallWithContext(r.context(), method, 0, args...)
}

// errorName returns the name of a call's error, or "".
func errorName(err error) string {
	if e, ok := errors.AsType[godbus.Error](err); ok {
		return e.Name
	}
	if e, ok := errors.AsType[*bus.Error](err); ok {
		return e.Name
	}
	if err != nil {
		return "no D-Bus error: " + err.Error()
	}
	return ""
}

// A walk from the root, as phosphor-objmgr does it.
func TestWalk(t *testing.T) {
	r := newRig(t, bus.Options{})
	if _, err := r.s.Add("/org/example/software/DPU_OS", actInterface()); err != nil {
		t.Fatal(err)
	}
	c := r.peer()
	found := make(map[string][]string)
	var walk func(path string)
	walk = func(path string) {
		n, err := introspect.Call(c.Object(name, godbus.ObjectPath(path)))
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		found[path] = []string{}
		for _, i := range n.Interfaces {
			found[path] = append(found[path], i.Name)
		}
		for _, child := range n.Children {
			if path == "/" {
				path = ""
			}
			walk(path + "/" + child.Name)
		}
	}
	walk("/")
	const std = "org.freedesktop.DBus."
	bare := []string{std + "Peer", std + "Introspectable"}
	want := map[string][]string{
		"/":                            append(slices.Clone(bare), std+"ObjectManager"),
		"/org":                         bare,
		"/org/example":                 bare,
		"/org/example/rshim":           append(slices.Clone(bare), std+"ObjectManager"),
		devPath:                        append(slices.Clone(bare), std+"Properties", devIface, actIface),
		"/org/example/software":        bare,
		"/org/example/software/DPU_OS": append(slices.Clone(bare), std+"Properties", actIface),
	}
	if !maps.EqualFunc(found, want, slices.Equal) {
		t.Errorf("found %v,\nwant %v", found, want)
	}
	n, err := introspect.Call(c.Object(name, devPath))
	if err != nil {
		t.Fatal(err)
	}
	dev := n.Interfaces[3]
	if len(dev.Properties) != 5 || len(dev.Methods) != 1 || dev.Properties[4].Annotations[0].Value != "const" {
		t.Errorf("interface is described as %+v", dev)
	}
}

func TestProperties(t *testing.T) {
	r := newRig(t, bus.Options{})
	c := r.peer()
	o := c.Object(name, devPath)
	for prop, want := range map[string]any{"Name": "usb-1-1.2", "Progress": byte(0), "DropMode": false, "Uptime": uint64(42), "Index": uint32(7)} {
		if v, err := o.GetProperty(devIface + "." + prop); err != nil || v.Value() != want {
			t.Errorf("%s: %v, %v", prop, v, err)
		}
	}
	for iface, want := range map[string][]string{
		devIface: {"DropMode", "Index", "Name", "Progress", "Uptime"}, actIface: {"Activation"},
		"": {"Activation", "DropMode", "Index", "Name", "Progress", "Uptime"}, "org.freedesktop.DBus.Peer": nil,
	} {
		var all map[string]godbus.Variant
		err := r.call(c, devPath, "org.freedesktop.DBus.Properties.GetAll", iface).Store(&all)
		if got := slices.Sorted(maps.Keys(all)); err != nil || !slices.Equal(got, want) {
			t.Errorf("GetAll(%q): %v, %v", iface, got, err)
		}
	}
	if err := o.SetProperty(devIface+".DropMode", godbus.MakeVariant(false)); err != nil {
		t.Error(err)
	}
	if r.o.Value(devIface, "DropMode") != false || r.o.Value(devIface, "Uptime") != uint64(42) || r.o.Value(devIface, "X") != nil || r.o.Value("x.y", "X") != nil {
		t.Error("values that the service sees")
	}
}

func TestErrors(t *testing.T) {
	r := newRig(t, bus.Options{}, bus.Method{
		Name: "Echo", In: "sa{sv}", Out: "s", Handle: func(_ context.Context, c *bus.Call) ([]any, error) {
			switch s := c.Args[0].(string); s {
			case "fail":
				return nil, errors.New("broken \xff")
			case "named":
				return nil, bus.Errorf("org.example.Error.Own", "%d", 5)
			case "no name":
				return nil, bus.Errorf("no name", "")
			case "wrong":
				return []any{uint32(1)}, nil
			case "invalid":
				return []any{"\xff"}, nil
			case "big":
				return []any{string(make([]byte, wire.MaxMessage))}, nil
			default:
				return []any{s}, nil
			}
		},
	})
	c := r.peer()
	const std = "org.freedesktop.DBus."
	const failed = "xyz.openbmc_project.Common.Error.InternalFailure"
	none := map[string]godbus.Variant{}
	for _, tt := range []struct {
		path   godbus.ObjectPath
		method string
		args   []any
		want   string
	}{
		{devPath, devIface + ".Echo", []any{"x", none}, ""},
		{devPath, "Echo", []any{"x", none}, ""},
		{devPath, devIface + ".Echo", []any{"fail", none}, failed},
		{devPath, devIface + ".Echo", []any{"named", none}, "org.example.Error.Own"},
		{devPath, devIface + ".Echo", []any{"no name", none}, std + "Error.Failed"},
		{devPath, devIface + ".Echo", []any{"wrong", none}, failed},
		{devPath, devIface + ".Echo", []any{"invalid", none}, failed},
		{devPath, devIface + ".Echo", []any{"big", none}, failed}, // its NULs are invalid first
		{devPath, devIface + ".Echo", []any{"x"}, std + "Error.InvalidArgs"},
		{devPath, devIface + ".Echo", []any{uint32(1), none}, std + "Error.InvalidArgs"},
		{devPath, devIface + ".Echo", []any{"x", none, "more"}, std + "Error.InvalidArgs"},
		{devPath, devIface + ".Nothing", nil, std + "Error.UnknownMethod"},
		{devPath, "Nothing", nil, std + "Error.UnknownMethod"},
		{devPath, "org.example.Nothing.Echo", nil, std + "Error.UnknownInterface"},
		{"/org/example", devIface + ".Echo", nil, std + "Error.UnknownInterface"},
		{"/org/nothing", devIface + ".Echo", nil, std + "Error.UnknownObject"},
		{"/org/example/rshim/rshim", devIface + ".Echo", nil, std + "Error.UnknownObject"},
		{"/org/nothing", std + "Introspectable.Introspect", nil, std + "Error.UnknownObject"},
		{"/org/nothing", std + "Properties.GetAll", []any{""}, std + "Error.UnknownObject"},
		{"/org/nothing", std + "Peer.Ping", nil, ""},
		{devPath, std + "Peer.Ping", nil, ""},
		{devPath, std + "Peer.Ping", []any{"x"}, std + "Error.InvalidArgs"},
		{devPath, std + "Peer.Nothing", nil, std + "Error.UnknownMethod"},
		{"/org/example", std + "Properties.Get", []any{"a.b", "c"}, std + "Error.UnknownInterface"},
		{"/org/example", std + "ObjectManager.GetManagedObjects", nil, std + "Error.UnknownInterface"},
		{devPath, std + "Properties.Get", []any{devIface, "Nothing"}, std + "Error.UnknownProperty"},
		{devPath, std + "Properties.Get", []any{"", "Nothing"}, std + "Error.UnknownProperty"},
		{devPath, std + "Properties.Get", []any{"", "Name"}, ""},
		{devPath, std + "Properties.Get", []any{"org.example.Nothing", "Name"}, std + "Error.UnknownInterface"},
		{devPath, std + "Properties.Get", []any{devIface}, std + "Error.InvalidArgs"},
		{devPath, std + "Properties.GetAll", []any{"org.example.Nothing"}, std + "Error.UnknownInterface"},
		{devPath, std + "Properties.Set", []any{devIface, "Name", godbus.MakeVariant("x")}, std + "Error.PropertyReadOnly"},
		{devPath, std + "Properties.Set", []any{devIface, "Nothing", godbus.MakeVariant("x")}, std + "Error.UnknownProperty"},
		{devPath, std + "Properties.Set", []any{devIface, "DropMode", godbus.MakeVariant("x")}, std + "Error.InvalidArgs"},
		{devPath, std + "Properties.Set", []any{devIface, "DropMode", false}, std + "Error.InvalidArgs"},
		{devPath, std + "Properties.Set", []any{devIface, "DropMode", godbus.MakeVariant(true)}, "xyz.openbmc_project.Common.Error.Unavailable"},
	} {
		if err := r.call(c, tt.path, tt.method, tt.args...).Err; errorName(err) != tt.want {
			t.Errorf("%s at %s%v: %v, want %q", tt.method, tt.path, tt.args, err, tt.want)
		}
	}
	var id string
	_, err := os.Stat("/etc/machine-id")
	if got := r.call(c, "/", std+"Peer.GetMachineId").Store(&id); err == nil && (got != nil || len(id) != 32) {
		t.Errorf("GetMachineId: %q, %v", id, got)
	}
}

func TestAddRefuses(t *testing.T) {
	s := bus.New(bus.Options{Name: name})
	if _, err := s.Add(devPath, devInterface()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Add(devPath); !errors.Is(err, bus.ErrExists) {
		t.Errorf("an object twice: %v", err)
	}
	if _, err := s.Add("/x", devInterface(), devInterface()); !errors.Is(err, bus.ErrExists) {
		t.Errorf("an interface twice: %v", err)
	}
	if _, err := s.Add("x"); err == nil {
		t.Error("no path")
	}
	nothing := func(context.Context, *bus.Call) ([]any, error) { return nil, nil }
	for _, i := range []bus.Interface{
		{}, {Name: "a", XML: actXML}, {Name: "a.b"}, {Name: "org.freedesktop.DBus.Properties", XML: actXML},
		{Name: "a.b", XML: actXML, Methods: []bus.Method{{Name: "M"}}},
		{Name: "a.b", XML: actXML, Methods: []bus.Method{{Name: "M", In: "a", Handle: nothing}}},
		{Name: "a.b", XML: actXML, Methods: []bus.Method{{Name: "M.M", Handle: nothing}}},
		{Name: "a.b", XML: actXML, Properties: []bus.Property{{Name: "P", Sig: "s"}}},
		{Name: "a.b", XML: actXML, Properties: []bus.Property{{Name: "P", Sig: "s", Value: 1}}},
		{Name: "a.b", XML: actXML, Properties: []bus.Property{{Name: "P", Sig: "ss", Value: "x"}}},
		{Name: "a.b", XML: actXML, Properties: []bus.Property{{Name: "P", Sig: "s", Value: "x", Get: func() any { return "" }}}},
	} {
		if _, err := s.Add("/x", i); err == nil {
			t.Errorf("%+v is taken", i)
		}
	}
}
