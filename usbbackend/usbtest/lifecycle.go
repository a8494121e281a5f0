// SPDX-License-Identifier: Apache-2.0

package usbtest

import (
	"errors"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

// busy leaves transfers pending on every endpoint, and a control transfer in
// another goroutine.
func (r *run) busy(t *testing.T, d usb.Device) (all []usb.Transfer, control <-chan error) {
	t.Helper()
	r.DPU.SetNAK(r.boot, true)
	r.DPU.SetNAK(0, true)
	t.Cleanup(func() {
		r.DPU.SetNAK(r.boot, false)
		r.DPU.SetNAK(0, false)
	})
	for range 4 {
		all = append(all, submit(t, d, r.boot, make([]byte, chunk)))
	}
	all = append(all, submit(t, d, r.tmIn, make([]byte, 2048)), submit(t, d, r.tmInt, make([]byte, 8)))
	c := make(chan error, 1)
	go func() {
		_, err := readScratch(r.ctx, d)
		c <- err
	}()
	time.Sleep(20 * time.Millisecond) // for the control transfer to be under way
	for _, tr := range all {
		pending(t, "transfer", tr)
	}
	return all, c
}

// dead checks that every call fails with want.
func (r *run) dead(t *testing.T, d usb.Device, want error) {
	t.Helper()
	for _, ep := range []uint8{r.boot, r.tmIn} {
		if n, err := usb.Do(r.ctx, d, ep, make([]byte, 8)); n != 0 || !errors.Is(err, want) {
			t.Errorf("transfer: %d, %v, want 0, %v", n, err, want)
		}
	}
	if _, err := readScratch(r.ctx, d); !errors.Is(err, want) {
		t.Errorf("Control: %v, want %v", err, want)
	}
	if err := d.ClearHalt(r.ctx, r.boot); !errors.Is(err, want) {
		t.Errorf("ClearHalt: %v, want %v", err, want)
	}
	if err := d.Claim(0); !errors.Is(err, want) {
		t.Errorf("Claim: %v, want %v", err, want)
	}
}

func testClose(t *testing.T, r *run) {
	d := r.open(t)
	all, control := r.busy(t, d)
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	for _, tr := range all {
		ends(t, "transfer", tr, 0, usb.ErrClosed)
		tr.Cancel() // it has ended: nothing happens
	}
	if err := <-control; !errors.Is(err, usb.ErrClosed) {
		t.Errorf("Control: %v, want ErrClosed", err)
	}
	r.dead(t, d, usb.ErrClosed)
	select {
	case <-d.Gone():
		t.Error("Gone without being unplugged")
	default:
	}
	d.Close() // once more does no harm

	r.DPU.SetNAK(r.boot, false)
	r.DPU.SetNAK(0, false)
	roundTrip(t, r.ctx, r.open(t), 7)
	r.arrived(t, nil)
}

func testUnplug(t *testing.T, r *run) { r.vanish(t, r.DPU.Unplug) }

func testDetach(t *testing.T, r *run) {
	if r.Detach == nil {
		t.Skip("no kernel")
	}
	r.vanish(t, r.Detach)
}

// vanish has the device vanish with transfers pending.
func (r *run) vanish(t *testing.T, how func()) {
	t.Helper()
	d := r.open(t)
	all, control := r.busy(t, d)
	how()
	for _, tr := range all {
		ends(t, "transfer", tr, 0, usb.ErrNoDevice)
	}
	if err := <-control; !errors.Is(err, usb.ErrNoDevice) {
		t.Errorf("Control: %v, want ErrNoDevice", err)
	}
	select {
	case <-d.Gone():
	case <-time.After(limit):
		t.Error("Gone is not closed")
	}
	r.dead(t, d, usb.ErrNoDevice)
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

func testUnplugIdle(t *testing.T, r *run) {
	d := r.open(t)
	r.DPU.Unplug()
	if !r.Deaf {
		select {
		case <-d.Gone():
		case <-time.After(limit):
			t.Error("Gone is not closed")
		}
	}
	r.absent(t)
	r.dead(t, d, usb.ErrNoDevice)
}

func testReplug(t *testing.T, r *run) {
	before := r.find(t)
	d := r.open(t)
	r.DPU.Unplug()
	r.absent(t)
	if _, err := r.Host.Open(r.ctx, before); !errors.Is(err, usb.ErrNoDevice) {
		t.Errorf("Open while unplugged: %v, want ErrNoDevice", err)
	}
	if err := r.Host.Reset(r.ctx, before); !errors.Is(err, usb.ErrNoDevice) {
		t.Errorf("Reset while unplugged: %v, want ErrNoDevice", err)
	}
	r.DPU.Plug()
	after := r.find(t)
	if after.Location != before.Location || after.Address == before.Address {
		t.Errorf("before %+v, after %+v", before, after)
	}
	if _, err := r.Host.Open(r.ctx, before); !errors.Is(err, usb.ErrNoDevice) {
		t.Errorf("Open as it was before: %v, want ErrNoDevice", err)
	}
	roundTrip(t, r.ctx, r.open(t), 8)
	r.dead(t, d, usb.ErrNoDevice) // the old one stays dead
}

// absent waits until the device is off the bus.
func (r *run) absent(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		infos, err := r.Host.Devices(r.ctx, reg.USBVendor)
		if err != nil {
			t.Fatal(err)
		}
		if len(infos) == 0 {
			return
		}
	}
	t.Fatal("the device does not go")
}

func testReset(t *testing.T, r *run) {
	if err := r.Host.Reset(r.ctx, r.find(t)); err != nil {
		t.Fatal(err)
	}
	// It may be back at once or after another enumeration.
	var d usb.Device
	err := errors.New("not tried")
	for end := time.Now().Add(limit); err != nil && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		d, err = r.tryOpen(r.find(t))
	}
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	roundTrip(t, r.ctx, d, 9)
	data := random(4 * chunk)
	if n, err := push(t, d, r.boot, data, chunk, nil); n != len(data) || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	r.arrived(t, data)
}

