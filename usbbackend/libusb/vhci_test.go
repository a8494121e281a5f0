// SPDX-License-Identifier: Apache-2.0

//go:build libusb

package libusb_test

import (
	"testing"

	"github.com/bluefield-go/bmc-rshim/usbbackend/libusb"
	"github.com/bluefield-go/bmc-rshim/usbbackend/usbtest"
)

// TestVHCI runs the suite against libusb and a real kernel.
func TestVHCI(t *testing.T) {
	usbtest.Run(t, func(t *testing.T) *usbtest.Rig {
		r := usbtest.VHCI(t, libusb.New())
		r.Opens = 20 // each takes libusb a tenth of a second to close
		return r
	})
}
