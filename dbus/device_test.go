// SPDX-License-Identifier: Apache-2.0

package dbus_test

import (
	"cmp"
	"context"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/bluefield-go/bmc-rshim/dbus"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
)

func TestDevice(t *testing.T) {
	t.Parallel()
	r := bf3(t, rigOptions{}, bluefield.Config{Revision: 1, OPN: "900-9D3B6-00CV-A"})
	c := r.c
	c.task(rshim0)
	for property, want := range map[string]any{
		"Index": uint32(0), "Backend": "usb", "Name": "usb-1.1", "Generation": "BlueField-3", "Revision": uint32(1),
		"OPN": "900-9D3B6-00CV-A", "Attached": true, "Owner": deviceI + ".Owners.Bmc", "DropMode": false, "BootResetSkip": false,
		"Push": godbus.ObjectPath("/"),
	} {
		if got := c.get(own, rshim0, deviceI, property); got != want {
			t.Errorf("%s is %v, want %v", property, got, want)
		}
	}
	c.until(own, rshim0, deviceI, "BFMode", deviceI+".BFModes.Dpu")
	if since := c.get(own, rshim0, deviceI, "AttachedSince").(uint64); since < uint64(time.Now().Add(-limit).UnixMicro()) {
		t.Errorf("attached since %d", since)
	}
	if n := c.get(own, rshim0, deviceI, "Counters").(map[string]uint64)["Attaches"]; n != 1 {
		t.Errorf("%d attaches", n)
	}
	if v := c.get(own, "/xyz/openbmc_project/rshim", managerI, "Version"); v != "1.2.3" {
		t.Errorf("version %v", v)
	}

	// Boot mode, by property and by method, and what is refused.
	if err := c.set(own, rshim0, deviceI, "BootMode", deviceI+".BootModes.EMMCSwap"); err != nil {
		t.Error(err)
	}
	c.awaitChange(rshim0, deviceI, "BootMode", deviceI+".BootModes.EMMCSwap")
	c.must(own, rshim0, deviceI+".SetBootMode", deviceI+".BootModes.EMMC")
	c.awaitChange(rshim0, deviceI, "BootMode", deviceI+".BootModes.EMMC")
	regs := reg.For(reg.BlueField3)
	control := uint32(regs.BootControl.Channel)<<16 | uint32(regs.BootControl.Offset)
	if v := c.must(own, rshim0, deviceI+".ReadRegister", control, byte(8))[0].(uint64); v&3 != 1 {
		t.Errorf("boot control is %#x", v)
	}
	c.must(own, rshim0, deviceI+".WriteRegister", control, byte(8), uint64(0))
	for _, bad := range []string{"EMMC", deviceI + ".BootModes.Unknown", deviceI + ".BootModes.", ""} {
		c.setFails("xyz.openbmc_project.sdbusplus.Error.InvalidEnumString", own, rshim0, deviceI, "BootMode", bad)
	}
	c.fails(commonErr+"InvalidArgument", own, rshim0, deviceI+".ReadRegister", control, byte(3))
	c.fails(commonErr+"InvalidArgument", own, rshim0, deviceI+".WriteRegister", control, byte(4), uint64(1)<<32)

	// misc.
	c.must(own, rshim0, deviceI+".WriteMisc", "DISPLAY_LEVEL 1\nBOOT_RESET_SKIP 1\n")
	if text := c.must(own, rshim0, deviceI+".ReadMisc")[0].(string); !strings.Contains(text, "BOOT_RESET_SKIP 1") {
		t.Errorf("misc is %q", text)
	}
	c.awaitChange(rshim0, deviceI, "BootResetSkip", true)
	c.fails(commonErr+"InvalidArgument", own, rshim0, deviceI+".WriteMisc", "COLOUR 1")
	c.fails(commonErr+"InvalidArgument", own, rshim0, deviceI+".WriteMisc", strings.Repeat("BOOT_MODE 1\n", 1000))
	if err := c.set(own, rshim0, deviceI, "BootResetSkip", false); err != nil {
		t.Error(err)
	}
	c.awaitChange(rshim0, deviceI, "BootResetSkip", false)

	// Given up, and taken again.
	c.must(own, rshim0, deviceI+".Release")
	c.awaitChange(rshim0, deviceI, "State", deviceI+".States.Dropped")
	if got := c.get(own, rshim0, deviceI, "Attached"); got != false {
		t.Error("attached in drop mode")
	}
	c.fails(commonErr+"Unavailable", own, rshim0, deviceI+".SoftReset")
	if got := c.must(own, rshim0, deviceI+".Force", uint32(0))[0]; got != deviceI+".ForceResults.NoOwner" {
		t.Errorf("force: %v", got)
	}
	if got := c.must(own, rshim0, deviceI+".Force", uint32(5000))[0]; got != deviceI+".ForceResults.NotNeeded" {
		t.Errorf("force: %v", got)
	}
	if err := c.set(own, rshim0, deviceI, "DropMode", true); err != nil {
		t.Error(err)
	}
	if err := c.set(own, rshim0, deviceI, "DropMode", false); err != nil {
		t.Error(err)
	}
	c.until(own, rshim0, deviceI, "Attached", true)

	// A reset: the log comes as signals, and is kept.
	c.match("type='signal',interface='" + deviceI + "',member='LogAdded'")
	c.must(own, rshim0, deviceI+".SetBootMode", deviceI+".BootModes.EMMC")
	c.must(own, rshim0, deviceI+".SoftReset")
	c.await("LogAdded", func(s *godbus.Signal) bool { return s.Name == deviceI+".LogAdded" })
	c.eventually("the boot log is kept", func() bool {
		body := c.must(own, rshim0, deviceI+".ReadLog", uint64(0))
		lines, next := body[0].([][]any), body[1].(uint64)
		return len(lines) > 0 && next > lines[len(lines)-1][0].(uint64) && strings.Contains(lines[0][2].(string), "INFO[")
	})
	next := c.must(own, rshim0, deviceI+".ReadLog", uint64(1)<<63)[1].(uint64)
	if body := c.must(own, rshim0, deviceI+".ReadLog", next+1000); len(body[0].([][]any)) != 0 {
		t.Errorf("lines of the future: %v", body)
	}
}

