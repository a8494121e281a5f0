// SPDX-License-Identifier: Apache-2.0

package guest_test

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	vmguest "github.com/bluefield-go/bmc-rshim/internal/vmtest/guest"
	"github.com/bluefield-go/bmc-rshim/ncsi"
	"github.com/bluefield-go/bmc-rshim/ncsi/ncsitest"
	"github.com/bluefield-go/bmc-rshim/ncsi/netlink"
	"github.com/bluefield-go/bmc-rshim/ncsi/oem"
	"github.com/bluefield-go/bmc-rshim/sim/ncsi"
)

// ncsiPort is the network interface with the NIC.
const ncsiPort = "eth0"

// cable is the serial line to the NIC's model, opened once.
var cable = sync.OnceValues(func() (*simncsi.Remote, error) {
	f, err := os.OpenFile(os.Getenv("NCSI_CONTROL"), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	err2 := raw.Control(func(fd uintptr) {
		tio := &unix.Termios{Cflag: unix.CS8 | unix.CREAD | unix.CLOCAL | unix.B115200}
		tio.Cc[unix.VMIN] = 1
		err = unix.IoctlSetTermios(int(fd), unix.TCSETS, tio)
	})
	return simncsi.NewRemote(f), errors.Join(err, err2)
})

// ncsiRig returns the NIC, in the given state and without faults, with the kernel's channel to it up.
func ncsiRig(t *testing.T, s simncsi.State) *simncsi.Remote {
	t.Helper()
	vmguest.Require(t)
	if os.Getenv("NCSI_CONTROL") == "" {
		t.Skip("the machine has no NIC: go test ./e2e -run TestNCSI")
	}
	nic, err := cable()
	if err == nil {
		err = errors.Join(nic.Clear(), nic.SetState(s))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := nic.Clear(); err != nil {
			t.Error(err)
		}
	})
	waitForChannel(t)
	return nic
}

// waitForChannel sets the interface up and waits until the kernel has package 0 in use and knows package 3.
//
// It looks for packages once. Those that have missed a second then, which on a busy host they can, it does not know
// until its driver starts anew.
func waitForChannel(t *testing.T) {
	t.Helper()
	const patience = time.Minute
	for range 5 {
		setLink(t, "up")
		for begin := time.Now(); time.Since(begin) < patience; time.Sleep(100 * time.Millisecond) {
			if channelActive(t) {
				if packageKnown(t) {
					return
				}
				break
			}
		}
		t.Log("the kernel has not found both packages: the driver starts anew")
		restartDriver(t)
	}
	t.Fatal("the kernel has not found the NIC")
}

