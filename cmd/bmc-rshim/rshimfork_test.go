// SPDX-License-Identifier: Apache-2.0

//go:build !nosim

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// actAsRshim makes a copy of the test be rshim, with a simulated DPU, in a
// directory.
const actAsRshim = "BMC_RSHIM_TEST_RSHIM"

func init() {
	dir := os.Getenv(actAsRshim)
	if dir == "" {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	e := &env{stdout: os.Stdout, stderr: os.Stderr, simulate: simulate, place: func(d *daemonOptions) {
		d.devRoot, d.conf, d.sim.chip, d.sim.scale = dir, filepath.Join(dir, "conf"), "bf3", 1
		if d.pidFile != "" {
			d.pidFile = filepath.Join(dir, "rshim.pid")
		}
	}}
	os.Exit(rshimMain(ctx, e, os.Args[1:]))
}

// rshimProcess runs rshim as a program of that name.
type rshimProcess struct {
	t    *testing.T
	dir  string
	path string
}

func newRshimProcess(t *testing.T) *rshimProcess {
	p := &rshimProcess{t: t, dir: t.TempDir()}
	p.path = filepath.Join(p.dir, "rshim")
	exe, err := os.Executable()
	if err == nil {
		err = errors.Join(os.Symlink(exe, p.path), os.WriteFile(filepath.Join(p.dir, "conf"), nil, 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if pid := p.pid(); pid != 0 {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	return p
}

func (p *rshimProcess) command(args ...string) *exec.Cmd {
	cmd := exec.Command(p.path, args...)
	cmd.Env = append(os.Environ(), actAsRshim+"="+p.dir)
	return cmd
}

// pid is what the PID file says, 0 without one.
func (p *rshimProcess) pid() int {
	b, _ := os.ReadFile(filepath.Join(p.dir, "rshim.pid"))
	pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return pid
}

func (p *rshimProcess) wait(what string, done func() bool) {
	p.t.Helper()
	for end := time.Now().Add(30 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// In the background: the first process ends when the daemon serves, and the
// daemon has a session of its own and nothing of the caller's.
func TestRshimBackground(t *testing.T) {
	p := newRshimProcess(t)
	var out bytes.Buffer
	cmd := p.command("-l", "4")
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil || out.Len() > 0 {
		t.Fatalf("%v, output: %s", err, &out)
	}
	pid := p.pid()
	if pid == 0 || pid == cmd.Process.Pid {
		t.Fatalf("the PID file has %d, and the first process was %d", pid, cmd.Process.Pid)
	}
	proc := fmt.Sprintf("/proc/%d/", pid)
	stat, err := os.ReadFile(proc + "stat") // pid (name) state ppid pgrp session
	if err != nil {
		t.Fatal(err)
	}
	if f := strings.Fields(string(stat)); f[1] != "(rshim)" || f[4] != f[0] || f[5] != f[0] {
		t.Errorf("name, group or session is not its own: %s", stat)
	}
	if dir, _ := os.Readlink(proc + "cwd"); dir != "/" {
		t.Errorf("it is in %s", dir)
	}
	for fd := range 3 {
		if name, err := os.Readlink(fmt.Sprintf("%sfd/%d", proc, fd)); name != os.DevNull {
			t.Errorf("descriptor %d is %s, %v", fd, name, err)
		}
	}

	// Another is told why it cannot, in both modes.
	want := fmt.Sprintf("Another rshim instance is already running (pid %d, %s/rshim.pid)\n", pid, p.dir)
	for _, args := range []string{"", "-f"} {
		b, err := p.command(strings.Fields(args)...).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.HasSuffix(string(b), want) {
			t.Errorf("rshim %s: %v: %s", args, err, b)
		}
	}
	if p.pid() != pid {
		t.Errorf("the PID file is another's, %d", p.pid())
	}

	// But with -d any number may run, and leave the file alone.
	only := p.command("-f", "-d", "usb-1-1.1")
	if err := only.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	only.Process.Signal(syscall.SIGTERM)
	if err := only.Wait(); err != nil && !strings.Contains(err.Error(), "terminated") {
		t.Errorf("with -d: %v", err)
	}
	if p.pid() != pid {
		t.Error("an instance with -d has touched the PID file")
	}

	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.wait("the PID file to go", func() bool { return p.pid() == 0 })
	p.wait("the daemon to end", func() bool { return syscall.Kill(pid, 0) != nil })
}

// What keeps the daemon from its work is the first process's exit status.
func TestRshimBackgroundFails(t *testing.T) {
	p := newRshimProcess(t)
	if err := os.Remove(filepath.Join(p.dir, "conf")); err != nil {
		t.Fatal(err)
	}
	b, err := p.command().CombinedOutput()
	var exit *exec.ExitError
	if want := "rshim: open " + p.dir + "/conf: no such file or directory\n"; !errors.As(err, &exit) || exit.ExitCode() != 1 || string(b) != want {
		t.Errorf("%v: %s, want %s", err, b, want)
	}
	if p.pid() != 0 {
		t.Error("a PID file is left")
	}
}

// In the foreground the log is on stdout, in the C daemon's words.
func TestRshimForeground(t *testing.T) {
	p := newRshimProcess(t)
	var errs bytes.Buffer
	cmd := p.command("--foreground")
	cmd.Stderr = &errs
	log := filepath.Join(p.dir, "log")
	f, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd.Stdout = f
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := func() string { b, _ := os.ReadFile(log); return "\n" + string(b) }
	p.wait("the device", func() bool { return strings.Contains(read(), "rshim0 attached") })
	if p.pid() != cmd.Process.Pid {
		t.Errorf("the PID file has %d, not %d", p.pid(), cmd.Process.Pid)
	}
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil || errs.Len() > 0 {
		t.Errorf("%v, stderr: %s", err, &errs)
	}
	text := read()
	for _, line := range []string{"Created PID file: " + p.dir + "/rshim.pid\n", "USB device detected", "Probing usb-2-1.7\n", "create rshim usb-2-1.7\n", "rshim0 attached"} {
		if !strings.Contains(text, "\n"+line) {
			t.Errorf("no line %q in:%s", line, text)
		}
	}
}

// The environment alone does not make a process one in the background.
func TestRshimBackgroundVariable(t *testing.T) {
	p := newRshimProcess(t)
	cmd := p.command("-n")
	cmd.Env = append(cmd.Env, backgroundEnv+"=1")
	if b, err := cmd.CombinedOutput(); err != nil || len(b) > 0 {
		t.Fatalf("%v: %s", err, b)
	}
	if pid := p.pid(); pid == 0 || pid == cmd.Process.Pid {
		t.Errorf("the daemon is process %d, the first was %d", pid, cmd.Process.Pid)
	}
}
