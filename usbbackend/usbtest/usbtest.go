// SPDX-License-Identifier: Apache-2.0

// Package usbtest holds the behaviour that every implementation of package
// usb must show, as one suite of tests that is run against each of them with
// the same simulated BlueField-2 on the other end.
package usbtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

// Rig is an implementation with a BlueField-2 plugged in that reads its boot
// FIFO at once and does not answer on an empty TMFIFO. There must be no other
// device of its vendor.
type Rig struct {
	Host  usb.Host
	DPU   *usbdev.Function // the other end of the cable
	Opens int              // how often the test for leaks opens the device; 0 means 200
	Deaf  bool             // only a call finds out that the device has been unplugged

	// Detach takes the device off the bus without a last word from it. A rig
	// without a kernel leaves it nil.
	Detach func()
}

// Run runs the suite; newRig makes a fresh rig for each test and leaves
// cleaning up to t.Cleanup.
func Run(t *testing.T, newRig func(t *testing.T) *Rig) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, r *run)
	}{
		{"Descriptors", testDescriptors},
		{"Registers", testRegisters},
		{"ControlStall", testControlStall},
		{"ControlCancel", testControlCancel},
		{"ControlDuringPush", testControlDuringPush},
		{"Claim", testClaim},

		{"Order", testOrder},
		{"ZeroLength", testZeroLength},
		{"Cancel", testCancel},
		{"CancelMiddle", testCancelMiddle},
		{"CancelRace", testCancelRace},
		{"Stall", testStall},
		{"BusError", testBusError},
		{"UnseenError", testUnseenError},
		{"TwoIn", testTwoIn},
		{"ShortIn", testShortIn},
		{"CancelIn", testCancelIn},
		{"StallIn", testStallIn},
		{"Overflow", testOverflow},
		{"NoEndpoint", testNoEndpoint},

		{"Close", testClose},
		{"Unplug", testUnplug},
		{"Detach", testDetach},
		{"UnplugIdle", testUnplugIdle},
		{"Replug", testReplug},
		{"Reset", testReset},
		{"LowSpeed", testLowSpeed},
		{"Leaks", testLeaks},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			t.Cleanup(cancel)
			rig := newRig(t)
			r := &run{Rig: rig, ctx: ctx}
			r.boot, r.tmOut, r.tmIn, r.tmInt = rig.DPU.Endpoints()
			c.test(t, r)
		})
	}
}

// limit is how long anything may take that must happen at all. It only decides
// how soon a failure shows.
const limit = time.Minute

// prompt is how soon a cancelled transfer must have ended.
const prompt = 100 * time.Millisecond

// chunk is the size of transfer that a boot push uses.
const chunk = 16 << 10

// run is one test with its rig.
type run struct {
	*Rig
	ctx context.Context

	boot, tmOut, tmIn, tmInt uint8
}

// find waits until the device is plugged in and enumerated.
func (r *run) find(t *testing.T) usb.Info {
	t.Helper()
	var last []usb.Info
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		infos, err := r.Host.Devices(r.ctx, reg.USBVendor)
		if err != nil {
			t.Fatal(err)
		}
		if last = infos; len(infos) == 1 {
			return infos[0]
		}
	}
	t.Fatalf("want one device, have %+v", last)
	return usb.Info{}
}

// open opens the device and claims its interfaces.
func (r *run) open(t *testing.T) usb.Device {
	t.Helper()
	d, err := r.tryOpen(r.find(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func (r *run) tryOpen(info usb.Info) (usb.Device, error) {
	d, err := r.Host.Open(r.ctx, info)
	if err != nil {
		return nil, err
	}
	for _, i := range d.Interfaces() {
		if err := d.Claim(i.Number); err != nil {
			d.Close()
			return nil, err
		}
	}
	return d, nil
}

// submit submits a transfer that must be accepted.
func submit(t *testing.T, d usb.Device, ep uint8, data []byte) usb.Transfer {
	t.Helper()
	tr, err := d.Submit(ep, data)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// wait waits for a transfer, and for the end of the test if that comes first.
func wait(t *testing.T, tr usb.Transfer) (int, error) {
	t.Helper()
	select {
	case <-tr.Done():
	case <-time.After(limit):
		t.Fatal("the transfer does not end")
	}
	return tr.Result()
}

// ends checks how a transfer ends.
func ends(t *testing.T, what string, tr usb.Transfer, n int, want error) {
	t.Helper()
	if got, err := wait(t, tr); got != n || !errors.Is(err, want) {
		t.Errorf("%s: %d, %v, want %d, %v", what, got, err, n, want)
	}
}

// pending checks that a transfer has not ended.
func pending(t *testing.T, what string, tr usb.Transfer) {
	t.Helper()
	select {
	case <-tr.Done():
		n, err := tr.Result()
		t.Fatalf("%s: ended too soon: %d, %v", what, n, err)
	default:
	}
}

// soon checks that something takes no longer than prompt, the best of several
// attempts, so that a busy machine does not matter.
func soon(t *testing.T, what string, attempt func() time.Duration) {
	t.Helper()
	best := attempt()
	for range 5 {
		if best <= prompt {
			return
		}
		best = min(best, attempt())
	}
	t.Errorf("%s takes %v, want at most %v", what, best, prompt)
}

// arrived checks that exactly want came into the boot FIFO.
func (r *run) arrived(t *testing.T, want []byte) {
	t.Helper()
	n, sum := r.DPU.BootSum()
	if n != int64(len(want)) {
		t.Fatalf("the device got %d bytes, want %d", n, len(want))
	}
	if sum != sha256.Sum256(want) {
		t.Fatalf("the device got other bytes than were sent, %d of them", n)
	}
}

// random returns n bytes, the same ones each time.
func random(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte([]byte(strings.Repeat("bluefield boots ", 2)))).Read(b)
	return b
}

// push sends data in transfers of size bytes, all queued at once, and returns
// how many bytes went and the error of the transfer that failed. It checks
// that what went is a prefix. When the first transfer is done it calls during,
// if that is not nil.
func push(t *testing.T, d usb.Device, ep uint8, data []byte, size int, during func([]usb.Transfer)) (n int, err error) {
	t.Helper()
	data = bytes.Clone(data) // theirs until the end
	var all []usb.Transfer
	var lens []int
	for len(data) > 0 {
		k := min(size, len(data))
		tr, serr := d.Submit(ep, data[:k])
		if serr != nil {
			// One before it has failed meanwhile.
			if !errors.Is(serr, usb.ErrCancelled) {
				t.Fatal(serr)
			}
			break
		}
		all, lens, data = append(all, tr), append(lens, k), data[k:]
	}
	if during != nil {
		wait(t, all[0])
		during(all)
	}
	for i, tr := range all {
		m, terr := wait(t, tr)
		switch {
		case err == nil:
			n += m
			if err = terr; (err == nil) != (m == lens[i]) {
				t.Fatalf("transfer %d: %d bytes of %d and %v", i, m, lens[i], err)
			}
		case m != 0 || !errors.Is(terr, usb.ErrCancelled):
			t.Fatalf("transfer %d, behind a failure: %d, %v, want 0, ErrCancelled", i, m, terr)
		}
	}
	return n, err
}
