// SPDX-License-Identifier: Apache-2.0

package netlink

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
)

var full = Package{ID: 0, Forced: true, Channels: []Channel{
	{ID: 0, Major: 1, Minor: 1, Firmware: "mlx", LinkStatus: 0xb, Active: true, Forced: true, VLANs: []uint16{1, 4094}},
	{ID: 1, Major: 1, Minor: 0},
}}

func TestInterfaces(t *testing.T) {
	k := machine(silent)
	k.devices[2] = []Package{full, {ID: 1}}
	got, err := k.system().list(t.Context())
	want := []Interface{
		{Name: "eth0", Index: 2, Up: true, Packages: k.devices[2]},
		{Name: "eth2", Index: 4},
	}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("%v\n%s", err, d)
	}
	clear(k.devices)
	if got, err := k.system().list(t.Context()); len(got) != 0 || err != nil {
		t.Errorf("without a device: %v, %v", got, err)
	}
	k.noFamily = true
	if got, err := k.system().list(t.Context()); !errors.Is(err, ErrNoFamily) {
		t.Errorf("without the family: %v, %v", got, err)
	}
}

// TestHidden proves that packages behind a gap are found as far as the kernel
// tells of them.
func TestHidden(t *testing.T) {
	for name, c := range map[string]struct{ has, want []int }{
		"one":      {[]int{0}, []int{0}},
		"eight":    {[]int{0, 1, 2, 3, 4, 5, 6, 7}, []int{0, 1, 2, 3, 4, 5, 6, 7}},
		"no first": {[]int{3, 2, 1}, []int{1, 2}},
		"a gap":    {[]int{3, 0, 2}, []int{0}},
		"only 3":   {[]int{3}, nil},
		"none":     {nil, nil},
	} {
		k := machine(silent)
		k.devices[2] = nil
		for _, id := range c.has {
			k.devices[2] = append(k.devices[2], Package{ID: id})
		}
		packages, err := k.transport(Options{}).Packages(t.Context())
		var got []int
		for _, p := range packages {
			got = append(got, p.ID)
		}
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, %v, want %v", name, got, err, c.want)
		}
	}
}

