// SPDX-License-Identifier: Apache-2.0

//go:build libusb

package libusb

import (
	"errors"
	"fmt"
	"strings"

	"github.com/google/gousb"

	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

// cause translates an error of gousb.
func cause(err error) error {
	if err == nil {
		return nil
	}
	var status gousb.TransferStatus
	if errors.As(err, &status) {
		switch status {
		case gousb.TransferStall:
			return usb.ErrStall
		case gousb.TransferCancelled:
			return usb.ErrCancelled
		case gousb.TransferNoDevice:
			return usb.ErrNoDevice
		case gousb.TransferOverflow:
			return usb.ErrOverflow
		}
		return fmt.Errorf("%w: %w", usb.ErrProtocol, err)
	}
	switch code(err) {
	case gousb.ErrorPipe:
		return usb.ErrStall
	case gousb.ErrorNoDevice:
		return usb.ErrNoDevice
	case gousb.ErrorOverflow:
		return usb.ErrOverflow
	case gousb.ErrorBusy:
		return usb.ErrBusy
	case gousb.ErrorIO, gousb.ErrorTimeout:
		return fmt.Errorf("%w: %w", usb.ErrProtocol, err)
	}
	return err
}

// code finds libusb's error code in err. Some of gousb's errors have it in
// their text only.
func code(err error) gousb.Error {
	var e gousb.Error
	if errors.As(err, &e) {
		return e
	}
	for _, e := range []gousb.Error{gousb.ErrorNoDevice, gousb.ErrorBusy, gousb.ErrorIO} {
		if strings.Contains(err.Error(), e.Error()) {
			return e
		}
	}
	return gousb.ErrorOther
}
