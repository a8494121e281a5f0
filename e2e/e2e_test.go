// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"os"
	"testing"
	"time"

	"github.com/bluefield-go/bmc-rshim/internal/vmtest"
)

// kernelTests are the packages whose tests run in every machine. Tests that need one skip themselves elsewhere, with
// guest.Require. The timeouts are for a host that is several times slower than it should be.
var kernelTests = []vmtest.Package{
	{Path: "./usbbackend/usbfs", Timeout: 5 * time.Minute},
	{Path: "./internal/cuse"},
	{Path: "./internal/devnode", Timeout: 5 * time.Minute},
	{Path: "./internal/tap"},
	{Path: "./internal/uevent"},
	{Path: "./sim/usbip"},
	{Path: "./e2e/guest", Timeout: 55 * time.Minute},
}

// umlTests need the host's libraries, which only User-Mode Linux sees, or its kernel, which has MCTP and I2C buses that
// are joined.
var umlTests = []vmtest.Package{
	{Path: "./mctp/afmctp", Timeout: 5 * time.Minute},
	{Path: "./i2c", Timeout: 5 * time.Minute},
	{Path: "./usbbackend/libusb", Tags: "libusb", Cgo: true, Timeout: 5 * time.Minute},
}

// cmds are on the PATH of the tests in both machines.
var cmds = []vmtest.Cmd{{Path: "./cmd/bmc-rshim", Tags: "nosim"}, {Path: "./cmd/bluefield-sim"}, {Path: "./cmd/ncsi-oem"}}

// TestUML and TestAST2600 run side by side: each takes one processor at most. For figures of a quiet machine, run one
// alone.
func TestUML(t *testing.T) {
	t.Parallel()
	run(t, vmtest.Machine{Lane: vmtest.UML}, append(kernelTests[:len(kernelTests):len(kernelTests)], umlTests...))
}

func TestAST2600(t *testing.T) {
	t.Parallel()
	run(t, vmtest.Machine{Lane: vmtest.AST2600}, kernelTests)
}

func run(t *testing.T, m vmtest.Machine, tests []vmtest.Package) {
	vmtest.NeedLane(t, m.Lane)
	image, err := vmtest.DebianBFB(t.Context(), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	m.Deadline = 65 * time.Minute
	vmtest.Run(t, m, vmtest.Job{
		Tests: tests,
		Cmds:  cmds,
		Files: map[string]string{"/srv/debian.bfb": image},
	})
}
