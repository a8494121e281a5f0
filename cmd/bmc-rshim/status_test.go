// SPDX-License-Identifier: Apache-2.0

//go:build !nosim

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
)

func TestStatus(t *testing.T) {
	want := map[reg.Generation]struct{ text, json string }{
		reg.BlueField2: {`Device       rshim0, usb-2-1.7
State        attached: access check passed
Chip         BlueField-2, revision 1
Part number  900-9D3B6-00CV-A
Boots from   emmc
Timeouts     boot 300 s, USB 40 s
`, `[
  {
    "device": "rshim0",
    "state": "attached",
    "reason": "access check passed",
    "name": "usb-2-1.7",
    "generation": "BlueField-2",
    "revision": 1,
    "opn": "900-9D3B6-00CV-A",
    "boot_mode": "emmc",
    "boot_timeout_seconds": 300,
    "usb_timeout_seconds": 40
  }
]
`},
		reg.BlueField3: {`Device       rshim0, usb-2-1.7
State        attached: access check passed
Chip         BlueField-3, revision 1
Part number  900-9D3B6-00CV-A
Mode         DPU mode
Boots from   emmc
Up           1s
Timeouts     boot 300 s, USB 40 s
`, `[
  {
    "device": "rshim0",
    "state": "attached",
    "reason": "access check passed",
    "name": "usb-2-1.7",
    "generation": "BlueField-3",
    "revision": 1,
    "opn": "900-9D3B6-00CV-A",
    "bf_mode": "DPU mode",
    "boot_mode": "emmc",
    "boot_timeout_seconds": 300,
    "usb_timeout_seconds": 40,
    "uptime_seconds": 1
  }
]
`},
	}
	bubble(t, func(r *rig, g reg.Generation) {
		r.want(r.run(r.t.Context(), "status"), exitOK)
		if got := r.stdout.String(); got != want[g].text {
			r.t.Errorf("got:\n%s", got)
		}
		r.want(r.run(r.t.Context(), "status", "-json"), exitOK)
		var got bytes.Buffer
		if err := json.Indent(&got, r.stdout.Bytes(), "", "  "); err != nil {
			r.t.Fatal(err)
		}
		if got.String() != want[g].json {
			r.t.Errorf("got:\n%s", &got)
		}
		r.want(r.run(r.t.Context(), "status", "-device", "rshim1"), exitDevice, "no rshim1")
	})
}

func TestLeading(t *testing.T) {
	for s, want := range map[string]int{
		"": 0, "7": 7, "300 (seconds)": 300, "75(s)": 75, "-1": -1, "-": 0, "x1": 0, "1-2": 1, "99999999999999999999": 0, "2)": 2,
	} {
		if got := leading(s); got != want {
			t.Errorf("%q: %d, want %d", s, got, want)
		}
	}
}

// What misc tells, through the device files of whatever daemon.
func TestMiscStatus(t *testing.T) {
	for name, c := range map[string]struct{ misc, want string }{
		"nothing": {"", `{"device":"rshim7","state":"gone","name":""}`},
		"gone": {
			"DISPLAY_LEVEL   0 (0:basic, 1:advanced, 2:log)\nBOOT_TIMEOUT    300 (seconds)\nUSB_TIMEOUT     40 (seconds)\nDEV_NAME        usb-1.1\n",
			`{"device":"rshim7","state":"gone","name":"usb-1.1","boot_timeout_seconds":300,"usb_timeout_seconds":40}`,
		},
		"contended, unknown boot mode": {
			"DROP_MODE       1 (0:normal, 1:drop)\nBOOT_MODE       9\nDEV_NAME        usb-1.1\nDEV_INFO        BlueField-1(Rev 2)\nOPN_STR         N/A\n",
			`{"device":"rshim7","state":"contended","name":"usb-1.1","generation":"BlueField-1","revision":2}`,
		},
		"garbage": {
			"DEV_INFO\nUP_TIME x\nBOOT_MODE -1\n---\n Log Messages\nDEV_NAME x\n---\n DEV_NAME y\n",
			`{"device":"rshim7","state":"attached","name":"x"}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := toJSON(parseMisc(c.misc).status("rshim7")); string(got) != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestLog(t *testing.T) {
	bubble(t, func(r *rig, g reg.Generation) {
		r.want(r.run(r.t.Context(), "log"), exitOK)
		lines := strings.Split(strings.TrimSuffix(r.stdout.String(), "\n"), "\n")
		if first, last := lines[0], lines[len(lines)-1]; !strings.HasPrefix(first, "INFO[") || last != "INFO[MISC]: DPU is ready" {
			r.t.Errorf("from %q to %q", first, last)
		}
	})
}

// log -f goes on until it is interrupted, over resets of the DPU, and shows
// every line once.
func TestLogFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, cfg: bluefield.Config{StageScale: 1}}
		r.before = func(fn *usbdev.Function) { time.AfterFunc(20*time.Second, fn.DPU().Reset) }
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Minute, cancel)
		r.want(r.run(ctx, "log", "-f"), exitOK)
		for _, line := range []string{"INFO[PSC]: PSC BL1 START", "INFO[UEFI]: PK configured", "INFO[MISC]: DPU is ready"} {
			if n := strings.Count(r.stdout.String(), line+"\n"); n != 2 {
				t.Errorf("%q came %d times", line, n)
			}
		}
	})
}
