// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

const disableWarning = "from its next reboot on, the DPU hides its RShim from the host; once it is enabled again, only a power cycle of the host brings the RShim back there"

// confirm asks on the terminal whether to hide the RShim from the host. It is
// an error if the answer is not yes, or if there is nobody to ask.
func confirm(ctx context.Context, e *env, where string) error {
	if !e.isTerminal(e.stdin) {
		return exitWith(exitUnconfirmed, "not confirmed: %s; -yes does it without a question", disableWarning)
	}
	fmt.Fprintf(e.stderr, "%s: %s.\nDisable it? [y/N] ", where, disableWarning)
	answer := make(chan string, 1)
	go func() { // a read from a terminal ends with a line only
		line, _ := bufio.NewReader(e.stdin).ReadString('\n')
		answer <- line
	}()
	select {
	case line := <-answer:
		switch strings.ToLower(strings.TrimSpace(line)) {
		case "y", "yes":
			return nil
		}
		return exitWith(exitUnconfirmed, "not confirmed, nothing was changed")
	case <-ctx.Done():
		fmt.Fprintln(e.stderr)
		return ctx.Err()
	}
}

// isTerminal tells whether somebody is there to answer a question.
func isTerminal(r io.Reader) bool {
	f, ok := r.(*os.File)
	if !ok {
		return false
	}
	c, err := f.SyscallConn()
	if err != nil {
		return false
	}
	terminal := false
	err = c.Control(func(fd uintptr) {
		_, err := unix.IoctlGetTermios(int(fd), unix.TCGETS)
		terminal = err == nil
	})
	return err == nil && terminal
}
