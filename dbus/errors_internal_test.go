// SPDX-License-Identifier: Apache-2.0

package dbus

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bluefield-go/bmc-rshim/dbus/bus"
	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/rshim/bfb"
)

// sentinels returns the exported error variables of a package, as PKG.Err.
func sentinels(t *testing.T, dir string) (names []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range f.Decls {
			g, ok := decl.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR {
				continue
			}
			for _, spec := range g.Specs {
				for _, n := range spec.(*ast.ValueSpec).Names {
					if strings.HasPrefix(n.Name, "Err") {
						names = append(names, f.Name.Name+"."+n.Name)
					}
				}
			}
		}
	}
	return names
}

// TestErrorTable proves that every error by which the core says what went wrong
// has a name on the bus.
func TestErrorTable(t *testing.T) {
	src, err := os.ReadFile("errors.go")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(src), "var errorNames = ")
	if !ok {
		t.Fatal("errors.go has no errorNames")
	}
	for dir, want := range map[string]int{"../rshim": 16, "../rshim/bfb": 6, "../rshim/push": 1, ".": 2} {
		names := sentinels(t, dir)
		if len(names) < want {
			t.Errorf("%s has %d sentinels; the test must look in the wrong place", dir, len(names))
		}
		for _, n := range names {
			n = strings.TrimPrefix(n, "dbus.")
			if !strings.Contains(table, "{"+n+", error") && !strings.Contains(table, "{core"+n+", error") {
				t.Errorf("%s has no name in errorNames", n)
			}
		}
	}
}

func TestErrorName(t *testing.T) {
	wrapped := func(err error) error {
		return fmt.Errorf("outer: %w", &rshim.OpError{Op: "boot open", Device: "rshim0", Err: err})
	}
	for _, tt := range []struct {
		err  error
		want string
	}{
		{wrapped(rshim.ErrBusy), errorUnavailable},
		{wrapped(rshim.ErrNoAnswer), errorTimeout},
		{wrapped(os.ErrDeadlineExceeded), errorTimeout},
		{wrapped(rshim.ErrInvalid), errorInvalidArgument},
		{&bfb.FormatError{Err: bfb.ErrGeneration}, errorIncompatible},
		{fmt.Errorf("%w: %w", rshim.ErrIncomplete, bfb.ErrCRC), errorInvalidImage},
		{fmt.Errorf("%w: x", errEnum), errorInvalidEnum},
		{errors.New("anything"), errorInternal},
	} {
		if got := errorName(tt.err); got != tt.want {
			t.Errorf("%v: %s, want %s", tt.err, got, tt.want)
		}
		if got := mapError(tt.err); got.Name != tt.want || got.Message != tt.err.Error() {
			t.Errorf("%v: on the bus %v", tt.err, got)
		}
	}
	e := bus.Errorf(errorNotAllowed, "no")
	if got := mapError(fmt.Errorf("outer: %w", e)); got != e {
		t.Errorf("an error of the bus became %v", got)
	}
}
