// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/usbbackend"
	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

// isMapping reports whether a line is for a device's index. As for the C
// daemon it need not be a good one.
func isMapping(key, value string) bool {
	n, ok := strings.CutPrefix(key, "rshim")
	if !ok {
		return false
	}
	_, _, number := leadingNumber(n)
	return number || isDevice(value)
}

func isDevice(name string) bool {
	return strings.HasPrefix(name, "usb-") || strings.HasPrefix(name, "pcie-")
}

// mapTo takes a line that gives a device an index.
func (c *confReader) mapTo(key, name string) {
	i, rest, ok := leadingNumber(key[len("rshim"):])
	if i < 0 || i >= rshim.MaxDevices {
		c.warn("%q: an index is from 0 to %d", key, rshim.MaxDevices-1)
		return
	}
	key, given := fmt.Sprintf("rshim%d", i), key
	if !c.device(key, name) {
		return
	}
	if !ok || rest != "" {
		c.warn("%q counts as %s", given, key)
	}
	if was := c.slots[i]; was != "" && was != name {
		c.warn("%s is %s in line %d: the last one counts", key, was, c.seen[key])
	}
	for j, other := range c.slots {
		if other == name && j != i {
			c.warn("%s is rshim%d in line %d: the lower index counts", name, j, c.seen[fmt.Sprintf("rshim%d", j)])
		}
	}
	if c.blocked[name] {
		c.warn("%s is blocked in line %d, and is not served", name, c.seen["none "+name])
	}
	c.slots[i], c.seen[key] = name, c.line
}

// block takes a line that blocks a device.
func (c *confReader) block(name string) {
	if !c.device("none", name) || c.blocked[name] {
		return
	}
	if len(c.blocked) == maxBlocked {
		c.warn("none %s: there are %d of them already", name, maxBlocked)
		return
	}
	for i, other := range c.slots {
		if other == name {
			c.warn("%s is rshim%d in line %d, but blocked: it is not served", name, i, c.seen[fmt.Sprintf("rshim%d", i)])
		}
	}
	c.blocked[name], c.seen["none "+name] = true, c.line
}

// device checks a device's name, and reports whether there can be one of that
// name here.
func (c *confReader) device(key, name string) bool {
	location, onUSB := strings.CutPrefix(name, "usb-")
	switch {
	case !isDevice(name):
		c.warn("%s: a device is usb-BUS-PORT..., as misc shows it in DEV_NAME, not %q", key, name)
		return false
	case !onUSB:
		c.note("%s %q has no effect over USB", key, name)
		return false
	case !isUSBName(location):
		if l := usb.Location(location); isLocation(l) {
			c.warn("%s: no device has the name %q: did you mean %s?", key, name, usbbackend.NameOf(l))
		} else if low := strings.ToLower(location); isUSBName(low) {
			c.warn("%s: no device has the name %q: did you mean usb-%s?", key, name, low)
		} else {
			c.warn("%s: no device has the name %q: it is usb-BUS, ports with dashes before them, the last one with a dot, all hexadecimal", key, name)
		}
		return false
	}
	return true
}

// isUSBName reports whether what comes after "usb-" is like usbbackend.NameOf
// makes it: 2-1.7, 1.1, 1-1-2.c.
func isUSBName(s string) bool {
	path, last, ok := strings.Cut(s, ".")
	parts := append(strings.Split(path, "-"), last)
	for _, p := range parts {
		n, err := strconv.ParseUint(p, 16, 8)
		ok = ok && err == nil && n > 0 && strconv.FormatUint(n, 16) == p
	}
	return ok && len(parts) <= 1+7 // hubs nest no deeper
}

func isLocation(l usb.Location) bool {
	bus, ports, err := l.Split()
	ok := err == nil && bus > 0 && bus < 256
	for _, p := range ports {
		ok = ok && p > 0 && p < 256
	}
	return ok
}
