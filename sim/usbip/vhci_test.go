// SPDX-License-Identifier: Apache-2.0

package usbip_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
	"github.com/bluefield-go/bmc-rshim/sim/usbip"
)

// limit is how long anything may take that must happen at all.
const limit = time.Minute

// usbDevice is what the kernel tells of one of our devices.
type usbDevice struct{ product, release, speed, devnum, name, interfaces string }

// devices lists our devices by location.
func devices(t *testing.T) map[string]usbDevice {
	t.Helper()
	found := map[string]usbDevice{}
	dirs, err := filepath.Glob("/sys/bus/usb/devices/*/idVendor")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range dirs {
		dir := filepath.Dir(file)
		attr := func(name string) string {
			b, _ := os.ReadFile(filepath.Join(dir, name)) // it may be leaving
			return strings.TrimSpace(string(b))
		}
		if attr("idVendor") == "22dc" && attr("bNumInterfaces") != "" {
			found[filepath.Base(dir)] = usbDevice{attr("idProduct"), attr("bcdDevice"), attr("speed"), attr("devnum"), attr("product"), attr("bNumInterfaces")}
		}
	}
	return found
}

// wait waits until the kernel has just n of our devices, as ok wants them.
func wait(t *testing.T, what string, n int, ok func(usbDevice) bool) map[string]usbDevice {
	t.Helper()
	return until(t, what, func(all map[string]usbDevice) bool {
		good := len(all) == n
		for _, d := range all {
			good = good && ok(d)
		}
		return good
	})
}

// until waits until the kernel has our devices as ok wants them.
func until(t *testing.T, what string, ok func(map[string]usbDevice) bool) map[string]usbDevice {
	t.Helper()
	var last map[string]usbDevice
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if last = devices(t); ok(last) {
			return last
		}
	}
	t.Fatalf("%s: devices %+v", what, last)
	return nil
}

// TestVHCI has this machine's kernel enumerate simulated DPUs.
func TestVHCI(t *testing.T) {
	var v usbip.VHCI
	ports, err := v.FreePorts()
	if err != nil {
		t.Skip(err)
	}
	const count = 3
	if len(ports) < count {
		t.Fatalf("free ports %v", ports)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		wait(t, "after the end", 0, nil)
	})
	var fs []*usbdev.Function
	for i, g := range []reg.Generation{reg.BlueField3, reg.BlueField2, reg.BlueField3} {
		f := usbdev.New(bluefield.New(bluefield.Config{Generation: g, Revision: 1}),
			usbdev.Options{TMFIFOFirst: i == 2, Reversed: i == 1})
		wg.Go(func() { f.Run(ctx) })
		wg.Go(func() {
			if err := v.Run(ctx, f, ports[i]); err != nil {
				t.Errorf("port %d: %v", ports[i], err)
			}
		})
		fs = append(fs, f)
	}
	high := func(d usbDevice) bool { return d.speed == "480" && d.interfaces == "2" }
	first := wait(t, "three DPUs", count, high)
	products := map[string]int{}
	for at, d := range first {
		products[d.product]++
		if d.name != "BlueField RShim (simulated)" || d.release != "0001" {
			t.Errorf("%s: %+v", at, d)
		}
	}
	if products["021c"] != 2 || products["0214"] != 1 {
		t.Errorf("products %v", products)
	}

	// A reset takes one of them off the bus, for a time that may be too short to
	// be seen, and brings it back where it was, with another number.
	fs[0].DPU().Reset()
	until(t, "back from reset", func(all map[string]usbDevice) bool {
		same, anew := 0, 0
		for at, d := range all {
			was, ok := first[at]
			switch {
			case !ok || !high(d):
			case d.devnum == was.devnum:
				same++
			default:
				anew++
			}
		}
		return len(all) == count && same == count-1 && anew == 1
	})

	for _, f := range fs[1:] {
		f.Unplug()
	}
	wait(t, "two unplugged", 1, high)
	fs[0].SetLowSpeed(1)
	fs[0].Unplug()
	wait(t, "all unplugged", 0, nil)
	fs[0].Plug()
	low := wait(t, "at low speed", 1, func(d usbDevice) bool { return d.speed == "1.5" && d.interfaces == "2" })
	// Deauthorizing and authorizing configures the device anew, which is what
	// the model takes for a port's reset.
	for at := range low {
		for _, on := range []string{"0", "1"} {
			if err := os.WriteFile(filepath.Join("/sys/bus/usb/devices", at, "authorized"), []byte(on), 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	wait(t, "at high speed", 1, high)
}