// TestGone has a DPU that is unplugged: its objects go, when it does not come
// back.
func TestGone(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	r.plug("1-1", bluefield.Config{}, usbdev.Options{})
	c := r.c
	c.match("type='signal',interface='org.freedesktop.DBus.ObjectManager'")
	c.until(own, rshim0, deviceI, "Attached", true)
	c.ready("xyz.openbmc_project.Console.rshim0", "/xyz/openbmc_project/console/rshim0")
	r.usb.Unplug("1-1")
	c.until(own, rshim0, deviceI, "State", deviceI+".States.Gone")
	c.await("InterfacesRemoved", func(s *godbus.Signal) bool {
		return s.Name == "org.freedesktop.DBus.ObjectManager.InterfacesRemoved" && s.Body[0] == godbus.ObjectPath(rshim0)
	})
	c.fails("org.freedesktop.DBus.Error.UnknownObject", own, rshim0, deviceI+".Release")
	c.eventually("the console's name is free", func() bool {
		_, err := c.call("org.freedesktop.DBus", "/", "org.freedesktop.DBus.GetNameOwner", "xyz.openbmc_project.Console.rshim0")
		return err != nil
	})
	c.fails(commonErr+"Unavailable", "com.Nvidia.Software.Rshim", "/com/nvidia/software/rshim", properties+".Set",
		"com.nvidia.BF.Rshim", "State", godbus.MakeVariant("com.nvidia.BF.Rshim.State.Forced"))
}

