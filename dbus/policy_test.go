// SPDX-License-Identifier: Apache-2.0

package dbus_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/bluefield-go/bmc-rshim/dbus/bustest"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
)

// asOther makes the test binary a client, when it is set to the address of a bus.
const asOther = "DBUS_TEST_CLIENT"

func TestMain(m *testing.M) {
	if address := os.Getenv(asOther); address != "" {
		if err := lookAndTry(address); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// attempts are what somebody without rights does: what has to be allowed, and
// what has to be refused.
var attempts = []struct {
	name, path, member string
	args               []any
	allowed            bool
}{
	{own, "/xyz/openbmc_project/rshim", "org.freedesktop.DBus.Introspectable.Introspect", nil, true},
	{own, "/xyz/openbmc_project/rshim", "org.freedesktop.DBus.ObjectManager.GetManagedObjects", nil, true},
	{own, rshim0, properties + ".GetAll", []any{deviceI}, true},
	{own, rshim0, properties + ".Get", []any{deviceI, "State"}, true},
	{own, rshim0, "org.freedesktop.DBus.Peer.Ping", nil, true},
	{updater, dpuOS, properties + ".GetAll", []any{""}, true},
	{"com.Nvidia.Software.Rshim", "/com/nvidia/software/rshim", properties + ".Get", []any{"com.nvidia.BF.Rshim", "State"}, true},
	{"xyz.openbmc_project.Console.rshim0", "/xyz/openbmc_project/console/rshim0", "org.freedesktop.DBus.Introspectable.Introspect", nil, true},

	{own, "/xyz/openbmc_project/rshim", managerI + ".DumpState", nil, false},
	{own, rshim0, properties + ".Set", []any{deviceI, "DropMode", godbus.MakeVariant(true)}, false},
	{own, rshim0, deviceI + ".Force", []any{uint32(0)}, false},
	{own, rshim0, deviceI + ".Release", nil, false},
	{own, rshim0, deviceI + ".SoftReset", nil, false},
	{own, rshim0, deviceI + ".ReadMisc", nil, false},
	{own, rshim0, deviceI + ".ReadLog", []any{uint64(0)}, false},
	{own, rshim0, deviceI + ".ReadRegister", []any{uint32(0), byte(8)}, false},
	{own, rshim0, "Release", nil, false}, // no interface named
	{updater, dpuOS, updateI + ".StartUpdate", []any{godbus.UnixFD(0), immediate}, false},
	{"com.Nvidia.Software.Rshim", "/com/nvidia/software/rshim", properties + ".Set", []any{"com.nvidia.BF.Rshim", "State", godbus.MakeVariant("")}, false},
	{"xyz.openbmc_project.Console.rshim0", "/xyz/openbmc_project/console/rshim0", "xyz.openbmc_project.Console.Access.Connect", nil, false},
	{"org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus.RequestName", []any{own + ".Mine", uint32(0)}, false},
	{"org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus.RequestName", []any{"xyz.openbmc_project.Console.rshim7", uint32(0)}, false},
}

// lookAndTry makes the attempts, prints the error of each ("" if there was
// none), and then waits for a signal of the device.
func lookAndTry(address string) error {
	conn, err := godbus.Connect(address)
	if err != nil {
		return err
	}
	defer conn.Close()
	signals := make(chan *godbus.Signal, 64)
	conn.Signal(signals)
	if err := conn.AddMatchSignal(godbus.WithMatchObjectPath(rshim0)); err != nil {
		return err
	}
	var results []string
	for _, a := range attempts {
		result := ""
		dest, member := conn.Object(a.name, godbus.ObjectPath(a.path)), a.member
		if err := dest.Call(member, 0, a.args...).Err; err != nil {
			result = err.Error()
			if e, ok := err.(godbus.Error); ok {
				result = e.Name
			}
		}
		results = append(results, result)
	}
	if err := json.NewEncoder(os.Stdout).Encode(results); err != nil {
		return err
	}
	select {
	case <-signals:
		return nil
	case <-time.After(limit):
		return os.ErrDeadlineExceeded
	}
}

// TestPolicy proves that with the policy that is shipped another user can look,
// and do nothing, while root can do everything.
func TestPolicy(t *testing.T) {
	if os.Getuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("root is needed for the policy")
		}
		t.Skip("root is needed for the policy")
	}
	t.Parallel()
	policy, err := os.ReadFile("../packaging/dbus/bmc-rshim.conf")
	if err != nil {
		t.Fatal(err)
	}
	r := bf3(t, rigOptions{bus: bustest.Options{Policy: []string{string(policy)}}}, bluefield.Config{})
	c := r.c
	for _, a := range attempts[:8] {
		c.ready(a.name, a.path)
	}

	// Where nobody's own user can run it.
	dir, err := os.MkdirTemp("", "policy")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "client")
	// No process that is started meanwhile may have it open for writing.
	syscall.ForkLock.RLock()
	err = os.WriteFile(binary, self, 0o755)
	syscall.ForkLock.RUnlock()
	for _, err := range []error{err, os.Chmod(dir, 0o755)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(binary)
	cmd.Dir, cmd.Env = "/", []string{asOther + "=" + r.bus.Address()}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	over := make(chan error, 1)
	go func() { over <- cmd.Wait() }()
	// Signals for it, until it has got one.
	for n := 0; ; n++ {
		select {
		case err = <-over:
		case <-time.After(100 * time.Millisecond):
			if err := c.set(own, rshim0, deviceI, "BootResetSkip", n%2 == 0); err != nil {
				t.Errorf("root cannot: %v", err)
			}
			continue
		}
		break
	}
	if err != nil {
		t.Fatalf("%v\n%s%s", err, stdout.Bytes(), stderr.Bytes())
	}
	var results []string
	if err := json.Unmarshal(stdout.Bytes(), &results); err != nil || len(results) != len(attempts) {
		t.Fatalf("%v\n%s%s", err, stdout.Bytes(), stderr.Bytes())
	}
	for i, a := range attempts {
		switch got := results[i]; {
		case a.allowed && got != "":
			t.Errorf("%s %s is refused: %s", a.path, a.member, got)
		case !a.allowed && got != "org.freedesktop.DBus.Error.AccessDenied":
			t.Errorf("%s %s%v is not denied: %q", a.path, a.member, a.args, got)
		}
	}
	if got := c.get(own, rshim0, deviceI, "DropMode"); got != false {
		t.Error("it was given up all the same")
	}
}
