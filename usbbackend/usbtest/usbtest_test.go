// SPDX-License-Identifier: Apache-2.0

package usbtest_test

import (
	"context"
	"sync"
	"testing"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
	"github.com/bluefield-go/bmc-rshim/usbbackend/usbtest"
)

// The suite against the simulator in this process: it holds the simulator to
// what real hosts do, and so do all tests that use it.
func TestSimulator(t *testing.T) {
	usbtest.Run(t, func(t *testing.T) *usbtest.Rig {
		f := usbdev.New(bluefield.New(bluefield.Config{Generation: reg.BlueField2, NoFirmware: true}),
			usbdev.Options{EmptyIn: usbdev.EmptyNAK})
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { f.Run(ctx) })
		t.Cleanup(func() {
			cancel()
			wg.Wait()
		})
		bus := usbdev.NewBus()
		bus.Plug("1-1.2", f)
		return &usbtest.Rig{Host: bus, Knobs: f}
	})
}