func TestPackagesFails(t *testing.T) {
	for name, with := range map[string]func(*fakeKernel){
		"no interface": func(k *fakeKernel) { k.interfaces = nil },
		"no NC-SI":     func(k *fakeKernel) { clear(k.devices) },
	} {
		k := machine(silent)
		with(k)
		got, err := k.transport(Options{}).Packages(t.Context())
		if !errors.Is(err, ErrNoDevice) || !strings.HasPrefix(err.Error(), "list packages on eth0: no NC-SI device: ") {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func TestVersion(t *testing.T) {
	for _, c := range []struct {
		major, minor       uint32
		wantMajor, wantMin int
	}{
		{1, 2, 1, 2},
		{0, 0, 0, 0},
		{0xf1f1f000, 0, 1, 1},
		{0xf1f0f161, 0x62, 1, 0},
		{0x12f2ff00, 0, 12, 2},
		{0xffffffff, 0xffffffff, 0, 0},
		{255, 0xffffffff, 255, 255},
	} {
		if major, minor := version(c.major, c.minor); major != c.wantMajor || minor != c.wantMin {
			t.Errorf("%#x, %#x: %d.%d", c.major, c.minor, major, minor)
		}
	}
}

// TestHostile feeds answers that no kernel should give.
func TestHostile(t *testing.T) {
	nest := func(types []uint16, inner func(*netlink.AttributeEncoder)) []byte {
		var f func(types []uint16) func(*netlink.AttributeEncoder) error
		f = func(types []uint16) func(*netlink.AttributeEncoder) error {
			return func(e *netlink.AttributeEncoder) error {
				if len(types) == 0 {
					inner(e)
				} else {
					e.Nested(types[0], f(types[1:]))
				}
				return nil
			}
		}
		e := netlink.NewAttributeEncoder()
		f(types)(e)
		b, err := e.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	pkg := []uint16{attrPackageList, pkgAttr}
	inChannel := append(pkg, pkgChannels, chAttr)
	channel := func(f func(*netlink.AttributeEncoder)) []byte {
		return nest(pkg, func(e *netlink.AttributeEncoder) {
			e.Uint32(pkgID, 0)
			e.Nested(pkgChannels, func(e *netlink.AttributeEncoder) error {
				e.Nested(chAttr, func(e *netlink.AttributeEncoder) error {
					e.Uint32(chID, 0)
					f(e)
					return nil
				})
				return nil
			})
		})
	}
	for name, b := range map[string][]byte{
		"no attributes":      {1},
		"cut":                encodePackages(full)[:40],
		"cut inside":         append(encodePackages(full), 99, 0, 2, 0),
		"package w/o number": nest(pkg, func(e *netlink.AttributeEncoder) { e.Flag(pkgForced, true) }),
		"package 8":          nest(pkg, func(e *netlink.AttributeEncoder) { e.Uint32(pkgID, 8) }),
		"package 2^31":       nest(pkg, func(e *netlink.AttributeEncoder) { e.Uint32(pkgID, 1<<31) }),
		"short number":       nest(pkg, func(e *netlink.AttributeEncoder) { e.Uint16(pkgID, 1) }),
		"flag with a value":  nest(pkg, func(e *netlink.AttributeEncoder) { e.Uint32(pkgID, 1); e.Uint32(pkgForced, 1) }),
		"list no nest":       nest(nil, func(e *netlink.AttributeEncoder) { e.Bytes(attrPackageList, []byte{1, 2}) }),
		"channel w/o number": nest(inChannel, func(e *netlink.AttributeEncoder) { e.Flag(chActive, true) }),
		"channel 31":         nest(inChannel, func(e *netlink.AttributeEncoder) { e.Uint32(chID, 31) }),
		"VLAN of a byte": channel(func(e *netlink.AttributeEncoder) {
			e.Nested(chVLANs, func(e *netlink.AttributeEncoder) error { e.Uint8(chVLAN, 1); return nil })
		}),
		"long link status":    channel(func(e *netlink.AttributeEncoder) { e.Uint64(chLinkState, 1) }),
		"version not a word":  channel(func(e *netlink.AttributeEncoder) { e.Uint8(chMajor, 1) }),
		"VLANs without nest":  channel(func(e *netlink.AttributeEncoder) { e.Bytes(chVLANs, []byte{0}) }),
		"channels, no number": nest(append(pkg, pkgChannels), func(e *netlink.AttributeEncoder) { e.Flag(chAttr, true) }),
	} {
		if got, err := decodePackages([]genetlink.Message{{Data: b}}); err == nil {
			t.Errorf("%s: no error, %+v", name, got)
		}
	}
	got, err := decodePackages([]genetlink.Message{{Data: channel(func(e *netlink.AttributeEncoder) {
		e.Bytes(chFirmware, []byte("a\x1b[2J\xff\x00after"))
		e.Bytes(77, []byte("unknown"))
	})}})
	if want := []Package{{Channels: []Channel{{Firmware: "a?[2J?"}}}}; err != nil || cmp.Diff(want, got) != "" {
		t.Errorf("control characters: %v\n%s", err, cmp.Diff(want, got))
	}
}

// FuzzPackages decodes, encodes and decodes.
func FuzzPackages(f *testing.F) {
	f.Add(encodePackages())
	f.Add(encodePackages(full))
	f.Add(encodePackages(full, Package{ID: 7}))
	f.Fuzz(func(t *testing.T, b []byte) {
		first, err := decodePackages([]genetlink.Message{{Data: b}})
		if err != nil {
			return
		}
		for _, p := range first {
			if p.ID < 0 || p.ID > 7 {
				t.Errorf("package %d", p.ID)
			}
		}
		second, err := decodePackages([]genetlink.Message{{Data: encodePackages(first...)}})
		if d := cmp.Diff(first, second); d != "" || err != nil {
			t.Errorf("%v\n%s", err, d)
		}
	})
}
