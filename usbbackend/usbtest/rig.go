// SPDX-License-Identifier: Apache-2.0

package usbtest

import (
	"context"
	"os"
	"strconv"
	"sync"
	"testing"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
	"github.com/bluefield-go/bmc-rshim/sim/usbip"
)

// Simulator returns a rig of the simulator's own bus, in this process.
func Simulator(t *testing.T) *Rig {
	f := function()
	background(t, f.Run)
	bus := usbdev.NewBus()
	bus.Plug("1-1.2", f)
	return &Rig{Host: bus, DPU: f}
}

// RunVHCI runs the suite for a host that uses this machine's kernel, which has
// the simulator plugged in; of rig it takes Host, Opens and Deaf. It needs root
// and vhci_hcd, and skips the test if there is none; the machine tests of
// internal/vmtest have it.
func RunVHCI(t *testing.T, rig Rig) {
	var v usbip.VHCI
	ports, err := v.FreePorts()
	if err != nil || len(ports) == 0 {
		t.Skip("no vhci_hcd here")
	}
	Run(t, func(t *testing.T) *Rig {
		r := rig
		r.DPU = function()
		r.Detach = func() {
			if err := os.WriteFile("/sys/devices/platform/vhci_hcd.0/detach", []byte(strconv.Itoa(ports[0])), 0); err != nil {
				t.Fatal(err)
			}
		}
		t.Cleanup(func() { (&run{Rig: &r, ctx: context.Background()}).absent(t) }) // the next rig wants to be the only one
		background(t, r.DPU.Run)
		background(t, func(ctx context.Context) error { return v.Run(ctx, r.DPU, ports[0]) })
		return &r
	})
}

func function() *usbdev.Function {
	dpu := bluefield.New(bluefield.Config{Generation: reg.BlueField2, NoFirmware: true})
	return usbdev.New(dpu, usbdev.Options{EmptyIn: usbdev.EmptyNAK})
}

// background runs something until the end of the test.
func background(t *testing.T, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
}
