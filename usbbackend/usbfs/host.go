// SPDX-License-Identifier: Apache-2.0

// Package usbfs drives USB devices through the kernel's usbfs
// (/dev/bus/usb) and sysfs, in Go alone: no cgo, no libusb, no udev.
package usbfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

// Options tells where the kernel's file systems are; the zero value is right
// outside of tests.
type Options struct {
	SysRoot string // where sysfs is; "" means /sys
	DevRoot string // where the device nodes are; "" means /dev
}

// Host is the kernel's USB host.
type Host struct {
	sys, dev string
}

var _ usb.Host = (*Host)(nil)

// New returns the kernel's USB host. It opens nothing.
func New(o Options) *Host {
	h := &Host{sys: o.SysRoot, dev: o.DevRoot}
	if h.sys == "" {
		h.sys = "/sys"
	}
	if h.dev == "" {
		h.dev = "/dev"
	}
	return h
}

// Name returns "usbfs".
func (h *Host) Name() string { return "usbfs" }

// Open opens the device at info.Location, if it still is the one with
// info.Address; otherwise ErrNoDevice. The caller must Close it, even when it
// is gone.
func (h *Host) Open(ctx context.Context, info usb.Info) (usb.Device, error) {
	if err := ctx.Err(); err != nil {
		return nil, &usb.OpError{Op: "open", Location: info.Location, Err: err}
	}
	d, err := h.openDevice(ctx, info)
	if err != nil {
		return nil, &usb.OpError{Op: "open", Location: info.Location, Err: err}
	}
	return d, nil
}

func (h *Host) openDevice(ctx context.Context, info usb.Info) (*Device, error) {
	config, err := h.configured(ctx, info)
	if err != nil {
		return nil, err
	}
	fd, err := h.openNode(info)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "usb "+string(info.Location))
	desc, err := io.ReadAll(io.LimitReader(f, maxDescriptors))
	if err != nil {
		f.Close()
		return nil, pathCause(err)
	}
	ifs, err := parseInterfaces(desc, uint8(config))
	if err != nil {
		f.Close()
		return nil, err
	}
	d, err := newDevice(f, info.Location, ifs)
	if err != nil {
		f.Close()
		return nil, err
	}
	return d, nil
}

// settleLimit is how long Open waits for a device to be configured. It takes
// the kernel some milliseconds.
const settleLimit = time.Second

var errUnconfigured = errors.New("device is not configured")

// configured waits until the kernel has configured a device, and returns the
// value of the configuration. The kernel shows and announces a device before
// it has made its node and configured it, and those who listen to
// announcements are here in no time.
func (h *Host) configured(ctx context.Context, info usb.Info) (uint8, error) {
	end := time.Now().Add(settleLimit)
	for h.present(info) {
		if config, ok := h.number(info.Location, "bConfigurationValue", 10); ok {
			return uint8(config), nil
		}
		if time.Now().After(end) {
			return 0, errUnconfigured
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	return 0, usb.ErrNoDevice
}

// openNode opens the node of a device. A node is named by an address, and an
// address may be given to another device, so the address is compared with the
// location's before and after.
func (h *Host) openNode(info usb.Info) (fd int, err error) {
	bus, _, err := info.Location.Split()
	if err != nil {
		return -1, err
	}
	if !h.present(info) {
		return -1, usb.ErrNoDevice
	}
	path := filepath.Join(h.dev, fmt.Sprintf("bus/usb/%03d/%03d", bus, info.Address))
	// Non-blocking, so that os.NewFile hands it to the runtime's poller.
	fd, err = unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	for err == unix.EINTR {
		fd, err = unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	}
	if !h.present(info) {
		if err == nil {
			unix.Close(fd)
		}
		return -1, usb.ErrNoDevice
	}
	if err != nil {
		return -1, pathCause(&os.PathError{Op: "open", Path: path, Err: err})
	}
	return fd, nil
}

func (h *Host) present(info usb.Info) bool {
	n, ok := h.number(info.Location, "devnum", 10)
	return ok && int(n) == info.Address
}

// pathCause returns ErrNoDevice for an error that says so, and others as they
// are.
func pathCause(err error) error {
	if errors.Is(err, syscall.ENODEV) {
		return usb.ErrNoDevice
	}
	return err
}

// Reset resets the port that info's device hangs on.
//
// It is USBDEVFS_RESET on the device's node. The kernel resets the port and
// compares what it finds with what it knew: the same device at the same speed
// stays what it is, address included, and loses only its claims and
// transfers. When speed or descriptors differ, as they do for a DPU that was
// first seen at low or full speed while its firmware started, the kernel
// drops the device and enumerates the port anew; the ioctl then says ENODEV,
// which is success here. The hub's switch for a port (the disable attribute of
// Linux 6.0) would enforce that, but it cuts the port's power too, which is
// not ours to do.
//
// The kernel bounds a reset to some seconds but has no way to break it off:
// when ctx ends first, Reset returns and lets it finish behind.
func (h *Host) Reset(ctx context.Context, info usb.Info) error {
	fail := func(err error) error { return &usb.OpError{Op: "reset", Location: info.Location, Err: err} }
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	// What cannot be configured may well need a reset.
	if _, err := h.configured(ctx, info); err != nil && err != errUnconfigured {
		return fail(err)
	}
	fd, err := h.openNode(info)
	if err != nil {
		return fail(err)
	}
	result := make(chan syscall.Errno, 1)
	go func() {
		defer unix.Close(fd)
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ioctlReset, 0)
		result <- errno
	}()
	select {
	case errno := <-result:
		if errno == 0 || errno == syscall.ENODEV {
			return nil
		}
		return fail(errorOf(errno))
	case <-ctx.Done():
		return fail(ctx.Err())
	}
}
