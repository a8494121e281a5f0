// SPDX-License-Identifier: Apache-2.0

package usbfs

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

// Devices lists the devices of a vendor that are plugged in now, in the order
// of their names. A device that vanishes meanwhile is left out.
func (h *Host) Devices(ctx context.Context, vendor uint16) ([]usb.Info, error) {
	entries, err := os.ReadDir(filepath.Join(h.sys, "bus/usb/devices"))
	if os.IsNotExist(err) {
		return nil, nil // a kernel without USB, or before its module is loaded
	}
	if err != nil {
		return nil, err
	}
	var found []usb.Info
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		loc := usb.Location(e.Name())
		if _, _, err := loc.Split(); err != nil {
			continue // a root hub ("usb1") or an interface ("1-1:1.0")
		}
		if v, ok := h.number(loc, "idVendor", 16); !ok || uint16(v) != vendor {
			continue
		}
		if info, ok := h.info(loc); ok && info.Vendor == vendor {
			found = append(found, info)
		}
	}
	return found, nil
}

// info reads what sysfs has on the device at loc. It is false when there is
// none, or it was replaced while reading.
func (h *Host) info(loc usb.Location) (usb.Info, bool) {
	before, ok0 := h.number(loc, "devnum", 10)
	vendor, ok1 := h.number(loc, "idVendor", 16)
	product, ok2 := h.number(loc, "idProduct", 16)
	release, ok3 := h.number(loc, "bcdDevice", 16)
	speed, ok4 := h.attribute(loc, "speed")
	after, ok5 := h.number(loc, "devnum", 10)
	if !(ok0 && ok1 && ok2 && ok3 && ok4 && ok5) || before != after {
		return usb.Info{}, false
	}
	return usb.Info{
		Location: loc,
		Address:  int(after),
		Vendor:   uint16(vendor),
		Product:  uint16(product),
		Release:  uint16(release),
		Speed:    speedOf(speed),
	}, true
}

// number reads an attribute that holds one number of at most 16 bits.
func (h *Host) number(loc usb.Location, name string, base int) (uint64, bool) {
	s, ok := h.attribute(loc, name)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(s, base, 16)
	return n, err == nil
}

func (h *Host) attribute(loc usb.Location, name string) (string, bool) {
	b, err := os.ReadFile(filepath.Join(h.sys, "bus/usb/devices", string(loc), name))
	return strings.TrimSpace(string(b)), err == nil
}

// speedOf translates the speed attribute, in Mb/s.
func speedOf(s string) usb.Speed {
	switch s {
	case "1.5":
		return usb.SpeedLow
	case "12":
		return usb.SpeedFull
	case "480":
		return usb.SpeedHigh
	}
	if n, err := strconv.Atoi(s); err == nil && n >= 5000 {
		return usb.SpeedSuper
	}
	return usb.SpeedUnknown
}
