// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bluefield-go/bmc-rshim/internal/vmtest/guest"
)

// reporter writes events, one line of JSON each, to the event port.
type reporter struct {
	mu  sync.Mutex
	tty *os.File
	enc *json.Encoder
}

func openReporter() (*reporter, error) {
	tty, err := os.OpenFile(guest.EventPort, os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	fd := int(tty.Fd())
	tio, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", guest.EventPort, err)
	}
	tio.Oflag &^= unix.OPOST
	tio.Cflag = tio.Cflag&^unix.CBAUD | unix.B115200 | unix.CLOCAL
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, tio); err != nil {
		return nil, fmt.Errorf("%s: %w", guest.EventPort, err)
	}
	return &reporter{tty: tty, enc: json.NewEncoder(tty)}, nil
}

func (r *reporter) send(e guest.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.enc.Encode(e); err != nil {
		fmt.Fprintln(os.Stderr, "guestinit:", err)
	}
}

// drain waits until the line has taken everything.
func (r *reporter) drain() {
	if err := unix.IoctlSetInt(int(r.tty.Fd()), unix.TCSBRK, 1); err != nil {
		fmt.Fprintln(os.Stderr, "guestinit: drain:", err)
	}
}

// runOne runs one program and reports its output and end. What it leaves behind is killed, so that no run can
// disturb the next one.
func runOne(events *reporter, index int, r guest.Run, env []string) error {
	events.send(guest.Event{Kind: guest.Start, Run: index})
	begin := time.Now()
	pr, pw, err := os.Pipe()
	if err != nil {
		return err
	}
	defer pr.Close()
	cmd := exec.Command(r.Path, r.Args...)
	cmd.Dir, cmd.Env = r.Dir, env
	cmd.Stdout, cmd.Stderr = pw, pw
	err = cmd.Start()
	pw.Close()
	if err != nil {
		events.send(guest.Event{Kind: guest.Exit, Run: index, Code: -1, Text: err.Error()})
		return nil
	}

	copied := make(chan struct{})
	go func() {
		defer close(copied)
		buf := make([]byte, 4096)
		for {
			n, err := pr.Read(buf)
			if n > 0 {
				events.send(guest.Event{Kind: guest.Output, Run: index, Data: buf[:n]})
			}
			if err != nil {
				return
			}
		}
	}()

	note, err := await(cmd, r.Timeout)
	if err != nil {
		return err
	}
	// From process 1 this reaches every process but itself; they hold the pipe's other end.
	unix.Kill(-1, unix.SIGKILL)
	pr.SetReadDeadline(time.Now().Add(30 * time.Second)) // unless one is stuck in the kernel
	<-copied
	reap()

	state := cmd.ProcessState
	if note == "" && state.ExitCode() < 0 {
		note = state.String()
	}
	events.send(guest.Event{Kind: guest.Exit, Run: index, Code: state.ExitCode(), Text: note, Elapsed: time.Since(begin)})
	return nil
}

// await waits for the process to end, and makes it after the timeout: the note says so. A process that does not
// even die leaves a machine that cannot be trusted; that is the error.
func await(cmd *exec.Cmd, timeout time.Duration) (note string, err error) {
	exited := make(chan struct{})
	go func() {
		cmd.Wait()
		close(exited)
	}()
	signal := func(s os.Signal) func() { return func() { cmd.Process.Signal(s) } }
	for _, step := range []struct {
		wait time.Duration
		then func()
	}{{timeout, signal(unix.SIGQUIT)}, {5 * time.Second, signal(unix.SIGKILL)}, {5 * time.Second, unplug}, {5 * time.Second, func() {}}} {
		select {
		case <-exited:
			return note, nil
		case <-time.After(step.wait):
		}
		note = fmt.Sprintf("killed after %v", timeout)
		step.then()
	}
	return "", fmt.Errorf("%s cannot be killed, it is stuck in the kernel:\n%s", cmd.Path, kernelStacks(cmd.Process.Pid))
}

// unplug takes all simulated USB devices off the bus. The kernel does not let go of a process with a transfer under
// way, and when that process is the simulator as well, nobody else is left to end the transfer.
func unplug() {
	for port := range 64 {
		os.WriteFile("/sys/devices/platform/vhci_hcd.0/detach", []byte(strconv.Itoa(port)), 0) // fails for free ports
	}
}

// kernelStacks says where in the kernel the process's threads are.
func kernelStacks(pid int) string {
	var b strings.Builder
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stack", pid))
	for _, name := range files {
		stack, _ := os.ReadFile(name)
		fmt.Fprintf(&b, "%s:\n%s", name, stack)
	}
	return b.String()
}

// reap collects what runOne has killed; a process stuck in the kernel is left to its fate.
func reap() {
	for range 100 {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		switch {
		case errors.Is(err, unix.ECHILD):
			return
		case pid <= 0:
			time.Sleep(10 * time.Millisecond)
		}
	}
}
