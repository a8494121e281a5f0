// SPDX-License-Identifier: Apache-2.0

package dbus_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/bluefield-go/bmc-rshim/dbus"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
)

const updater = "xyz.openbmc_project.Software.DPU.Updater"

// task is bmcweb's: it watches the path that it was given, for Activation and
// Progress alone.
func (c *client) task(path string) {
	c.match("type='signal',interface='org.freedesktop.DBus.Properties',member='PropertiesChanged',path='" + path + "'")
}

// ended waits for a push to end, and checks the order in which that was said.
func (c *client) ended(path, want string) {
	c.t.Helper()
	c.awaitChange(path, activation, "Activation", activation+".Activations."+want)
	progress, finished := byte(0), false
	for _, ch := range c.changes(path) {
		switch {
		case finished:
			c.t.Errorf("%v after the end", ch)
		case ch.iface == progressI:
			if p := ch.value.(byte); p < progress {
				c.t.Errorf("progress goes back from %d to %d", progress, p)
			} else {
				progress = p
			}
		case ch.property == "Activation":
			switch last(ch.value) {
			case "Active", "Failed", "Invalid":
				finished = true
			}
			if good := last(ch.value) == "Active"; good != (progress == 100) && finished {
				c.t.Errorf("%v at progress %d", ch.value, progress)
			}
		case ch.property == "Status" && last(ch.value) == "Completed" && progress != 100:
			c.t.Errorf("Completed at progress %d", progress)
		}
	}
}

// TestStartUpdate is upstream bmcweb's way: StartUpdate with a file, here one that
// is not all there yet, and a task on the path that it returns.
func TestStartUpdate(t *testing.T) {
	t.Parallel()
	r := bf3(t, rigOptions{}, bluefield.Config{})
	c := r.c
	c.ready(updater, dpuOS)
	f, finish := trickle(t, image(t, reg.BlueField3, 3<<20))

	c.fails(commonErr+"InvalidArgument", updater, dpuOS, updateI+".StartUpdate", fd(f), strings.Replace(immediate, "Immediate", "OnReset", 1))
	c.fails("org.freedesktop.DBus.Error.InvalidArgs", updater, dpuOS, updateI+".StartUpdate", "x", immediate)

	path := string(c.must(updater, dpuOS, updateI+".StartUpdate", fd(f), immediate)[0].(godbus.ObjectPath))
	if path != dpuUpdate {
		t.Errorf("the update is %s", path)
	}
	c.task(path) // only now, as bmcweb does
	c.fails(commonErr+"Unavailable", updater, dpuOS, updateI+".StartUpdate", fd(f), immediate)
	finish()
	c.ended(path, "Active")
	if got := c.get(updater, path, statusI, "Status"); last(got) != "Completed" {
		t.Errorf("status %v", got)
	}
	if at := c.get(updater, path, statusI, "CompletedTime").(uint64); at < uint64(time.Now().Add(-limit).UnixMicro()) {
		t.Errorf("completed at %d", at)
	}
}

// TestStartUpdateRefused has images that are found to be bad before anything is
// touched: the call itself fails.
func TestStartUpdateRefused(t *testing.T) {
	// Not parallel: it counts the files of the process.
	r := bf3(t, rigOptions{}, bluefield.Config{})
	c := r.c
	c.ready(updater, dpuOS)
	good := image(t, reg.BlueField3, 1<<20)
	broken := append([]byte(nil), good...)
	broken[len(broken)/2] ^= 1
	r.connected()
	before := openFiles(t)
	for name, tt := range map[string]struct {
		content []byte
		want    string
	}{
		"other chip": {image(t, reg.BlueField2, 1<<20), "Incompatible"},
		"wrong CRC":  {broken, "InvalidImage"},
		"truncated":  {good[:len(good)-100], "InvalidImage"},
		"no BFB":     {make([]byte, 5000), "InvalidImage"},
		"empty":      {nil, "InvalidImage"},
	} {
		t.Run(name, func(t *testing.T) {
			f := file(t, tt.content)
			c.fails("xyz.openbmc_project.Software.Update.Error."+tt.want, updater, dpuOS, updateI+".StartUpdate", fd(f), immediate)
			f.Close()
		})
	}
	if got := c.get(own, rshim0, deviceI, "Push"); got != godbus.ObjectPath("/") {
		t.Errorf("a push %v was made of what was refused", got)
	}
	if n := r.set.Devices()[0].Push().ID; n != 0 {
		t.Errorf("%d pushes were begun", n)
	}
	c.eventually("files are closed", func() bool { return openFiles(t) <= before })
}

