// SPDX-License-Identifier: Apache-2.0

package dbus_test

import (
	"encoding/xml"
	"strings"
	"testing"

	godbus "github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/introspect"

	"github.com/bluefield-go/bmc-rshim/dbus"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
)

// walk introspects every node of a name from the root on, as OpenBMC's mapper and
// busctl do, and returns the interfaces of each object.
func (c *client) walk(name, path string, found map[string]map[string]introspect.Interface) {
	c.t.Helper()
	text := c.must(name, path, "org.freedesktop.DBus.Introspectable.Introspect")[0].(string)
	var node introspect.Node
	if err := xml.Unmarshal([]byte(text), &node); err != nil {
		c.t.Fatalf("%s %s: %v\n%s", name, path, err, text)
	}
	for _, i := range node.Interfaces {
		if strings.HasPrefix(i.Name, "org.freedesktop.DBus.") {
			continue
		}
		if found[path] == nil {
			found[path] = make(map[string]introspect.Interface)
		}
		found[path][i.Name] = i
	}
	for _, child := range node.Children {
		c.walk(name, strings.TrimSuffix(path, "/")+"/"+child.Name, found)
	}
}

// TestWalk looks at everything that there is on each name.
func TestWalk(t *testing.T) {
	t.Parallel()
	r := bf3(t, rigOptions{service: dbus.Options{HostAccess: &nic{persistent: "enabled", runtime: "enabled"}}}, bluefield.Config{OPN: "900-9D3B6-00CV-A"})
	c := r.c
	want := map[string]map[string][]string{
		own: {
			"/xyz/openbmc_project/rshim": {managerI, own + ".HostAccess"},
			rshim0:                       {deviceI},
			"/xyz/openbmc_project/control/service/rshim": {"xyz.openbmc_project.Control.Service.Attributes"},
		},
		"com.Nvidia.Software.Rshim":                {"/com/nvidia/software/rshim": {"com.nvidia.BF.Rshim"}},
		"xyz.openbmc_project.Software.DPU.Version": {"/xyz/openbmc_project/control/lfwp": {"xyz.openbmc_project.Object.Enable"}},
		"xyz.openbmc_project.Software.DPU.Updater": {dpuOS: {
			"xyz.openbmc_project.Software.Version", activation, updateI,
			"xyz.openbmc_project.Common.FilePath", "xyz.openbmc_project.Association.Definitions",
		}},
		"xyz.openbmc_project.State.Host":     {"/xyz/openbmc_project/state/host0": {"xyz.openbmc_project.State.Boot.Progress"}},
		"xyz.openbmc_project.Console.rshim0": {"/xyz/openbmc_project/console/rshim0": {"xyz.openbmc_project.Console.Access"}},
		"xyz.openbmc_project.Settings.connectx": {"/xyz/openbmc_project/network/connectx/host_access/HOST_PRIV_RSHIM": {
			"xyz.openbmc_project.Control.NcSi.OEM.Nvidia.NicAttribute",
		}},
	}
	owners := make(map[string]string)
	for name, objects := range want {
		for path, interfaces := range objects {
			c.ready(name, path)
			found := make(map[string]map[string]introspect.Interface)
			c.walk(name, "/", found)
			if len(found) != len(objects) {
				t.Errorf("%s has objects %v", name, found)
			}
			if len(found[path]) != len(interfaces) {
				t.Errorf("%s %s has interfaces %v, want %v", name, path, found[path], interfaces)
			}
			for _, i := range interfaces {
				desc, ok := found[path][i]
				if !ok {
					t.Errorf("%s %s has no %s", name, path, i)
					continue
				}
				c.readAll(name, path, desc)
			}
		}
		owner := c.must("org.freedesktop.DBus", "/", "org.freedesktop.DBus.GetNameOwner", name)[0].(string)
		if other := owners[owner]; other != "" {
			t.Errorf("%s and %s share a connection", name, other)
		}
		owners[owner] = name
	}
	for name, managers := range map[string][]string{
		own:                         {"/xyz/openbmc_project/rshim"},
		"com.Nvidia.Software.Rshim": {"/com/nvidia/software/rshim"},
		"xyz.openbmc_project.Software.DPU.Updater": {"/", "/xyz/openbmc_project/software"},
	} {
		for _, path := range managers {
			c.must(name, path, "org.freedesktop.DBus.ObjectManager.GetManagedObjects")
		}
	}
	objects := c.must(own, "/xyz/openbmc_project/rshim", "org.freedesktop.DBus.ObjectManager.GetManagedObjects")[0].(map[godbus.ObjectPath]map[string]map[string]godbus.Variant)
	if got := objects[rshim0][deviceI]["OPN"].Value(); got != "900-9D3B6-00CV-A" {
		t.Errorf("GetManagedObjects: OPN %v", got)
	}
	c.must(own, rshim0, "org.freedesktop.DBus.Peer.Ping")
}

// ready waits until a name that belongs to others was taken, with an object.
func (c *client) ready(name, path string) {
	c.t.Helper()
	c.eventually(name+" "+path, func() bool {
		_, err := c.call(name, path, "org.freedesktop.DBus.Peer.Ping")
		return err == nil
	})
}

// readAll reads the properties of an interface in all three ways.
func (c *client) readAll(name, path string, i introspect.Interface) {
	c.t.Helper()
	all := c.must(name, path, properties+".GetAll", i.Name)[0].(map[string]godbus.Variant)
	every := c.must(name, path, properties+".GetAll", "")[0].(map[string]godbus.Variant)
	if len(all) != len(i.Properties) {
		c.t.Errorf("%s %s: GetAll gives %v", path, i.Name, all)
	}
	for _, p := range i.Properties {
		one := c.must(name, path, properties+".Get", i.Name, p.Name)[0].(godbus.Variant)
		for how, v := range map[string]godbus.Variant{"Get": one, "GetAll": all[p.Name], `GetAll("")`: every[p.Name]} {
			if v.Signature().String() != p.Type {
				c.t.Errorf("%s %s %s: %s gives type %q, want %q", path, i.Name, p.Name, how, v.Signature(), p.Type)
			}
		}
		if p.Access == "read" {
			c.setFails("org.freedesktop.DBus.Error.PropertyReadOnly", name, path, i.Name, p.Name, one.Value())
		}
	}
}
