// SPDX-License-Identifier: Apache-2.0

package mctptest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/bluefield-go/bmc-rshim/i2c"
)

// The kinds of NewI2CDevice.
const (
	I2CLink  = "mctp-i2c-interface" // the kernel's MCTP; its link is mctpi2cN for bus N
	I2CQueue = "slave-mqueue"
)

// JoinedAdapters returns the numbers of the two I2C buses that the test machine
// has, which are one: a master on one of them reaches what listens on the other.
func JoinedAdapters(t testing.TB) (a, b int) {
	t.Helper()
	for n, want := range []string{"joined 0\n", "joined 1\n"} {
		path := fmt.Sprintf("/sys/bus/i2c/devices/i2c-%d/name", n)
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Fatalf("%s: %q, %v, want %q", path, got, err, want)
		}
	}
	return 0, 1
}

// NewI2CDevice has the kernel listen at an address of a bus, until the test's
// end.
func NewI2CDevice(t testing.TB, kind string, bus int, addr uint8) {
	t.Helper()
	dir := fmt.Sprintf("/sys/bus/i2c/devices/i2c-%d/", bus)
	own := fmt.Sprintf("0x%04x", 0x1000|int(addr))
	if err := os.WriteFile(dir+"new_device", []byte(kind+" "+own), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if kind == I2CLink {
			settle(t, bus)
		}
		if err := os.WriteFile(dir+"delete_device", []byte(own), 0); err != nil {
			t.Error(err)
		}
	})
	// The driver has made its file or link by now, but for the rest of the
	// system that may take a moment.
	device := fmt.Sprintf("/sys/bus/i2c/devices/%d-%04x/driver", bus, 0x1000|int(addr))
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(device); err == nil {
			return
		} else if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// settle waits until the kernel's MCTP has unlocked a bus. Its driver (6.1) must
// not be removed before: it would free a marker in its queue, which is part of
// something else, and the kernel would complain.
func settle(t testing.TB, bus int) {
	t.Helper()
	b, err := i2c.OpenBus("", bus)
	if err != nil {
		t.Error(err)
		return
	}
	defer b.Close()
	if err := b.Write(context.Background(), 0x7f, []byte{0}); !errors.Is(err, i2c.ErrNoAck) { // nobody is there
		t.Error(err)
	}
	// Sockets that were closed at the same time can leave one more marker,
	// which only takes the driver's thread to run.
	time.Sleep(50 * time.Millisecond)
}
