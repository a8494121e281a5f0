// SPDX-License-Identifier: Apache-2.0

package rshim_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
)

// miscGrammar is a key of misc: what it takes, with the line that misc has then,
// and what it refuses, without an effect.
type miscGrammar struct {
	key   string
	line  string // in misc, before the value; "": it has none
	takes map[string]string
	fails []string
}

// numbers that no key takes.
var noNumbers = []string{"", "x", "-1", "1x", "0x", "--1", "1.5", "1_0", "99999999999999999999", "0x10000000000000000", "\x001", "١", "%d"}

var miscGrammars = []miscGrammar{
	{"DISPLAY_LEVEL", "DISPLAY_LEVEL   ",
		map[string]string{"2": "2 ", "1": "1 ", "01": "1 ", "0": "0 "},
		[]string{"3", "0x1", "4294967296"}},
	{"BOOT_TIMEOUT", "BOOT_TIMEOUT    ",
		map[string]string{"1": "1 ", "300": "300 ", "86400": "86400 ", "150": "150 "},
		[]string{"0", "86401", "4294967595", "0x10"}},
	{"USB_TIMEOUT", "USB_TIMEOUT     ",
		map[string]string{"1": "1 ", "300": "300 ", "0": "40 "},
		[]string{"301", "0x10", "4294967297"}},
	{"CLEAR_ON_READ", "",
		map[string]string{"1": "", "4294967295": "", "0": ""},
		[]string{"4294967296"}},
	{"BOOT_RESET_SKIP", "",
		map[string]string{"1": "", "0x1": "", "ffffffff": "", "0X0": "", "0": ""},
		[]string{"100000000", "g"}},
	{"BOOT_MODE", "BOOT_MODE       ",
		map[string]string{"0": "0 ", "0x2": "2 ", "0X2": "2 ", "1": "1 ", "00000001": "1 ", "0xffffff01": "1 "},
		[]string{"100000000", "g", "0x0x1"}},
	{"DROP_MODE", "DROP_MODE       ",
		map[string]string{"0": "0 ", "00": "0 "},
		[]string{"4294967296", "0x0"}},
	{"SW_RESET", "SW_RESET        ",
		map[string]string{"0": "0 ", "0x0": "0 "},
		[]string{"100000000"}},
	{"FORCE_CMD", "FORCE_CMD       ",
		map[string]string{"0": "0 ", "0x0": "0 "},
		[]string{"1", "0x1", "100000000"}}, // it is ours
	{"OPN_STR", "OPN_STR         ",
		map[string]string{
			"900-9D3B6-00CV-A": "900-9D3B6-00CV-A\n", "x": "x\n",
			"0123456789ABCDEF0": "0123456789ABCDEF\n", "%s%n": "%s%n\n", "-1": "-1\n",
		},
		[]string{"", "\x01", "\xff", "é", "a\x00b"}},
	{"DEBUG_CODE", "",
		map[string]string{"0x12": "", "0xffffffffffffffff": "", "0x0000000000000000": "", "0x0": ""},
		[]string{"12", "0x12345678901234567", "0xg", "12x0", "0X12"}},
	{"PXE_ID", "", map[string]string{"1": "", "0xffffffff": "", "0": ""}, []string{"100000000", "g"}},
	{"VLAN_ID", "", map[string]string{"1": "", "4095 4095": "", "0 0": ""}, []string{"4096", "1 4096", "1 x", "0x1"}},
	{"PEER_MAC", "", map[string]string{"00:1a:ca:ff:ff:03": "", "0:1A:ca:FF:f:3": ""},
		[]string{"00:1a:ca:ff:ff", "00:1a:ca:ff:ff:03:04", "00:1a:ca:ff:ff:100", "00-1a-ca-ff-ff-03", "g0:1a:ca:ff:ff:03", "::::::"}},
	{"DEV_NAME", "DEV_NAME        ", nil, []string{"usb-1.1", "pcie-0000:04:00.2"}},
	{"DEV_INFO", "DEV_INFO        ", nil, []string{"x"}},
	{"UP_TIME", "UP_TIME         ", nil, []string{"1"}},
	{"SECURE_NIC_MODE", "", nil, []string{"1"}},
	{"BF_MODE", "BF_MODE         ", nil, []string{"1"}},
	{"NONSENSE", "", nil, []string{"1"}},
}

