// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
)

// machineProcess is a running machine.
type machineProcess struct {
	console io.ReadCloser // what the kernel and init print
	events  io.ReadCloser // guest.Event, one a line
	pid     int
	exited  chan struct{} // closed when the process is gone
	err     error         // how it ended, valid after exited
}

// startMachine starts the program with its console on standard output and error and its event port on fd 3.
func startMachine(name string, args []string, env ...string) (*machineProcess, error) {
	console, conW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer conW.Close()
	events, evW, err := os.Pipe()
	if err != nil {
		console.Close()
		return nil, err
	}
	defer evW.Close()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = conW, conW
	cmd.ExtraFiles = []*os.File{evW}
	// User-Mode Linux is several processes; a machine must not outlive the test that wanted it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}

	p := &machineProcess{console: console, events: events, exited: make(chan struct{})}
	started := make(chan error)
	go func() {
		defer close(p.exited)
		runtime.LockOSThread() // the parent that Pdeathsig means is a thread
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			p.pid = cmd.Process.Pid
		}
		started <- err
		if err == nil {
			p.err = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		console.Close()
		events.Close()
		return nil, fmt.Errorf("start the machine: %w", err)
	}
	return p, nil
}

// kill ends the machine with all its processes and waits for it.
func (p *machineProcess) kill() {
	select {
	case <-p.exited:
	default:
		syscall.Kill(-p.pid, syscall.SIGKILL)
		<-p.exited
	}
}
