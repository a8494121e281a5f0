// SPDX-License-Identifier: Apache-2.0

package dbus

import (
	"embed"
	"fmt"
	"strings"

	"github.com/bluefield-go/bmc-rshim/dbus/bus"
)

//go:embed interfaces/*.xml
var xmlFiles embed.FS

// describe puts the interface's description into it.
func describe(i bus.Interface) bus.Interface {
	b, err := xmlFiles.ReadFile("interfaces/" + i.Name + ".xml")
	if err == nil {
		i.XML = string(b)
	}
	return i
}

// enum is a value of an enumeration as it stands on the bus:
// INTERFACE.Enumeration.Value.
func enum(iface, kind, value string) string { return iface + "." + kind + "." + value }

// enumValue takes the value out of what a caller has given, and refuses all but
// those that are allowed.
func enumValue(s, iface, kind string, allowed ...string) (string, error) {
	for _, a := range allowed {
		if s == enum(iface, kind, a) {
			return a, nil
		}
	}
	return "", fmt.Errorf("%w: %.100q is not %s.%s.%s", errEnum, s, iface, kind, strings.Join(allowed, ", "))
}

// title makes the word of an enumeration out of the core's.
func title(word string) string {
	if word == "" {
		return ""
	}
	return strings.ToUpper(word[:1]) + word[1:]
}
