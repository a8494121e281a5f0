// SPDX-License-Identifier: Apache-2.0

package usbtest_test

import (
	"testing"

	"github.com/bluefield-go/bmc-rshim/usbbackend/usbtest"
)

// The suite holds the simulator to what real hosts do, and with it all tests
// that use it.
func TestSimulator(t *testing.T) { usbtest.Run(t, usbtest.Simulator) }
