// SPDX-License-Identifier: Apache-2.0

package rshim_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
)

// The text of misc as programs in the field know it.
const (
	miscBF2 = `DISPLAY_LEVEL   0 (0:basic, 1:advanced, 2:log)
BOOT_MODE       1 (0:rshim, 1:emmc, 2:emmc-boot-swap)
BOOT_TIMEOUT    300 (seconds)
USB_TIMEOUT     40 (seconds)
DROP_MODE       0 (0:normal, 1:drop)
SW_RESET        0 (1: reset)
DEV_NAME        usb-1.1
DEV_INFO        BlueField-2(Rev 1)
OPN_STR         MBF2H516A-CEEO
FORCE_CMD       0 (1: send Force command)
`
	miscBF3 = `DISPLAY_LEVEL   0 (0:basic, 1:advanced, 2:log)
BF_MODE         DPU mode
BOOT_MODE       1 (0:rshim, 1:emmc, 2:emmc-boot-swap)
BOOT_TIMEOUT    300 (seconds)
USB_TIMEOUT     40 (seconds)
DROP_MODE       0 (0:normal, 1:drop)
SW_RESET        0 (1: reset)
DEV_NAME        usb-1.1
DEV_INFO        BlueField-3(Rev 1)
OPN_STR         900-9D3B6-00CV
UP_TIME         61(s)
SECURE_NIC_MODE 0 (0:no, 1:yes)
FORCE_CMD       0 (1: send Force command)
`
	miscAdvanced = `BOOT_RESET_SKIP 0 (1: skip)
PEER_MAC        00:1a:ca:ff:ff:01 (rw)
PXE_ID          0x00000000 (rw)
VLAN_ID         0 0 (rw)
CLEAR_ON_READ   0 (0:no, 1:yes)
`
	miscLog = `---------------------------------------
             Log Messages
---------------------------------------
`
)

var opns = map[reg.Generation]string{reg.BlueField2: "MBF2H516A-CEEO", reg.BlueField3: "900-9D3B6-00CV"}

func TestMisc(t *testing.T) {
	basic := map[reg.Generation]string{reg.BlueField2: miscBF2, reg.BlueField3: miscBF3}
	generations(t, func(t *testing.T, g reg.Generation) {
		bubble(t, bluefield.Config{Generation: g, Revision: 1, OPN: opns[g], Console: true}, usbdev.Options{}, func(r *rig, fn *usbdev.Function, d *rshim.Device) {
			time.Sleep(time.Minute)
			if diff := cmp.Diff(basic[g], d.Misc(r.ctx)); diff != "" {
				t.Errorf("misc (-want +got):\n%s", diff)
			}
			level := func(n int) string {
				if err := d.WriteMisc(r.ctx, fmt.Sprintf("DISPLAY_LEVEL %d\n", n)); err != nil {
					t.Fatal(err)
				}
				return strings.Replace(basic[g], "LEVEL   0", fmt.Sprintf("LEVEL   %d", n), 1)
			}
			if diff := cmp.Diff(level(1)+miscAdvanced, d.Misc(r.ctx)); diff != "" {
				t.Errorf("misc at level 1 (-want +got):\n%s", diff)
			}
			head := level(2) + miscLog
			text := d.Misc(r.ctx)
			log, ok := strings.CutPrefix(text, head)
			if !ok || !strings.HasPrefix(log, " INFO[") || !strings.HasSuffix(log, " INFO[MISC]: DPU is ready\n") {
				t.Errorf("misc at level 2:\n%s", text)
			}
			if again := d.Misc(r.ctx); again != text {
				t.Errorf("misc at level 2, read again:\n%s", again)
			}
			// With CLEAR_ON_READ each line is seen once.
			if err := d.WriteMisc(r.ctx, "CLEAR_ON_READ 1"); err != nil {
				t.Fatal(err)
			}
			d.Misc(r.ctx)
			fn.DPU().Log(r.ctx, "WARN[UEFI]: only once")
			if got := d.Misc(r.ctx); got != head+" WARN[UEFI]: only once\n" {
				t.Errorf("misc with CLEAR_ON_READ, after a new line:\n%s", got)
			}
			if got := d.Misc(r.ctx); got != head {
				t.Errorf("misc with CLEAR_ON_READ, after no new line:\n%s", got)
			}
		})
	})
}