// channelActive reports whether the kernel uses package 0.
func channelActive(t *testing.T) bool {
	t.Helper()
	all, err := netlink.Interfaces(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(all, func(i netlink.Interface) bool {
		return i.Up && len(i.Packages) > 0 && i.Packages[0].ID == 0 && len(i.Packages[0].Channels) > 0 && i.Packages[0].Channels[0].Active
	})
}

// package3 says that the kernel knows package 3, since its driver has started.
var package3 bool

// packageKnown sets package3. The kernel does not list package 3: a command must tell.
func packageKnown(t *testing.T) bool {
	t.Helper()
	ch, err := ncsi.NewChannel(3, ncsi.WholePackage)
	if err != nil {
		t.Fatal(err)
	}
	for try := 0; try < 10 && !package3; try++ {
		_, err := netlink.New(ncsiPort, netlink.Options{}).Do(t.Context(), ch, ncsi.OEM, oem.GetHostAccess())
		if err != nil && !oem.IsTimeout(err) {
			t.Fatal(err)
		}
		package3 = err == nil
	}
	return package3
}

// restartDriver takes the driver off the device and back.
func restartDriver(t *testing.T) {
	t.Helper()
	package3 = false
	setLink(t, "down")
	time.Sleep(5 * time.Second) // the kernel does not wait for its timers, of a second, before it frees them
	for _, what := range []string{"unbind", "bind"} {
		if err := os.WriteFile("/sys/bus/platform/drivers/ftgmac100/"+what, []byte("1e660000.ftgmac"), 0); err != nil {
			t.Fatal(err)
		}
	}
}

func setLink(t *testing.T, state string) {
	t.Helper()
	if out, err := exec.Command("ip", "link", "set", ncsiPort, state).CombinedOutput(); err != nil {
		t.Fatalf("ip link set %s %s: %v\n%s", ncsiPort, state, err, out)
	}
}

// run is what came of ncsi-oem.
type ncsiRun struct {
	code           int
	stdout, stderr string
	took           time.Duration
}

// ncsiOEM runs ncsi-oem. A timeout is tried again, unless it is the exit code that is wanted: the host may be busy.
func ncsiOEM(t *testing.T, want int, args ...string) ncsiRun {
	t.Helper()
	return ncsiOEMAs(t, 0, want, args...)
}

func ncsiOEMAs(t *testing.T, uid uint32, want int, args ...string) ncsiRun {
	t.Helper()
	const timeout, unknown = 5, 11 // exit codes
	for try := 1; ; try++ {
		r := runNCSIOEM(t, uid, args...)
		if r.code == want {
			return r
		}
		if try < 10 && (r.code == timeout || r.code == unknown) {
			t.Logf("ncsi-oem %s, again: exit code %d, %s", strings.Join(args, " "), r.code, r.stderr)
			continue
		}
		t.Fatalf("ncsi-oem %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), r.code, want, r.stdout, r.stderr)
	}
}

// runNCSIOEM runs ncsi-oem once.
func runNCSIOEM(t *testing.T, uid uint32, args ...string) ncsiRun {
	t.Helper()
	var stdout, stderr strings.Builder
	cmd := exec.CommandContext(t.Context(), "ncsi-oem", args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
	begin := time.Now()
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return ncsiRun{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String(), time.Since(begin)}
}

// json decodes the report.
func (r ncsiRun) json(t *testing.T) map[string]any {
	t.Helper()
	m := make(map[string]any)
	if err := json.Unmarshal([]byte(r.stdout), &m); err != nil {
		t.Fatalf("%v in %s", err, r.stdout)
	}
	return m
}

func expectText(t *testing.T, text string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("no %q in:\n%s", w, text)
		}
	}
}

// TestNCSIConformance runs the suite of all transports through the real kernel.
func TestNCSIConformance(t *testing.T) {
	ncsitest.Run(t, func(t *testing.T) *ncsitest.Rig {
		return &ncsitest.Rig{
			Transport: netlink.New(ncsiPort, netlink.Options{}),
			NIC:       ncsiRig(t, simncsi.State{}),
			Channel:   0x1f, // package 0
			Timeout:   time.Second,
		}
	})
}

func TestNCSIPackages(t *testing.T) {
	ncsiRig(t, simncsi.State{})
	r := ncsiOEM(t, 0, "packages")
	expectText(t, r.stdout, "-if eth0 -package 0\n", `channel 0: NC-SI 1.1, firmware "BlueField", link up, in use`)
	all, _ := ncsiOEM(t, 0, "packages", "-json").json(t)["packages"].([]any)
	if len(all) != 1 {
		t.Fatalf("packages: %v", all)
	}
	if p := all[0].(map[string]any); p["device"] != "eth0" || p["package"] != 0.0 {
		t.Errorf("package %v", p)
	}
}

// TestNCSIStates sets every state from every other, and reboots the DPU in between.
func TestNCSIStates(t *testing.T) {
	nic := ncsiRig(t, simncsi.State{})
	for _, state := range []oem.HostAccess{oem.Enabled, oem.Locked, oem.Disabled, oem.Locked, oem.Enabled, oem.Disabled} {
		before, err := nic.State()
		if err != nil {
			t.Fatal(err)
		}
		r := ncsiOEM(t, 0, "set", "-yes", "-json", state.String())
		if m := r.json(t); m["persistent"] != state.String() || m["takes_effect"] != "dpu-reboot" || m["device"] != "eth0" {
			t.Errorf("set %v: %s", state, r.stdout)
		}
		set, err := nic.State()
		if err != nil || set.Stored != state || set.Active != before.Active {
			t.Errorf("the NIC after set %v: %+v, %v", state, set, err)
		}
		if err := nic.Reboot(); err != nil {
			t.Fatal(err)
		}
		m := ncsiOEM(t, 0, "get", "-json").json(t)
		want := map[oem.HostAccess][2]any{oem.Disabled: {nil, "unavailable"}, oem.Enabled: {"enabled", nil}, oem.Locked: {"locked", nil}}[state]
		if m["persistent"] != state.String() || m["runtime"] != want[0] || m["runtime_error"] != want[1] {
			t.Errorf("after the reboot into %v: %v", state, m)
		}
	}
	r := ncsiOEM(t, 8, "set", "disabled") // nobody there to confirm
	expectText(t, r.stderr, "not confirmed")
}

func TestNCSIRuntime(t *testing.T) {
	nic := ncsiRig(t, simncsi.State{Stored: oem.Enabled, Active: oem.Enabled})
	for _, state := range []oem.RuntimeAccess{oem.RuntimeLocked, oem.RuntimeEnabled, oem.RuntimeLocked} {
		m := ncsiOEM(t, 0, "runtime", "set", state.String(), "-json").json(t)
		if m["runtime"] != state.String() || m["takes_effect"] != "now" || m["lasts_until"] != "dpu-reset" {
			t.Errorf("runtime set %v: %v", state, m)
		}
		if s, err := nic.State(); s.Runtime != state || s.Stored != oem.Enabled || err != nil {
			t.Errorf("the NIC after runtime set %v: %+v, %v", state, s, err)
		}
		if m := ncsiOEM(t, 0, "runtime", "get", "-json").json(t); m["runtime"] != state.String() {
			t.Errorf("runtime get: %v, want %v", m, state)
		}
	}
	if err := nic.Reboot(); err != nil {
		t.Fatal(err)
	}
	if m := ncsiOEM(t, 0, "runtime", "get", "-json").json(t); m["runtime"] != "enabled" {
		t.Errorf("the reboot has not overwritten it: %v", m)
	}
}

// TestNCSIRaw sends a command that ncsi-oem has no word for, to a package that the kernel does not list.
func TestNCSIRaw(t *testing.T) {
	ncsiRig(t, simncsi.State{Stored: oem.Locked})
	for _, args := range [][]string{nil, {"-package", "3"}, {"-package", "3", "-channel", "0"}} {
		args = append(args, "-if", ncsiPort, "-json", "raw", "0x13", "0x19")
		if m := ncsiOEM(t, 0, args...).json(t); m["data"] != "00000002" {
			t.Errorf("%v: %v", args, m)
		}
	}
	m := ncsiOEM(t, 3, "-json", "raw", "13", "7f").json(t)
	if m["response_code"] != 3.0 || m["reason_code"] != float64(0x7fff) {
		t.Errorf("an unknown parameter: %v", m)
	}
}

// TestNCSIFailures is about what the NIC refuses, and about answers that make no sense.
func TestNCSIFailures(t *testing.T) {
	enabled := simncsi.State{Stored: oem.Enabled, Active: oem.Enabled}
	untrusted := enabled
	untrusted.Untrusted = true
	many := func(f simncsi.Fault) *simncsi.Fault { f.Count = 1000; return &f }
	get, set := []string{"get"}, []string{"set", "locked"}
	for name, c := range map[string]struct {
		state simncsi.State
		fault *simncsi.Fault
		args  []string
		code  int
		text  string
	}{
		"unsupported":        {enabled, many(simncsi.Unsupported(0)), get, 3, "does not know the command"},
		"untrusted":          {untrusted, nil, get, 3, "does not trust this BMC"},
		"untrusted by 1":     {enabled, many(simncsi.Fault{Kind: simncsi.Refuse, Code: ncsi.Failed, Reason: ncsi.UnknownCommand}), set, 4, "does not trust"},
		"runtime":            {simncsi.State{}, nil, []string{"runtime", "get"}, 7, "while host access is disabled"},
		"runtime set":        {simncsi.State{}, nil, []string{"runtime", "set", "locked"}, 7, "while host access is disabled"},
		"refused":            {enabled, many(simncsi.Fault{Kind: simncsi.Refuse, Code: ncsi.Failed, Reason: ncsi.ChannelNotReady}), get, 1, "the channel is not ready"},
		"refused by a code":  {enabled, many(simncsi.Fault{Kind: simncsi.Refuse, Code: 0x8000, Size: 4}), get, 1, "manufacturer's response code 0x8000"},
		"ignored":            {enabled, many(simncsi.Fault{Kind: simncsi.Ignore}), set, 10, ""},
		"wrong checksum":     {enabled, many(simncsi.Fault{Kind: simncsi.BadChecksum}), get, 1, "the kernel has rejected the response"},
		"wrong manufacturer": {enabled, many(simncsi.Fault{Kind: simncsi.WrongManufacturer}), get, 1, "manufacturer"},
		"wrong parameter":    {enabled, many(simncsi.Fault{Kind: simncsi.WrongParameter}), get, 1, "parameter"},
		"unknown state":      {enabled, many(simncsi.Fault{Kind: simncsi.UnknownState}), get, 1, "state"},
		"codes alone":        {enabled, many(simncsi.Fault{Kind: simncsi.Short}), get, 1, "malformed"},
		"zero checksum":      {enabled, many(simncsi.Fault{Kind: simncsi.ZeroChecksum}), get, 0, ""},
		"tail":               {enabled, many(simncsi.Fault{Kind: simncsi.Tail}), get, 0, ""},
		"AEN before":         {enabled, many(simncsi.Fault{Kind: simncsi.AENFirst}), get, 0, ""},
		"slow":               {enabled, many(simncsi.Fault{Kind: simncsi.Slow, Delay: 100 * time.Millisecond}), get, 0, ""},
		"twice wrong":        {enabled, &simncsi.Fault{Kind: simncsi.BadChecksum, Count: 2}, get, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			nic := ncsiRig(t, c.state)
			if c.fault != nil {
				if err := nic.Inject(*c.fault); err != nil {
					t.Fatal(err)
				}
			}
			expectText(t, ncsiOEM(t, c.code, c.args...).stderr, c.text)
		})
	}
}

