// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bluefield-go/bmc-rshim/rshim"
)

// confWith is a configuration that differs from the one without a file.
func confWith(f func(c *conf)) conf {
	c := newConf()
	f(&c)
	return c
}

// compare compares a configuration and its remarks, a line each: "3: text",
// "3: note: text".
func compare(t *testing.T, text string, want conf, remarks string) {
	t.Helper()
	got, rs, err := readConf(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(conf{})); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
	var b strings.Builder
	for _, r := range rs {
		note := "note: "
		if r.wrong > 0 {
			note = ""
		}
		fmt.Fprintf(&b, "%d: %s%s\n", r.line, note, r.text)
	}
	if diff := cmp.Diff(remarks, b.String()); diff != "" {
		t.Errorf("remarks (-want +got):\n%s", diff)
	}
}

// A file as it is shipped, with everything in comments, and then one as a user
// makes of it.
const shippedConf = `#
# Settings of the RShim driver
#

# What the misc file shows: 0, 1 or 2
#DISPLAY_LEVEL 0

# Seconds without progress of a boot stream
#BOOT_TIMEOUT  300

#USB_TIMEOUT  40
#DROP_MODE     0
#FORCE_MODE     1
#USB_RESET_DELAY  1
#PCIE_RESET_DELAY 5
#PCIE_INTR_POLL_INTERVAL 10
#PCIE_HAS_VFIO 1
#PCIE_HAS_UIO  1

# name         device
#rshim0       usb-2-1.7
#rshim1       pcie-0000:04:00.2

#none         usb-1-1.4
#none         pcie-lf-0000:84:00.0
`