// spellings are ways to write a command that mean the same.
var spellings = []string{
	"%s %s", "%s %s\n", "%s\t%s\n", "  %s   %s  \n", "%s %s\r\n", "%s %s\x00", "%s %s\n\x00\x00", "\n\n%s %s\n\n",
	"%s" + strings.Repeat(" ", 4095) + "%s", "%s %s" + strings.Repeat("\n", 4095), "%s\v%s",
}

// R17: each key of misc takes what is valid in all its spellings, refuses all
// else, and what is refused has no effect.
func TestR17MiscGrammar(t *testing.T) {
	sharedBy(t, bluefield.Config{Console: true}, rshim.Options{}, func(r *shared) {
		r.plugIn()
		r.attached(0)
		time.Sleep(5 * time.Second) // for whoever answers control messages
		// What changes by itself is left out: the uptime, and the boot log, which
		// with CLEAR_ON_READ is shown once.
		misc := func() string {
			text, _, _ := strings.Cut("\n"+r.d.Misc(r.ctx), "\n---")
			head, rest, _ := strings.Cut(text, "\nUP_TIME")
			_, rest, _ = strings.Cut(rest, "\n")
			return head + "\n" + rest
		}
		for _, k := range miscGrammars {
			for v, want := range k.takes {
				for _, format := range spellings {
					text := fmt.Sprintf(format, k.key, v)
					if err := r.d.WriteMisc(r.ctx, text); err != nil {
						r.t.Errorf("%.60q: %v", text, err)
					}
					if k.line != "" && !strings.Contains(misc(), "\n"+k.line+want) {
						r.t.Errorf("%.60q: no line %q in\n%s", text, k.line+want, misc())
					}
				}
				if k.key != "VLAN_ID" { // as sscanf has it, more words do no harm
					if err := r.d.WriteMisc(r.ctx, k.key+" "+v+" and more\n"); err != nil {
						r.t.Errorf("%s %s and more: %v", k.key, v, err)
					}
				}
			}
			fails := k.fails
			if k.key != "OPN_STR" {
				fails = append(fails, noNumbers...)
			}
			before := misc()
			for _, v := range fails {
				for _, format := range spellings {
					text := fmt.Sprintf(format, k.key, v)
					if strings.HasSuffix(v, "\x00") {
						continue
					}
					err := r.d.WriteMisc(r.ctx, text)
					if !errors.Is(err, rshim.ErrInvalid) {
						r.t.Errorf("%.60q: %v", text, err)
					}
					var o *rshim.OpError
					if !errors.As(err, &o) || o.Device != "rshim0" || len(err.Error()) > 400 {
						r.t.Errorf("%.60q: %v", text, err)
					}
				}
				if after := misc(); after != before {
					r.t.Fatalf("%s %q is refused, and changes misc:\n%s", k.key, v, after)
				}
			}
			for _, text := range []string{k.key, k.key + "\n", strings.ToLower(k.key) + " 1", k.key + "=1", k.key + "1", k.key + strings.Repeat("1", 5000)} {
				if err := r.d.WriteMisc(r.ctx, text); !errors.Is(err, rshim.ErrInvalid) {
					r.t.Errorf("%.60q: %v", text, err)
				}
			}
		}
		r.is(rshim.Attached)
	})
}

