// SPDX-License-Identifier: Apache-2.0

package guest_test

import (
	"errors"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	vmguest "github.com/bluefield-go/bmc-rshim/internal/vmtest/guest"
)

// asRshim starts the daemon by the C daemon's name and options.
func (r *rig) asRshim(options ...string) *process {
	r.t.Helper()
	return start(r.t, asRshim(r.t), append(options, "-f")...)
}

// says waits for a line of a program's output.
func (r *rig) says(p *process, text string) {
	r.t.Helper()
	r.until("the log to say "+text, func() bool { return strings.Contains(p.output(), text) })
}

// drop waits for misc to show a DROP_MODE.
func (r *rig) drop(mode string) {
	r.t.Helper()
	r.until("DROP_MODE "+mode, func() bool { return strings.Contains(misc(), "DROP_MODE       "+mode+" ") })
}

// host waits for the host's driver to be in a state.
func (r *rig) host(state string) {
	r.t.Helper()
	r.until("the host to be "+state, func() bool { return strings.Contains(r.control("host 0 state"), "state="+state+" ") })
}

// hostForces has the host's driver take the RShim back, by FORCE_CMD 1. It gives
// up when a machine that stalls keeps it waiting; people try again.
func (r *rig) hostForces() {
	r.t.Helper()
	r.until("the host to have the RShim", func() bool {
		s := r.control("host 0 state")
		if strings.Contains(s, "state=dropped ") {
			r.ask("host 0 force") // an error when it is not dropped any more
		}
		return strings.Contains(s, "state=attached ")
	})
}

// TestManualRecovery is the recovery that NVIDIA's manual describes for a BMC
// whose DPU's RShim is attached to the host: the log says so, the daemon is
// started again with OPTIONS=-F, the log says that it has the ownership, and misc
// shows it. Nothing but the command line is ours.
func TestManualRecovery(t *testing.T) {
	r := newDPUs(t, "-host", "owner")
	p := r.asRshim()
	r.says(p, "another backend already attached")
	r.drop("1")
	p.stop()

	p = r.asRshim("-F")
	r.says(p, "another backend already attached")
	r.says(p, "rshim0 received ownership transfer ack")
	r.says(p, "rshim0 regained ownership successfully")
	r.says(p, "rshim0 attached")
	r.drop("0")
	r.host("dropped")

	// It is the host's again when it asks.
	r.hostForces()
	r.says(p, "rshim0 received ownership transfer request")
	r.says(p, "rshim0 entering drop mode")
	r.says(p, "rshim0 passed to the requester successfully")
	r.drop("1")

	// The manual's other way.
	if out, code := sh(t, "echo FORCE_CMD 1 > /dev/rshim0/misc"); code != 0 {
		t.Fatalf("FORCE_CMD 1: exit code %d, %s", code, out)
	}
	r.drop("0")
	r.host("dropped")
	if err := os.WriteFile("/dev/rshim0/misc", []byte("FORCE_CMD 1\n"), 0); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("FORCE_CMD 1 of what is ours: %v", err)
	}
	file := small(t)
	if out, code := sh(t, "cat "+file+" > /dev/rshim0/boot"); code != 0 {
		t.Fatalf("push: exit code %d, %s", code, out)
	}
	r.arrived(file)
}

// TestForceAndRelease: the operator's commands, against a host that answers, one
// that does not, and one that dies.
func TestForceAndRelease(t *testing.T) {
	r := newDPUs(t, "-host", "owner")
	r.daemon = start(t, "bmc-rshim", "daemon", "-log-level", "info")
	r.drop("1")
	run := func(want int, text string, args ...string) {
		t.Helper()
		out, code := sh(t, "bmc-rshim "+strings.Join(args, " "))
		if code != want || !strings.Contains(out, text) {
			t.Errorf("%s: exit code %d, want %d and %q\n%s", args, code, want, text, out)
		}
	}
	run(0, "contended: another backend is attached", "status")
	run(6, "rshim0 is contended", "push", small(t))
	run(0, "its owner has handed it over", "force")
	run(0, "attached: by FORCE: granted", "status")
	run(0, "ours already", "force")
	run(0, "is released", "release")
	run(0, "dropped: DROP_MODE is set", "status")
	r.drop("1")
	run(0, "it had no owner", "force")
	run(0, "is released", "release")

	r.control("host 0 undrop")
	r.host("attached")
	r.control("host 0 deaf")
	run(5, "does not answer", "force")
	run(0, "contended: ", "status")
	if err := os.WriteFile("/dev/rshim0/misc", []byte("DROP_MODE 0\n"), 0); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("DROP_MODE 0 with a live owner: %v", err)
	}
	r.control("host 0 kill") // and its keepalive stays behind
	r.until("the RShim to be ours", func() bool {
		out, _ := sh(t, "bmc-rshim status")
		return strings.Contains(out, "attached: its owner is gone")
	})
	r.drop("0")
}

// TestR15Restart: a daemon that is ended at random moments, again and again, while
// its files are used, leaves nothing behind, is never late, and the next one
// works.
func TestR15Restart(t *testing.T) {
	r, machine := newDPUs(t), watchStalls(t)
	file := small(t)
	times := 60
	if vmguest.Lane() != "uml" {
		times = 10
	}
	begin := time.Now()
	for n := range times {
		p := start(t, "bmc-rshim", "daemon", "-log-level", "info")
		life := 100 * time.Millisecond // it may not be ready to serve, or not attached
		if n%2 == 0 {
			life = 1500 * time.Millisecond
		}
		time.Sleep(time.Duration(rand.Int64N(int64(life))))
		var user *process
		switch n / 2 % 4 {
		case 1:
			user = start(t, "sh", "-c", "cat "+file+" > /dev/rshim0/boot")
		case 2:
			user = start(t, "sh", "-c", "cat /dev/rshim0/console")
		case 3:
			user = start(t, "sh", "-c", "while cat /dev/rshim0/misc; do :; done")
		}
		time.Sleep(time.Duration(rand.Int64N(int64(100 * time.Millisecond))))
		if took, limit := p.stop(), machine.allow(t, endTime); took > limit {
			t.Errorf("restart %d: the daemon took %v to end, more than %v\n%s", n, took, limit, p.output())
		}
		// The signal may come before it can be caught.
		early := p.output() == "" && p.cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() == syscall.SIGTERM
		if code := p.cmd.ProcessState.ExitCode(); code != 0 && !early {
			t.Errorf("restart %d: exit code %d\n%s", n, code, p.output())
		}
		if user != nil {
			user.stop()
		}
		gone(t)
		if t.Failed() {
			return
		}
	}
	t.Logf("%d restarts in %v", times, time.Since(begin).Round(time.Second))
	r.startDaemon()
	if out, code := sh(t, "cat "+file+" > /dev/rshim0/boot"); code != 0 {
		t.Fatalf("push after all restarts: exit code %d, %s", code, out)
	}
	r.arrived(file)
}
