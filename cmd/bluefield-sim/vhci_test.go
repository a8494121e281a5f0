// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bluefield-go/bmc-rshim/sim/usbip"
)

// TestVHCI runs the whole program on a kernel that has vhci_hcd.
func TestVHCI(t *testing.T) {
	if _, err := (usbip.VHCI{}).FreePorts(); err != nil {
		t.Skip(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stdin, commands := io.Pipe()
	events, stdout := io.Pipe()
	var errs bytes.Buffer
	code := make(chan int, 1)
	go func() {
		args := []string{"-generation", "bf2", "-count", "2", "-sink", filepath.Join(t.TempDir(), "sink"), "-control", filepath.Join(t.TempDir(), "s")}
		code <- run(ctx, args, stdin, stdout, &errs)
		stdout.Close()
	}()
	lines := make(chan string, 1000) // read at all times, as the program waits for its reader
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(events); s.Scan(); {
			lines <- s.Text()
		}
	}()
	until := func(want string) {
		t.Helper()
		var seen []string
		for line := range lines {
			if seen = append(seen, line); strings.HasPrefix(line, want) {
				return
			}
		}
		t.Fatalf("no %q in %q", want, seen)
	}
	until("attached dev=")
	until("attached dev=")
	io.WriteString(commands, "unplug 1\n")
	until("detached dev=1")
	io.WriteString(commands, "plug 1\n")
	until("attached dev=1")
	io.WriteString(commands, "reset 0\n")
	until("bus dev=0 present=false")
	until("stage dev=0 name=ready")
	cancel()
	until("sum dev=0 bytes=0 sha256=")
	until("sum dev=1 bytes=0 sha256=")
	if c := <-code; c != 0 || errs.Len() != 0 {
		t.Errorf("exit code %d, %q", c, errs.String())
	}
}
