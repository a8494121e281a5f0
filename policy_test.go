// SPDX-License-Identifier: Apache-2.0

package bmcrshim

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestNoSimulator proves that the tag which the firmware build sets takes the
// simulator out of the daemon.
func TestNoSimulator(t *testing.T) {
	deps := func(args ...string) (sims []string) {
		for _, p := range goList(t, append(args, "-deps", "./cmd/bmc-rshim")...) {
			if strings.HasPrefix(p.ImportPath, module+"sim/") {
				sims = append(sims, p.ImportPath)
			}
		}
		return sims
	}
	if got := deps("-tags=nosim"); got != nil {
		t.Errorf("with -tags nosim the daemon contains %v", got)
	}
	if got := deps(); got == nil {
		t.Error("without tags the daemon contains no simulator, so that this test proves nothing")
	}
}

// TestSources holds every file to its licence line, and every package to a
// comment that says what it is for.
func TestSources(t *testing.T) {
	documented := make(map[string]bool)
	err := filepath.WalkDir(".", func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && strings.HasPrefix(e.Name(), ".") && path != "." {
			return filepath.SkipDir
		}
		if e.IsDir() || filepath.Ext(path) != ".go" {
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !strings.HasPrefix(string(src), "// SPDX-License-Identifier: Apache-2.0\n\n") {
			t.Errorf("%s: the first line is not the licence's, or no blank line follows it", path)
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, src, parser.ParseComments|parser.PackageClauseOnly)
		if err != nil {
			return err
		}
		dir := filepath.Dir(path)
		documented[dir] = documented[dir] || f.Doc != nil
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("%s: no file has a package comment", dir)
		}
	}
}

func TestGoMod(t *testing.T) {
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mod)) {
		if strings.HasPrefix(strings.TrimSpace(line), "replace") {
			t.Errorf("go.mod: %s: who depends on us would not get it", strings.TrimSpace(line))
		}
	}
}

// TestSize holds the stripped binaries to the flash that a BMC has for them.
func TestSize(t *testing.T) {
	budgets := map[string]int64{ // bytes, linux/arm v7
		"bmc-rshim": 4.5 * (1 << 20),
		"ncsi-oem":  3 * (1 << 20),
	}
	for name, budget := range budgets {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bin := filepath.Join(t.TempDir(), name)
			cmd := exec.Command("go", "build", "-trimpath", "-tags", "nosim", "-ldflags", "-s -w", "-o", bin, "./cmd/"+name)
			cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH=arm", "GOARM=7", "CGO_ENABLED=0")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			st, err := os.Stat(bin)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%s: %d bytes, %.2f MiB of %.2f", name, st.Size(), float64(st.Size())/(1<<20), float64(budget)/(1<<20))
			if st.Size() > budget {
				t.Errorf("%s is %d bytes over its budget", name, st.Size()-budget)
			}
		})
	}
}

// TestSmall names what must not be linked into the daemon, as each alone would
// be a good part of what is left of its budget.
func TestSmall(t *testing.T) {
	banned := map[string]string{
		"net":                         "its resolver comes along; internal sockets do",
		"net/http":                    "it doubles the binary; pulling images is the bridge's business",
		"github.com/godbus/dbus/v5":   "300 KiB; dbus/bus does what the daemon needs",
		"encoding/xml":                "introspection is static text",
		"text/template":               "it switches off the pruning of methods",
		"regexp":                      "100 KiB",
		"crypto/sha256":               "130 KiB with its self tests; internal/sha256 is the same",
		"github.com/mdlayher/netlink": "NC-SI is ncsi-oem's business",
	}
	for _, p := range goList(t, "-tags=nosim", "-deps", "./cmd/bmc-rshim") {
		if why, ok := banned[p.ImportPath]; ok {
			t.Errorf("bmc-rshim links %s: %s", p.ImportPath, why)
		}
	}
}

// TestMethodsPruned: a call of reflect's Method or MethodByName that the linker
// cannot see through makes it keep every exported method of every type.
func TestMethodsPruned(t *testing.T) {
	calls := func(args ...string) (found []string) {
		cmd := exec.Command("go", append([]string{"build", "-o", os.DevNull, "-ldflags", "-dumpdep"}, args...)...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%.2000s", err, out)
		}
		for line := range strings.Lines(string(out)) {
			if from, _, _ := strings.Cut(line, " -> "); strings.Contains(from, "<ReflectMethod>") {
				found = append(found, from)
			}
		}
		return found
	}
	for _, cmd := range []string{"bmc-rshim", "ncsi-oem"} {
		if found := calls("-tags", "nosim", "./cmd/"+cmd); found != nil {
			t.Errorf("%s: %q use reflection on methods", cmd, found)
		}
	}
	src := filepath.Join(t.TempDir(), "main.go")
	const program = `package main

import (
	"os"
	"reflect"
)

func main() { reflect.ValueOf(os.Stdout).MethodByName(os.Args[0]).Call(nil) }
`
	if err := os.WriteFile(src, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	if calls(src) == nil {
		t.Error("a program that does is not found, so that this test proves nothing")
	}
}
