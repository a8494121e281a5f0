// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bluefield-go/bmc-rshim/ncsi/oem"
)

// openPTY opens a pseudo-terminal.
func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skip("no pseudo-terminals: ", err)
	}
	t.Cleanup(func() { master.Close() })
	c, err := master.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var n int
	var failed error
	err = c.Control(func(fd uintptr) {
		if failed = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); failed == nil {
			n, failed = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	})
	if err != nil || failed != nil {
		t.Fatal(err, failed)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

func TestIsTerminal(t *testing.T) {
	_, slave := openPTY(t)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	for _, tt := range []struct {
		name string
		r    io.Reader
		want bool
	}{
		{"terminal", slave, true},
		{"/dev/null", null, false},
		{"pipe", r, false},
		{"no file", strings.NewReader("yes\n"), false},
	} {
		if got := isTerminal(tt.r); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

// A question on a real terminal, which is in its usual mode: the answer comes
// with the line.
func TestConfirmOnTerminal(t *testing.T) {
	for answer, want := range map[string]oem.HostAccess{"yes": oem.Disabled, "no": oem.Enabled} {
		master, slave := openPTY(t)
		r := eth(oem.Enabled)()
		var stdout, stderr bytes.Buffer
		if err := master.SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if _, err := master.WriteString(answer + "\n"); err != nil {
			t.Fatal(err)
		}
		runIn(t.Context(), &env{
			stdin: slave, stdout: &stdout, stderr: &stderr, isTerminal: isTerminal,
			interfaces: r.list, endpoints: r.known, open: r.open,
		}, []string{"set", "disabled"})
		s, err := r.nic("-if eth0").State()
		if err != nil || s.Stored != want {
			t.Errorf("%s: %v, %v, want %v\n%s", answer, s.Stored, err, want, &stderr)
		}
	}
}
