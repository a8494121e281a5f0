// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// consoleRig has a /dev with a console in it, of which a pseudo-terminal is
// the DPU's end.
type consoleRig struct {
	t    *testing.T
	root string
	dpu  *pty
}

func newConsoleRig(t *testing.T) *consoleRig {
	t.Helper()
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "rshim0"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "rshim0", "misc"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := &consoleRig{t: t, root: root}
	r.plug(newPTY(t))
	return r
}

func (r *consoleRig) plug(p *pty) {
	r.t.Helper()
	p.raw()
	r.dpu = p
	link := filepath.Join(r.root, "rshim0", "console")
	if err := os.Symlink(p.slave.Name(), link+"~"); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Rename(link+"~", link); err != nil {
		r.t.Fatal(err)
	}
}

// unplug ends the console for who has it open.
func (r *consoleRig) unplug() {
	r.t.Helper()
	if err := os.Remove(filepath.Join(r.root, "rshim0", "console")); err != nil {
		r.t.Fatal(err)
	}
	r.dpu.slave.Close()
	r.dpu.master.Close()
}

// command is a running console command.
type command struct {
	t      *testing.T
	cancel context.CancelFunc
	code   chan int
	stderr *lines
}

// lines is a buffer that somebody writes to.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// want waits until text is there.
func (l *lines) want(t *testing.T, text string) {
	t.Helper()
	for end := time.Now().Add(patience); !strings.Contains(l.String(), text); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%q, want %q", l, text)
		}
	}
}

// start runs a console command. Without stderr its messages are collected.
func (r *consoleRig) start(stdin io.Reader, stdout, stderr io.Writer, args ...string) *command {
	ctx, cancel := context.WithCancel(r.t.Context())
	c := &command{t: r.t, cancel: cancel, code: make(chan int, 1), stderr: new(lines)}
	if stderr == nil {
		stderr = c.stderr
	}
	args = append([]string{"console", "-dev-root", r.root}, args...)
	go func() { c.code <- runIn(ctx, &env{stdin: stdin, stdout: stdout, stderr: stderr}, args) }()
	return c
}

// onTerminal runs a console command on a terminal and waits until it is on.
func (r *consoleRig) onTerminal(args ...string) (*command, *pty) {
	r.t.Helper()
	term := newPTY(r.t)
	c := r.start(term.slave, term.slave, term.slave, args...)
	term.want("bmc-rshim: console of rshim0")
	return c, term
}

func (c *command) want(code int) {
	c.t.Helper()
	select {
	case got := <-c.code:
		if got != code {
			c.t.Fatalf("exit code %d, want %d: %s", got, code, c.stderr)
		}
	case <-time.After(patience):
		c.t.Fatalf("does not end: %s", c.stderr)
	}
}

// On a terminal everything goes through as it is, but for escapes.
func TestConsoleTerminal(t *testing.T) {
	r := newConsoleRig(t)
	term := newPTY(t)
	before := term.modes()
	if isRaw(before) {
		t.Fatal("raw before")
	}
	c := r.start(term.slave, term.slave, term.slave)
	term.want("bmc-rshim: console of rshim0: ~. at the beginning of a line ends, ~? lists the escapes\r\n")
	if !isRaw(term.modes()) {
		t.Error("not raw")
	}
	term.write("root\r\x03\x1a\x1c\x04\x11\x13\x7f\x00\xff")
	r.dpu.want("root\r\x03\x1a\x1c\x04\x11\x13\x7f\x00\xff")
	const output = "\x1b[2J\x1b[31mlogin:\r\n\x9b\xff\x00half a line"
	r.dpu.write(output)
	term.want(output)

	term.write("\r~?")
	term.want("\r\nbmc-rshim: escapes, at the beginning of a line:\r\n  ~.  end\r\n") // on a line of its own
	term.write("~~.x\r~B~y")
	r.dpu.want("\r~.x\r~y")
	r.dpu.write("prompt")
	term.want("prompt")
	term.write("\r~.")
	c.want(exitOK)
	term.want("\r\nbmc-rshim: left the console of rshim0\r\n")
	if got := term.modes(); got != before {
		t.Errorf("left as %+v, was %+v", got, before)
	}
	if got := r.dpu.all(); strings.Contains(got, "bmc-rshim") {
		t.Errorf("the DPU got %q", got)
	}
}