// TestLegacyUpdate is the older way, and NVIDIA's: bmcweb asks for FilePath, has
// the image written there, waits for an object with Activation, sets
// RequestedActivation, and then has a task on it.
func TestLegacyUpdate(t *testing.T) {
	t.Parallel()
	r := bf3(t, rigOptions{}, bluefield.Config{})
	c := r.c
	c.ready(updater, dpuOS)
	if got := c.get(updater, dpuOS, "xyz.openbmc_project.Common.FilePath", "Path"); got != "/dev/rshim0/boot" {
		t.Errorf("path %v", got)
	}
	// Upstream listens at one place, NVIDIA at the other.
	for _, at := range []string{"/", "/xyz/openbmc_project/software"} {
		c.match("interface='org.freedesktop.DBus.ObjectManager',type='signal',member='InterfacesAdded',path='" + at + "'")
	}
	c.task(dpuUpdate)

	d, stream := r.set.Devices()[0], image(t, reg.BlueField3, 3<<20)
	writer := make(chan error, 1)
	go func() {
		ctx := context.Background()
		b, err := d.OpenBoot(ctx)
		for err == nil && len(stream) > 0 {
			var n int
			n, err = b.Write(ctx, stream[:min(len(stream), 64<<10)])
			stream = stream[n:]
		}
		if err == nil {
			err = b.Close(ctx)
		}
		writer <- err
	}()
	for _, at := range []string{"/", "/xyz/openbmc_project/software"} {
		c.await("InterfacesAdded at "+at, func(s *godbus.Signal) bool {
			if s.Name != "org.freedesktop.DBus.ObjectManager.InterfacesAdded" || string(s.Path) != at || s.Body[0] != godbus.ObjectPath(dpuUpdate) {
				return false
			}
			_, ok := s.Body[1].(map[string]map[string]godbus.Variant)[activation]
			return ok
		})
	}
	if err := c.set(updater, dpuUpdate, activation, "RequestedActivation", activation+".RequestedActivations.Active"); err != nil {
		t.Error(err)
	}
	c.setFails("xyz.openbmc_project.sdbusplus.Error.InvalidEnumString", updater, dpuUpdate, activation, "RequestedActivation", "Active")
	if err := <-writer; err != nil {
		t.Fatal(err)
	}
	c.ended(dpuUpdate, "Active")

	// The same push has an object of its own, which says where it came from.
	p := string(c.get(own, rshim0, deviceI, "Push").(godbus.ObjectPath))
	if got := c.get(own, p, pushI, "Origin"); last(got) != "File" {
		t.Errorf("origin %v", got)
	}
	c.until(own, p, pushI, "Outcome", pushI+".Outcomes.Ready")
}

// TestUpdateFails has a DPU that reports an error in its boot.
func TestUpdateFails(t *testing.T) {
	t.Parallel()
	r := bf3(t, rigOptions{}, bluefield.Config{FailAfter: "DDR POST", FailLine: "ERR[BL2]: CRITICAL ERROR on MSS0"})
	c := r.c
	c.ready(updater, dpuOS)
	c.task(dpuUpdate) // before: the DPU may be fast
	path := string(c.must(updater, dpuOS, updateI+".StartUpdate", fd(file(t, image(t, reg.BlueField3, 1<<20))), immediate)[0].(godbus.ObjectPath))
	c.ended(path, "Failed")
	p := string(c.get(own, rshim0, deviceI, "Push").(godbus.ObjectPath))
	if got := c.get(own, p, pushI, "Outcome"); last(got) != "DpuError" {
		t.Errorf("outcome %v", got)
	}
	if line := c.get(own, p, pushI, "Line").(string); !strings.Contains(line, "BL2") {
		t.Errorf("line %q", line)
	}
	if text := c.get(own, p, pushI, "Error").(string); text == "" {
		t.Error("no error")
	}
	if got := c.get(updater, path, statusI, "Status"); last(got) != "Failed" {
		t.Errorf("status %v", got)
	}
}

// TestOneActivation proves that no interface of an object is found under two
// names: bmcweb gives up when the mapper names two services.
func TestOneActivation(t *testing.T) {
	t.Parallel()
	r := bf3(t, rigOptions{service: dbus.Options{HostAccess: &nic{persistent: "enabled", runtime: "enabled"}}}, bluefield.Config{})
	c := r.c
	c.ready(updater, dpuOS)
	c.must(updater, dpuOS, updateI+".StartUpdate", fd(file(t, image(t, reg.BlueField3, 1<<20))), immediate)
	names := r.connected()
	seen, activations := make(map[string]string), 0
	for _, name := range names {
		for path, is := range c.objects(name) {
			for i := range is {
				if other, ok := seen[path+" "+i]; ok {
					t.Errorf("%s has %s on %s and %s", path, i, other, name)
				}
				seen[path+" "+i] = name
				if i == activation {
					activations++
				}
			}
		}
	}
	if activations != 3 { // DPU_OS, BF_DPU_BFB_UPDATE, push/1
		t.Errorf("Activation at %d objects: %v", activations, seen)
	}
	for _, i := range []string{"xyz.openbmc_project.Software.Version", "xyz.openbmc_project.Common.FilePath"} {
		if got := seen[dpuOS+" "+i]; got != updater {
			t.Errorf("%s of DPU_OS is on %q", i, got)
		}
	}
}

// openFiles counts the process's open files.
func openFiles(t testing.TB) int {
	e, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(e)
}