func TestConsole(t *testing.T) {
	const name, path = "xyz.openbmc_project.Console.rshim0", "/xyz/openbmc_project/console/rshim0"
	// Not parallel: it counts the files of the process.
	r := bf3(t, rigOptions{}, bluefield.Config{Console: true})
	c := r.c
	c.ready(name, path)
	r.connected()
	before := openFiles(t)
	connect := func() *os.File {
		return os.NewFile(uintptr(c.must(name, path, "xyz.openbmc_project.Console.Access.Connect")[0].(godbus.UnixFD)), "console")
	}
	f := connect()
	answers := make(chan string, 1)
	go func() {
		var all []byte
		p := make([]byte, 1024)
		for !strings.Contains(string(all), "uptime") {
			n, err := f.Read(p)
			if err != nil {
				break
			}
			all = append(all, p[:n]...)
		}
		answers <- string(all)
	}()
	c.eventually("the console answers", func() bool {
		if _, err := f.WriteString("uptime\n"); err != nil {
			t.Fatal(err)
		}
		select {
		case a := <-answers:
			return strings.Contains(a, "uptime")
		case <-time.After(time.Second):
			return false
		}
	})
	f.Close()

	// There are so many and no more; those that are closed make room.
	var all []*os.File
	for range 16 {
		c.eventually("there is room", func() bool {
			body, err := c.call(name, path, "xyz.openbmc_project.Console.Access.Connect")
			if err == nil {
				all = append(all, os.NewFile(uintptr(body[0].(godbus.UnixFD)), "console"))
			}
			return err == nil
		})
	}
	c.fails(commonErr+"TooManyResources", name, path, "xyz.openbmc_project.Console.Access.Connect")
	for _, f := range all {
		f.Close()
	}
	c.eventually("files are closed", func() bool { return openFiles(t) <= before })
}

// TestNvidiaState is what NVIDIA's BMC does with com.nvidia.BF.Rshim, and what a
// job does that writes Forced every two minutes.
func TestNvidiaState(t *testing.T) {
	const name, path, iface = "com.Nvidia.Software.Rshim", "/com/nvidia/software/rshim", "com.nvidia.BF.Rshim"
	const service, serviceI = "/xyz/openbmc_project/control/service/rshim", "xyz.openbmc_project.Control.Service.Attributes"
	state := func(word string) string { return iface + ".State." + word }
	t.Parallel()
	r := bf3(t, rigOptions{}, bluefield.Config{})
	c := r.c
	c.ready(name, path)
	c.until(name, path, iface, "State", state("Enabled"))
	set := func(word string) {
		t.Helper()
		if err := c.set(name, path, iface, "State", state(word)); err != nil {
			t.Errorf("%s: %v", word, err)
		}
	}
	attaches := func() uint64 { return c.get(own, rshim0, deviceI, "Counters").(map[string]uint64)["Attaches"] }
	n := attaches()
	for _, word := range []string{"Enabled", "Forced", "Forced", "Enabled"} {
		set(word)
		if got := c.get(name, path, iface, "State"); got != state("Enabled") {
			t.Errorf("after %s it reads %v", word, got)
		}
	}
	if got := attaches(); got != n {
		t.Errorf("what changes nothing has attached %d times", got-n)
	}
	for _, bad := range []string{"Enabled", state(""), state("enabled"), ""} {
		c.setFails("xyz.openbmc_project.sdbusplus.Error.InvalidEnumString", name, path, iface, "State", bad)
	}

	set("Disabled")
	c.until(name, path, iface, "State", state("Disabled"))
	c.until(own, service, serviceI, "Running", false)
	c.until(own, rshim0, deviceI, "State", deviceI+".States.Dropped")
	set("Disabled")
	c.fails(commonErr+"NotAllowed", own, rshim0, deviceI+".Force", uint32(0))
	set("Forced")
	c.until(name, path, iface, "State", state("Enabled"))
	c.until(own, service, serviceI, "Running", true)

	if err := c.set(own, service, serviceI, "Masked", true); err != nil {
		t.Error(err)
	}
	c.until(name, path, iface, "State", state("Disabled"))
	c.setFails(commonErr+"NotAllowed", name, path, iface, "State", state("Forced"))
	if err := c.set(own, service, serviceI, "Masked", false); err != nil {
		t.Error(err)
	}
	if err := c.set(own, service, serviceI, "Enabled", true); err != nil {
		t.Error(err)
	}
	c.until(name, path, iface, "State", state("Enabled"))

	// LFWP, in its two places.
	if err := c.set(name, path, iface, "LfwpEnabled", true); err != nil {
		t.Error(err)
	}
	c.ready("xyz.openbmc_project.Software.DPU.Version", "/xyz/openbmc_project/control/lfwp")
	c.until("xyz.openbmc_project.Software.DPU.Version", "/xyz/openbmc_project/control/lfwp", "xyz.openbmc_project.Object.Enable", "Enabled", true)
	if err := c.set("xyz.openbmc_project.Software.DPU.Version", "/xyz/openbmc_project/control/lfwp", "xyz.openbmc_project.Object.Enable", "Enabled", false); err != nil {
		t.Error(err)
	}
	c.until(name, path, iface, "LfwpEnabled", false)

	// A push goes through whatever is written meanwhile.
	rd, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	stream, on := image(t, reg.BlueField3, 4<<20), make(chan struct{})
	go func() {
		defer w.Close()
		_, _ = w.Write(stream[:2<<20])
		<-on
		_, _ = w.Write(stream[2<<20:])
	}()
	p := c.push(rd, options{"Size": uint64(len(stream))})
	c.until(own, p, pushI, "Phase", pushI+".Phases.Streaming")
	c.setFails(commonErr+"Unavailable", name, path, iface, "State", state("Disabled"))
	c.setFails(commonErr+"Unavailable", own, service, serviceI, "Running", false)
	c.setFails(commonErr+"Unavailable", own, service, serviceI, "Masked", true)
	set("Forced")
	set("Enabled")
	close(on)
	c.until(own, p, pushI, "Outcome", outcome("Ready"))
}