func TestConsoleQuiet(t *testing.T) {
	r := newConsoleRig(t)
	term := newPTY(t)
	c := r.start(term.slave, term.slave, term.slave, "-q", "-escape", "^]")
	r.dpu.write("hello")
	term.want("hello")
	term.write("~.\x1d.\r")
	r.dpu.want("~.\x1d.\r")
	term.write("\x1d.") // which gives a DPU that is slow no more than half a second
	c.want(exitOK)
	if got := term.all(); got != "hello" {
		t.Errorf("printed %q", got)
	}
}

// A console that goes away is waited for. Keys that were meant for it are not
// kept, the log is gone on with, and an escape still ends.
func TestConsoleGone(t *testing.T) {
	r := newConsoleRig(t)
	log := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(log, []byte("before\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, term := r.onTerminal("-log", log)
	r.dpu.write("first\r\n")
	term.want("first\r\n")
	r.unplug()
	term.want("bmc-rshim: the console of rshim0 has gone, waiting for it: ")
	if !isRaw(term.modes()) {
		t.Error("not raw while waiting")
	}
	term.write("reboot\r~?") // the list tells that these were read
	term.want("escapes")
	r.plug(newPTY(t))
	term.want("bmc-rshim: the console of rshim0 is back; what was typed meanwhile, 7 bytes, is dropped\r\n")
	r.dpu.write("second")
	term.want("second")
	term.write("ls\r")
	r.dpu.want("ls\r")
	if got := r.dpu.all(); got != "ls\r" {
		t.Errorf("the DPU got %q", got)
	}
	r.unplug()
	term.want("has gone")
	term.write("~.")
	c.want(exitOK)
	got, err := os.ReadFile(log)
	if err != nil || string(got) != "before\nfirst\r\nsecond" {
		t.Errorf("log: %q, %v", got, err)
	}
}

func TestConsoleOnce(t *testing.T) {
	r := newConsoleRig(t)
	c, term := r.onTerminal("-once")
	before := term.modes()
	r.unplug()
	c.want(exitDevice)
	term.want("\r\nbmc-rshim: the console of rshim0 has gone: ")
	if after := term.modes(); isRaw(after) || !isRaw(before) {
		t.Error("left raw")
	}
	c = r.start(nil, io.Discard, nil, "-n")
	c.want(exitDevice)
}

// A DPU that takes nothing, or a reader of the output that reads nothing, does
// not keep an operator in.
func TestConsoleStuck(t *testing.T) {
	t.Parallel()
	t.Run("DPU", func(t *testing.T) {
		r := newConsoleRig(t)
		stuck := &pty{t: t}
		stuck.master, stuck.slave = openPTY(t)
		r.plug(stuck)
		c, term := r.onTerminal()
		// More than a pseudo-terminal takes, less than is kept.
		for range 30 {
			term.write(strings.Repeat("x", 1000))
		}
		term.write("\r~.")
		c.want(exitOK)
	})
	t.Run("reader", func(t *testing.T) {
		r := newConsoleRig(t)
		term := newPTY(t)
		out, in, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		defer in.Close()
		c := r.start(term.slave, in, nil)
		c.stderr.want(t, "console of rshim0")
		go func() { // until the rig is closed
			for {
				if _, err := r.dpu.master.Write(make([]byte, 4096)); err != nil {
					return
				}
			}
		}()
		out.Read(make([]byte, 1))
		term.write("~.")
		c.want(exitOK)
	})
}

// A log has what the DPU prints and nothing else; one that cannot be written
// is told of once.
func TestConsoleLog(t *testing.T) {
	r := newConsoleRig(t)
	log := filepath.Join(t.TempDir(), "log")
	old := syscall.Umask(0)
	c, term := r.onTerminal("-log", log)
	syscall.Umask(old)
	term.write("~?")
	term.want("escapes")
	r.dpu.write("\x1b[0mout\x00\r\n")
	term.want("out")
	term.write("~.")
	c.want(exitOK)
	st, err := os.Stat(log)
	if err != nil || st.Mode() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	if got, err := os.ReadFile(log); err != nil || string(got) != "\x1b[0mout\x00\r\n" {
		t.Errorf("log: %q, %v", got, err)
	}

	c, term = r.onTerminal("-log", "/dev/full")
	for i := range 3 {
		r.dpu.write(fmt.Sprint("line ", i))
		term.want(fmt.Sprint("line ", i))
	}
	term.write("~.")
	c.want(exitOK)
	if n := strings.Count(term.all(), "the log is incomplete: write /dev/full: no space left on device"); n != 1 {
		t.Errorf("told %d times: %q", n, term.all())
	}

	c = r.start(nil, io.Discard, nil, "-log", filepath.Join(log, "x"))
	c.want(exitFailed)
}

// The output that was kept is asked for; a node that keeps none, as this one,
// is no reason to fail.
func TestConsoleReplay(t *testing.T) {
	r := newConsoleRig(t)
	c := r.start(strings.NewReader(""), io.Discard, nil, "-replay", "-linger", "1ms")
	c.want(exitOK)
	if !strings.Contains(c.stderr.String(), "rshim0 has no output of before: ") {
		t.Errorf("stderr: %s", c.stderr)
	}
}

// A script's input arrives as it is, however much it is, and what the DPU
// answers is printed, until it is silent.
func TestConsoleScript(t *testing.T) {
	t.Parallel()
	r := newConsoleRig(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	input := make([]byte, 1<<20)
	for i := range input {
		input[i] = byte(rnd.Uint32())
	}
	copy(input, "~.\n~.\r~B")
	go func() {
		for len(r.dpu.all()) < len(input) {
			time.Sleep(time.Millisecond)
		}
		r.dpu.master.WriteString("answer\r\n")
	}()
	stdout := new(lines)
	c := r.start(bytes.NewReader(input), stdout, nil, "-linger", "10s")
	c.want(exitOK)
	if got := r.dpu.all(); sha256.Sum256([]byte(got)) != sha256.Sum256(input) {
		t.Errorf("%d bytes arrived, want %d", len(got), len(input))
	}
	if stdout.String() != "answer\r\n" || c.stderr.String() != "bmc-rshim: console of rshim0\n" {
		t.Errorf("printed %q, %q", stdout, c.stderr)
	}
}

// While the DPU prints, a script is not at its end.
func TestConsoleLinger(t *testing.T) {
	t.Parallel()
	r := newConsoleRig(t)
	stdout := new(lines)
	c := r.start(strings.NewReader("boot\n"), stdout, nil, "rshim0", "-linger", "10s")
	r.dpu.want("boot\n")
	var want strings.Builder
	for i := range 25 { // of which any two are much closer than 10 s
		time.Sleep(500 * time.Millisecond)
		fmt.Fprintln(&want, i)
		r.dpu.write(fmt.Sprintln(i))
	}
	c.want(exitOK)
	if stdout.String() != want.String() {
		t.Errorf("printed %q", stdout)
	}
}

func TestConsoleScriptEscape(t *testing.T) {
	r := newConsoleRig(t)
	in, out := io.Pipe()
	defer out.Close()
	c := r.start(in, io.Discard, nil, "-escape", "~", "rshim0")
	io.WriteString(out, "a\n~~\n~.")
	c.want(exitOK)
	r.dpu.want("a\n~\n")
}

// How scripts fail.
func TestConsoleScriptFails(t *testing.T) {
	t.Run("DPU takes nothing", func(t *testing.T) {
		r := newConsoleRig(t)
		stuck := &pty{t: t}
		stuck.master, stuck.slave = openPTY(t)
		r.plug(stuck)
		c := r.start(bytes.NewReader(make([]byte, 1<<20)), io.Discard, nil, "-timeout", "100ms")
		c.want(exitTimeout)
	})
	t.Run("console goes away", func(t *testing.T) {
		r := newConsoleRig(t)
		in, out := io.Pipe()
		defer out.Close()
		c := r.start(in, io.Discard, nil)
		io.WriteString(out, "a\n")
		r.dpu.want("a\n")
		r.unplug()
		c.want(exitDevice)
	})
	t.Run("input fails", func(t *testing.T) {
		r := newConsoleRig(t)
		dir, err := os.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		c := r.start(dir, io.Discard, nil)
		c.want(exitFailed)
		if !strings.Contains(c.stderr.String(), "input: ") {
			t.Errorf("stderr: %s", c.stderr)
		}
	})
	t.Run("output fails", func(t *testing.T) {
		r := newConsoleRig(t)
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer full.Close()
		r.dpu.write("x")
		c := r.start(nil, full, nil, "-n")
		c.want(exitFailed)
	})
	t.Run("interrupted", func(t *testing.T) {
		r := newConsoleRig(t)
		in, out := io.Pipe()
		defer out.Close()
		c := r.start(in, io.Discard, nil)
		io.WriteString(out, "a\n")
		r.dpu.want("a\n")
		c.cancel()
		c.want(exitInterrupted)
	})
}

// With -once=false a script's input waits for the console, and goes on with
// what had not been sent.
func TestConsoleScriptWaits(t *testing.T) {
	r := newConsoleRig(t)
	in, out := io.Pipe()
	c := r.start(in, io.Discard, nil, "-once=false", "-linger", "10ms")
	io.WriteString(out, "a\n")
	r.dpu.want("a\n")
	r.unplug()
	c.stderr.want(t, "has gone, waiting for it")
	go func() {
		io.WriteString(out, "b\n")
		out.Close()
	}()
	r.plug(newPTY(t))
	r.dpu.want("b\n")
	c.want(exitOK)
	if got := r.dpu.all(); got != "b\n" {
		t.Errorf("the DPU got %q", got)
	}
}

// -n reads nothing, prints and waits for ever, and being interrupted is its end.
func TestConsoleNoInput(t *testing.T) {
	r := newConsoleRig(t)
	stdout := new(lines)
	term := newPTY(t)
	before := term.modes()
	c := r.start(term.slave, stdout, nil, "-n", "-linger", "1ms")
	r.dpu.write("one\n")
	stdout.want(t, "one\n")
	if term.modes() != before {
		t.Error("the terminal is touched")
	}
	r.unplug()
	c.stderr.want(t, "has gone, waiting for it")
	r.plug(newPTY(t))
	r.dpu.write("two\n")
	stdout.want(t, "two\n")
	c.cancel()
	c.want(exitOK)
	if stdout.String() != "one\ntwo\n" {
		t.Errorf("printed %q", stdout)
	}
}

func TestConsoleCommandLine(t *testing.T) {
	r := newConsoleRig(t)
	file := filepath.Join(r.root, "rshim1")
	if err := os.Mkdir(file, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"misc", "console"} {
		if err := os.WriteFile(filepath.Join(file, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		args   string
		code   int
		stderr string
	}{
		{"", exitUsage, "there are 2 devices: choose one of rshim0, rshim1"},
		{"rshim0 rshim1", exitUsage, "not rshim0 and rshim1"},
		{"-device rshim1 rshim0", exitUsage, "not rshim1 and rshim0"},
		{"rshim0 -q x", exitUsage, "not rshim0 and x"},
		{"rshim2", exitDevice, "no rshim2 in"},
		{"rshim1", exitDevice, "/rshim1/console is not a device"},
		{"-escape xy rshim0", exitUsage, "-escape is a character"},
		{"-linger -1s rshim0", exitUsage, "cannot be negative"},
		{"-simulate bf3", exitUsage, "-simulate"},
		{"-linger 1ms rshim0", exitOK, "console of rshim0"},
	} {
		cmd := r.start(strings.NewReader(""), io.Discard, nil, strings.Fields(c.args)...)
		cmd.want(c.code)
		if !strings.Contains(cmd.stderr.String(), c.stderr) {
			t.Errorf("%q: stderr: %s", c.args, cmd.stderr)
		}
	}
}

// childEnv has this test binary be another program: the arguments are those of
// bmc-rshim.
const childEnv = "BMC_RSHIM_TEST_CHILD"

func TestMain(m *testing.M) {
	switch os.Getenv(childEnv) {
	case "":
		// No test is to find the machine's own daemon.
		os.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus")
		// The daemon's frugality is not for this process, which is larger, and
		// would collect garbage half of the time.
		os.Setenv("GOGC", "100")
		os.Setenv("GOMEMLIMIT", "off")
		os.Exit(m.Run())
	case "main":
		main()
	case "panic":
		term := newTerminal(os.Stdin)
		term.raw()
		fmt.Fprintln(os.Stderr, "raw:", term.isRaw())
		term.guard(func() { panic("on purpose") })
		select {}
	case "background":
		term := newTerminal(os.Stdin)
		term.raw()
		// The terminal goes to another process group.
		sleep := exec.Command("sleep", "1000")
		sleep.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Foreground: true, Ctty: 0}
		if err := sleep.Start(); err != nil {
			fmt.Println(err)
		}
		term.restore(false)
		m, err := unix.IoctlGetTermios(0, unix.TCGETS)
		if err != nil || m.Lflag&unix.ICANON != 0 {
			fmt.Println("touched", err)
		} else {
			fmt.Println("left alone")
		}
		sleep.Process.Kill()
	}
}

func child(t *testing.T, what string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), childEnv+"="+what)
	return cmd
}

// Every signal that ends the command leaves the terminal as it was; what was
// typed for the DPU does not reach who reads the terminal next.
func TestConsoleSignals(t *testing.T) {
	for _, sig := range []syscall.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT} {
		t.Run(unix.SignalName(sig), func(t *testing.T) {
			r := newConsoleRig(t)
			term := newPTY(t)
			before := term.modes()
			cmd := child(t, "main", "console", "-dev-root", r.root)
			cmd.Stdin, cmd.Stdout, cmd.Stderr = term.slave, term.slave, term.slave
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			term.want("console of rshim0")
			term.write("\x03\x1c\x1a") // would be signals
			r.dpu.want("\x03\x1c\x1a")
			if !isRaw(term.modes()) {
				t.Error("not raw")
			}
			cmd.Process.Signal(sig)
			_ = cmd.Wait()
			if code := cmd.ProcessState.ExitCode(); code != exitInterrupted {
				t.Errorf("%v, want exit code %d", cmd.ProcessState, exitInterrupted)
			}
			if got := term.modes(); got != before {
				t.Errorf("left as %+v, was %+v", got, before)
			}
		})
	}
}

// The end of who reads the output is an error, not a death by SIGPIPE.
func TestConsoleBrokenPipe(t *testing.T) {
	r := newConsoleRig(t)
	term := newPTY(t)
	before := term.modes()
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := child(t, "main", "console", "-dev-root", r.root)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = term.slave, in, term.slave
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	out.Close()
	term.want("console of rshim0")
	r.dpu.write("x")
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != exitFailed {
		t.Errorf("%v, want exit code %d", cmd.ProcessState, exitFailed)
	}
	term.want("broken pipe")
	if got := term.modes(); got != before {
		t.Errorf("left as %+v, was %+v", got, before)
	}
}
