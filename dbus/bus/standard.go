// SPDX-License-Identifier: Apache-2.0

package bus

import (
	"context"
	"os"
	"slices"
	"strings"

	"github.com/bluefield-go/bmc-rshim/dbus/wire"
)

// Interfaces of the specification, section "Standard Interfaces".
const (
	ifacePeer          = "org.freedesktop.DBus.Peer"
	ifaceIntrospect    = "org.freedesktop.DBus.Introspectable"
	ifaceProperties    = "org.freedesktop.DBus.Properties"
	ifaceObjectManager = "org.freedesktop.DBus.ObjectManager"
)

// isStandard reports whether iface is one of those that every object has.
func isStandard(iface string) bool {
	return iface == ifacePeer || iface == ifaceIntrospect || iface == ifaceProperties || iface == ifaceObjectManager
}

// standard answers a call of a standard interface. One without an interface is
// for whoever has such a method. s.mu is held.
func (s *Service) standard(in *incoming) (a answer, found bool, err *Error) {
	if in.Interface != "" && !isStandard(in.Interface) {
		return a, false, nil
	}
	managed := slices.Contains(s.managers, in.Path)
	o := s.objects[in.Path]
	switch {
	case in.Interface == ifacePeer: // is everywhere
	case !s.node(in.Path):
		return a, false, Errorf(ErrNameUnknownObject, "no object %s", in.Path)
	case in.Interface == ifaceObjectManager && !managed, in.Interface == ifaceProperties && o == nil:
		return a, false, Errorf(ErrNameUnknownInterface, "%s has no %s", in.Path, in.Interface)
	}
	for _, m := range standardMethods {
		if m.name != in.Member || in.Interface != "" && in.Interface != m.iface || m.iface == ifaceObjectManager && !managed || m.iface == ifaceProperties && o == nil {
			continue
		}
		if in.Signature != m.in {
			return a, false, Errorf(ErrNameInvalidArgs, "%s takes %q, not %q", m.name, m.in, in.Signature)
		}
		a, err := m.answer(s, o, in)
		return a, true, err
	}
	if in.Interface != "" {
		return a, false, Errorf(ErrNameUnknownMethod, "no method %s of %s", in.Member, in.Interface)
	}
	return a, false, nil
}

// standardMethods answer at once, with s.mu held, or name a handler. The object is
// not nil for those of Properties.
var standardMethods = []struct {
	iface, name string
	in          wire.Signature
	answer      func(s *Service, o *Object, in *incoming) (answer, *Error)
}{
	{ifacePeer, "Ping", "", func(*Service, *Object, *incoming) (answer, *Error) { return answer{}, nil }},
	{ifacePeer, "GetMachineId", "", func(*Service, *Object, *incoming) (answer, *Error) {
		return answer{handle: machineID, out: "s"}, nil
	}},
	{ifaceIntrospect, "Introspect", "", func(s *Service, _ *Object, in *incoming) (answer, *Error) {
		return answer{body: []any{s.introspect(in.Path)}}, nil
	}},
	{ifaceObjectManager, "GetManagedObjects", "", func(s *Service, _ *Object, in *incoming) (answer, *Error) {
		return answer{body: []any{s.managed(in.Path)}}, nil
	}},
	{ifaceProperties, "Get", "ss", func(_ *Service, o *Object, in *incoming) (answer, *Error) {
		v, err := o.get(in.Body[0].(string), in.Body[1].(string))
		return answer{body: []any{wire.Variant{Value: v}}}, err
	}},
	{ifaceProperties, "GetAll", "s", func(_ *Service, o *Object, in *incoming) (answer, *Error) {
		d, err := o.getAll(in.Body[0].(string))
		return answer{body: []any{d}}, err
	}},
	{ifaceProperties, "Set", "ssv", func(_ *Service, o *Object, in *incoming) (answer, *Error) {
		h, err := o.set(in.Body[0].(string), in.Body[1].(string), in.Body[2].(wire.Variant).Value)
		return answer{handle: h}, err
	}},
}

// machineID runs as a handler, since it reads files.
func machineID(context.Context, *Call) ([]any, error) {
	for _, name := range []string{"/etc/machine-id", "/var/lib/dbus/machine-id"} {
		if b, err := os.ReadFile(name); err == nil && len(b) >= 32 {
			return []any{string(b[:32])}, nil
		}
	}
	return nil, Errorf(ErrNameFailed, "the machine has no id")
}

// lookup finds a property; an empty interface is any. s.mu is held.
func (o *Object) lookup(iface, name string) (*export, int, *Error) {
	if iface != "" && o.find(iface) == nil && !isStandard(iface) {
		return nil, 0, Errorf(ErrNameUnknownInterface, "%s has no interface %q", o.path, clip(iface))
	}
	for _, e := range o.interfaces {
		if iface != "" && iface != e.Name {
			continue
		}
		if i := e.property(name); i >= 0 {
			return e, i, nil
		}
	}
	return nil, 0, Errorf(ErrNameUnknownProperty, "no property %q of %q at %s", clip(name), clip(iface), o.path)
}

