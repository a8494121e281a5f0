// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/bluefield-go/bmc-rshim/rshim"
)

func TestCommandLine(t *testing.T) {
	t.Setenv("JOURNAL_STREAM", "")
	none := t.TempDir() // a /dev with nothing in it
	for _, c := range []struct {
		args   string
		code   int
		stdout string // what it contains
		stderr string
	}{
		{"", exitUsage, "", "usage: bmc-rshim COMMAND"},
		{"-h", exitOK, "3    push, recover: the image is bad", ""},
		{"help", exitOK, "daemon      serve the DPUs", ""},
		{"-version", exitOK, "bmc-rshim ", ""},
		{"version", exitOK, "bmc-rshim ", ""},
		{"version x", exitUsage, "", `too many arguments: ["x"]`},
		{"daemon -version", exitOK, "bmc-rshim ", ""},
		{"daemon -h", exitOK, "-log-level level", ""},
		{"daemon -usb foo", exitUsage, "", `no USB backend "foo"; this build has`},
		{"daemon -log-level loud", exitUsage, "", "-log-level is error, warn,"},
		{"daemon -dev-root " + none, exitFailed, "", "modprobe cuse"},
		{"daemon -dev-root " + none + " -conf " + none + "/x", exitFailed, "", "/x: no such file"},
		{"daemon x", exitUsage, "", "too many arguments"},
		{"push", exitUsage, "", "push: FILE is missing"},
		{"push -h", exitOK, "exit codes:", ""},
		{"push -x", exitUsage, "", "-x; bmc-rshim push -h shows the flags"},
		{"push -wait forever x", exitUsage, "", "-wait is ready or streamed"},
		{"push -json -q x", exitUsage, "", "exclude each other"},
		{"push -timeout -1s x", exitUsage, "", "has to be positive"},
		{"push /does/not/exist", exitFailed, "", "/does/not/exist: no such file"},
		{"push " + none, exitFailed, "", "is a directory"},
		{"push -config /does/not/exist main.go", exitFailed, "", "/does/not/exist: no such file"},
		{"push -rootfs " + none + " main.go", exitFailed, "", "is not a regular file"},
		{"push -dev-root " + none + " main.go", exitDevice, "", "is bmc-rshim daemon running"},
		{"push -json -dev-root " + none + " main.go", exitDevice, `"outcome":"unavailable","exit_code":6`, ""},
		{"status -dev-root " + none, exitDevice, "", "no rshim device in"},
		{"log -device rshim3 -dev-root " + none, exitDevice, "", "no rshim3 in"},
		{"console -h", exitOK, "usage: bmc-rshim console [flags] [rshimN]", ""},
		{"console -dev-root " + none, exitDevice, "", "no rshim device in"},
		{"status -simulate bf9", exitUsage, "", "-simulate"},
		{"push main.go -wait forever", exitUsage, "", "-wait is ready or streamed"},
		{"push main.go -x", exitUsage, "", "-x; bmc-rshim push -h shows the flags"},
		{"push -dev-root " + none + " -- -x", exitFailed, "", "open -x: no such file"},
		{"push -follow -wait streamed", exitUsage, "", "-wait is for a push that begins"},
		{"reg 0x8 -size 3", exitUsage, "", "-size is 4 or 8"},
		{"misc KEY -dev-root " + none, exitUsage, "", "KEY needs a value"},
		{"misc -dev-root " + none + " KEY -- -1", exitDevice, "", "no rshim device in"},
		{"status rshim3", exitUsage, "", "-device rshim3 chooses"},
		{"completion bash rshim3", exitUsage, "", `too many arguments: ["rshim3"];`},
		{"watch -dev-root " + none, exitUsage, "", "uses no device files"},
		{"dump -dev-root " + none, exitUsage, "", "uses no device files"},
		{"version -json", exitOK, `{"version":"`, ""},
		{"launch", exitUsage, "", `no such command: "launch"`},
	} {
		t.Run(c.args, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), strings.Fields(c.args), nil, &stdout, &stderr)
			if code != c.code || !strings.Contains(stdout.String(), c.stdout) || !strings.Contains(stderr.String(), c.stderr) {
				t.Errorf("exit code %d, want %d\nstdout:\n%s\nstderr:\n%s", code, c.code, &stdout, &stderr)
			}
			if c.stderr == "" && c.code == exitOK && stderr.Len() > 0 {
				t.Errorf("stderr: %s", &stderr)
			}
		})
	}
}

func TestExitCode(t *testing.T) {
	deep := func(err error) error { return fmt.Errorf("a: %w", &rshim.OpError{Err: fmt.Errorf("b: %w", err)}) }
	for _, c := range []struct {
		err  error
		code int
	}{
		{nil, exitOK},
		{errors.New("x"), exitFailed},
		{usageError("x"), exitUsage},
		{deep(exitWith(exitDPU, "x")), exitDPU},
		{deep(context.Canceled), exitInterrupted},
		{deep(context.DeadlineExceeded), exitTimeout},
		{deep(os.ErrDeadlineExceeded), exitTimeout},
		{deep(rshim.ErrGone), exitFailed}, // in the middle of a push
		{unavailable(deep(rshim.ErrGone)), exitDevice},
		{unavailable(deep(rshim.ErrBusy)), exitDevice},
		{unavailable(deep(rshim.ErrNotOwner)), exitDevice},
		{unavailable(deep(os.ErrPermission)), exitDevice},
		{unavailable(deep(os.ErrDeadlineExceeded)), exitTimeout},
	} {
		if got := exitCode(c.err); got != c.code {
			t.Errorf("%v: exit code %d, want %d", c.err, got, c.code)
		}
	}
	// What -h prints is the table of constants, and every failure has a name.
	for _, code := range []int{exitOK, exitFailed, exitUsage, exitRefused, exitDPU, exitTimeout, exitDevice, exitHost, exitGivenUp, exitInterrupted} {
		if !strings.Contains(exitCodes, fmt.Sprintf("\n  %d ", code)) {
			t.Errorf("exit code %d is not in the help", code)
		}
		if code != exitOK && code != exitUsage && outcomes[code] == "" {
			t.Errorf("exit code %d has no outcome", code)
		}
	}
}