// TestMiscAbsent: misc can be read whatever has become of the device.
func TestMiscAbsent(t *testing.T) {
	bubble(t, bluefield.Config{}, usbdev.Options{}, func(r *rig, fn *usbdev.Function, d *rshim.Device) {
		fn.SetNAK(0, true)
		begin := time.Now()
		if text := d.Misc(r.ctx); !strings.Contains(text, "BOOT_MODE       0 ") {
			t.Errorf("misc of a chip that does not answer:\n%s", text)
		}
		if took := time.Since(begin); took > 3*time.Second {
			t.Errorf("misc took %v", took)
		}
		fn.Unplug()
		r.state(d, rshim.Gone)
		if text := d.Misc(r.ctx); !strings.Contains(text, "DEV_NAME        usb-1.1\n") {
			t.Errorf("misc of an absent device:\n%s", text)
		}
	})
}

func TestWriteMisc(t *testing.T) {
	bubble(t, bluefield.Config{}, usbdev.Options{}, func(r *rig, fn *usbdev.Function, d *rshim.Device) {
		for _, tc := range []struct {
			text, want string // want: a line of misc afterwards
			err        error
		}{
			{text: "DISPLAY_LEVEL 1\n", want: "DISPLAY_LEVEL   1 "},
			{text: "BOOT_TIMEOUT 500", want: "BOOT_TIMEOUT    500 "},
			{text: "BOOT_TIMEOUT\t600\n\n", want: "BOOT_TIMEOUT    600 "},
			{text: "USB_TIMEOUT 20\n", want: "USB_TIMEOUT     20 "},
			{text: "USB_TIMEOUT 0\n", want: "USB_TIMEOUT     40 "},
			{text: "BOOT_RESET_SKIP 1\n", want: "BOOT_RESET_SKIP 1 "},
			{text: "BOOT_RESET_SKIP 0x0\n", want: "BOOT_RESET_SKIP 0 "},
			{text: "CLEAR_ON_READ 7\n", want: "CLEAR_ON_READ   1 "},
			{text: "BOOT_MODE 2\n", want: "BOOT_MODE       2 "},
			{text: "BOOT_MODE 0x1\x00", want: "BOOT_MODE       1 "},
			{text: "SW_RESET 0\n", want: "SW_RESET        0 "},
			// Several commands in one write, of which the C daemon drops all but the first.
			{text: "BOOT_TIMEOUT 100\nBOOT_MODE 0\nUSB_TIMEOUT 30\n", want: "BOOT_MODE       0 "},
			{text: "USB_TIMEOUT 31\nNONSENSE 1\nUSB_TIMEOUT 32\n", want: "USB_TIMEOUT     31 ", err: rshim.ErrInvalid},

			{text: "", err: rshim.ErrInvalid},
			{text: " \n", err: rshim.ErrInvalid},
			{text: "BOOT_MODE", err: rshim.ErrInvalid},
			{text: "boot_mode 1", err: rshim.ErrInvalid},
			{text: "BOOT_MODE x", err: rshim.ErrInvalid},
			{text: "BOOT_TIMEOUT 0", want: "BOOT_TIMEOUT    100 ", err: rshim.ErrInvalid},
			{text: "BOOT_TIMEOUT -1", want: "BOOT_TIMEOUT    100 ", err: rshim.ErrInvalid},
			{text: "BOOT_TIMEOUT 99999999999999999999", want: "BOOT_TIMEOUT    100 ", err: rshim.ErrInvalid},
			{text: "USB_TIMEOUT 301", want: "USB_TIMEOUT     31 ", err: rshim.ErrInvalid},
			{text: "DISPLAY_LEVEL 3", want: "DISPLAY_LEVEL   1 ", err: rshim.ErrInvalid},
			{text: "DEV_NAME usb-1.1", err: rshim.ErrInvalid},
			{text: "OPN_STR MBF2H516A\n", want: "OPN_STR         MBF2H516A\n"},
			{text: "OPN_STR 900-9D3B6-00CV-AA0-and-more", want: "OPN_STR         900-9D3B6-00CV-A\n"},
			{text: "OPN_STR", want: "OPN_STR         900-9D3B6-00CV-A\n", err: rshim.ErrInvalid},
			{text: "OPN_STR \x1b[2J", want: "OPN_STR         900-9D3B6-00CV-A\n", err: rshim.ErrInvalid},
			{text: "DEBUG_CODE 12", err: rshim.ErrInvalid},
			{text: "DEBUG_CODE 0x10000000000000000", err: rshim.ErrInvalid},
			{text: "DEBUG_CODE 0x", err: rshim.ErrInvalid},
			{text: "DROP_MODE 0\n", want: "DROP_MODE       0 "}, // it is not set
			{text: "FORCE_CMD 0\n", want: "FORCE_CMD       0 "},
			{text: "FORCE_CMD 1\n", want: "FORCE_CMD       0 ", err: rshim.ErrInvalid}, // ours already
			{text: "DROP_MODE x\n", err: rshim.ErrInvalid},
			{text: strings.Repeat("A", 5000), err: rshim.ErrInvalid},
		} {
			if err := d.WriteMisc(r.ctx, tc.text); !errors.Is(err, tc.err) {
				t.Errorf("%.40q: %v, want %v", tc.text, err, tc.err)
			}
			if text := "\n" + d.Misc(r.ctx); !strings.Contains(text, "\n"+tc.want) {
				t.Errorf("%.40q: no line %q in\n%s", tc.text, tc.want, text)
			}
		}
	})
}