// TestContended has a host that owns the RShim.
func TestContended(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	fn := r.plug("1-1", bluefield.Config{}, usbdev.Options{})
	ctx, cancel := context.WithCancel(context.Background())
	var host sync.WaitGroup
	host.Go(func() { _ = bluefield.NewHost(fn.DPU(), bluefield.HostOptions{Attached: true}).Run(ctx) })
	defer host.Wait()
	defer cancel()
	c := r.c
	c.until(own, rshim0, deviceI, "State", deviceI+".States.Contended")
	if got := c.get(own, rshim0, deviceI, "Owner"); got != deviceI+".Owners.Other" {
		t.Errorf("owner %v", got)
	}
	f := file(t, image(t, reg.BlueField3, 1<<20))
	c.ready(updater, dpuOS)
	c.fails(commonErr+"Unavailable", updater, dpuOS, updateI+".StartUpdate", fd(f), immediate)
	if got := c.must(own, rshim0, deviceI+".Force", uint32(0))[0]; got != deviceI+".ForceResults.Granted" {
		t.Errorf("force: %v", got)
	}
	c.until(own, rshim0, deviceI, "Attached", true)
}

// TestBootProgress has the stages of a boot as NVIDIA's BMC says them.
func TestBootProgress(t *testing.T) {
	const name, path, iface = "xyz.openbmc_project.State.Host", "/xyz/openbmc_project/state/host0", "xyz.openbmc_project.State.Boot.Progress"
	t.Parallel()
	r := bf3(t, rigOptions{}, bluefield.Config{})
	c := r.c
	c.ready(name, path)
	p := c.push(file(t, image(t, reg.BlueField3, 1<<20)), nil)
	c.until(own, p, pushI, "Outcome", outcome("Ready"))
	c.until(name, path, iface, "BootProgressOem", "OsIsRunning")
	c.until(name, path, iface, "BootProgress", iface+".ProgressStages.OEM")
	if at := c.get(name, path, iface, "BootProgressLastUpdate").(uint64); at == 0 {
		t.Error("never updated")
	}
	c.until(own, rshim0, deviceI, "BootStage", "ready")
}