// TestNCSISilence is about answers that do not come.
func TestNCSISilence(t *testing.T) {
	enabled := simncsi.State{Stored: oem.Enabled, Active: oem.Enabled}
	for name, c := range map[string]struct {
		fault *simncsi.Fault
		args  []string
		text  string
		least time.Duration
	}{
		"silent":      {&simncsi.Fault{Kind: simncsi.Silent, Count: 1000}, nil, "the NIC has not answered for 1s", time.Second},
		"wrong IID":   {&simncsi.Fault{Kind: simncsi.WrongIID, Count: 1000}, nil, "the NIC has not answered for 1s", time.Second},
		"no package":  {nil, []string{"-if", ncsiPort, "-package", "5"}, "the NIC has not answered for 1s", time.Second},
		"dropped":     {nil, []string{"-if", ncsiPort, "-package", "6"}, "it has probably dropped the response", 3 * time.Second},
		"our timeout": {&simncsi.Fault{Kind: simncsi.Silent, Count: 1000}, []string{"-timeout", "200ms"}, "no answer for 200ms", 0},
	} {
		t.Run(name, func(t *testing.T) {
			nic := ncsiRig(t, enabled)
			if c.fault != nil {
				if err := nic.Inject(*c.fault); err != nil {
					t.Fatal(err)
				}
			}
			r := ncsiOEM(t, 5, append(c.args, "raw", "13", "19")...) // once
			expectText(t, r.stderr, c.text)
			if r.took < c.least {
				t.Errorf("after %v, want %v or more", r.took, c.least)
			}
		})
	}
	t.Run("set", func(t *testing.T) {
		nic := ncsiRig(t, enabled)
		if err := nic.Inject(simncsi.Fault{Kind: simncsi.Silent, Count: 1000}); err != nil {
			t.Fatal(err)
		}
		ncsiOEM(t, 11, "set", "locked")
		if s, err := nic.State(); s.Stored != oem.Enabled || err != nil {
			t.Errorf("%+v, %v", s, err)
		}
	})
	// What gets lost once is made good: the NIC has done it, and is asked.
	for _, kind := range []simncsi.Kind{simncsi.Lost, simncsi.Silent} {
		t.Run(string(kind)+" once", func(t *testing.T) {
			nic := ncsiRig(t, enabled)
			if err := nic.Inject(simncsi.Fault{Kind: kind}); err != nil {
				t.Fatal(err)
			}
			// Once more only if the NIC, or this machine, stood still: that is
			// another timeout than the first one.
			want := map[simncsi.Kind]int{simncsi.Lost: 1, simncsi.Silent: 2}[kind]
			for try := 1; ; try++ {
				before, err := nic.State()
				if err != nil {
					t.Fatal(err)
				}
				r := runNCSIOEM(t, 0, "set", "locked")
				s, err := nic.State()
				if err != nil {
					t.Fatal(err)
				}
				sets, gets := s.Counts.Sets-before.Counts.Sets, s.Counts.OEM-before.Counts.OEM-(s.Counts.Sets-before.Counts.Sets)
				if r.code == 0 && sets == want && s.Stored == oem.Locked {
					return
				}
				if stalled := gets > want || r.took > 3*time.Second; !stalled || try == 5 {
					t.Fatalf("exit code %d, %d commands to set and %d to get: %+v\n%s", r.code, sets, gets, s, r.stderr)
				}
				t.Logf("again: exit code %d after %v, %d commands to set and %d to get", r.code, r.took, sets, gets)
				if err := errors.Join(nic.Clear(), nic.SetState(enabled), nic.Inject(simncsi.Fault{Kind: kind})); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestNCSIDevice is about interfaces that cannot be used.
func TestNCSIDevice(t *testing.T) {
	ncsiRig(t, simncsi.State{})
	expectText(t, ncsiOEM(t, 6, "-if", "lo", "-package", "0", "get").stderr, "does no NC-SI")
	expectText(t, ncsiOEM(t, 6, "-if", "eth9", "-package", "0", "get").stderr, "there is no network interface of this name")

	setLink(t, "down")
	for _, words := range [][]string{{"get"}, {"set", "locked"}, {"runtime", "set", "locked"}} {
		args := append([]string{"-if", ncsiPort, "-package", "0"}, words...)
		expectText(t, ncsiOEM(t, 6, args...).stderr, "the interface is down: ip link set eth0 up")
	}
	expectText(t, ncsiOEM(t, 0, "packages").stdout, "the interface is down")
	waitForChannel(t)
	ncsiOEM(t, 0, "get")
}

// TestNCSIPermission proves that looking is free, and sending is root's.
func TestNCSIPermission(t *testing.T) {
	nic := ncsiRig(t, simncsi.State{})
	before, err := nic.State()
	if err != nil {
		t.Fatal(err)
	}
	for _, words := range [][]string{{"get"}, {"set", "locked"}, {"runtime", "set", "locked"}} {
		expectText(t, ncsiOEMAs(t, 1000, 9, words...).stderr, "takes CAP_NET_ADMIN")
	}
	if s, err := nic.State(); s.Counts.OEM != before.Counts.OEM || err != nil {
		t.Errorf("the NIC got %d commands, %v", s.Counts.OEM-before.Counts.OEM, err)
	}
	expectText(t, ncsiOEMAs(t, 1000, 0, "packages").stdout, "-package 0")
}

// TestNCSITrace proves that -v shows what goes to the kernel and what comes back, tail included.
func TestNCSITrace(t *testing.T) {
	ncsiRig(t, simncsi.State{Stored: oem.Enabled})
	r := ncsiOEM(t, 0, "-v", "raw", "13", "19")
	expectText(t, r.stderr, "00 01 00 00 50 00 00 08 00 00 00 00 00 00 00 00 00 00 81 19 00 13 19 00", " d0 1f 00 10 ", "00 00 81 19 00 13 19 00 00 00 00 01")
}

// TestNCSIParallel sends commands from many goroutines.
func TestNCSIParallel(t *testing.T) {
	ncsiRig(t, simncsi.State{Stored: oem.Locked})
	tr := netlink.New(ncsiPort, netlink.Options{})
	whole, err := ncsi.NewChannel(0, ncsi.WholePackage)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5 {
				var payload []byte
				var err error
				for range 10 { // the host may be busy
					if payload, err = tr.Do(t.Context(), whole, ncsi.OEM, oem.GetHostAccess()); !oem.IsTimeout(err) {
						break
					}
				}
				if err != nil {
					t.Error(err)
					return
				}
				if state, err := oem.HostAccessResponse(payload); state != oem.Locked || err != nil {
					t.Errorf("%v, %v", state, err)
				}
			}
		})
	}
	wg.Wait()
}
