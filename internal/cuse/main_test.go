// SPDX-License-Identifier: Apache-2.0

package cuse_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

const helperEnv = "CUSE_TEST_HELPER"

func TestMain(m *testing.M) {
	if args := os.Getenv(helperEnv); args != "" {
		runHelper(strings.Fields(args))
		return
	}
	goleak.VerifyTestMain(m)
}

// runHelper is another program that uses a node:
//
//	write PATH SIZE   makes a write, says how it went, and makes one more
//	                  for each line of its input
//	hold PATH 0       opens the node and does nothing
//	read PATH SIZE    reads once, as a Go program does
//	echo PATH 0       is "echo -n hello > PATH", as a Go program does it
func runHelper(args []string) {
	runtime.LockOSThread() // signals come for this thread
	signal.Notify(make(chan os.Signal, 1), unix.SIGUSR1)
	in := bufio.NewScanner(os.Stdin)
	fmt.Println(unix.Gettid())
	size, _ := strconv.Atoi(args[2])
	switch args[0] {
	case "read":
		f, err := os.Open(args[1])
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(f.Read(make([]byte, size)))
		return
	case "echo":
		fmt.Println(os.WriteFile(args[1], []byte("hello"), 0o666))
		return
	}
	fd, err := unix.Open(args[1], unix.O_RDWR, 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	for args[0] == "write" {
		n, err := unix.Write(fd, make([]byte, size))
		fmt.Println(n, err)
		if !in.Scan() {
			return
		}
	}
	fmt.Println("open")
	in.Scan()
}

// helper is a running one. It ends with its input.
type helper struct {
	cmd *exec.Cmd
	tid int
	in  io.WriteCloser
	out *bufio.Scanner
}

func startHelper(t *testing.T, args ...string) *helper {
	t.Helper()
	h := &helper{cmd: exec.Command("/proc/self/exe")}
	// No signals but those that are meant for its call.
	h.cmd.Env = append(os.Environ(), helperEnv+"="+strings.Join(args, " "), "GODEBUG=asyncpreemptoff=1")
	h.cmd.Stderr = os.Stderr
	var err error
	if h.in, err = h.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	h.out = bufio.NewScanner(out)
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.in.Close()
		h.cmd.Process.Kill()
		h.cmd.Wait()
	})
	if h.tid, err = strconv.Atoi(h.line(t)); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *helper) line(t *testing.T) string {
	t.Helper()
	if !h.out.Scan() {
		t.Fatalf("helper said nothing: %v", h.out.Err())
	}
	return h.out.Text()
}

func (h *helper) next(t *testing.T) {
	t.Helper()
	if _, err := io.WriteString(h.in, "\n"); err != nil {
		t.Fatal(err)
	}
}

func (h *helper) signal(t *testing.T, s unix.Signal) {
	t.Helper()
	if err := unix.Tgkill(h.cmd.Process.Pid, h.tid, s); err != nil {
		t.Fatal(err)
	}
}
