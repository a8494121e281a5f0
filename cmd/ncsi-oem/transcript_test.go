// SPDX-License-Identifier: Apache-2.0

package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/i2c"
	"github.com/bluefield-go/bmc-rshim/mctp/afmctp"
	"github.com/bluefield-go/bmc-rshim/ncsi"
	"github.com/bluefield-go/bmc-rshim/ncsi/netlink"
	"github.com/bluefield-go/bmc-rshim/ncsi/oem"
	simncsi "github.com/bluefield-go/bmc-rshim/sim/ncsi"
)

var update = flag.Bool("update", false, "write testdata/transcript.txt anew")

// at is a configuration with a package and a host access that is in force.
func at(pkg int, a oem.HostAccess) simncsi.Config {
	s := simncsi.State{Stored: a, Active: a}
	if a == oem.Locked {
		s.Runtime = oem.RuntimeLocked
	}
	return simncsi.Config{Packages: []int{pkg}, State: s}
}

// eth is a machine with one NIC on eth0.
func eth(a oem.HostAccess, faults ...simncsi.Fault) func() *rig {
	return func() *rig { return has("-if eth0", at(0, a)).inject("-if eth0", faults...) }
}

// over is a machine with one NIC at a flag's address, package 3.
func over(flag string, a oem.HostAccess, faults ...simncsi.Fault) func() *rig {
	return func() *rig { return has(flag, at(3, a)).inject(flag, faults...) }
}

// with changes a configuration of a NIC on eth0, and what there is beside it.
func with(change func(*simncsi.Config), then ...func(*rig)) func() *rig {
	return func() *rig {
		c := at(0, oem.Enabled)
		change(&c)
		r := has("-if eth0", c)
		for _, f := range then {
			f(r)
		}
		return r
	}
}

// failed is a machine on which a transport fails.
func failed(flag string, err error) func() *rig {
	return func() *rig {
		r := has(flag, at(0, oem.Enabled))
		r.fails[flag] = err
		return r
	}
}

// typed is a machine with a person who types.
func typed(text string) func() *rig {
	return func() *rig {
		r := eth(oem.Enabled)()
		r.terminal, r.stdin = true, strings.NewReader(text)
		return r
	}
}

func refused(code ncsi.Code, reason ncsi.Reason, count int) simncsi.Fault {
	return simncsi.Fault{Kind: simncsi.Refuse, Code: code, Reason: reason, Count: count}
}

func strikes(kind simncsi.Kind, count int) simncsi.Fault {
	return simncsi.Fault{Kind: kind, Count: count}
}

func nobody() *rig { return &rig{} }

