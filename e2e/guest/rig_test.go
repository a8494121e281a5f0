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
	"github.com/bluefield-go/bmc-rshim/rshim/bfb"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
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
	case <-time.After(patience):
		p.t.Errorf("%s did not end on SIGTERM", p.cmd.Path)
		_ = p.cmd.Process.Kill()
		<-p.done
	}
	return time.Since(begin)
}

// newRig starts a DPU and the daemon, and waits for the device to be attached.
func newRig(t *testing.T, simArgs ...string) *rig {
	t.Helper()
	r := newDPUs(t, simArgs...)
	r.startDaemon()
	return r
}

// newDPUs starts the simulator alone.
func newDPUs(t *testing.T, args ...string) *rig {
	t.Helper()
	vmguest.Require(t)
	socket := filepath.Join(t.TempDir(), "sim")
	r := &rig{t: t}
	// The kernel takes its time to see devices off; the next DPUs are to find
	// the bus, and the numbers of the devices, free.
	t.Cleanup(func() { r.until("the DPUs to have left", func() bool { return onBus(t) == 0 }) })
	r.sim = start(t, "bluefield-sim", append(args, "-control", socket)...)
	r.until("the simulator's socket", func() bool {
		var err error
		r.ctl, err = net.Dial("unix", socket)
		return err == nil
	})
	t.Cleanup(func() { r.ctl.Close() })
	r.reply = bufio.NewReader(r.ctl)
	return r
}

// umlOnly skips a test that would take minutes on an emulated BMC, to prove
// nothing there that does not hold in User-Mode Linux.
func umlOnly(t *testing.T) {
	t.Helper()
	if vmguest.In() && vmguest.Lane() != "uml" {
		t.Skip("runs in User-Mode Linux only")
	}
}

// onBus counts the devices on the kernel's USB that are DPUs.
func onBus(t *testing.T) (n int) {
	t.Helper()
	files, err := filepath.Glob("/sys/bus/usb/devices/*/idVendor")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if vendor, _ := os.ReadFile(file); strings.TrimSpace(string(vendor)) == fmt.Sprintf("%04x", reg.USBVendor) {
			n++
		}
	}
	return n
}

// in returns the rig for use in a subtest.
func (r *rig) in(t *testing.T) *rig {
	sub := *r
	sub.t = t
	return &sub
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
		boot, err := os.Stat("/dev/rshim0/boot")
		return err == nil && boot.Mode()&os.ModeCharDevice != 0 && strings.Contains(r.daemon.output(), "rshim0 attached") &&
			strings.Contains(misc(), "DROP_MODE       0 ") && strings.Contains(misc(), "DEV_INFO ")
	})
}

// plug plugs the device in again, and waits for the daemon to have it.
func (r *rig) plug() {
	r.t.Helper()
	times := func() int { return strings.Count(r.daemon.output(), "rshim0 attached") }
	before := times()
	r.control("plug 0")
	r.until("rshim0 to be attached again", func() bool { return times() > before })
	r.attached()
}

// epoch counts how often the DPU has come up on the bus.
func (r *rig) epoch() int {
	r.t.Helper()
	_, rest, _ := strings.Cut(r.control("state 0"), " epoch=")
	s, _, _ := strings.Cut(rest, " ")
	return number(r.t, s)
}

// swReset resets the chip through misc, and waits until it has left the bus and
// come up again, which may be too short to be seen there.
func (r *rig) swReset() {
	r.t.Helper()
	before := r.epoch()
	r.mustRun("echo SW_RESET 1 > /dev/rshim0/misc")
	r.until("the DPU to come up anew", func() bool { return r.epoch() > before })
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
	s := r.ask(format, args...)
	if strings.HasPrefix(s, "error") {
		r.t.Fatalf("%s: %s", fmt.Sprintf(format, args...), s)
	}
	return s
}

// ask is control, whose answer may be an error.
func (r *rig) ask(format string, args ...any) string {
	r.t.Helper()
	if _, err := fmt.Fprintf(r.ctl, format+"\n", args...); err != nil {
		r.t.Fatal(err)
	}
	s, err := r.reply.ReadString('\n')
	if err != nil {
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
	n, sum := padded(r.t, file)
	want := fmt.Sprintf("sum dev=0 bytes=%d sha256=%x", n, sum)
	r.until("the last bytes", func() bool { return strings.Contains(r.control("sum 0"), fmt.Sprintf("bytes=%d ", n)) })
	if got := r.control("sum 0"); got != want {
		r.t.Errorf("arrived: %s\nwant:    %s", got, want)
	}
	if st := r.control("state 0"); !strings.Contains(st, "overflow=0 swallowed=0") {
		r.t.Errorf("bytes were lost: %s", st)
	}
}

// small writes a BFB for both generations that is enough for what is not about
// its size, but more than fits between a writer and a chip that does not read.
func small(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "small.bfb")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	part := func(id bfb.ID, g reg.Generation, size int) bfb.Part {
		return bfb.Part{ID: id, Version: bfb.VersionOf(g), Data: bytes.NewReader(bytes.Repeat([]byte{0, 1, byte(g)}, size/3))}
	}
	var parts []bfb.Part
	for _, id := range []bfb.ID{bfb.IDBL2R, bfb.IDBL2} {
		parts = append(parts, part(id, reg.BlueField2, 30000), part(id, reg.BlueField3, 30000))
	}
	parts = append(parts, bfb.Part{ID: bfb.IDImage, Data: bytes.NewReader(make([]byte, 2<<20))})
	if err := bfb.Write(f, parts...); err != nil {
		t.Fatal(err)
	}
	return name
}

// sums are those of files that were asked for; a BMC takes its time for them.
var sums = map[string][sha256.Size]byte{}

// padded returns the size and SHA-256 of a file with zeros up to a whole word.
func padded(t *testing.T, file string) (size int64, sum [sha256.Size]byte) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	pad := -st.Size() & 7
	sum, ok := sums[file]
	if !ok {
		h := sha256.New()
		if _, err := io.Copy(h, f); err != nil {
			t.Fatal(err)
		}
		h.Write(make([]byte, pad))
		h.Sum(sum[:0])
		sums[file] = sum
	}
	return st.Size() + pad, sum
}

// some waits until the chip has got the beginning of a stream.
func (r *rig) some() {
	r.t.Helper()
	r.until("some of the stream", func() bool { return !strings.Contains(r.control("sum 0"), "bytes=0 ") })
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
