// SPDX-License-Identifier: Apache-2.0

package guest_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	vmguest "github.com/bluefield-go/bmc-rshim/internal/vmtest/guest"
)

// rig is a BMC in the machine: the daemon, and a simulated DPU on the kernel's
// own USB stack, each a process of its own.
type rig struct {
	t      *testing.T
	sim    *process
	daemon *process
	ctl    net.Conn // of the simulator
	reply  *bufio.Reader
}

// process is a program that runs until the end of the test.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // of Wait, after done

	mu  sync.Mutex
	out bytes.Buffer
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.Write(b)
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

// start starts a program; its output is in the test's log if that fails.
func start(t *testing.T, name string, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(name, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p, p
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			t.Logf("%s %s:\n%s", name, strings.Join(args, " "), p.output())
		}
	})
	return p
}

// stop ends the program and returns how long it took.
func (p *process) stop() time.Duration {
	begin := time.Now()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		p.t.Errorf("%s did not end on SIGTERM", p.cmd.Path)
		_ = p.cmd.Process.Kill()
		<-p.done
	}
	return time.Since(begin)
}

// newRig starts a DPU and the daemon, and waits for the device to be attached.
func newRig(t *testing.T, simArgs ...string) *rig {
	t.Helper()
	vmguest.Require(t)
	socket := filepath.Join(t.TempDir(), "sim")
	r := &rig{t: t}
	r.sim = start(t, "bluefield-sim", append(simArgs, "-control", socket)...)
	r.until("the simulator's socket", func() bool {
		var err error
		r.ctl, err = net.Dial("unix", socket)
		return err == nil
	})
	t.Cleanup(func() { r.ctl.Close() })
	r.reply = bufio.NewReader(r.ctl)
	r.startDaemon()
	return r
}

func (r *rig) startDaemon() {
	r.t.Helper()
	r.daemon = start(r.t, "bmc-rshim", "daemon", "-log-level", "info")
	r.attached()
}

// attached waits for the device to have its files and to be ours.
func (r *rig) attached() {
	r.t.Helper()
	r.until("rshim0 to be attached", func() bool {
		return strings.Contains(r.daemon.output(), "rshim0 attached") &&
			strings.Contains(misc(), "DROP_MODE       0 ") && strings.Contains(misc(), "DEV_INFO ")
	})
}

// patience is how long anything may take to happen; the AST2600 is emulated.
const patience = 2 * time.Minute

func (r *rig) until(what string, done func() bool) {
	r.t.Helper()
	for end := time.Now().Add(patience); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// control gives the simulator a command and returns its answer.
func (r *rig) control(format string, args ...any) string {
	r.t.Helper()
	if _, err := fmt.Fprintf(r.ctl, format+"\n", args...); err != nil {
		r.t.Fatal(err)
	}
	s, err := r.reply.ReadString('\n')
	if err != nil || strings.HasPrefix(s, "error") {
		r.t.Fatalf("%s: %s%v", fmt.Sprintf(format, args...), s, err)
	}
	return strings.TrimSpace(s)
}

// stage waits for the DPU to be at a stage.
func (r *rig) stage(name string) {
	r.t.Helper()
	r.until("stage "+name, func() bool { return strings.Contains(r.control("state 0"), "stage="+name+" ") })
}

// arrived checks that exactly the file, padded to whole words, has arrived, with
// nothing offered to a FIFO that was full or a chip that was not ready.
func (r *rig) arrived(file string) {
	r.t.Helper()
	f, err := os.Open(file)
	if err != nil {
		r.t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		r.t.Fatal(err)
	}
	pad := -n & 7
	h.Write(make([]byte, pad))
	want := fmt.Sprintf("sum dev=0 bytes=%d sha256=%x", n+pad, h.Sum(nil))
	r.until("the last bytes", func() bool { return strings.Contains(r.control("sum 0"), fmt.Sprintf("bytes=%d ", n+pad)) })
	if got := r.control("sum 0"); got != want {
		r.t.Errorf("arrived: %s\nwant:    %s", got, want)
	}
	if st := r.control("state 0"); !strings.Contains(st, "overflow=0 swallowed=0") {
		r.t.Errorf("bytes were lost: %s", st)
	}
}

// misc reads the device's misc file, "" if that cannot be.
func misc() string {
	b, err := os.ReadFile("/dev/rshim0/misc")
	if err != nil {
		return ""
	}
	return string(b)
}

// sh runs a shell command and returns its output and exit code.
func sh(t *testing.T, script string) (string, int) {
	t.Helper()
	out, err := exec.Command("sh", "-c", script).CombinedOutput()
	var exit *exec.ExitError
	switch e, ok := err.(*exec.ExitError); {
	case ok:
		exit = e
	case err != nil:
		t.Fatal(err)
	default:
		return string(out), 0
	}
	return string(out), exit.ExitCode()
}