func (o *Object) get(iface, name string) (any, *Error) {
	e, i, err := o.lookup(iface, name)
	if err != nil {
		return nil, err
	}
	v, bad := e.value(i)
	if bad != nil {
		o.s.o.Log.Warn("property has no value", "interface", e.Name, "property", name, "err", bad)
		return nil, &Error{ErrNameInternalFailure, bad.Error()}
	}
	return v, nil
}

func (o *Object) getAll(iface string) (wire.Dict, *Error) {
	if iface == "" {
		return o.s.values(o.interfaces...), nil
	}
	if e := o.find(iface); e != nil {
		return o.s.values(e), nil
	}
	if isStandard(iface) {
		return o.s.values(), nil
	}
	return wire.Dict{}, Errorf(ErrNameUnknownInterface, "%s has no interface %q", o.path, clip(iface))
}

func (o *Object) set(iface, name string, v any) (handler, *Error) {
	e, i, err := o.lookup(iface, name)
	if err != nil {
		return nil, err
	}
	p := e.Properties[i]
	if p.Set == nil {
		return nil, Errorf(ErrNameReadOnly, "%s is read-only", name)
	}
	if !p.Sig.Is(v) {
		return nil, Errorf(ErrNameInvalidArgs, "%s is of type %q", name, p.Sig)
	}
	return func(ctx context.Context, c *Call) ([]any, error) { return nil, p.Set(ctx, c, v) }, nil
}

// managed is what GetManagedObjects answers. s.mu is held.
func (s *Service) managed(manager wire.ObjectPath) wire.Dict {
	all := wire.Dict{Key: "o", Elem: "a{sa{sv}}"}
	for _, path := range s.paths() {
		if path.Below(manager) {
			all.Entries = append(all.Entries, wire.Entry{Key: path, Value: s.describe(s.objects[path].interfaces)})
		}
	}
	return all
}

const (
	introspectHead = `<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">
<node>
 <interface name="org.freedesktop.DBus.Peer">
  <method name="Ping"/>
  <method name="GetMachineId">
   <arg name="machine_uuid" type="s" direction="out"/>
  </method>
 </interface>
 <interface name="org.freedesktop.DBus.Introspectable">
  <method name="Introspect">
   <arg name="xml_data" type="s" direction="out"/>
  </method>
 </interface>
`
	introspectProperties = ` <interface name="org.freedesktop.DBus.Properties">
  <method name="Get">
   <arg name="interface_name" type="s" direction="in"/>
   <arg name="property_name" type="s" direction="in"/>
   <arg name="value" type="v" direction="out"/>
  </method>
  <method name="GetAll">
   <arg name="interface_name" type="s" direction="in"/>
   <arg name="props" type="a{sv}" direction="out"/>
  </method>
  <method name="Set">
   <arg name="interface_name" type="s" direction="in"/>
   <arg name="property_name" type="s" direction="in"/>
   <arg name="value" type="v" direction="in"/>
  </method>
  <signal name="PropertiesChanged">
   <arg name="interface_name" type="s"/>
   <arg name="changed_properties" type="a{sv}"/>
   <arg name="invalidated_properties" type="as"/>
  </signal>
 </interface>
`
	introspectManager = ` <interface name="org.freedesktop.DBus.ObjectManager">
  <method name="GetManagedObjects">
   <arg name="objects" type="a{oa{sa{sv}}}" direction="out"/>
  </method>
  <signal name="InterfacesAdded">
   <arg name="object" type="o"/>
   <arg name="interfaces" type="a{sa{sv}}"/>
  </signal>
  <signal name="InterfacesRemoved">
   <arg name="object" type="o"/>
   <arg name="interfaces" type="as"/>
  </signal>
 </interface>
`
)

// introspect describes a node. s.mu is held.
func (s *Service) introspect(path wire.ObjectPath) string {
	var b strings.Builder
	b.WriteString(introspectHead)
	if slices.Contains(s.managers, path) {
		b.WriteString(introspectManager)
	}
	if o := s.objects[path]; o != nil {
		b.WriteString(introspectProperties)
		for _, e := range o.interfaces {
			b.WriteString(" " + e.XML + "\n")
		}
	}
	for _, child := range s.children(path) {
		b.WriteString(` <node name="` + child + "\"/>\n")
	}
	b.WriteString("</node>\n")
	return b.String()
}

// children returns the names of the nodes right below path. s.mu is held.
func (s *Service) children(path wire.ObjectPath) []string {
	var names []string
	for _, p := range slices.Concat(s.paths(), s.managers) {
		if !p.Below(path) {
			continue
		}
		rest := strings.TrimPrefix(string(p[len(path):]), "/")
		name, _, _ := strings.Cut(rest, "/")
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
