// SPDX-License-Identifier: Apache-2.0

package guest_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	godbus "github.com/godbus/dbus/v5"

	"github.com/bluefield-go/bmc-rshim/i2c"
	vmguest "github.com/bluefield-go/bmc-rshim/internal/vmtest/guest"
	"github.com/bluefield-go/bmc-rshim/mctp/mctptest"
	"github.com/bluefield-go/bmc-rshim/ncsi/oem"
	"github.com/bluefield-go/bmc-rshim/sim/ncsi"
	"github.com/bluefield-go/bmc-rshim/sim/ncsi/smbus"
)

// i2cNIC puts the model of a NIC on the second of the joined I2C buses, and
// returns it with the line of the configuration that says how to reach it.
func i2cNIC(t *testing.T, s simncsi.State) (nic *simncsi.NIC, conf string) {
	t.Helper()
	vmguest.Require(t)
	const addr = 0x32
	ours, theirs := mctptest.JoinedAdapters(t)
	mctptest.NewI2CDevice(t, mctptest.I2CQueue, ours, i2c.DefaultOwn)
	mctptest.NewI2CDevice(t, mctptest.I2CQueue, theirs, addr)
	nic = simncsi.New(simncsi.Config{State: s})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := smbus.Serve(ctx, i2c.Options{Bus: theirs, Own: addr, EID: 0x1d}, nic.Message); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	conf = filepath.Join(t.TempDir(), "rshim.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, "# A machine that stalls is no NIC that does not answer.\nNCSI -i2c %d:%#x -timeout 9s\n", ours, addr), 0o644); err != nil {
		t.Fatal(err)
	}
	return nic, conf
}

// finished waits for a program to end and returns its exit code.
func (r *rig) finished(p *process) int {
	r.t.Helper()
	r.until(strings.Join(p.cmd.Args, " ")+" to end", func() bool {
		select {
		case <-p.done:
			return true
		default:
			return false
		}
	})
	return p.cmd.ProcessState.ExitCode()
}