// Every command line of the transcript, with what it runs on and the exit code
// that it must have.
var transcript = []struct {
	about string
	rig   func() *rig
	args  string
	code  int
}{
	{"", nobody, "-h", exitOK},

	{"the states", eth(oem.Enabled), "get", exitOK},
	{"", eth(oem.Locked), "get", exitOK},
	{"", eth(oem.Disabled), "get", exitOK},
	{"", eth(oem.Locked), "get -json", exitOK},
	{"", eth(oem.Disabled), "-json get", exitOK},
	{"nothing is left to find out", eth(oem.Locked), "-if eth0 -package 0 get", exitOK},
	{"a channel instead of the package", eth(oem.Locked), "-if eth0 -package 0 -channel 1 get", exitOK},
	{"firmware that cannot tell the run-time state", with(func(c *simncsi.Config) { c.NoRuntimeGet = true }), "get", exitOK},
	{"", with(func(c *simncsi.Config) { c.NoRuntimeGet = true }), "get -json", exitOK},
	{"and firmware that is odd about it", with(func(c *simncsi.Config) {
		c.State.Active, c.RefuseRuntime = oem.Disabled, ncsi.StatusError{Code: ncsi.Failed, Reason: ncsi.InvalidParameter}
	}), "get", exitOK},
	{"run-time state alone", eth(oem.Locked), "runtime get", exitOK},
	{"", eth(oem.Enabled), "runtime get -json", exitOK},
	{"", eth(oem.Disabled), "runtime get", exitUnavailable},
	{"", eth(oem.Disabled), "runtime get -json", exitUnavailable},
	{"", with(func(c *simncsi.Config) { c.NoRuntimeGet = true }), "runtime get", exitUnsupported},

	{"setting", eth(oem.Enabled), "set locked", exitOK},
	{"", eth(oem.Locked), "set enabled", exitOK},
	{"", eth(oem.Enabled), "set locked -json", exitOK},
	{"", eth(oem.Enabled), "runtime set locked", exitOK},
	{"", eth(oem.Locked), "runtime set enabled", exitOK},
	{"", eth(oem.Locked), "runtime set enabled -json", exitOK},
	{"", eth(oem.Disabled), "runtime set enabled", exitUnavailable},
	{"the NIC says that it is done, and it is not", eth(oem.Enabled, strikes(simncsi.Ignore, 1)), "set locked", exitNotTaken},
	{"", eth(oem.Enabled, strikes(simncsi.Ignore, 1)), "runtime set locked", exitNotTaken},
	{"the NIC does it, and falls silent", eth(oem.Enabled, strikes(simncsi.Lost, 99)), "set locked", exitUnknown},
	{"a response that gets lost", eth(oem.Enabled, strikes(simncsi.Lost, 1)), "set locked", exitOK},
	{"firmware that can set the run-time state and not tell it", with(func(c *simncsi.Config) { c.NoRuntimeGet = true }), "runtime set locked", exitOK},
	{"", with(func(c *simncsi.Config) { c.NoRuntimeGet = true }), "runtime set locked -json", exitOK},
	{"firmware that tells the state in force", with(func(c *simncsi.Config) { c.ReportActive = true }), "set locked", exitNotTaken},
	{"nothing can be sent: nothing has changed", forbiddenEth, "set locked", exitPermission},
	{"", forbiddenEth, "runtime set locked -json", exitPermission},
	{"", failed("-if eth0", &netlink.OpError{Op: "send command", Device: "eth0", Err: oem.NotSent(netlink.ErrDown)}), "set locked", exitDevice},
	{"", failed("-mctp 1:29", oem.NotSent(&afmctp.OpError{Op: "send", Device: "EID 29", Err: afmctp.ErrBusy})), "-mctp 1:29 -package 0 set locked", exitFailed},
	{"", failed("-i2c 4:0x32", oem.NotSent(&i2c.OpError{Op: "send", Device: "i2c-4 0x32", Err: i2c.ErrNoAck})), "-i2c 4:0x32 -package 0 set locked", exitDevice},
	{"and if it is not certain that nothing was sent", failed("-i2c 4:0x32", &i2c.OpError{Op: "send", Device: "i2c-4 0x32", Err: syscall.EIO}), "-i2c 4:0x32 -package 0 set locked", exitUnknown},
	{"a lock that is final", with(func(c *simncsi.Config) {
		c.State.Active, c.State.Stored, c.LockIsFinal = oem.Locked, oem.Locked, true
	}), "set enabled", exitFailed},

	{"disabling asks", typed("yes\n"), "set disabled", exitOK},
	{"", typed("\n"), "set disabled", exitUnconfirmed},
	{"", typed(""), "set disabled", exitUnconfirmed},
	{"nobody is there", eth(oem.Enabled), "set disabled", exitUnconfirmed},
	{"", eth(oem.Enabled), "set disabled -json", exitUnconfirmed},
	{"", eth(oem.Enabled), "-yes set disabled", exitOK},
	{"", eth(oem.Enabled), "raw 0x12 0x19 00000000", exitUnconfirmed},
	{"", eth(oem.Enabled), "raw 12 19", exitUnconfirmed},
	{"", eth(oem.Enabled), "raw 12 19 00000000 -yes", exitOK},

	{"raw commands", eth(oem.Locked), "raw 0x13 0x19", exitOK},
	{"", eth(oem.Locked), "raw 13 19 -json", exitOK},
	{"", eth(oem.Locked), "raw 12 1b 00000000", exitOK},
	{"", with(func(c *simncsi.Config) { c.SetRepeats = true }), "raw 12 1b 00000001", exitOK},
	{"", eth(oem.Locked), "raw 12 1b 00000000 -json", exitOK},
	{"", eth(oem.Locked), "raw 12 19 00000009 -json", exitFailed},
	{"", eth(oem.Locked), "raw 13 17", exitUnsupported},

	{"refusals", eth(oem.Enabled, refused(ncsi.Unsupported, ncsi.NoReason, 9)), "get", exitUnsupported},
	{"", eth(oem.Enabled, refused(ncsi.Failed, ncsi.UnknownCommand, 9)), "get", exitUntrusted},
	{"", eth(oem.Enabled, refused(ncsi.Failed, ncsi.UnknownCommand, 9)), "set locked -json", exitUntrusted},
	{"not trusted, or not known: such firmware does not say", with(func(c *simncsi.Config) { c.State.Untrusted = true }), "get", exitUnsupported},
	{"", eth(oem.Enabled, refused(ncsi.Failed, ncsi.InterventionNeeded, 9)), "get", exitFailed},
	{"over the kernel's NC-SI, nobody initialises but the kernel", eth(oem.Enabled, refused(ncsi.Failed, ncsi.InitRequired, 9)), "get", exitFailed},
	{"nonsense", eth(oem.Enabled, strikes(simncsi.UnknownState, 9)), "get", exitFailed},
	{"", eth(oem.Enabled, strikes(simncsi.WrongManufacturer, 9)), "get", exitFailed},
	{"silence", eth(oem.Enabled, strikes(simncsi.Silent, 9)), "get", exitTimeout},
	{"", eth(oem.Enabled, strikes(simncsi.Silent, 9)), "get -json -timeout 10ms", exitTimeout},
	{"and not for good", eth(oem.Enabled, strikes(simncsi.Silent, 2)), "get", exitOK},
	{"slow, and patience", eth(oem.Enabled, simncsi.Fault{Kind: simncsi.Slow, Delay: 4 * time.Second}), "get -timeout 5s", exitOK},
	{"what the system has against it", failed("-if eth0", &netlink.OpError{
		Op: "send command", Device: "eth0", Err: fmt.Errorf("%w: sending NC-SI commands takes CAP_NET_ADMIN", os.ErrPermission),
	}), "get", exitPermission},
	{"", failed("-if eth0", &netlink.OpError{Op: "send command", Device: "eth0", Err: netlink.ErrDown}), "get", exitDevice},
	{"", failed("-mctp 1:29", &afmctp.OpError{Op: "send", Device: "EID 29", Err: afmctp.ErrNoRoute}), "-mctp 1:29 get", exitDevice},
	{"", failed("-mctp 1:29", &afmctp.OpError{Op: "socket", Device: "EID 29", Err: afmctp.ErrNoMCTP}), "-mctp 1:29 -package 0 get", exitDevice},
	{"", failed("-i2c 4:0x32", &i2c.OpError{Op: "open", Device: "/dev/i2c-4", Err: i2c.ErrNoBus}), "-i2c 4:0x32 get", exitDevice},
	{"", failed("-i2c 4:0x32", &i2c.OpError{Op: "send", Device: "i2c-4 0x32", Err: i2c.ErrNoAck}), "-i2c 4:0x32 packages", exitDevice},

	{"MCTP: the package is found by asking", over("-mctp 1:29", oem.Enabled), "-mctp 1:29 get", exitOK},
	{"", over("-mctp 1:29", oem.Enabled), "-mctp 1:29 -package 3 get", exitOK},
	{"", over("-mctp 1:29", oem.Enabled), "-mctp 1:29 -package 2 get", exitTimeout},
	{"", over("-i2c 4:0x32", oem.Locked), "-i2c 4:32 get -json", exitOK},
	{"", over("-i2c 4:0x32 -eid 8:29", oem.Locked), "-eid 8:29 -i2c 4:32 get -json", exitOK},
	{"", over("-i2c 4:0x32:0x12", oem.Locked), "-i2c 4:0x32:0x12 -package 3 -timeout 100ms set enabled", exitOK},
	{"a NIC that wants to be initialised", func() *rig {
		r := over("-mctp 1:29", oem.Locked)()
		if err := r.nic("-mctp 1:29").Uninitialise(); err != nil {
			panic(err)
		}
		return r
	}, "-mctp 1:29 get", exitOK},
	{"a refusal says more than silence", func() *rig {
		r := over("-mctp 1:29", oem.Locked)()
		return r.inject("-mctp 1:29", refused(ncsi.Failed, ncsi.UnknownCommand, 99))
	}, "-mctp 1:29 get", exitUntrusted},
	{"nobody there", over("-mctp 1:29", oem.Enabled, strikes(simncsi.Silent, 99)), "-mctp 1:29 get", exitTimeout},
	{"all that is sent and received", over("-mctp 1:29", oem.Enabled, strikes(simncsi.Silent, 1), strikes(simncsi.WrongIID, 1)), "-v -mctp 1:29 -package 3 runtime get", exitOK},

	{"finding it", nobody, "get", exitDevice},
	{"", nobody, "get -json", exitDevice},
	{"", nobody, "-if eth7 get", exitDevice},
	{"", nobody, "-if eth7 -package 0 get", exitDevice},
	{"an interface on which nothing was found", empty, "get", exitDevice},
	{"", empty, "-if eth0 get", exitDevice},
	{"", eth(oem.Enabled), "-package 5 get", exitDevice},
	{"and which is down", with(func(c *simncsi.Config) {}, unlist, down), "get", exitDevice},
	{"", with(func(c *simncsi.Config) {}, unlist, down), "-if eth0 get", exitDevice},
	{"but which has one", unlisted(3), "-if eth0 -package 3 get", exitOK},
	{"", unlisted(3), "set locked", exitOK},
	{"", unlisted(3), "-if eth0 set locked -json", exitOK},
	{"", lone3BesideListed, "-package 3 get", exitOK},
	{"or two", unlisted(1, 3), "set locked", exitSeveral},
	{"", unlisted(1, 3), "-if eth0 get", exitSeveral},
	{"or one, that refuses", with(func(c *simncsi.Config) { c.Packages = []int{3}; c.State.Untrusted = true }, unlist), "get", exitUnsupported},
	{"or one, that nobody may ask", func() *rig { r := forbiddenEth(); unlist(r); return r }, "get", exitPermission},
	{"two NICs on one cable", with(func(c *simncsi.Config) { c.Packages = []int{0, 1} }), "get", exitSeveral},
	{"", with(func(c *simncsi.Config) { c.Packages = []int{0, 1} }), "get -package 1", exitOK},
	{"", with(func(c *simncsi.Config) { c.Packages = []int{0, 1} }), "get -json", exitSeveral},
	{"two cables", twoCables, "set locked", exitSeveral},
	{"", twoCables, "-if eth1 set locked", exitOK},
	{"", twoCables, "-package 2 set locked", exitOK},
	{"MCTP, when the kernel has no NC-SI", func() *rig {
		r := over("-mctp 1:29", oem.Locked)()
		r.noNCSI = netlink.ErrNoFamily
		return r
	}, "get", exitOK},
	{"a NIC, and a sensor that is silent", func() *rig {
		r := over("-mctp 1:29", oem.Locked)()
		r.endpoints = append([]address{{transport: "mctp", network: 1, eid: 9}}, r.endpoints...)
		return r
	}, "get", exitOK},
	{"a sensor alone", sensor, "get", exitDevice},
	{"", forbidden, "get", exitPermission},
	{"", forbidden, "packages", exitPermission},
	{"two NICs over MCTP", func() *rig {
		r := over("-mctp 1:29", oem.Locked)()
		r.add("-mctp 1:30", at(0, oem.Locked))
		return r
	}, "get", exitSeveral},

	{"what there is", twoCables, "packages", exitOK},
	{"", twoCables, "packages -json", exitOK},
	{"", twoCables, "packages -if eth1", exitOK},
	{"", twoCables, "packages -if eth2", exitDevice},
	{"", empty, "packages -if eth0", exitDevice},
	{"", empty, "packages", exitDevice},
	{"", unlisted(3), "packages", exitOK},
	{"", unlisted(3), "packages -if eth0 -json", exitOK},
	{"", func() *rig { r := forbiddenEth(); unlist(r); return r }, "packages", exitPermission},
	{"", func() *rig {
		r := twoCables()
		r.interfaces = r.interfaces[:1]
		r.interfaces[0].Up = false
		r.add("-mctp 1:29", at(3, oem.Locked))
		r.endpoints = append(r.endpoints, address{transport: "mctp", network: 1, eid: 9})
		return r
	}, "packages", exitOK},
	{"", over("-i2c 4:0x32", oem.Locked), "-i2c 4:0x32 packages -json", exitOK},
	{"", nobody, "packages", exitDevice},
	{"", sensor, "packages", exitDevice},

	{"wrong command lines", nobody, "", exitUsage},
	{"", nobody, "frobnicate", exitUsage},
	{"", nobody, "get it", exitUsage},
	{"", nobody, "set", exitUsage},
	{"", nobody, "set off", exitUsage},
	{"", nobody, "set off -json", exitUsage},
	{"", nobody, "set locked now", exitUsage},
	{"", nobody, "runtime", exitUsage},
	{"", nobody, "runtime set", exitUsage},
	{"", nobody, "runtime set disabled", exitUsage},
	{"", nobody, "raw 0x12", exitUsage},
	{"", nobody, "raw 0x12 0x119", exitUsage},
	{"", nobody, "raw zz 19", exitUsage},
	{"", nobody, "raw 12 19 123", exitUsage},
	{"", nobody, "raw 12 19 " + strings.Repeat("00", oem.MaxData+1), exitUsage},
	{"", nobody, "get -bogus", exitUsage},
	{"", nobody, "-if", exitUsage},
	{"", nobody, "-if= get", exitUsage},
	{"", nobody, "-package 8 get", exitUsage},
	{"", nobody, "-channel x get", exitUsage},
	{"", nobody, "-timeout -1s get", exitUsage},
	{"", nobody, "-timeout 5 get", exitUsage},
	{"", nobody, "-mctp 29 get", exitUsage},
	{"", nobody, "-mctp 1:3 get", exitUsage},
	{"", nobody, "-mctp 1:255 get", exitUsage},
	{"", nobody, "-i2c 4 get", exitUsage},
	{"", nobody, "-i2c x:32 get", exitUsage},
	{"", nobody, "-i2c 4:0x88 get", exitUsage},
	{"", nobody, "-i2c 4:0x32:0x10:0 get", exitUsage},
	{"", nobody, "-i2c 4:0x10 get", exitUsage},
	{"", nobody, "-i2c 4:0x32 -eid 29 get", exitUsage},
	{"", nobody, "-i2c 4:0x32 -eid 8:7 get", exitUsage},
	{"", nobody, "-i2c 4:0x32 -eid 8:8 get", exitUsage},
	{"", nobody, "-if eth0 -eid 8:29 get", exitUsage},
	{"", nobody, "-if eth0 -mctp 1:29 get", exitUsage},
	{"", nobody, "packages -package 0", exitUsage},
}