// FuzzWriteMisc: nothing that is written to misc does harm, and what is not
// understood is refused.
func FuzzWriteMisc(f *testing.F) {
	for _, s := range []string{"BOOT_MODE 1\nSW_RESET 1\n", "DISPLAY_LEVEL 2", "USB_TIMEOUT -1", "\x00", "%s%n 1", "BOOT_MODE \xff"} {
		f.Add(s)
	}
	d := rshim.New(0, rshim.Options{})
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // nothing is there to wait for
	f.Fuzz(func(t *testing.T, text string) {
		before := d.Misc(ctx)
		err := d.WriteMisc(ctx, text)
		if len(strings.Fields(text)) < 2 && err == nil {
			t.Errorf("%q is accepted", text)
		}
		if after := d.Misc(ctx); err != nil && !strings.Contains(text, "\n") && after != before {
			t.Errorf("%q is refused (%v) and has an effect all the same", text, err)
		}
	})
}

// TestBootResetSkip: a run-time upgrade, pushed with BOOT_RESET_SKIP, neither
// resets the chip nor touches its boot mode.
func TestBootResetSkip(t *testing.T) {
	generations(t, func(t *testing.T, g reg.Generation) {
		bubble(t, bluefield.Config{Generation: g, NoFirmware: true}, usbdev.Options{}, func(r *rig, fn *usbdev.Function, d *rshim.Device) {
			if err := d.WriteMisc(r.ctx, "BOOT_RESET_SKIP 1\n"); err != nil {
				t.Fatal(err)
			}
			stream := image(t, g, 50_000)
			fn.DPU().Record(10000)
			if err := push(r.ctx, d, stream); err != nil {
				t.Fatal(err)
			}
			arrived(t, fn, stream)
			m := reg.For(g)
			for _, a := range fn.DPU().Recorded() {
				if slices.Contains([]reg.Addr{m.ResetControl, m.BootControl}, a.Addr) {
					t.Errorf("%+v", a)
				}
			}
		})
	})
}
