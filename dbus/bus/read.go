// SPDX-License-Identifier: Apache-2.0

package bus

import "github.com/bluefield-go/bmc-rshim/dbus/wire"

// properties makes the values of an a{sv} accessible by name.
func properties(d wire.Dict) Properties {
	p := make(Properties)
	for _, e := range d.Entries {
		name, ok := e.Key.(string)
		if v, is := e.Value.(wire.Variant); ok && is {
			p[name] = v.Value
		}
	}
	return p
}

// interfaceProperties is properties for each interface of an a{sa{sv}}.
func interfaceProperties(d wire.Dict) map[string]Properties {
	m := make(map[string]Properties)
	for _, e := range d.Entries {
		name, ok := e.Key.(string)
		if values, is := e.Value.(wire.Dict); ok && is {
			m[name] = properties(values)
		}
	}
	return m
}

// at returns argument i if it is a T, else the zero value.
func at[T any](s Signal, i int) (v T) {
	if i < len(s.Body) {
		v, _ = s.Body[i].(T)
	}
	return v
}

// Changed reads a PropertiesChanged: the interface and the new values. (Those
// that are told to be invalid, without a value, are left out.)
func Changed(s Signal) (iface string, p Properties, ok bool) {
	if s.Interface != ifaceProperties || s.Member != "PropertiesChanged" {
		return "", nil, false
	}
	iface = at[string](s, 0)
	return iface, properties(at[wire.Dict](s, 1)), iface != ""
}

// Added reads an InterfacesAdded: the object, its new interfaces and their properties.
func Added(s Signal) (path wire.ObjectPath, interfaces map[string]Properties, ok bool) {
	if s.Interface != ifaceObjectManager || s.Member != "InterfacesAdded" {
		return "", nil, false
	}
	path = at[wire.ObjectPath](s, 0)
	return path, interfaceProperties(at[wire.Dict](s, 1)), path != ""
}

// Removed reads an InterfacesRemoved: the object and the interfaces that it has no more.
func Removed(s Signal) (path wire.ObjectPath, interfaces []string, ok bool) {
	if s.Interface != ifaceObjectManager || s.Member != "InterfacesRemoved" {
		return "", nil, false
	}
	path = at[wire.ObjectPath](s, 0)
	return path, at[[]string](s, 1), path != ""
}