func twoCables() *rig {
	r := has("-if eth0", at(0, oem.Enabled))
	r.add("-if eth1", at(2, oem.Enabled))
	return r
}

// empty is a machine with an interface on which nobody is.
func empty() *rig {
	return with(func(c *simncsi.Config) { c.Packages = []int{} }, unlist)()
}

func down(r *rig) { r.interfaces[0].Up = false }

// forbiddenEth is one on which sending is for others.
func forbiddenEth() *rig {
	return failed("-if eth0", &netlink.OpError{
		Op: "send command", Device: "eth0", Err: oem.NotSent(fmt.Errorf("%w: sending NC-SI commands takes CAP_NET_ADMIN", os.ErrPermission)),
	})()
}

func sensor() *rig {
	return &rig{endpoints: []address{{transport: "mctp", network: 1, eid: 9}}}
}

// forbidden is a machine on which MCTP is for others.
func forbidden() *rig {
	return failed("-mctp 1:29", &afmctp.OpError{Op: "send", Device: "EID 29", Err: os.ErrPermission})()
}

// hideInstance hides what a transport begins with at random: the instance ID,
// and with it the checksum.
func hideInstance(s string) string {
	s = packet.ReplaceAllString(s, "${1}II${2}CCCCCCCC")
	return instanceID.ReplaceAllString(s, "instance ID II instead of II")
}