func TestR18ConfGrammar(t *testing.T) {
	uncommented := strings.NewReplacer("#DI", "DI", "#B", "B", "#U", "U", "#DR", "DR", "#FO", "FO", "#P", "P",
		"#rshim", "rshim", "#none", "none").Replace(shippedConf)
	long := strings.Repeat("x", 70)
	for _, c := range []struct {
		name, text string
		want       func(c *conf)
		remarks    string
	}{
		{name: "empty"},
		{name: "as shipped", text: shippedConf},
		{
			name: "all of it in use", text: uncommented,
			want: func(c *conf) {
				c.forceMode = 1
				c.index["usb-2-1.7"] = 0
				c.blocked["usb-1-1.4"] = true
			},
			remarks: `14: note: USB_RESET_DELAY has no effect: a push waits for what the delay was to allow for
15: note: PCIE_RESET_DELAY has no effect over USB
16: note: PCIE_INTR_POLL_INTERVAL has no effect over USB
17: note: PCIE_HAS_VFIO has no effect over USB
18: note: PCIE_HAS_UIO has no effect over USB
22: note: rshim1 "pcie-0000:04:00.2" has no effect over USB
25: note: none "pcie-lf-0000:84:00.0" has no effect over USB
`,
		},
		{
			name: "all that has an effect",
			text: "DISPLAY_LEVEL 2\nBOOT_TIMEOUT\t600\n  USB_TIMEOUT 20 seconds\r\nDROP_MODE\v1\nFORCE_MODE 1\n" +
				"AUTO_ATTACH 0\nGRANT_DURING_PUSH 1\nrshim63 usb-1-1-2.c # the left one\nrshim0 usb-1.1\nnone usb-2-1.4",
			want: func(c *conf) {
				c.displayLevel, c.bootTimeout, c.usbTimeout, c.dropMode, c.forceMode = 2, 600, 20, 1, 1
				c.autoAttach, c.grantDuringPush = 0, 1
				c.index["usb-1-1-2.c"], c.index["usb-1.1"] = 63, 0
				c.blocked["usb-2-1.4"] = true
			},
		},
		{
			name: "unknown keys",
			text: "BOOT_TIMEOT 5\nboot_timeout 3\nDISPLAY_LEVEL=2\nDISPLAYLEVEL 1\nFOO 1\nFORCEMODE\nrshin0 usb-1.1\nRSHIM1 usb-1.1\nNone usb-1.1\n\ufeffUSB_TIMEOUT 3\nrshim_debug 1\n",
			remarks: `1: unknown key "BOOT_TIMEOT": did you mean BOOT_TIMEOUT?
2: unknown key "boot_timeout": did you mean BOOT_TIMEOUT?
3: unknown key "DISPLAY_LEVEL=2": did you mean DISPLAY_LEVEL?
4: unknown key "DISPLAYLEVEL": did you mean DISPLAY_LEVEL?
5: unknown key "FOO"
6: unknown key "FORCEMODE": did you mean FORCE_MODE?
7: unknown key "rshin0": did you mean rshim0?
8: unknown key "RSHIM1": did you mean rshim1?
9: unknown key "None": did you mean none?
10: unknown key "\ufeffUSB_TIMEOUT": did you mean USB_TIMEOUT?
11: unknown key "rshim_debug"
`,
		},
		{
			name: "bad values",
			text: "BOOT_TIMEOUT\nBOOT_TIMEOUT 0\nDISPLAY_LEVEL 3\nUSB_TIMEOUT # x\nUSB_TIMEOUT -1\nDROP_MODE yes\nBOOT_TIMEOUT " + long + "\n" + long + " 1\nnone\nrshim3\nDISPLAY_LEVEL 1\n",
			want: func(c *conf) { c.displayLevel = 1 },
			remarks: `1: no value for "BOOT_TIMEOUT"
2: BOOT_TIMEOUT is a number of seconds from 1 to 86400, not "0"
3: DISPLAY_LEVEL is a number from 0 to 2, not "3"
4: USB_TIMEOUT is a number of seconds from 0 to 300, not "#"
5: USB_TIMEOUT is a number of seconds from 0 to 300, not "-1"
6: DROP_MODE is 0 or 1, not "yes"
7: "BOOT_TIMEOUT": a value has 63 bytes at most, not 70
8: "` + long[:31] + `"...: a key has 31 bytes at most
9: no value for "none"
10: no value for "rshim3"
`,
		},
		{
			name: "what the C daemon makes something of",
			text: "BOOT_TIMEOUT 10s\nUSB_TIMEOUT 0\nDROP_MODE 2\nAUTO_ATTACH -1\nFORCE_MODE +1\nDISPLAY_LEVEL 1#\nrshim usb-1.1\nrshim05x usb-1.2\n",
			want: func(c *conf) {
				c.bootTimeout, c.dropMode, c.autoAttach, c.forceMode, c.displayLevel = 10, 1, 0, 1, 1
				c.index["usb-1.1"], c.index["usb-1.2"] = 0, 5
			},
			remarks: `1: BOOT_TIMEOUT: of "10s" just 10 counts
2: note: USB_TIMEOUT: 0 stands for 40
3: DROP_MODE is 0 or 1: "2" counts as 1
4: AUTO_ATTACH is 0 or 1: "-1" counts as 0
6: DISPLAY_LEVEL: of "1#" just 1 counts
7: "rshim" counts as rshim0
8: "rshim05x" counts as rshim5
`,
		},
		{
			name: "too much", text: "BOOT_TIMEOUT 100000\nUSB_TIMEOUT 99999999999999999999\nDISPLAY_LEVEL 4294967297\n",
			want: func(c *conf) { c.bootTimeout, c.usbTimeout = 86400, 300 },
			remarks: `1: BOOT_TIMEOUT is a number of seconds from 1 to 86400: 86400 is used for "100000"
2: USB_TIMEOUT is a number of seconds from 0 to 300: 300 is used for "99999999999999999999"
3: DISPLAY_LEVEL is a number from 0 to 2, not "4294967297"
`,
		},
		{
			name: "twice",
			text: "BOOT_TIMEOUT 1\nBOOT_TIMEOUT 1\nBOOT_TIMEOUT 2\nrshim1 usb-1.1\nrshim1 usb-1.1\nrshim1 usb-1.2\nrshim3 usb-1.2\nrshim2 usb-1.3\nrshim0 usb-1.3\n" +
				"none usb-1.3\nnone usb-1.4\nnone usb-1.4\nrshim4 usb-1.4\n",
			want: func(c *conf) {
				c.bootTimeout = 2
				c.index["usb-1.2"], c.index["usb-1.3"], c.index["usb-1.4"] = 1, 0, 4
				c.blocked["usb-1.3"], c.blocked["usb-1.4"] = true, true
			},
			remarks: `3: BOOT_TIMEOUT is 1 in line 2: the last one counts
6: rshim1 is usb-1.1 in line 5: the last one counts
7: usb-1.2 is rshim1 in line 6: the lower index counts
9: usb-1.3 is rshim2 in line 8: the lower index counts
10: usb-1.3 is rshim0 in line 9, but blocked: it is not served
10: usb-1.3 is rshim2 in line 8, but blocked: it is not served
13: usb-1.4 is blocked in line 11, and is not served
`,
		},
		{
			name: "devices",
			text: "rshim0 usb\nrshim64 usb-1.1\nrshim-1 usb-1.1\nrshim1 usb-1-1.2.12\nrshim2 usb-1-1\nrshim3 usb-1-1-2.C\nrshim4 usb-\nnone usb-0.1\nnone usb-1-1-1-1-1-1-1-1.1\nnone 2-1.7\nrshim5 usb-01.1\nrshim6\x1b[m usb-x\n",
			remarks: `1: rshim0: a device is usb-BUS-PORT..., as misc shows it in DEV_NAME, not "usb"
2: "rshim64": an index is from 0 to 63
3: "rshim-1": an index is from 0 to 63
4: rshim1: no device has the name "usb-1-1.2.12": did you mean usb-1-1-2.c?
5: rshim2: no device has the name "usb-1-1": did you mean usb-1.1?
6: rshim3: no device has the name "usb-1-1-2.C": did you mean usb-1-1-2.c?
7: rshim4: no device has the name "usb-": it is usb-BUS, ports with dashes before them, the last one with a dot, all hexadecimal
8: none: no device has the name "usb-0.1": it is usb-BUS, ports with dashes before them, the last one with a dot, all hexadecimal
9: none: no device has the name "usb-1-1-1-1-1-1-1-1.1": it is usb-BUS, ports with dashes before them, the last one with a dot, all hexadecimal
10: none: a device is usb-BUS-PORT..., as misc shows it in DEV_NAME, not "2-1.7"
11: rshim5: no device has the name "usb-01.1": it is usb-BUS, ports with dashes before them, the last one with a dot, all hexadecimal
12: rshim6: no device has the name "usb-x": it is usb-BUS, ports with dashes before them, the last one with a dot, all hexadecimal
`,
		},
		{
			name: "no text",
			text: "\xff\xfe 1\n\x00BOOT_TIMEOUT 5\nUSB_TIMEOUT 5\x0099\n# \x00\xff\n\r\n\xa0\n" + strings.Repeat(" ", 5000) + "BOOT_TIMEOUT 5\n" +
				strings.Repeat(" ", maxConfLine-5) + "none usb-1.1\n#" + strings.Repeat("x", 1<<20) + "\n" + strings.Repeat("z", 1<<20) + " 1\nDISPLAY_LEVEL 2 " + strings.Repeat("y", 1<<20) + "\nDROP_MODE 1\n",
			want: func(c *conf) { c.usbTimeout, c.displayLevel, c.dropMode = 5, 2, 1 },
			remarks: `1: unknown key "\xff\xfe"
2: a NUL byte ends what counts of the line
3: a NUL byte ends what counts of the line
6: unknown key "\xa0"
7: the line is too long: its first 4096 bytes are no key and value
8: the line is too long: its first 4096 bytes are no key and value
10: the line is too long: its first 4096 bytes are no key and value
`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := newConf()
			if c.want != nil {
				want = confWith(c.want)
			}
			compare(t, c.text, want, c.remarks)
			// DOS's ends of lines are the same.
			if c.name != "no text" {
				compare(t, strings.ReplaceAll(c.text, "\n", "\r\n"), want, c.remarks)
			}
		})
	}
}

