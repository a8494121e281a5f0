// SPDX-License-Identifier: Apache-2.0

package guest_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

// asRshim is the path of bmc-rshim as rshim.
func asRshim(t *testing.T) string {
	t.Helper()
	program, err := exec.LookPath("bmc-rshim")
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "rshim")
	if err := os.Symlink(program, name); err != nil {
		t.Fatal(err)
	}
	return name
}

const pidFile = "/var/run/rshim.pid"

// TestRshim is a day in the life of the C daemon's command line.
func TestRshim(t *testing.T) {
	r := newDPUs(t, "-generation", "bf3")
	name := asRshim(t)
	rshim := func(args string, code int, want string) {
		t.Helper()
		if out, got := sh(t, name+" "+args); got != code || !strings.Contains(out, want) {
			t.Errorf("rshim %s: exit status %d, want %d, and %q in the output:\n%s", args, got, code, want, out)
		}
	}
	breadcrumb := func() uint64 {
		_, value, _ := strings.Cut(r.control("read 0 1 %#x", reg.For(reg.BlueField3).Breadcrumb1.Offset), "value=")
		v, err := strconv.ParseUint(value, 0, 64)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}

	// Without a daemon, cmdmode goes to the USB device.
	r.until("the DPU on the bus", func() bool { _, code := sh(t, name+" -c -g"); return code == 0 })
	rshim("-c -i 0 -g", 255, "Can't open rshim\nFailed to read debug setting")
	rshim("-c -g", 0, "0x0\n")
	rshim("-c -s 1 -g", 0, "0x1\n")
	if v := breadcrumb(); v&reg.Breadcrumb1UEFIDebug == 0 {
		t.Errorf("breadcrumb 1 is %#x", v)
	}

	// A daemon in the background, which is up soon after the command is back.
	rshim("-l 3", 0, "")
	b, _ := os.ReadFile(pidFile)
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatalf("%s: %q", pidFile, b)
	}
	t.Cleanup(func() { syscall.Kill(pid, syscall.SIGKILL) })
	if b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); string(b) != "rshim\n" {
		t.Errorf("the process is called %q", b)
	}
	r.until("the device", func() bool {
		out, code := sh(t, "bmc-rshim status")
		return code == 0 && strings.Contains(out, " attached") && strings.Contains(misc(), "DEV_NAME        usb-")
	})
	rshim("", 1, fmt.Sprintf("Another rshim instance is already running (pid %d, ", pid))
	if out, code := sh(t, "bmc-rshim daemon"); code != 1 || !strings.Contains(out, fmt.Sprintf("already running (pid %d, ", pid)) {
		t.Errorf("bmc-rshim daemon beside rshim: exit status %d: %s", code, out)
	}

	// Beside it, cmdmode goes through its files.
	for _, device := range []string{"", "-i 0 ", "-i "} {
		rshim("-c "+device+"-s 0 -g", 0, "0x0\n")
		rshim("-c "+device+"--set-debug=1 --get-debug", 0, "0x1\n")
		rshim("-c "+device+"-r 0x10518.64", 0, fmt.Sprintf("[0x10518] -> 0x%016x\n", breadcrumb()))
	}
	rshim("-c -r 0x10c48.64 0x1122334455667788 -i 0", 0, "[0x10c48] <- 0x1122334455667788\n")
	rshim("-c -i 0 --reg 0x10c48.64", 0, "[0x10c48] -> 0x1122334455667788\n")
	rshim("-c -r 0x10c48.64 0", 0, "<- 0x0000000000000000\n")
	rshim("-c -i 7 -g", 255, "Can't open rshim\n")

	begin := time.Now()
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r.until("the daemon to end", func() bool { return ended(pid) })
	t.Logf("the daemon ended in %v", time.Since(begin))
	gone(t)
	rshim("-c -g", 0, "0x1\n")
}

// ended reports whether a process that nobody waits for has ended.
func ended(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(b), ") Z ")
}

// gone checks that nothing is left of a daemon.
func gone(t *testing.T) {
	t.Helper()
	for _, name := range []string{pidFile, "/dev/rshim0/misc", "/dev/rshim0/boot", "/sys/class/net/tmfifo_net0"} {
		st, err := os.Lstat(name)
		if err == nil && strings.HasPrefix(name, "/dev/") && st.Mode().IsRegular() {
			continue // a shell's, which found the node just gone; the next daemon removes it
		}
		if err == nil {
			t.Errorf("%s is left", name)
		}
	}
}

// TestRshimCapabilities runs the daemon with no more than the capabilities that
// packaging/bmc-rshim.service leaves it, as root with nothing else of root's.
func TestRshimCapabilities(t *testing.T) {
	umlOnly(t)
	r := newDPUs(t, "-generation", "bf3")
	if _, err := exec.LookPath("setpriv"); err != nil {
		t.Skip(err)
	}
	r.daemon = start(t, "setpriv", "--bounding-set", "-all,+net_admin,+sys_nice", "--no-new-privs", asRshim(t), "-f", "-l", "4")
	r.attached()
	pid := r.daemon.cmd.Process.Pid
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("CapEff:\t%016x\n", 1<<12|1<<23); !strings.Contains(string(status), want) {
		t.Fatalf("it has others than %q:\n%s", want, status)
	}
	r.until("the interface", func() bool { _, err := os.Stat("/sys/class/net/tmfifo_net0"); return err == nil })
	slack, err := os.ReadFile(fmt.Sprintf("/proc/%d/timerslack_ns", pid))
	if err != nil || string(slack) != "4000000\n" {
		t.Errorf("the timer slack is %q, %v", slack, err)
	}
	image := small(t)
	if out, code := sh(t, "cat "+image+" >/dev/rshim0/boot"); code != 0 {
		t.Fatalf("push: %d, %s", code, out)
	}
	r.arrived(image)
	if b, err := os.ReadFile(pidFile); err != nil || strings.TrimSpace(string(b)) != strconv.Itoa(pid) {
		t.Errorf("the PID file has %q, %v", b, err)
	}
	for _, line := range []string{"rshim0 boot open", "rshim0 boot close"} {
		r.until(line, func() bool { return strings.Contains("\n"+r.daemon.output(), "\n"+line) })
	}
	r.daemon.stop()
	gone(t)
}
