// SPDX-License-Identifier: Apache-2.0

package usbfs_test

import (
	"testing"

	"github.com/bluefield-go/bmc-rshim/usbbackend/usbfs"
	"github.com/bluefield-go/bmc-rshim/usbbackend/usbtest"
)

// TestVHCI runs the suite against a real kernel.
func TestVHCI(t *testing.T) { usbtest.RunVHCI(t, usbtest.Rig{Host: usbfs.New(usbfs.Options{})}) }
