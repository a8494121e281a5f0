// SPDX-License-Identifier: Apache-2.0

package guest_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/bluefield-go/bmc-rshim/i2c"
	vmguest "github.com/bluefield-go/bmc-rshim/internal/vmtest/guest"
	"github.com/bluefield-go/bmc-rshim/mctp"
	"github.com/bluefield-go/bmc-rshim/mctp/mctptest"
	"github.com/bluefield-go/bmc-rshim/ncsi/oem"
	"github.com/bluefield-go/bmc-rshim/sim/ncsi"
	"github.com/bluefield-go/bmc-rshim/sim/ncsi/smbus"
)

// mctpNIC makes the kernel an MCTP endpoint on one of the joined I2C buses, and
// puts a NIC that is package 3 alone on the other one: EID 29 of network 1. The
// kernel also knows EID 9, where nobody is.
func mctpNIC(t *testing.T, s simncsi.State) *simncsi.NIC {
	t.Helper()
	umlOnly(t)
	vmguest.Require(t)
	const addr, nobody = 0x32, 0x33
	ours, theirs := mctptest.JoinedAdapters(t)
	mctptest.NewI2CDevice(t, mctptest.I2CLink, ours, i2c.DefaultOwn)
	mctptest.Link{
		Name: fmt.Sprint("mctpi2c", ours), Network: 1, Own: 8, Peers: map[mctp.EID][]byte{29: {addr}, 9: {nobody}},
	}.SetUp(t)
	mctptest.NewI2CDevice(t, mctptest.I2CQueue, theirs, addr)
	nic := simncsi.New(simncsi.Config{Packages: []int{3}, State: s})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := smbus.Serve(ctx, i2c.Options{Bus: theirs, Own: addr, EID: 29}, nic.Message); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return nic
}

// untilRight runs ncsi-oem until its exit code is right: what it looks for does
// not answer in time where the machine stands still.
func untilRight(t *testing.T, want int, args ...string) ncsiRun {
	t.Helper()
	for try := 1; ; try++ {
		r := runNCSIOEM(t, 0, args...)
		if r.code == want {
			return r
		}
		if try == 5 {
			t.Fatalf("ncsi-oem %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), r.code, want, r.stdout, r.stderr)
		}
		t.Logf("ncsi-oem %s, again: exit code %d, %s", strings.Join(args, " "), r.code, r.stderr)
	}
}

// TestMCTPTool has ncsi-oem reach the NIC through the kernel's MCTP, told where
// it is and not told.
func TestMCTPTool(t *testing.T) {
	nic := mctpNIC(t, simncsi.State{Stored: oem.Locked, Active: oem.Enabled, Runtime: oem.RuntimeLocked})
	state := func() simncsi.State {
		s, err := nic.State()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	is := func(r ncsiRun, want map[string]any) {
		t.Helper()
		got := r.json(t)
		for field, v := range want {
			if got[field] != v {
				t.Errorf("%s is %v, want %v, in\n%s", field, got[field], v, r.stdout)
			}
		}
	}
	where := map[string]any{"transport": "mctp", "device": "1:29", "package": 3.0, "channel": 31.0}
	with := func(more ...any) map[string]any {
		m := make(map[string]any)
		for k, v := range where {
			m[k] = v
		}
		for i := 0; i < len(more); i += 2 {
			m[more[i].(string)] = more[i+1]
		}
		return m
	}

	const quick = "400ms" // for eight packages that nobody has
	const first = "of packages 0 to 7, the first to tell the host's access"
	r := untilRight(t, 0, "-timeout", quick, "-json", "get")
	is(r, with("persistent", "locked", "runtime", "locked", "chosen", "behind the only MCTP endpoint that has answered; "+first))
	expectText(t, r.stderr, "asking packages 0 to 7 behind MCTP 1:9, 1:29\n", "using -mctp 1:29 -package 3: ")
	is(untilRight(t, 0, "-timeout", quick, "-json", "-mctp", "1:29", "get"), with("persistent", "locked", "chosen", first))
	is(untilRight(t, 0, "-json", "-mctp", "1:29", "-package", "3", "get"), with("persistent", "locked", "chosen", nil))

	is(untilRight(t, 0, "-timeout", quick, "-json", "set", "enabled"), with("persistent", "enabled", "read_back", true))
	if s := state(); s.Stored != oem.Enabled || s.Active != oem.Enabled || s.Runtime != oem.RuntimeLocked {
		t.Errorf("the NIC after set enabled: %+v", s)
	}
	is(untilRight(t, 0, "-json", "-mctp", "1:29", "-package", "3", "runtime", "set", "enabled"), with("runtime", "enabled"))
	if s := state(); s.Stored != oem.Enabled || s.Runtime != oem.RuntimeEnabled {
		t.Errorf("the NIC after runtime set enabled: %+v", s)
	}

	all := untilRight(t, 0, "-timeout", quick, "packages")
	expectText(t, all.stdout, "-mctp 1:29 -package 3: command completed\n", "-mctp 1:9: no NC-SI package has answered")

	// What cannot be sent changes nothing, and is said so.
	before := state().Counts.Sets
	forEverybody(t, "ncsi-oem")
	for _, words := range [][]string{{"get"}, {"set", "locked"}, {"runtime", "set", "locked"}} {
		r := untilRight(t, 6, append([]string{"-mctp", "1:77", "-package", "3"}, words...)...)
		expectText(t, r.stderr, "no route to the endpoint")
		r = runNCSIOEM(t, 1000, append([]string{"-mctp", "1:29", "-package", "3"}, words...)...)
		if r.code != 9 {
			t.Errorf("%v as nobody: exit code %d\n%s", words, r.code, r.stderr)
		}
		expectText(t, r.stderr, "CAP_NET_RAW")
	}
	if n := state().Counts.Sets - before; n != 0 {
		t.Errorf("the NIC was sent %d commands to set", n)
	}
}

// forEverybody lets others than root run a program, until the test's end.
func forEverybody(t *testing.T, program string) {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "bin")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(filepath.Join(dir, program), b, 0o755)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// TestI2CTool has ncsi-oem reach it over the bus alone, with endpoint IDs and
// without, and shows what -v shows.
func TestI2CTool(t *testing.T) {
	umlOnly(t)
	i2cNIC(t, simncsi.State{Stored: oem.Locked})
	for _, eids := range [][]string{nil, {"-eid", "8:29"}, {"-eid", "0:29"}} {
		r := untilRight(t, 0, append(eids, "-v", "-json", "-i2c", "0:0x32", "get")...)
		if m := r.json(t); m["persistent"] != "locked" || m["device"] != "0:0x32" || m["package"] != 0.0 {
			t.Errorf("%v: %s", eids, r.stdout)
		}
		expectText(t, r.stderr, "i2c: frame sent  frame 640f", "i2c: frame received  frame 200f")
	}
	// Nobody there has that ID.
	r := untilRight(t, 5, "-i2c", "0:0x32", "-eid", "8:30", "-package", "0", "-timeout", "300ms", "get")
	expectText(t, r.stderr, "3 tries: i/o timeout", "the DPU has power")
}
