// SPDX-License-Identifier: Apache-2.0

//go:build libusb

package libusb_test

import (
	"testing"

	"github.com/bluefield-go/bmc-rshim/usbbackend/libusb"
	"github.com/bluefield-go/bmc-rshim/usbbackend/usbtest"
)

// TestVHCI runs the suite against libusb and a real kernel. It opens the device
// less often, as each time takes libusb a tenth of a second.
func TestVHCI(t *testing.T) {
	usbtest.RunVHCI(t, usbtest.Rig{Host: libusb.New(), Opens: 20, Deaf: true})
}
