// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMeaningOf(t *testing.T) {
	for line, want := range map[string]meaning{
		" INFO[MISC]: DPU is ready":                              ready,
		"INFO[MISC]: DPU is ready":                               ready,
		" INFO[MISC]: In Enhanced NIC mode":                      ready,
		" INFO[MISC]: Linux up":                                  plain,
		" INFO[MISC]: Installation finished. Rebooting...":       plain,
		" INFO[MISC]: Rebooting BMC...":                          plain,
		" INFO[MISC]: Rebooting...":                              plain,
		" INFO[MISC]: Ubuntu installation completed":             plain,
		" INFO[MISC]: NIC firmware update done: 32.43.1014":      plain,
		" INFO[MISC]: waiting until DPU is ready":                plain,
		" INFO[MISC]: DPU is ready for nothing":                  plain,
		" WARN[MISC]: DPU is ready":                              plain,
		" ERR[MISC]: DPU is ready":                               failure,
		"DPU is ready":                                           plain,
		" INFO[MISC]: INFO[MISC]: DPU is ready":                  plain,
		" INFO[UEFI]: PMI: updates completed, status 0":          plain,
		" INFO[MISC]: 0 errors, no panic, no Exception(BL1)":     plain,
		" WARN[BL2]: DDR is warm":                                plain,
		" ERR[BL1]: PSC error -60":                               failure,
		" ERR[BL2]: DDR init fail on MSS0":                       failure,
		" ERR[MISC]: CRITICAL ERROR: no disk":                    fatal,
		" INFO[MISC]: CRITICAL ERROR":                            fatal,
		" ASSERT[BL31]: plat.c:12":                               fatal,
		" PANIC(BL1): PC = 0x4001d3c8":                           fatal,
		" Exception(BL31): syndrome = 0xbe000000(SError)":        fatal,
		"   elr_el3         0x4001d3c8":                          plain,
		"":                                                       plain,
		" INFO[BL31]: System Off":                                plain,
		" INFO[MISC]: Runtime upgrade finished":                  plain,
		strings.Repeat("x", 1000) + " INFO[MISC]: DPU is ready.": plain,
	} {
		if got := meaningOf(line); got != want {
			t.Errorf("%q means %d, want %d", line, got, want)
		}
	}
}

func TestBootWatch(t *testing.T) {
	var at time.Time
	at = at.Add(time.Hour)
	after := func(d time.Duration) time.Time { return at.Add(d) }
	for name, c := range map[string]struct {
		lines []string // a second apart; "+" is the stream moving on
		stage string
		error string
		ready bool
		over  time.Time
	}{
		"nothing": {},
		"good": {
			lines: []string{"INFO[BL2]: start", "INFO[UEFI]: exit Boot Service", "INFO[MISC]: Linux up", "INFO[MISC]: DPU is ready"},
			stage: "starting its services", ready: true,
		},
		"installing": {
			lines: []string{"INFO[UEFI]: eMMC init", "INFO[MISC]: Found bf.cfg", "INFO[MISC]: something else"},
			stage: "installing",
		},
		"rebooting": {
			lines: []string{"INFO[MISC]: Ubuntu installation started", "INFO[MISC]: Installation finished. Rebooting..."},
			stage: "rebooting into what was installed",
		},
		"error": {
			lines: []string{"INFO[BL2]: start", "ERR[BL2]: one", "ERR[BL2]: two"},
			stage: "running its boot firmware", error: "ERR[BL2]: one", over: after(2*time.Second + errorPatience),
		},
		"error, still taking bytes": {
			lines: []string{"ERR[BL2]: one", "+", "+"},
			stage: "running its boot firmware", error: "ERR[BL2]: one", over: after(2*time.Second + errorPatience),
		},
		"error it gets over": {
			lines: []string{"ERR[BL2]: one", "INFO[UEFI]: eMMC init", "+"},
			stage: "running UEFI", error: "ERR[BL2]: one",
		},
		"crash": {
			lines: []string{"ERR[BL2]: one", "PANIC(BL2): PC = 0x1", "  x0  0x2", "+", "ERR[BL2]: two"},
			stage: "running its boot firmware", error: "PANIC(BL2): PC = 0x1", over: after(time.Second + fatalPatience),
		},
	} {
		t.Run(name, func(t *testing.T) {
			var w bootWatch
			for i, l := range c.lines {
				if now := at.Add(time.Duration(i) * time.Second); l == "+" {
					w.moved(now)
				} else {
					w.see(" "+l, now)
				}
			}
			if w.stage != c.stage || w.error != c.error || w.ready != c.ready || !w.over.Equal(c.over) {
				t.Errorf("%+v", w)
			}
		})
	}
}

func TestUnseen(t *testing.T) {
	split := func(s string) []string { return strings.Split(s, "") }
	for _, c := range []struct{ seen, now, want string }{
		{"", "", ""},
		{"", "ab", "ab"},
		{"ab", "ab", ""},
		{"ab", "abc", "c"},
		{"abc", "bcd", "d"},  // the front was lost
		{"abc", "cd", "d"},   //
		{"abc", "de", "de"},  // all of it was, or another boot has begun
		{"abc", "ab", "ab"},  // another boot that begins the same way
		{"abc", "", ""},      // cleared
		{"aaa", "aaaa", "a"}, // lines that repeat
		{"abab", "ababc", "c"},
		{"xab", "abab", "ab"},
	} {
		if got := unseen(split(c.seen), split(c.now)); !slices.Equal(got, split(c.want)) {
			t.Errorf("after %q, %q: %q is new, want %q", c.seen, c.now, got, c.want)
		}
	}
}