func TestConfOptions(t *testing.T) {
	const text = "DISPLAY_LEVEL 1\nBOOT_TIMEOUT 2\nUSB_TIMEOUT 3\nDROP_MODE 1\nFORCE_MODE 1\nAUTO_ATTACH 0\nGRANT_DURING_PUSH 1\n"
	for text, want := range map[string]rshim.Options{
		"": {BootTimeout: rshim.DefaultBootTimeout, USBTimeout: rshim.DefaultUSBTimeout},
		text: {
			DisplayLevel: 1, BootTimeout: 2 * time.Second, USBTimeout: 3 * time.Second,
			Drop: true, Force: true, NoAutoAttach: true, GrantDuringPush: true,
		},
	} {
		c, _, err := readConf(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, c.options()); diff != "" {
			t.Errorf("%q (-want +got):\n%s", text, diff)
		}
	}
}

// A file that is none, and does not end, takes neither the memory nor the lines
// before it.
func TestConfHuge(t *testing.T) {
	c, remarks, err := readConf(io.MultiReader(strings.NewReader("DISPLAY_LEVEL 2\n"), endless("0123456789abcde\n")))
	if err != nil || c.displayLevel != 2 {
		t.Errorf("%+v, %v", c, err)
	}
	// Each of the lines of 16 bytes, which the 16 before them leave room for,
	// is wrong, and that there are more.
	const wrong = (maxConf-16)/16 + 1
	if n := len(remarks); n > maxRemarks+1 || !slices.ContainsFunc(remarks, func(r remark) bool {
		return strings.HasPrefix(r.text, "and ") && r.wrong == wrong-maxRemarks
	}) {
		t.Errorf("%d remarks, the last %+v", n, remarks[n-1])
	}
	_, remarks, err = readConf(endless("\x00"))
	if err != nil || len(remarks) != 2 || !strings.HasPrefix(remarks[len(remarks)-1].text, "what comes after") {
		t.Errorf("%+v, %v", remarks, err)
	}

	var b strings.Builder
	for i := range 100 {
		fmt.Fprintf(&b, "none usb-1-1.%x\n", i+1)
	}
	c, remarks, err = readConf(strings.NewReader(b.String()))
	if err != nil || len(c.blocked) != maxBlocked || len(remarks) != 100-maxBlocked {
		t.Errorf("%d blocked, %d remarks, %v", len(c.blocked), len(remarks), err)
	}
}