// nic is a NIC that does what it is told.
type nic struct {
	mu                  sync.Mutex
	persistent, runtime string
	err, unread         error // of everything, and of Get
}

func (n *nic) Get(context.Context) (persistent, runtime string, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.persistent, n.runtime, cmp.Or(n.err, n.unread)
}

func (n *nic) SetPersistent(_ context.Context, mode string) error { return n.put(&n.persistent, mode) }
func (n *nic) SetRuntime(_ context.Context, mode string) error    { return n.put(&n.runtime, mode) }

func (n *nic) put(to *string, mode string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	*to = mode
	return n.err
}

func TestHostAccess(t *testing.T) {
	const manager, iface = "/xyz/openbmc_project/rshim", own + ".HostAccess"
	const name, path, nicI = "xyz.openbmc_project.Settings.connectx", "/xyz/openbmc_project/network/connectx/host_access/HOST_PRIV_RSHIM",
		"xyz.openbmc_project.Control.NcSi.OEM.Nvidia.NicAttribute"
	n := &nic{persistent: "enabled", runtime: "enabled"}
	r := newRig(t, rigOptions{service: dbus.Options{HostAccess: n}})
	c := r.c
	c.ready(name, path)
	mode := func(word string) string { return iface + ".Modes." + word }
	attribute := func(word string) string { return nicI + ".Modes." + word }
	c.until(own, manager, iface, "Runtime", mode("Enabled"))
	if err := c.set(own, manager, iface, "Runtime", mode("Disabled")); err != nil {
		t.Error(err)
	}
	_, runtime, _ := n.Get(t.Context())
	if got := c.get(own, manager, iface, "Runtime"); got != mode("Disabled") || runtime != "locked" {
		t.Errorf("runtime %v, of the NIC %v", got, runtime)
	}
	if err := c.set(name, path, nicI, "NicAttribute", attribute("Disabled")); err != nil {
		t.Error(err)
	}
	persistent, _, _ := n.Get(t.Context())
	if got := c.get(own, manager, iface, "Persistent"); got != mode("Disabled") || persistent != "disabled" {
		t.Errorf("persistent %v, of the NIC %v", got, persistent)
	}
	if err := c.set(own, manager, iface, "Persistent", mode("Locked")); err != nil {
		t.Error(err)
	}
	if got := c.get(own, manager, iface, "Locked"); got != true {
		t.Error("not locked")
	}
	c.setFails("xyz.openbmc_project.sdbusplus.Error.InvalidEnumString", own, manager, iface, "Runtime", mode("Locked"))
	c.setFails("xyz.openbmc_project.sdbusplus.Error.InvalidEnumString", name, path, nicI, "NicAttribute", attribute("Invalid"))
	fail := func(err, unread error) {
		n.mu.Lock()
		n.err, n.unread = err, unread
		n.mu.Unlock()
	}
	fail(dbus.ErrHostAccessRefused, nil)
	c.setFails(commonErr+"NotAllowed", own, manager, iface, "Persistent", mode("Enabled"))
	fail(dbus.ErrNoHostAccess, nil)
	c.setFails(commonErr+"Unavailable", name, path, nicI, "NicAttribute", attribute("Enabled"))
	fail(nil, os.ErrDeadlineExceeded)
	c.setFails(commonErr+"Timeout", own, manager, iface, "Persistent", mode("Enabled"))
	if err := c.set(own, manager, iface, "Persistent", mode("Enabled")); err == nil || !strings.Contains(err.Error(), "it was set") {
		t.Errorf("set and not read back: %v", err)
	}
	fail(os.ErrDeadlineExceeded, nil)
	c.fails(commonErr+"Timeout", own, manager, iface+".Refresh")
	if got := c.get(name, path, nicI, "NicAttribute"); got != attribute("Invalid") {
		t.Errorf("attribute %v of a NIC that does not answer", got)
	}
}
