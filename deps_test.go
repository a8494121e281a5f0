// SPDX-License-Identifier: Apache-2.0

// Package bmcrshim holds the tests that keep the tree as it was designed: who
// may import whom, what stands at the top of a file, and how big a binary may
// become.
package bmcrshim

import (
	"bytes"
	"encoding/json"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/bluefield-go/bmc-rshim/"

// A layer's packages are those that begin with one of its prefixes; of several
// layers that match, the longest prefix wins.
var layers = []struct {
	name     string
	packages []string
	// what the layer must not import, directly or (for own packages) at all,
	// and why
	forbidden map[string]string
}{
	{
		"L4 commands", []string{"cmd/", "internal/vmtest", "e2e", "scripts"},
		map[string]string{module + "cmd/": "nothing imports a command"},
	},
	{
		"L3 services", []string{"dbus", "redfish", "internal/devnode", "internal/metrics"},
		map[string]string{
			module + "cmd/": "nothing imports a command", module + "sim/": "production code knows no simulator",
			"golang.org/x/sys/unix": "only L1", "net/http": "too big",
		},
	},
	{
		// What the commands and the bridge see of the service is the bus.
		"L3 D-Bus clients", []string{"dbus/client"},
		map[string]string{
			module + "cmd/": "nothing imports a command", module + "sim/": "production code knows no simulator",
			module + "rshim":           "it knows the bus alone",
			module + "dbus/interfaces": "static text of the service", "net/http": "too big", "unsafe": "only L1",
		},
	},
	{
		"L2 core", []string{"rshim"},
		map[string]string{
			"github.com/godbus/dbus/v5": "the core has no bus", "net/http": "the core has no network",
			"os/exec": "the core runs nothing", "golang.org/x/sys/unix": "the core makes no system calls", "unsafe": "only L1",
			module + "cmd/": "nothing imports a command", module + "dbus": "L3 is above", module + "redfish": "L3 is above",
			module + "usbbackend": "the core takes its backend as an argument", module + "internal/": "L1 is for commands to wire",
			module + "sim/": "production code knows no simulator",
		},
	},
	{
		"L1 operating system", []string{
			"usbbackend", "i2c", "mctp/afmctp", "mctp/ncsimctp", "mctp/mctptest", "ncsi/netlink", "dbus/bus", "internal/cuse", "internal/tap", "internal/uevent", "internal/sdnotify",
			"internal/hostaccess", "internal/syslog", "internal/fdread",
		},
		map[string]string{
			"net/http": "too big", module + "cmd/": "nothing imports a command",
			module + "dbus": "L3 is above", module + "redfish": "L3 is above", module + "internal/devnode": "L3 is above",
			module + "sim/": "production code knows no simulator",
		},
	},
	{
		"L0 codecs", []string{"rshim/reg", "rshim/tmfifo", "rshim/bootlog", "rshim/bfb", "ncsi", "ncsi/oem", "mctp", "dbus/wire", "internal/sha256"},
		map[string]string{
			"os": "codecs do no I/O", "net": "codecs do no I/O", "syscall": "codecs do no I/O",
			"log": "codecs do not log", "log/slog": "codecs do not log", "unsafe": "only L1",
			"golang.org/": "standard library only", "github.com/": "standard library only",
		},
	},
	{
		"conformance suites", []string{"usbbackend/usbtest", "ncsi/ncsitest", "dbus/bustest"},
		map[string]string{
			module + "cmd/": "nothing imports a command", module + "usbbackend/usbfs": "a suite knows no implementation",
			module + "usbbackend/libusb": "a suite knows no implementation", module + "ncsi/netlink": "a suite knows no implementation",
			module + "mctp/afmctp": "a suite knows no implementation", module + "i2c": "a suite knows no implementation",
		},
	},
	{
		"simulators", []string{"sim/"},
		map[string]string{
			module + "cmd/": "nothing imports a command", module + "dbus": "simulators know L0 and L1's interfaces",
			module + "redfish": "simulators know L0 and L1's interfaces", module + "usbbackend/usbfs": "simulators know L1's interfaces",
		},
	},
}

// exceptions are imports that a rule forbids and that are wanted all the same.
var exceptions = map[string][]string{
	// Codecs use each other.
	module + "rshim/bfb": {module + "rshim/reg"},
	module + "ncsi/oem":  {module + "ncsi"},
	// A codec that belongs to the packages above it.
	module + "dbus/bus": {module + "dbus/wire"},
}

type pkg struct {
	ImportPath string
	Imports    []string
	GoFiles    []string
}

func goList(t *testing.T, args ...string) []pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Imports,GoFiles"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	var pkgs []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := d.Decode(&p); err == io.EOF {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

func matches(path, rule string) bool {
	return path == rule || strings.HasPrefix(path, strings.TrimSuffix(rule, "/")+"/")
}

func TestLayers(t *testing.T) {
	for _, p := range goList(t, "./...") {
		rel, ok := strings.CutPrefix(p.ImportPath, module)
		if !ok {
			continue // this package
		}
		best, length := -1, -1
		for i, l := range layers {
			for _, prefix := range l.packages {
				// A codec's prefix stands for that package alone.
				if l.name == "L0 codecs" && rel != prefix {
					continue
				}
				if matches(rel, prefix) && len(prefix) > length {
					best, length = i, len(prefix)
				}
			}
		}
		if best < 0 {
			t.Errorf("%s belongs to no layer: put it into deps_test.go", p.ImportPath)
			continue
		}
		for _, imp := range p.Imports {
			for rule, why := range layers[best].forbidden {
				if matches(imp, rule) && !slices.Contains(exceptions[p.ImportPath], imp) {
					t.Errorf("%s (%s) imports %s: %s", p.ImportPath, layers[best].name, imp, why)
				}
			}
		}
	}
}