// testLowSpeed has the device come up at low speed, as a DPU does whose
// firmware was not ready, until the port is reset.
func testLowSpeed(t *testing.T, r *run) {
	r.find(t)
	r.DPU.Unplug()
	r.absent(t)
	r.DPU.SetLowSpeed(1)
	r.DPU.Plug()
	low := r.find(t)
	if low.Speed != usb.SpeedLow {
		t.Fatalf("%+v, want low speed", low)
	}
	if err := r.Host.Reset(r.ctx, low); err != nil {
		t.Fatal(err)
	}
	high := low
	for end := time.Now().Add(limit); high.Speed != usb.SpeedHigh && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		high = r.find(t)
	}
	if high.Speed != usb.SpeedHigh || high.Location != low.Location || high.Address == low.Address {
		t.Fatalf("before %+v, after %+v", low, high)
	}
	roundTrip(t, r.ctx, r.open(t), 10)
}

// testLeaks opens and closes, with transfers pending, and counts what is left.
func testLeaks(t *testing.T, r *run) {
	info := r.find(t)
	cycle := func() {
		d, err := r.tryOpen(info)
		if err != nil {
			t.Fatal(err)
		}
		submit(t, d, r.tmIn, make([]byte, 512))
		submit(t, d, r.tmInt, make([]byte, 8))
		if _, err := readScratch(r.ctx, d); err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	cycle() // what is made once and kept
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	n := r.Opens
	if n == 0 {
		n = 200
	}
	for range n {
		cycle()
	}
	// The simulator has goroutines of its own that come and go, but a leak
	// would leave one for each cycle.
	slack := n / 4
	for end := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		g, f := runtime.NumGoroutine(), openFiles(t)
		if g <= goroutines+slack && f <= files+slack {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d goroutines and %d files before, %d and %d after", goroutines, files, g, f)
		}
	}
}

// openFiles counts this process's files, on Linux.
func openFiles(t *testing.T) int {
	if runtime.GOOS != "linux" {
		return 0
	}
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}
