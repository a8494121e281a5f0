// SPDX-License-Identifier: Apache-2.0

package usbtest

import (
	"context"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
	"github.com/bluefield-go/bmc-rshim/sim/usbip"
	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
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
// the simulator plugged in. It needs root and vhci_hcd, and skips the test if
// there is none; the machine tests of internal/vmtest have it. Opens is Rig's.
func RunVHCI(t *testing.T, host usb.Host, opens int) {
	var v usbip.VHCI
	ports, err := v.FreePorts()
	if err != nil || len(ports) == 0 {
		t.Skip("no vhci_hcd here")
	}
	Run(t, func(t *testing.T) *Rig {
		t.Cleanup(func() {
			// The next rig wants to be the only one.
			for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
				if now, _ := v.FreePorts(); slices.Contains(now, ports[0]) {
					return
				}
			}
			t.Error("the kernel does not let go of the device")
		})
		f := function()
		background(t, f.Run)
		background(t, func(ctx context.Context) error { return v.Run(ctx, f, ports[0]) })
		detach := func() {
			if err := os.WriteFile("/sys/devices/platform/vhci_hcd.0/detach", []byte(strconv.Itoa(ports[0])), 0); err != nil {
				t.Fatal(err)
			}
		}
		return &Rig{Host: host, DPU: f, Opens: opens, Detach: detach}
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
