// SPDX-License-Identifier: Apache-2.0

//go:build libusb

package libusb

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/gousb"

	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

func TestCause(t *testing.T) {
	// As gousb wraps them: the code is in the text only.
	text := func(e error) error { return fmt.Errorf("failed to claim interface 1: %v", e) }
	for _, tt := range []struct{ in, want error }{
		{gousb.TransferStall, usb.ErrStall},
		{gousb.TransferCancelled, usb.ErrCancelled},
		{gousb.TransferNoDevice, usb.ErrNoDevice},
		{gousb.TransferOverflow, usb.ErrOverflow},
		{gousb.TransferError, usb.ErrProtocol},
		{gousb.ErrorPipe, usb.ErrStall},
		{gousb.ErrorNoDevice, usb.ErrNoDevice},
		{gousb.ErrorOverflow, usb.ErrOverflow},
		{gousb.ErrorBusy, usb.ErrBusy},
		{gousb.ErrorIO, usb.ErrProtocol},
		{gousb.ErrorTimeout, usb.ErrProtocol},
		{gousb.ErrorAccess, gousb.ErrorAccess},
		{text(gousb.ErrorBusy), usb.ErrBusy},
		{text(gousb.ErrorNoDevice), usb.ErrNoDevice},
		{usb.ErrNoDevice, usb.ErrNoDevice},
	} {
		if got := cause(tt.in); !errors.Is(got, tt.want) {
			t.Errorf("%v: %v, want %v", tt.in, got, tt.want)
		}
	}
	if err := cause(nil); err != nil {
		t.Errorf("nil: %v", err)
	}
}

func TestInfo(t *testing.T) {
	got := infoOf(&gousb.DeviceDesc{
		Bus: 2, Path: []int{1, 7}, Address: 19, Vendor: 0x22dc, Product: 0x0214, Device: 0x0100, Speed: gousb.SpeedHigh,
	})
	want := usb.Info{Location: "2-1.7", Address: 19, Vendor: 0x22dc, Product: 0x0214, Release: 0x0100, Speed: usb.SpeedHigh}
	if got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// TestDevices runs with whatever is on this machine's buses.
func TestDevices(t *testing.T) {
	if infos, err := New().Devices(t.Context(), 0xffff); err == nil && len(infos) != 0 {
		t.Errorf("%+v", infos)
	} else if err != nil {
		t.Skip("libusb does not work here: ", err)
	}
	if _, err := New().Open(t.Context(), usb.Info{Location: "99-1", Address: 3}); !errors.Is(err, usb.ErrNoDevice) {
		t.Errorf("Open: %v, want ErrNoDevice", err)
	}
}
