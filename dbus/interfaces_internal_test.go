// SPDX-License-Identifier: Apache-2.0

package dbus

import (
	"encoding/xml"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bluefield-go/bmc-rshim/dbus/bus"
	"github.com/bluefield-go/bmc-rshim/dbus/wire"
	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/rshim/bootlog"
)

// described is an interface as its XML has it.
type described struct {
	Name    string `xml:"name,attr"`
	Methods []struct {
		Name string `xml:"name,attr"`
		Args []struct {
			Name      string `xml:"name,attr"`
			Type      string `xml:"type,attr"`
			Direction string `xml:"direction,attr"`
		} `xml:"arg"`
	} `xml:"method"`
	Properties []struct {
		Name       string `xml:"name,attr"`
		Type       string `xml:"type,attr"`
		Access     string `xml:"access,attr"`
		Annotation struct {
			Name  string `xml:"name,attr"`
			Value string `xml:"value,attr"`
		} `xml:"annotation"`
	} `xml:"property"`
	Signals []struct {
		Name string `xml:"name,attr"`
		Args []struct {
			Type string `xml:"type,attr"`
		} `xml:"arg"`
	} `xml:"signal"`
}

func descriptions(t *testing.T) map[string]described {
	t.Helper()
	files, err := filepath.Glob("interfaces/*.xml")
	if err != nil || len(files) == 0 {
		t.Fatal("no descriptions", err)
	}
	all := make(map[string]described)
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var node struct {
			Interfaces []described `xml:"interface"`
		}
		if err := xml.Unmarshal(b, &node); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if len(node.Interfaces) != 1 || node.Interfaces[0].Name+".xml" != filepath.Base(file) {
			t.Fatalf("%s does not have just the interface of its name", file)
		}
		all[node.Interfaces[0].Name] = node.Interfaces[0]
	}
	return all
}

// members are what a description says: "property Name b readwrite", ...
func (d described) members() map[string]bool {
	m := make(map[string]bool)
	for _, p := range d.Properties {
		emits := "true"
		if p.Annotation.Name == "org.freedesktop.DBus.Property.EmitsChangedSignal" {
			emits = p.Annotation.Value
		}
		m[fmt.Sprintf("property %s %s %s emits=%v", p.Name, p.Type, p.Access, emits == "true")] = true
	}
	for _, f := range d.Methods {
		m[fmt.Sprintf("method %s %s", f.Name, d.signature(f.Name))] = true
	}
	return m
}

// signature is a method's, as "(in, in) -> out, out".
func (d described) signature(method string) string {
	var in, out []string
	for _, f := range d.Methods {
		if f.Name != method {
			continue
		}
		for _, a := range f.Args {
			if a.Direction == "out" {
				out = append(out, a.Type)
			} else {
				in = append(in, a.Type)
			}
		}
	}
	s := "(" + strings.Join(in, ", ") + ")"
	if out != nil {
		s += " -> " + strings.Join(out, ", ")
	}
	return s
}

// exported returns every interface that the service exports.
func exported() []bus.Interface {
	s := New(Options{HostAccess: noHost{}})
	v := &device{s: s, d: rshim.New(0, rshim.Options{}), path: "/x"}
	v.hw = hardware{v: v}
	all := []bus.Interface{s.managerIface(), v.iface(), s.host.iface(), s.host.nicIface(), (&console{}).iface()}
	all = append(all, v.softwareIfaces()...)
	all = append(all, (&push{ps: &s.pushes, v: v, origin: "Bus"}).ifaces(true)...)
	return append(all, s.all.serviceIface(), s.all.nvidiaIface(), s.all.lfwpIface(), s.all.hostIface())
}

// noHost is a NIC that says nothing.
type noHost struct{ HostAccess }

// counterNames are those of the property Counters.
func counterNames() (names []string) {
	v := &device{d: rshim.New(0, rshim.Options{})}
	for _, e := range v.counters().(wire.Dict).Entries {
		names = append(names, e.Key.(string))
	}
	return names
}

