// SPDX-License-Identifier: Apache-2.0

// Package bustest runs private message buses for tests: a dbus-daemon each,
// which can be stopped and restarted.
package bustest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Options of a bus. The zero value is a bus on which everybody may do everything.
type Options struct {
	// Policy is for a bus with the system bus's rules: nobody may own names
	// or call methods of others, but for what these policy files allow. Each
	// is a whole file, or what stands inside its <busconfig>.
	Policy []string
	// Activatable are names that the bus says it could activate.
	Activatable []string
}

// Bus is a private bus.
type Bus struct {
	t    testing.TB
	dir  string
	cmd  *exec.Cmd // nil: it does not run
	out  bytes.Buffer
	done chan struct{} // cmd has ended
}

// patience is what a dbus-daemon may take to start on a busy machine.
const patience = time.Minute

const (
	allowAll = `<policy context="default">
  <allow send_destination="*" eavesdrop="true"/>
  <allow eavesdrop="true"/>
  <allow own="*"/>
  <allow user="*"/>
 </policy>`
	// After the defaults of dbus-daemon's own system.conf.
	likeSystem = `<policy context="default">
  <allow user="*"/>
  <deny own="*"/>
  <deny send_type="method_call"/>
  <allow send_type="signal"/>
  <allow send_requested_reply="true" send_type="method_return"/>
  <allow send_requested_reply="true" send_type="error"/>
  <allow receive_type="method_call"/>
  <allow receive_type="method_return"/>
  <allow receive_type="error"/>
  <allow receive_type="signal"/>
  <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus"/>
  <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Introspectable"/>
  <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Properties"/>
 </policy>`
)

// New starts a bus, which ends with the test. Without dbus-daemon the test is
// skipped, or fails if CI is "true". The bus is of the type "system", so that its limits
// are those of a BMC's.
func New(t testing.TB, o Options) *Bus {
	t.Helper()
	if _, err := exec.LookPath("dbus-daemon"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("missing: dbus-daemon (scripts/setup.sh installs everything)")
		}
		t.Skip("missing: dbus-daemon (scripts/setup.sh installs everything)")
	}
	// Not t.TempDir, whose name may be too long for a socket, and which
	// other users cannot enter.
	dir, err := os.MkdirTemp("", "bus")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b := &Bus{t: t, dir: dir}
	services := filepath.Join(dir, "services")
	for _, err := range []error{os.Chmod(dir, 0o755), os.Mkdir(services, 0o755), os.WriteFile(b.config(), []byte(o.config(b, services)), 0o644)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range o.Activatable {
		text := fmt.Sprintf("[D-BUS Service]\nName=%s\nExec=/bin/false\nUser=root\n", name)
		if err := os.WriteFile(filepath.Join(services, name+".service"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(b.Kill)
	b.start()
	return b
}

func (b *Bus) config() string { return filepath.Join(b.dir, "bus.conf") }

func (o Options) config(b *Bus, services string) string {
	policy := allowAll
	if o.Policy != nil {
		policy = likeSystem
		for _, p := range o.Policy {
			if _, inner, ok := strings.Cut(p, "<busconfig>"); ok {
				p, _, _ = strings.Cut(inner, "</busconfig>")
			}
			policy += "\n" + p
		}
	}
	return `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
 <type>system</type>
 <listen>` + b.Address() + `</listen>
 <auth>EXTERNAL</auth>
 <servicedir>` + services + `</servicedir>
 ` + policy + `
</busconfig>
`
}

// Address is for DBUS_SYSTEM_BUS_ADDRESS, bus.Dial and godbus's Dial alike. It outlives Restart.
func (b *Bus) Address() string { return "unix:path=" + filepath.Join(b.dir, "socket") }

// start returns when the bus listens.
func (b *Bus) start() {
	b.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		b.t.Fatal(err)
	}
	defer r.Close()
	b.out.Reset()
	b.done = make(chan struct{})
	b.cmd = exec.Command("dbus-daemon", "--config-file="+b.config(), "--nofork", "--nopidfile", "--nosyslog", "--print-address=3")
	b.cmd.ExtraFiles = []*os.File{w}
	b.cmd.Stdout, b.cmd.Stderr = &b.out, &b.out
	// It does not outlive a test binary that panics. The signal comes when the
	// thread that started it ends, which therefore waits for it.
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	started := make(chan error)
	go func(cmd *exec.Cmd, done chan struct{}) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait()
			close(done)
		}
	}(b.cmd, b.done)
	err = <-started
	w.Close()
	if err != nil {
		b.cmd = nil
		b.t.Fatal(err)
	}
	if err := r.SetReadDeadline(time.Now().Add(patience)); err != nil {
		b.t.Fatal(err)
	}
	if n, err := r.Read(make([]byte, 200)); n == 0 || err != nil {
		b.Kill()
		b.t.Fatalf("dbus-daemon does not start: %v\n%s", err, b.out.Bytes())
	}
}

// Kill ends the dbus-daemon.
func (b *Bus) Kill() {
	if b.cmd == nil {
		return
	}
	b.signal(unix.SIGKILL)
	<-b.done
	b.cmd = nil
	if b.t.Failed() && b.out.Len() > 0 {
		b.t.Logf("dbus-daemon:\n%s", b.out.Bytes())
	}
	os.Remove(filepath.Join(b.dir, "socket"))
}

// Restart ends the dbus-daemon, if it runs, and starts another at the same address.
func (b *Bus) Restart() {
	b.t.Helper()
	b.Kill()
	b.start()
}

// Stop stops the dbus-daemon: it reads and answers nothing until Continue.
func (b *Bus) Stop() {
	b.t.Helper()
	b.signal(unix.SIGSTOP)
	for range 6000 {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", b.cmd.Process.Pid))
		if err != nil {
			b.t.Fatal(err)
		}
		// The state follows the name, which is in parentheses.
		if bytes.Contains(stat, []byte(") T ")) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	b.t.Fatal("dbus-daemon does not stop")
}

// Continue undoes Stop.
func (b *Bus) Continue() { b.signal(unix.SIGCONT) }

func (b *Bus) signal(sig syscall.Signal) {
	b.t.Helper()
	if b.cmd == nil {
		b.t.Fatal("dbus-daemon does not run")
	}
	if err := b.cmd.Process.Signal(sig); err != nil {
		b.t.Errorf("%v to dbus-daemon: %v", sig, err)
	}
}
