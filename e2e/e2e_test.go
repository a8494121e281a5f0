// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"testing"

	"github.com/bluefield-go/bmc-rshim/internal/vmtest"
)

// kernelTests are the packages whose tests run in every machine. Tests that need one skip themselves elsewhere, with
// guest.Require.
var kernelTests = []vmtest.Package{
	{Path: "./usbbackend/usbfs"},
	{Path: "./internal/cuse"},
	{Path: "./internal/uevent"},
	{Path: "./sim/usbip"},
	{Path: "./e2e/guest"},
}

// umlTests need the host's libraries, which only User-Mode Linux sees.
var umlTests = []vmtest.Package{
	{Path: "./usbbackend/libusb", Tags: "libusb", Cgo: true},
}

// cmds are on the PATH of the tests in both machines.
var cmds = []vmtest.Cmd{}

func TestUML(t *testing.T) {
	vmtest.Run(t, vmtest.Machine{Lane: vmtest.UML}, vmtest.Job{
		Tests: append(kernelTests[:len(kernelTests):len(kernelTests)], umlTests...),
		Cmds:  cmds,
	})
}

func TestAST2600(t *testing.T) {
	vmtest.Run(t, vmtest.Machine{Lane: vmtest.AST2600}, vmtest.Job{Tests: kernelTests, Cmds: cmds})
}
