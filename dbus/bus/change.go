// SPDX-License-Identifier: Apache-2.0

package bus

import (
	"errors"
	"fmt"
	"slices"

	"github.com/bluefield-go/bmc-rshim/dbus/wire"
)

// Change is a new value of a property.
type Change struct {
	Interface, Property string
	Value               any
	Repeat              bool // say so even if the value is what it was
}

// property is one property of one object.
type property struct {
	o *Object
	e *export
	i int // of e.Properties
}

// Update changes properties. Clients see the changes in this order:
// neighbours of one interface in one PropertiesChanged, each next interface in
// the next one. A value that is what it was is left out, unless Repeat is
// set. While the bus does not read, changes wait and only the last value of a
// property is kept, in the order in which the last values were set.
//
// A property that does not exist, and a value of another type or that cannot be
// sent (text that is no UTF-8), change nothing and are an error; the other
// changes are made all the same.
func (o *Object) Update(changes ...Change) error {
	s := o.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if o.gone {
		return nil
	}
	var errs []error
	for _, c := range changes {
		if err := o.change(c); err != nil {
			errs = append(errs, fmt.Errorf("%s: %s.%s: %w", o.path, c.Interface, c.Property, err))
		}
	}
	s.flush()
	return errors.Join(errs...)
}

// change takes over a value and notes what is to be told. s.mu is held.
func (o *Object) change(c Change) error {
	e := o.find(c.Interface)
	if e == nil {
		return errors.New("no such interface")
	}
	i := e.property(c.Property)
	if i < 0 || e.Properties[i].Get != nil {
		return errors.New("no such property")
	}
	if err := wire.Check(e.Properties[i].Sig, c.Value); err != nil {
		return err
	}
	if !c.Repeat && wire.Equal(e.kept[i], c.Value) {
		return nil
	}
	s, p := o.s, property{o, e, i}
	tell := s.live && e.Properties[i].Emits == EmitsChange
	if tell && slices.Contains(s.dirty, p) {
		s.flush() // the value before, if there is room
		s.dirty = slices.DeleteFunc(s.dirty, func(have property) bool { return have == p })
	}
	e.kept[i] = c.Value
	if tell {
		s.dirty = append(s.dirty, p)
	}
	return nil
}

// flush tells of changes for as long as there is room. s.mu is held.
func (s *Service) flush() {
	for len(s.dirty) > 0 && !s.c.out.full() {
		first := s.dirty[0]
		n := 1
		for n < len(s.dirty) && s.dirty[n].e == first.e {
			n++
		}
		values := wire.Dict{Key: "s", Elem: "v"}
		for _, p := range s.dirty[:n] {
			values.Entries = append(values.Entries, wire.Entry{Key: p.e.Properties[p.i].Name, Value: wire.Variant{Value: p.e.kept[p.i]}})
		}
		s.dirty = slices.Delete(s.dirty, 0, n)
		if err := s.signal(first.o.path, ifaceProperties, "PropertiesChanged", first.e.Name, values, []string{}); err != nil {
			s.o.Log.Warn("PropertiesChanged", "path", first.o.path, "interface", first.e.Name, "err", err)
		}
	}
}

// Set is Update with one change.
func (o *Object) Set(iface, property string, value any) error {
	return o.Update(Change{Interface: iface, Property: property, Value: value})
}

// Value returns a property's value, or nil if there is none.
func (o *Object) Value(iface, property string) any {
	o.s.mu.Lock()
	defer o.s.mu.Unlock()
	e := o.find(iface)
	if e == nil {
		return nil
	}
	i := e.property(property)
	if i < 0 {
		return nil
	}
	v, err := e.value(i)
	if err != nil {
		return nil
	}
	return v
}

// Emit sends a signal of the object, after the changes made before. It is lost
// if the service does not own its name; if the bus does not read, the error is
// ErrFull.
func (o *Object) Emit(iface, member string, args ...any) error {
	s := o.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if o.gone || !s.live {
		return nil
	}
	s.flush()
	if len(s.dirty) > 0 || s.c.out.full() {
		return ErrFull
	}
	return s.signal(o.path, iface, member, args...)
}
