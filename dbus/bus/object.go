// SPDX-License-Identifier: Apache-2.0

package bus

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/bluefield-go/bmc-rshim/dbus/wire"
)

// Interface is an interface of one object.
type Interface struct {
	Name string
	// XML describes it for Introspect: an element <interface>, or a whole
	// document with one, of which the rest is left out.
	XML        string
	Methods    []Method
	Properties []Property
}

// Method is a method of an interface.
type Method struct {
	Name    string
	In, Out wire.Signature
	// Handle serves a call, whose arguments have signature In; what it
	// returns must have signature Out. It runs in a goroutine of its own.
	// ctx ends when Run does or the connection is lost.
	Handle func(ctx context.Context, c *Call) ([]any, error)
}

// Emits says what becomes of a change of a property.
type Emits byte

// What becomes of a change.
const (
	EmitsChange  Emits = iota // PropertiesChanged with the value
	EmitsNothing              // annotate the XML: EmitsChangedSignal "false", or "const"
)

// Property is a property of an interface. Values must not be modified once they
// have been handed over.
type Property struct {
	Name  string
	Sig   wire.Signature
	Value any // the first one; nil if there is Get
	Emits Emits
	// Get, if not nil, is asked for the value instead of keeping one. It
	// must return at once, with a value of type Sig, and must not call
	// the service or its objects. Such a property emits nothing.
	Get func() any
	// Set serves the writing of v, which is of type Sig; nil: read-only.
	// It runs as a method's Handle does. It does not change what is kept:
	// that is for Object.Update, before or after Set returns.
	Set func(ctx context.Context, c *Call, v any) error
}

// Object is an exported object.
type Object struct {
	s    *Service
	path wire.ObjectPath

	// s.mu is for these.
	interfaces []*export
	gone       bool
}

// export is an interface of an object with the values of its properties.
type export struct {
	Interface
	kept []any // by property; nil where there is Get
}

// Path returns where the object is.
func (o *Object) Path() wire.ObjectPath { return o.path }

// newExport checks an interface.
func newExport(i Interface) (*export, error) {
	e := &export{Interface: i, kept: make([]any, len(i.Properties))}
	if !wire.ValidInterface(i.Name) || strings.HasPrefix(i.Name, "org.freedesktop.DBus.") {
		return nil, fmt.Errorf("no name for an interface: %q", i.Name)
	}
	begin, end := strings.Index(i.XML, "<interface"), strings.LastIndex(i.XML, "</interface>")
	if begin < 0 || end < begin {
		return nil, fmt.Errorf("%s: XML without an interface", i.Name)
	}
	e.XML = i.XML[begin : end+len("</interface>")]
	for _, m := range i.Methods {
		if !wire.ValidMember(m.Name) || m.In.Valid() != nil || m.Out.Valid() != nil || m.Handle == nil {
			return nil, fmt.Errorf("%s: method %q is not complete", i.Name, m.Name)
		}
	}
	for n, p := range i.Properties {
		if !wire.ValidMember(p.Name) || !p.Sig.Single() || (p.Get == nil) == (p.Value == nil) {
			return nil, fmt.Errorf("%s: property %q is not complete", i.Name, p.Name)
		}
		if p.Get == nil {
			if err := wire.Check(p.Sig, p.Value); err != nil {
				return nil, fmt.Errorf("%s: property %s: %w", i.Name, p.Name, err)
			}
		}
		e.kept[n] = p.Value
	}
	return e, nil
}

// find returns an interface, or nil. s.mu is held.
func (o *Object) find(iface string) *export {
	for _, e := range o.interfaces {
		if e.Name == iface {
			return e
		}
	}
	return nil
}

// property returns the index of a property, or -1.
func (e *export) property(name string) int {
	return slices.IndexFunc(e.Properties, func(p Property) bool { return p.Name == name })
}

// value returns the value of property i. s.mu is held.
func (e *export) value(i int) (any, error) {
	p := e.Properties[i]
	if p.Get == nil {
		return e.kept[i], nil
	}
	v := p.Get()
	return v, wire.Check(p.Sig, v)
}

// extend adds interfaces, all or none. s.mu is held.
func (o *Object) extend(interfaces []Interface) error {
	all := slices.Clone(o.interfaces)
	for _, i := range interfaces {
		if slices.ContainsFunc(all, func(e *export) bool { return e.Name == i.Name }) {
			return fmt.Errorf("%w: %s of %s", ErrExists, i.Name, o.path)
		}
		e, err := newExport(i)
		if err != nil {
			return fmt.Errorf("%s: %w", o.path, err)
		}
		all = append(all, e)
	}
	o.interfaces = all
	return nil
}

// Extend adds interfaces to the object (InterfacesAdded), all or none.
func (o *Object) Extend(interfaces ...Interface) error {
	o.s.mu.Lock()
	defer o.s.mu.Unlock()
	if o.gone {
		return nil
	}
	n := len(o.interfaces)
	if err := o.extend(interfaces); err != nil {
		return err
	}
	o.s.added(o, o.interfaces[n:])
	return nil
}

// Retract removes interfaces from the object (InterfacesRemoved). Calls that
// are in progress go on.
func (o *Object) Retract(names ...string) {
	o.s.mu.Lock()
	defer o.s.mu.Unlock()
	o.retract(func(e *export) bool { return slices.Contains(names, e.Name) })
}

// Remove removes the object (InterfacesRemoved). Calls that are in progress go
// on; Update and Emit do nothing any more.
func (o *Object) Remove() {
	o.s.mu.Lock()
	defer o.s.mu.Unlock()
	if o.gone {
		return
	}
	o.retract(func(*export) bool { return true })
	o.gone = true
	delete(o.s.objects, o.path)
}

func (o *Object) retract(which func(e *export) bool) {
	var names []string
	var left []*export
	for _, e := range o.interfaces {
		if which(e) {
			names = append(names, e.Name)
		} else {
			left = append(left, e)
		}
	}
	o.interfaces = left
	o.s.removed(o, names)
}
