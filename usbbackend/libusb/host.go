// SPDX-License-Identifier: Apache-2.0

//go:build libusb

// Package libusb drives USB devices through libusb, by way of gousb. It needs
// cgo and the build tag libusb. Its use is as a reference beside package
// usbfs, which is what ships; what gousb leaves out costs it some comfort:
//
//   - One transfer of an endpoint is in flight at a time, and the one after it
//     is submitted when it has ended.
//   - A control transfer cannot be cancelled. The call returns when it should,
//     the transfer itself ends within controlTimeout, and other control
//     transfers and Close wait for it.
//   - There is no libusb_clear_halt. ClearHalt selects the interface's
//     alternate setting once more, which starts all endpoints of the interface
//     afresh (USB 2.0 section 9.4.5).
//   - Nothing tells that an idle device has been unplugged; the next call
//     does.
//   - Opening detaches kernel drivers from all interfaces, not only from those
//     that are claimed.
//
// Without udevd a libusb context never hears of devices that come later, so
// every call that looks for one, and every open device, has a context of its
// own.
package libusb

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/google/gousb"

	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

// Host is libusb's view of the USB buses.
type Host struct{}

var _ usb.Host = Host{}

// New returns libusb's USB host. It opens nothing.
func New() Host { return Host{} }

// Name returns "libusb".
func (Host) Name() string { return "libusb" }

// newContext makes a context; gousb panics where libusb says no.
func newContext() (c *gousb.Context, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("no libusb context: %v", r)
		}
	}()
	return gousb.NewContext(), nil
}

// Devices lists the devices of a vendor that are plugged in now.
func (Host) Devices(ctx context.Context, vendor uint16) ([]usb.Info, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c, err := newContext()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var found []usb.Info
	// The error is of a device that went while it was looked at.
	c.OpenDevices(func(desc *gousb.DeviceDesc) bool {
		if info := infoOf(desc); info.Vendor == vendor && len(desc.Path) > 0 {
			found = append(found, info)
		}
		return false
	})
	return found, ctx.Err()
}

func infoOf(desc *gousb.DeviceDesc) usb.Info {
	ports := make([]string, len(desc.Path))
	for i, p := range desc.Path {
		ports[i] = strconv.Itoa(p)
	}
	info := usb.Info{
		Location: usb.Location(fmt.Sprintf("%d-%s", desc.Bus, strings.Join(ports, "."))),
		Address:  desc.Address,
		Vendor:   uint16(desc.Vendor),
		Product:  uint16(desc.Product),
		Release:  uint16(desc.Device),
	}
	switch desc.Speed {
	case gousb.SpeedLow:
		info.Speed = usb.SpeedLow
	case gousb.SpeedFull:
		info.Speed = usb.SpeedFull
	case gousb.SpeedHigh:
		info.Speed = usb.SpeedHigh
	case gousb.SpeedSuper:
		info.Speed = usb.SpeedSuper
	}
	return info
}

// open opens a device in a context of its own. The caller closes both.
func open(info usb.Info) (*gousb.Context, *gousb.Device, error) {
	c, err := newContext()
	if err != nil {
		return nil, nil, err
	}
	devs, err := c.OpenDevices(func(desc *gousb.DeviceDesc) bool {
		have := infoOf(desc)
		return have.Location == info.Location && have.Address == info.Address
	})
	if len(devs) == 1 {
		return c, devs[0], nil
	}
	for _, d := range devs {
		d.Close()
	}
	c.Close()
	if err == nil {
		err = usb.ErrNoDevice
	}
	return nil, nil, cause(err)
}

// Open opens the device at info.Location, if it still is the one with
// info.Address; otherwise ErrNoDevice.
func (Host) Open(ctx context.Context, info usb.Info) (usb.Device, error) {
	fail := func(err error) error { return &usb.OpError{Op: "open", Location: info.Location, Err: err} }
	if err := ctx.Err(); err != nil {
		return nil, fail(err)
	}
	c, dev, err := open(info)
	if err != nil {
		return nil, fail(err)
	}
	d, err := newDevice(c, dev, info.Location)
	if err != nil {
		dev.Close()
		c.Close()
		return nil, fail(err)
	}
	return d, nil
}

// Reset resets the port that info's device hangs on. libusb does what package
// usbfs does, and says "not found" when the device comes back as another one.
// When ctx ends first, Reset returns and the reset goes on behind.
func (Host) Reset(ctx context.Context, info usb.Info) error {
	fail := func(err error) error { return &usb.OpError{Op: "reset", Location: info.Location, Err: err} }
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	c, dev, err := open(info)
	if err != nil {
		return fail(err)
	}
	result := make(chan error, 1)
	go func() {
		err := dev.Reset()
		dev.Close()
		c.Close()
		result <- err
	}()
	select {
	case err := <-result:
		if err != nil && !errors.Is(err, gousb.ErrorNotFound) {
			return fail(cause(err))
		}
		return nil
	case <-ctx.Done():
		return fail(ctx.Err())
	}
}