// TestRecover rescues a DPU whose host has the RShim, through a NIC that can
// lock the host out.
func TestRecover(t *testing.T) {
	umlOnly(t)
	states := t.TempDir()
	t.Setenv("BMC_RSHIM_STATE", states)
	nic, conf := i2cNIC(t, simncsi.State{Stored: oem.Enabled, Active: oem.Enabled, Runtime: oem.RuntimeEnabled})
	r := newDPUs(t, "-host", "owner", "-stage-scale", "0.1")
	b := r.busDaemon("-conf", conf)
	b.becomes(busOwn, busRshim0At, busDevice, "State", "Contended")
	b.becomes(busOwn, busManagerAt, busOwn+".HostAccess", "Runtime", "Enabled")
	file := small(t)

	runtime := func() oem.RuntimeAccess {
		s, err := nic.State()
		if err != nil {
			t.Fatal(err)
		}
		if s.Stored != oem.Enabled {
			t.Errorf("the persistent access has become %v", s.Stored)
		}
		return s.Runtime
	}
	sets := func() int {
		s, err := nic.State()
		if err != nil {
			t.Fatal(err)
		}
		return s.Counts.Sets
	}
	// remembered is what recover keeps for one that goes on.
	remembered := func() string {
		kept, err := os.ReadFile(filepath.Join(states, "recover-rshim0"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		return string(kept)
	}
	// expect checks a program's end, and that it has said lines in this order.
	expect := func(p *process, code int, lines ...string) {
		t.Helper()
		if got := r.finished(p); got != code {
			t.Errorf("exit code %d, want %d\n%s", got, code, p.output())
		}
		rest := p.output()
		for _, line := range lines {
			var ok bool
			if _, rest, ok = strings.Cut(rest, line); !ok {
				t.Errorf("no %q, or not there, in\n%s", line, p.output())
			}
		}
	}
	// streaming starts a recovery of a DPU that stops to read in the middle of
	// the image, and waits until that is so and recover knows of the push.
	streaming := func() *process {
		t.Helper()
		r.control("hold 0 on")
		p := start(t, "bmc-rshim", "recover", file)
		r.until("some of the stream", func() bool {
			at, phase := b.lastPush()
			return phase == "Streaming" && !strings.Contains(r.control("sum 0"), "bytes=0 ") && strings.Contains(remembered(), strconv.Quote(at))
		})
		return p
	}

	// What would be done.
	expect(start(t, "bmc-rshim", "recover", "-dry-run", file), 0,
		"lock:    lock the host out at run time, its access is enabled", "force:   take the RShim over", "push:    push "+file,
		"restore: set the host's access to enabled")
	if n := sets(); n != 0 || runtime() != oem.RuntimeEnabled || remembered() != "" {
		t.Errorf("a dry run has set something: %d times, the access is %v, what is kept is %q", n, runtime(), remembered())
	}
	r.host("attached")
	if sum := r.control("sum 0"); !strings.Contains(sum, "bytes=0 ") {
		t.Errorf("a dry run has sent something: %s", sum)
	}

	// The whole rescue.
	p := streaming()
	if a := runtime(); a != oem.RuntimeLocked {
		t.Errorf("the host's access during the push is %v", a)
	}
	b.becomes(busOwn, busManagerAt, busOwn+".HostAccess", "Runtime", "Disabled")
	r.host("dropped")
	r.control("hold 0 off")
	expect(p, 0, "lock:    the host is locked out at run time, it was enabled", "force:   rshim0 is ours: its owner has handed it over",
		"DPU is ready", "push:    rshim0 is ready", "restore: the host's access is enabled again")
	r.arrived(file)
	if a := runtime(); a != oem.RuntimeEnabled || remembered() != "" {
		t.Errorf("afterwards the host's access is %v, what is kept is %q", a, remembered())
	}
	if n := sets(); n != 2 {
		t.Errorf("the NIC was told %d times", n)
	}

	// Interrupted in the middle by its operator: the push ends, and the host
	// stays locked out.
	r.hostForces()
	p = streaming()
	_ = p.cmd.Process.Signal(syscall.SIGINT)
	expect(p, 130, "the host stays locked out")
	if a := runtime(); a != oem.RuntimeLocked || remembered() == "" {
		t.Errorf("after the interruption the host's access is %v, what is kept is %q", a, remembered())
	}
	b.until("the push to have ended", func() bool {
		_, phase := b.lastPush()
		return phase == "Ended"
	})
	expect(start(t, "bmc-rshim", "recover", "-dry-run", file), 0, "an interrupted recovery goes on", "nothing: the host is locked out already",
		"restore: set the host's access to enabled")

	// Resumed, and killed: the daemon goes on, and the next one joins it.
	p = streaming()
	_ = p.cmd.Process.Kill()
	<-p.done
	p = start(t, "bmc-rshim", "recover", file)
	r.says(p, "has gone on meanwhile")
	if a := runtime(); a != oem.RuntimeLocked {
		t.Errorf("the host's access before the push has ended is %v", a)
	}
	r.control("hold 0 off")
	expect(p, 0, "an interrupted recovery goes on", "locked out already, by the recovery that was interrupted", "rshim0 is ours already",
		"has gone on meanwhile", "push:    rshim0 is ready", "restore: the host's access is enabled again")
	r.arrived(file)
	if a := runtime(); a != oem.RuntimeEnabled || remembered() != "" {
		t.Errorf("at the end the host's access is %v, what is kept is %q", a, remembered())
	}
	expect(start(t, "bmc-rshim", "recover", "-restore"), 6, "nothing to restore")
}

// lastPush is where the device's last push is, and its phase.
func (b *busRig) lastPush() (at, phase string) {
	path, ok := b.get(busOwn, busRshim0At, busDevice, "Push").(godbus.ObjectPath)
	if !ok || path == "/" {
		return "", ""
	}
	return string(path), lastWord(b.get(busOwn, path, busPush, "Phase"))
}
