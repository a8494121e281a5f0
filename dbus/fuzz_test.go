// SPDX-License-Identifier: Apache-2.0

package dbus_test

import (
	"encoding/xml"
	"os"
	"path/filepath"
	"strings"
	"testing"

	godbus "github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/introspect"

	"github.com/bluefield-go/bmc-rshim/dbus"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
)

// target is something that can be called or written.
type target struct{ name, path, iface, member string }

// targets are all methods, and all properties, which stand behind a "=".
func targets(t testing.TB) (all []target) {
	t.Helper()
	objects := map[string][2]string{
		deviceI: {own, rshim0}, managerI: {own, "/xyz/openbmc_project/rshim"}, own + ".HostAccess": {own, "/xyz/openbmc_project/rshim"},
		"xyz.openbmc_project.Control.Service.Attributes": {own, "/xyz/openbmc_project/control/service/rshim"},
		pushI: {own, "/xyz/openbmc_project/rshim/push/1"}, deleteI: {own, "/xyz/openbmc_project/rshim/push/1"},
		activation: {updater, dpuOS}, updateI: {updater, dpuOS}, "com.nvidia.BF.Rshim": {"com.Nvidia.Software.Rshim", "/com/nvidia/software/rshim"},
	}
	files, _ := filepath.Glob("interfaces/*.xml")
	for _, file := range files {
		at, ok := objects[strings.TrimSuffix(filepath.Base(file), ".xml")]
		if !ok {
			continue
		}
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var node introspect.Node
		if err := xml.Unmarshal(b, &node); err != nil {
			t.Fatal(err)
		}
		for _, i := range node.Interfaces {
			for _, m := range i.Methods {
				all = append(all, target{at[0], at[1], i.Name, m.Name})
			}
			for _, p := range i.Properties {
				all = append(all, target{at[0], at[1], i.Name, "=" + p.Name})
			}
		}
	}
	return all
}

// values makes values of all kinds of types out of bytes: each begins with one
// that says which, and takes the rest of what it has.
func values(p []byte, depth int) (vs []any) {
	for len(p) > 1 && len(vs) < 6 {
		kind, n := p[0], min(int(p[1]), len(p)-2)
		raw := p[2 : 2+n]
		p = p[2+n:]
		number := uint64(0)
		for _, b := range raw {
			number = number<<8 | uint64(b)
		}
		text := strings.ToValidUTF8(strings.ReplaceAll(string(raw), "\x00", ""), "?")
		switch kind % 12 {
		case 0:
			vs = append(vs, text)
		case 1:
			vs = append(vs, number&1 == 1)
		case 2:
			vs = append(vs, byte(number))
		case 3:
			vs = append(vs, uint32(number))
		case 4:
			vs = append(vs, number)
		case 5:
			vs = append(vs, int64(number))
		case 6:
			vs = append(vs, raw)
		case 7:
			vs = append(vs, strings.Fields(text))
		case 8:
			vs = append(vs, godbus.UnixFD(0))
		case 9:
			vs = append(vs, deviceI+".BootModes."+text)
		case 10:
			m := make(map[string]godbus.Variant)
			if depth < 3 {
				for i, v := range values(raw, depth+1) {
					key := []string{"SHA256", "Check", "Size", "Name", "Wait", "TimeoutMs", "Config", "x"}[(i+int(number%8))%8]
					m[key] = godbus.MakeVariant(v)
				}
			}
			vs = append(vs, m)
		case 11:
			if depth < 3 {
				for _, v := range values(raw, depth+1) {
					vs = append(vs, godbus.MakeVariant(v))
				}
			}
		}
	}
	return vs
}

// FuzzService calls methods and writes properties with values of wrong types and
// sizes. Whatever it is, there is an answer, and the service goes on.
func FuzzService(f *testing.F) {
	for i := range 60 {
		f.Add(byte(i), []byte("\x00\x03abc"))
		f.Add(byte(i), []byte("\x0a\x08\x01\x01\x01\x00\x03abc"))
	}
	f.Add(byte(0), []byte("\x08\x00\x0a\x06\x00\x04xxxx"))
	f.Add(byte(5), []byte("\x03\x04\x00\x01\x00\x00\x02\x01\x08\x04\x08zzzzzzzz"))
	all := targets(f)
	r := bf3(f, rigOptions{service: dbus.Options{HostAccess: &nic{persistent: "enabled"}}}, bluefield.Config{})
	r.c.ready(updater, dpuOS)
	r.c.ready("com.Nvidia.Software.Rshim", "/com/nvidia/software/rshim")
	// A worker has a second to end, and is waited for as long as a child of it
	// lives.
	f.Cleanup(r.bus.Kill)
	f.Fuzz(func(t *testing.T, which byte, p []byte) {
		c := &client{t: t, conn: r.c.conn}
		on := all[int(which)%len(all)]
		args := values(p, 0)
		var err error
		if property, is := strings.CutPrefix(on.member, "="); is {
			var v any = ""
			if len(args) > 0 {
				v = args[0]
			}
			err = c.set(on.name, on.path, on.iface, property, v)
		} else {
			_, err = c.call(on.name, on.path, on.iface+"."+on.member, args...)
		}
		if e, ok := err.(godbus.Error); ok && !strings.Contains(e.Name, ".Error.") {
			t.Errorf("%v %v: error %q", on, args, e.Name)
		} else if err != nil && !ok {
			t.Errorf("%v %v: %v", on, args, err)
		}
		c.must(on.name, "/", "org.freedesktop.DBus.Peer.Ping")
	})
}