// endless repeats a text for ever.
type endless string

func (e endless) Read(p []byte) (int, error) {
	whole := p[:len(p)/len(e)*len(e)]
	for n := copy(whole, e); n < len(whole); n *= 2 {
		copy(whole[n:], whole[:n])
	}
	return len(whole), nil
}

func FuzzConf(f *testing.F) {
	f.Add("", "")
	f.Add(shippedConf, "BOOT_TIMEOUT 5\r\nrshim0 usb-1.1\nnone usb-1.1\n")
	f.Add("DISPLAY_LEVEL 2\nBOOT_TIMEOT 600\nrshim0 usb-2-1.7\nrshim3 usb-2-1.7\n", "\x00\xff \xff")
	f.Add("USB_TIMEOUT 99999999999999999999\n"+strings.Repeat("x", 5000), "rshim\x1b usb-1-1.C\nnone pcie-x\nDISPLAY_LEVEL=3")
	f.Fuzz(func(t *testing.T, before, after string) {
		read := func(text string) (conf, []remark) {
			c, remarks, err := readConf(strings.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			return c, remarks
		}
		c, remarks := read(before + after)
		if again, too := read(before + after); !cmp.Equal(c, again, cmp.AllowUnexported(conf{})) || !slices.Equal(remarks, too) {
			t.Errorf("read twice: %+v %v, %+v %v", c, remarks, again, too)
		}
		lines := 1 + strings.Count(before+after, "\n")
		for _, r := range remarks {
			if r.line < 1 || r.line > lines || r.text == "" || strings.ContainsFunc(r.text, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd }) {
				t.Errorf("%+v in %d lines", r, lines)
			}
		}
		for _, k := range confKeys {
			if k.at != nil && (*k.at(&c) < k.low || *k.at(&c) > k.high) {
				t.Errorf("%s is %d", k.name, *k.at(&c))
			}
		}
		for name, i := range c.index {
			if i < 0 || i > 63 || !isUSBName(strings.TrimPrefix(name, "usb-")) {
				t.Errorf("%q is rshim%d", name, i)
			}
		}

		// A line that is fine has its effect whatever stands around it, unless
		// that is about the same.
		elsewhere := before + after
		for _, k := range confKeys {
			if k.at == nil || strings.Contains(elsewhere, k.name) {
				continue
			}
			c, _ := read(before + "\n" + fmt.Sprintf("%s %d", k.name, k.high) + "\n" + after)
			if got := *k.at(&c); got != k.high {
				t.Errorf("%s is %d, not %d", k.name, got, k.high)
			}
		}
		if !strings.Contains(elsewhere, "rshim") && !strings.Contains(elsewhere, "none") {
			c, _ := read(before + "\nrshim7 usb-3-1.a\nnone usb-1.1\n" + after)
			if !maps.Equal(c.index, map[string]int{"usb-3-1.a": 7}) || !maps.Equal(c.blocked, map[string]bool{"usb-1.1": true}) {
				t.Errorf("%v, %v", c.index, c.blocked)
			}
		}
	})
}
