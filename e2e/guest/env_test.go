// SPDX-License-Identifier: Apache-2.0

package guest_test

import (
	"net"
	"os"
	"testing"

	vmguest "github.com/bluefield-go/bmc-rshim/internal/vmtest/guest"
)

// TestMachine proves that the machine has what the whole-system tests stand on.
func TestMachine(t *testing.T) {
	vmguest.Require(t)
	for _, name := range []string{
		"/dev/cuse",
		"/dev/net/tun",
		"/dev/ptmx",
		"/sys/devices/platform/vhci_hcd.0/attach",
		"/sys/bus/usb/devices/usb1",
		"/dev/bus/usb/001/001",
	} {
		if _, err := os.Stat(name); err != nil {
			t.Error(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := os.WriteFile(vmguest.Out+"/written", []byte("x"), 0o644); err != nil {
		t.Error(err)
	}
}