// TestR17Several: commands of one write are carried out in order, up to the one
// that fails, which the error names.
func TestR17Several(t *testing.T) {
	sharedBy(t, bluefield.Config{}, rshim.Options{}, func(r *shared) {
		r.plugIn()
		r.attached(0)
		if err := r.d.WriteMisc(r.ctx, "BOOT_MODE 2\r\nDISPLAY_LEVEL 1\nBOOT_RESET_SKIP 1\n"); err != nil {
			r.t.Error(err)
		}
		err := r.d.WriteMisc(r.ctx, "USB_TIMEOUT 7\nBOOT_TIMEOUT 0\nUSB_TIMEOUT 8\n")
		if !errors.Is(err, rshim.ErrInvalid) || !strings.Contains(err.Error(), "BOOT_TIMEOUT 0") {
			r.t.Error(err)
		}
		text := r.d.Misc(r.ctx)
		for _, line := range []string{"BOOT_MODE       2 ", "BOOT_RESET_SKIP 1 ", "USB_TIMEOUT     7 ", "BOOT_TIMEOUT    300 "} {
			if !strings.Contains(text, "\n"+line) {
				r.t.Errorf("no line %q in\n%s", line, text)
			}
		}
		// bfb-install's and the manual's, in one go.
		if err := r.d.WriteMisc(r.ctx, "BOOT_MODE 1\nSW_RESET 1\n"); err != nil {
			r.t.Error(err)
		}
		r.within(time.Second, rshim.Rebooting)
		r.attached(0)
	})
}

// TestR17DebugCode: DEBUG_CODE stands in scratchpad 1 in place of the keepalive
// until it is cleared. Who asks for the RShim is answered all the same, and the
// keepalive is back when it is ours again.
func TestR17DebugCode(t *testing.T) {
	sharedBy(t, bluefield.Config{}, rshim.Options{}, func(r *shared) {
		r.plugIn()
		r.attached(0)
		for _, cmd := range []string{"DEBUG_CODE 0x12", "DEBUG_CODE 0xabcdef0123456789\n"} {
			if err := r.d.WriteMisc(r.ctx, cmd); err != nil {
				r.t.Fatal(err)
			}
			want := r.sp1()
			if want != 0x12 && want != 0xabcdef0123456789 {
				r.t.Errorf("%s: scratchpad 1 is %#x", cmd, want)
			}
			r.ours.forget()
			time.Sleep(10 * time.Second)
			if v := r.sp1(); v != want || r.ours.said(r.m.Scratchpad1, reg.Keepalive) > 0 {
				r.t.Errorf("%s: scratchpad 1 has become %#x", cmd, v)
			}
			r.is(rshim.Attached)
		}
		if err := r.d.WriteMisc(r.ctx, "DEBUG_CODE 0x0"); err != nil {
			r.t.Fatal(err)
		}
		time.Sleep(400 * time.Millisecond)
		if v := r.sp1(); v != reg.Keepalive {
			r.t.Errorf("DEBUG_CODE 0x0: scratchpad 1 is %#x", v)
		}

		h, _ := r.host(bluefield.HostOptions{Drop: true})
		time.Sleep(3 * time.Second)
		if err := r.d.WriteMisc(r.ctx, "DEBUG_CODE 0x12"); err != nil {
			r.t.Fatal(err)
		}
		time.Sleep(time.Second)
		if err := h.ForceCmd(); err != nil {
			r.t.Fatal(err)
		}
		r.within(time.Second, rshim.Granting)
		_ = h.WaitState(r.ctx, bluefield.HostAttached)
		if got, err := r.d.Force(r.ctx); got != rshim.ForceGranted || err != nil {
			r.t.Fatalf("Force: %v, %v", got, err)
		}
		time.Sleep(3 * time.Second)
		r.say(0)
		time.Sleep(400 * time.Millisecond)
		if v := r.sp1(); v != reg.Keepalive {
			r.t.Errorf("ours again: scratchpad 1 is %#x", v)
		}
		// A reset ends it, too, also where the chip stays on the bus.
		if err := r.d.WriteMisc(r.ctx, "DEBUG_CODE 0x12"); err != nil {
			r.t.Fatal(err)
		}
		r.dpu.SetReset(bluefield.ResetBehaviour{Stay: true, Held: 3 * time.Second})
		r.dpu.BadReads(r.m.ResetControl, 0, 1, 5) // that it is pending does not show
		if err := r.d.Reset(r.ctx); err != nil {
			r.t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		r.is(rshim.Rebooting)
		r.attached(0)
		r.say(0)
		time.Sleep(400 * time.Millisecond)
		if v := r.sp1(); v != reg.Keepalive {
			r.t.Errorf("after a reset: scratchpad 1 is %#x", v)
		}
	})
}