// TestTables holds what is exported against the descriptions.
func TestTables(t *testing.T) {
	ds := descriptions(t)
	seen := make(map[string]bool)
	for _, i := range exported() {
		seen[i.Name] = true
		d, ok := ds[i.Name]
		if !ok || i.XML == "" {
			t.Errorf("%s has no description", i.Name)
			continue
		}
		got := make(map[string]bool)
		for _, p := range i.Properties {
			access := "read"
			if p.Set != nil {
				access = "readwrite"
			}
			got[fmt.Sprintf("property %s %s %s emits=%v", p.Name, p.Sig, access, p.Emits == bus.EmitsChange && p.Get == nil)] = true
		}
		for _, m := range i.Methods {
			want := ""
			for _, f := range d.Methods {
				var in, out string
				for _, a := range f.Args {
					if a.Direction == "out" {
						out += a.Type
					} else {
						in += a.Type
					}
				}
				if f.Name == m.Name && in == string(m.In) && out == string(m.Out) {
					want = d.signature(f.Name)
				}
			}
			got[fmt.Sprintf("method %s %s", m.Name, want)] = true
		}
		if diff := cmp.Diff(d.members(), got); diff != "" {
			t.Errorf("%s: description and table differ (-description +table):\n%s", i.Name, diff)
		}
	}
	for name := range ds {
		if !seen[name] {
			t.Errorf("%s is described and not exported", name)
		}
	}
}

// TestDocs holds docs/dbus.md against the descriptions: each interface has a
// section, each member a row with its signature, and there is nothing else.
func TestDocs(t *testing.T) {
	b, err := os.ReadFile("../docs/dbus.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for name, d := range descriptions(t) {
		_, section, ok := strings.Cut(text, "\n### "+name+"\n")
		if !ok {
			t.Errorf("no section %s", name)
			continue
		}
		section, _, _ = strings.Cut(section, "\n### ")
		section, _, _ = strings.Cut(section, "\n## ")
		want := make(map[string]bool)
		for _, p := range d.Properties {
			row := fmt.Sprintf("property `%s` `%s`", p.Name, p.Type)
			if p.Access == "readwrite" {
				row += ", writable"
			}
			want[row] = true
		}
		for _, m := range d.Methods {
			want[fmt.Sprintf("method `%s` `%s`", m.Name, d.signature(m.Name))] = true
		}
		for _, s := range d.Signals {
			want[fmt.Sprintf("signal `%s` `%s`", s.Name, s.Args[0].Type)] = true
		}
		got := make(map[string]bool)
		for _, row := range regexp.MustCompile("(?m)^\\| ((?:property|method|signal) `[^|]*?) \\| ([^|]*?) \\|").FindAllStringSubmatch(section, -1) {
			got[row[1]+" "+row[2]] = true
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: description and docs/dbus.md differ (-description +docs):\n%s", name, diff)
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^### (\S+)$`).FindAllStringSubmatch(text, -1) {
		if _, ok := descriptions(t)[m[1]]; !ok {
			t.Errorf("docs/dbus.md has a section %s, which is not described", m[1])
		}
	}
	stages := make(map[string]string)
	for s := bootlog.StageUnknown; s <= bootlog.StageOff; s++ {
		stages[s.String()] = s.OEM()
	}
	for property, words := range map[string][]string{
		"Outcome": slices.Collect(maps.Values(outcomes)), "Owner": slices.Collect(maps.Values(owners)),
		"BootMode": bootModes[:], "BFMode": bfModes[:], "BootProgressOem": slices.Collect(maps.Values(stages)),
	} {
		row := regexp.MustCompile("(?m)^\\| property `" + property + "` .*$").FindString(text)
		for _, word := range words {
			if !regexp.MustCompile(`\b` + word + `\b`).MatchString(row) {
				t.Errorf("docs/dbus.md does not name %s of %s: %s", word, property, row)
			}
		}
	}
	for _, e := range errorNames {
		if !strings.Contains(text, "`"+e.name+"`") {
			t.Errorf("docs/dbus.md does not name %s", e.name)
		}
	}
	for _, c := range counterNames() {
		if !strings.Contains(text, "`"+c+"`") {
			t.Errorf("docs/dbus.md does not name the counter %s", c)
		}
	}
}
