// SPDX-License-Identifier: Apache-2.0

// Package usbbackend reaches an RShim over USB: registers on control
// transfers, the boot FIFO as a pipeline of bulk transfers, and a finder that
// notices devices come and go. Its Device is the Backend that package rshim
// asks for. It knows no operating system; that is behind package usb.
package usbbackend

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

// ErrDescriptors means that a device has an RShim's identity but not its
// interfaces.
var ErrDescriptors = errors.New("not the interfaces of an RShim")

// Device is an RShim that was found on a USB bus, for as long as it stays
// plugged in. Its methods may be called from several goroutines, but those of
// the boot FIFO from one at a time, and those of the TMFIFO as they say.
type Device struct {
	dev  usb.Device
	info usb.Info
	gen  reg.Generation
	regs *reg.Map

	bootOut                   uint8 // endpoint addresses
	tmInEP, tmOutEP, tmIntrEP uint8

	log   *slog.Logger
	boot  pipeline
	tmIn  tmIn
	tmOut tmOut

	open      context.Context // ends with Close
	end       context.CancelFunc
	closeOnce sync.Once
	closeErr  error
}

// Open opens and claims the RShim that info describes.
func Open(ctx context.Context, h usb.Host, info usb.Info, log *slog.Logger) (*Device, error) {
	gen, ok := reg.GenerationOf(info.Vendor, info.Product)
	if !ok {
		return nil, fmt.Errorf("usb %s: %04x:%04x is not an RShim", info.Location, info.Vendor, info.Product)
	}
	dev, err := h.Open(ctx, info)
	if err != nil {
		return nil, err
	}
	d := &Device{dev: dev, info: info, gen: gen, regs: reg.For(gen)}
	d.open, d.end = context.WithCancel(context.Background())
	if err := d.claim(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	d.log = log.With("device", d.Name())
	return d, nil
}

// claim finds the endpoints, whatever their addresses and order, and claims
// the interfaces they belong to.
func (d *Device) claim() error {
	for _, i := range d.dev.Interfaces() {
		switch i.Subclass {
		case reg.USBSubclassBoot:
			for _, e := range i.Endpoints {
				if e.Type == usb.Bulk && !e.In() {
					d.bootOut = e.Address
				}
			}
		case reg.USBSubclassTMFIFO:
			for _, e := range i.Endpoints {
				switch {
				case e.Type == usb.Bulk && e.In():
					d.tmInEP = e.Address
				case e.Type == usb.Bulk:
					d.tmOutEP = e.Address
				case e.Type == usb.Interrupt && e.In():
					d.tmIntrEP = e.Address
				}
			}
		default:
			continue
		}
		if err := d.dev.Claim(i.Number); err != nil {
			return err
		}
	}
	if d.bootOut == 0 || d.tmInEP == 0 || d.tmOutEP == 0 || d.tmIntrEP == 0 {
		return fmt.Errorf("usb %s: %w: %+v", d.info.Location, ErrDescriptors, d.dev.Interfaces())
	}
	return nil
}

// Name is the device's name as rshim.conf and misc's DEV_NAME have it, see
// NameOf.
func (d *Device) Name() string { return NameOf(d.info.Location) }

// Generation tells which BlueField it is.
func (d *Device) Generation() reg.Generation { return d.gen }

// Revision is the chip's revision, the device's bcdDevice.
func (d *Device) Revision() int { return int(d.info.Release) }

// Gone is closed when the device has left the bus.
func (d *Device) Gone() <-chan struct{} { return d.dev.Gone() }

// Close ends everything that is under way and lets go of the device.
func (d *Device) Close() error {
	d.closeOnce.Do(func() {
		d.end()
		d.closeErr = d.dev.Close()
	})
	return d.closeErr
}

// ReadReg reads a register of size bytes, 4 or 8.
func (d *Device) ReadReg(ctx context.Context, a reg.Addr, size int) (uint64, error) {
	var b [8]byte
	data := b[:d.gen.USBSize(size)]
	if err := d.control(ctx, reg.USBRequestRead, a, data); err != nil {
		return 0, fmt.Errorf("read register %v: %w", a, err)
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}

// WriteReg writes a register of size bytes, 4 or 8.
func (d *Device) WriteReg(ctx context.Context, a reg.Addr, size int, v uint64) error {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], v)
	if err := d.control(ctx, reg.USBRequestWrite, a, b[:d.gen.USBSize(size)]); err != nil {
		return fmt.Errorf("write register %v: %w", a, err)
	}
	return nil
}

func (d *Device) control(ctx context.Context, request uint8, a reg.Addr, data []byte) error {
	value, index := d.gen.USB(a)
	n, err := d.dev.Control(ctx, usb.Setup{RequestType: request, Value: value, Index: index}, data)
	if err == nil && n != len(data) {
		err = fmt.Errorf("%d of %d bytes moved: %w", n, len(data), usb.ErrProtocol)
	}
	return err
}

// NameOf turns a place on the bus into the name that the C daemon gives it:
// everything in hexadecimal, a dash before every port but the last, which has
// a dot: "2-1.7" is "usb-2-1.7", "1-1" is "usb-1.1", "1-1.2.12" is
// "usb-1-1-2.c".
func NameOf(l usb.Location) string {
	bus, ports, err := l.Split()
	if err != nil {
		return "usb-" + string(l)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "usb-%x", bus)
	for i, p := range ports {
		sep := '-'
		if i == len(ports)-1 {
			sep = '.'
		}
		fmt.Fprintf(&b, "%c%x", sep, p)
	}
	return b.String()
}