var (
	packet     = regexp.MustCompile(`(body 02000100)[0-9a-f]{2}([0-9a-f]*)[0-9a-f]{8}\b`)
	instanceID = regexp.MustCompile(`instance ID \d+ instead of \d+`)
)

func TestTranscript(t *testing.T) {
	var b strings.Builder
	for _, tt := range transcript {
		if tt.about != "" {
			fmt.Fprintf(&b, "# %s\n\n", tt.about)
		}
		args := strings.Fields(tt.args)
		shown := tt.args
		if len(shown) > 100 {
			shown = shown[:100] + "..."
		}
		var got result
		synctest.Test(t, func(t *testing.T) { got = tt.rig().run(t.Context(), args...) })
		if got.code != tt.code {
			t.Errorf("%s: exit code %d, want %d\n%s", shown, got.code, tt.code, got.stderr)
		}
		fmt.Fprintf(&b, "$ ncsi-oem %s\n%s", shown, got.stdout)
		for line := range strings.Lines(got.stderr) {
			fmt.Fprintf(&b, "2> %s", line)
		}
		fmt.Fprintf(&b, "\n[%d]\n\n", got.code)
	}
	text := hideInstance(b.String())
	name := filepath.Join("testdata", "transcript.txt")
	if *update {
		if err := os.WriteFile(name, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("differs from %s at %s; with -update it is written anew", name, difference(text, string(want)))
	}
}

// difference shows the first line that differs.
func difference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("line %d: %q instead of %q", i+1, g[i], w[i])
		}
	}
	return "its end"
}
