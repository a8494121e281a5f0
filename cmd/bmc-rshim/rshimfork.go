// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// Without -f the daemon goes to the background: this program is started once
// more in a session of its own, with a pipe on descriptor 3 on which it tells
// when it serves, or why it cannot. Until then the first process waits, so that
// its exit status says how the start went.
const (
	backgroundEnv = "BMC_RSHIM_BACKGROUND"
	backgroundFD  = 3
	saysReady     = "ready"
)

// background starts the daemon in the background and returns the exit code.
func background(ctx context.Context, e *env) int {
	if err := startBackground(ctx); err != nil {
		fmt.Fprintln(e.stderr, "rshim:", err)
		return exitCode(err)
	}
	return exitOK
}

func startBackground(ctx context.Context) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	p, err := os.StartProcess(self(), os.Args, &os.ProcAttr{
		Dir:   "/",
		Env:   append(os.Environ(), backgroundEnv+"=1"),
		Files: []*os.File{null, null, null, w},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	w.Close()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { p.Signal(syscall.SIGTERM) })
	said, err := io.ReadAll(io.LimitReader(r, 4096))
	if !stop() {
		p.Wait()
		return context.Canceled
	}
	if string(said) == saysReady {
		return p.Release()
	}
	state, werr := p.Wait()
	switch {
	case len(said) > 0:
		return errors.New(string(said))
	case err != nil || werr != nil:
		return errors.Join(err, werr)
	}
	return fmt.Errorf("the daemon ended: %v", state)
}

// self is the path of this program, as it was called if that can be found
// again: the process's name comes from it, and that should be rshim.
func self() string {
	const exe = "/proc/self/exe"
	path, err := exec.LookPath(os.Args[0])
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return exe
	}
	found, ferr := os.Stat(path)
	running, rerr := os.Stat(exe)
	if ferr != nil || rerr != nil || !os.SameFile(found, running) {
		return exe
	}
	return path
}

// parentReport is what the process in the background tells the one that
// started it. Nil is for one that nobody waits for.
type parentReport struct{ f *os.File }

// toParent returns the report if this is the process in the background.
func toParent() *parentReport {
	if os.Getenv(backgroundEnv) == "" {
		return nil
	}
	os.Unsetenv(backgroundEnv)
	var st syscall.Stat_t
	if syscall.Fstat(backgroundFD, &st) != nil || st.Mode&syscall.S_IFMT != syscall.S_IFIFO {
		return nil // somebody has set the variable
	}
	syscall.CloseOnExec(backgroundFD)
	return &parentReport{os.NewFile(backgroundFD, "parent")}
}

func (p *parentReport) ready() { p.tell(saysReady) }

func (p *parentReport) failed(err error) { p.tell(strings.TrimSpace(err.Error())) }

func (p *parentReport) tell(text string) {
	if p == nil {
		return
	}
	io.WriteString(p.f, text)
	p.f.Close()
}
