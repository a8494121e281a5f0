// SPDX-License-Identifier: Apache-2.0

package bootlog

import (
	"strings"
	"testing"
	"time"
)

// TestMeaning: what a single line says about the boot. The installer's lines that
// people have taken for its end are not the end.
func TestMeaning(t *testing.T) {
	const (
		plain   = "plain"
		ready   = "ready"
		failure = "failure"
		fatal   = "fatal"
	)
	for line, want := range map[string]string{
		" INFO[MISC]: DPU is ready":                              ready,
		"INFO[MISC]: DPU is ready":                               ready,
		" INFO[UEFI]: DPU is ready.":                             ready,
		" INFO[MISC]: In Enhanced NIC mode":                      ready,
		" INFO[MISC]: Linux up":                                  plain,
		" INFO[MISC]: Installation finished. Rebooting...":       plain,
		" INFO[MISC]: Installation finished":                     plain,
		" INFO[MISC]: finished":                                  plain,
		" INFO[MISC]: Rebooting BMC...":                          plain,
		" INFO[MISC]: Rebooting...":                              plain,
		" INFO[MISC]: Ubuntu installation completed":             plain,
		" INFO[MISC]: NIC firmware update done: 32.43.1014":      plain,
		" INFO[MISC]: waiting until DPU is ready":                plain,
		" INFO[MISC]: DPU is ready for nothing":                  plain,
		" INFO[MISC]: Not In Enhanced NIC mode":                  plain,
		" WARN[MISC]: DPU is ready":                              plain,
		" ERR[MISC]: DPU is ready":                               failure,
		"DPU is ready":                                           plain,
		" INFO[MISC]: INFO[MISC]: DPU is ready":                  plain,
		" INFO[UEFI]: PMI: updates completed, status 0":          plain,
		" INFO[MISC]: 0 errors, no panic, no Exception(BL1)":     plain,
		" INFO[MISC]: PANIC(BL1): PC = 0x4001d3c8":               plain,
		" INFO[MISC]: ERR[BL2]: not so":                          plain,
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
		var w Watch
		if e, ok := ParseLine(line); ok {
			w.See(e, time.Unix(1, 0))
		}
		got := plain
		if _, dead := w.Error(); dead {
			got = fatal
		} else if !w.Over().IsZero() {
			got = failure
		} else if w.Ready() {
			got = ready
		}
		if got != want || got == ready != (w.Stage() == StageReady) {
			t.Errorf("%q is %s at stage %v, want %s", line, got, w.Stage(), want)
		}
	}
}

func TestWatch(t *testing.T) {
	start := time.Unix(1_000_000, 0)
	after := func(d time.Duration) time.Time { return start.Add(d) }
	for name, c := range map[string]struct {
		upgrade bool
		from    Stage
		lines   []string // a second apart; "+" is the stream moving on
		stage   Stage
		error   string
		ready   bool
		over    time.Time
	}{
		"nothing": {},
		"good": {
			lines: []string{"INFO[BL2]: start", "INFO[UEFI]: exit Boot Service", "INFO[MISC]: Linux up", "INFO[MISC]: DPU is ready"},
			stage: StageReady, ready: true,
		},
		"NIC mode": {
			lines: []string{"INFO[BL2]: start", "INFO[UEFI]: exit Boot Service", "INFO[MISC]: In Enhanced NIC mode"},
			stage: StageReady, ready: true,
		},
		"installed": {
			lines: []string{"INFO[MISC]: Ubuntu installation started", "INFO[MISC]: Installation finished. Rebooting..."},
			stage: StageRebooting,
		},
		"the BMC reboots": {
			lines: []string{"INFO[MISC]: Installing OS image", "INFO[MISC]: Rebooting BMC..."},
			stage: StageInstalling,
		},
		"error": {
			lines: []string{"INFO[BL2]: start", "ERR[BL2]: one", "ERR[BL2]: two"},
			stage: StageBL2, error: "ERR[BL2]: one", over: after(2*time.Second + firmwarePatience),
		},
		"error, still taking bytes": {
			lines: []string{"ERR[BL2]: one", "+", "+"},
			stage: StageBL2, error: "ERR[BL2]: one", over: after(2*time.Second + firmwarePatience),
		},
		"error it gets over": {
			lines: []string{"ERR[BL2]: one", "INFO[UEFI]: eMMC init", "+"},
			stage: StageUEFI, error: "ERR[BL2]: one",
		},
		"error while installing": {
			lines: []string{"INFO[MISC]: Installing OS image", "ERR[MISC]: one"},
			stage: StageInstalling, error: "ERR[MISC]: one", over: after(time.Second + softwarePatience),
		},
		"up after an error": {
			lines: []string{"ERR[UEFI]: one", "INFO[MISC]: DPU is ready"},
			stage: StageReady, error: "ERR[UEFI]: one", ready: true,
		},
		"crash": {
			lines: []string{"ERR[BL2]: one", "PANIC(BL2): PC = 0x1", "  x0  0x2", "+", "ERR[BL2]: two", "INFO[MISC]: DPU is ready"},
			stage: StageReady, error: "PANIC(BL2): PC = 0x1", over: after(time.Second + fatalPatience),
		},
		"upgrade": {
			upgrade: true, from: StageReady,
			lines: []string{"INFO[MISC]: Linux up", "INFO[MISC]: DPU is ready", "INFO[MISC]: Runtime upgrade finished"},
			stage: StageReady, ready: true,
		},
		"upgrade, not done": {
			upgrade: true, from: StageReady, lines: []string{"INFO[MISC]: DPU is ready"}, stage: StageReady,
		},
		"upgrade that boots": {
			upgrade: true, lines: []string{"INFO[BL2]: start", "INFO[MISC]: Runtime upgrade finished", "INFO[MISC]: DPU is ready"},
			stage: StageReady, ready: true,
		},
		"upgrade, not asked for": {
			from: StageReady, lines: []string{"INFO[MISC]: Runtime upgrade finished"}, stage: StageReady,
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := Watch{Upgrade: c.upgrade}
			w.Begin(c.from)
			for i, l := range c.lines {
				now := after(time.Duration(i) * time.Second)
				if l == "+" {
					w.Moved(now)
				} else if e, ok := ParseLine(" " + l); ok {
					w.See(e, now)
				}
			}
			if line, _ := w.Error(); w.Stage() != c.stage || line != c.error || w.Ready() != c.ready || !w.Over().Equal(c.over) {
				t.Errorf("%+v", w)
			}
		})
	}
}

// TestStages walks through a whole installation: the golden log of a BlueField-3,
// with what its resident firmware may say in between.
func TestStages(t *testing.T) {
	var s Stage
	for _, step := range []struct {
		line string
		want Stage
	}{
		{"INFO[PSC]: PSC BL1 START", StageROM},
		{"INFO[BL2]: start", StageBL2},
		{"INFO[BL2]: DDR POST passed", StageBL2},
		{"INFO[BL2]: UEFI loaded", StageBL2},
		{"INFO[BL31]: start", StageBL31},
		{"INFO[BL31]: runtime", StageBL31},
		{"INFO[UEFI]: eMMC init", StageUEFI},
		{"INFO[BL31]: MB ping success", StageUEFI},
		{"INFO[UEFI]: PMI: updates started", StageUEFI},
		{"INFO[UEFI]: exit Boot Service", StageOS},
		{"INFO[UEFI]: variable written", StageOS},
		{"INFO[MISC]: Found bf.cfg", StageInstalling},
		{"INFO[MISC]: Ubuntu installation started", StageInstalling},
		{"INFO[BL31]: MB ping success", StageInstalling},
		{"WARN[PSC]: temperature", StageInstalling},
		{"INFO[MISC]: Updating NIC firmware...", StageInstalling},
		{"INFO[MISC]: Installation finished. Rebooting...", StageRebooting},
		{"INFO[PSC]: PSC BL1 START", StageROM},
		{"INFO[BL2R]: start", StageBL2},
		{"INFO[BL31]: start", StageBL31},
		{"INFO[UEFI]: eMMC init", StageUEFI},
		{"INFO[UEFI]: exit Boot Service", StageOS},
		{"INFO[MISC]: Linux up", StageServices},
		{"INFO[MISC]: DPU is ready", StageReady},
		{"INFO[BL31]: System Off", StageOff},
		{"INFO[BL1]: hello", StageROM},
	} {
		e, ok := ParseLine(step.line)
		if s = s.after(e); !ok || s != step.want {
			t.Errorf("%s: at %v, want %v", step.line, s, step.want)
		}
	}
}

// TestStageWords: every stage has its words, which clients compare.
func TestStageWords(t *testing.T) {
	var got []string
	for s := StageUnknown; s <= StageOff+1; s++ {
		got = append(got, s.String()+"="+s.OEM())
	}
	want := "unknown=Invalid boot ROM=BootRom BL2=BL2 BL31=BL31 UEFI=UEFI starting an operating system=OsStarting " +
		"installing=FirmwareUpdateInProgress rebooting=OsStarting starting services=OsStarting ready=OsIsRunning off=LowPowerStandby " +
		"unknown=Invalid"
	if strings.Join(got, " ") != want {
		t.Errorf("%s", got)
	}
}

// TestParseLine: what Append writes is understood, and nothing else.
func TestParseLine(t *testing.T) {
	for _, e := range []Entry{
		{Type: Message, Module: MISC, Level: Info, Text: "DPU is ready"},
		{Type: Message, Module: BL2R, Level: Assert, Text: "a: b]: c[d"},
		{Type: Panic, Module: BL1, Code: 0x4001d3c8},
		{Type: Exception, Module: BL31, Code: 0x96000000},
		{Type: Exception, Module: UEFI, Code: 0xbe000000},
	} {
		line := e.String()
		if got, ok := ParseLine(line); !ok || got.String() != line {
			t.Errorf("%q has become %q, %v", line, got.String(), ok)
		}
	}
	for _, line := range []string{
		"", ":", ": ", "INFO: x", "INFO[BL9]: x", "LOUD[BL2]: x", "INFO[BL2: x", "INFO]BL2[: x", "INFO[BL2]:x", "PANIC(BL9): PC = 0x1",
		"PANIC(BL1): PC = 0x", "PANIC(BL1): PC = 0x123456789", "PANIC(BL1): syndrome = 0x1", "Exception(BL1): PC = 0x1", "PANIC(BL1: PC = 0x1",
	} {
		if e, ok := ParseLine(line); ok {
			t.Errorf("%q is taken for %+v", line, e)
		}
	}
}

// FuzzParseLine: a line that is understood says the same when written again.
func FuzzParseLine(f *testing.F) {
	f.Add(" INFO[BL2]: start\n")
	f.Add(" Exception(BL31): syndrome = 0xbe000000(SError)\n")
	f.Add("INFO[BL1]: \n0")
	f.Fuzz(func(t *testing.T, line string) {
		e, ok := ParseLine(line)
		if !ok {
			return
		}
		var w Watch
		w.See(e, time.Unix(1, 0))
		w.Moved(time.Unix(2, 0))
		if again, ok := ParseLine(e.String()); !ok || again.String() != e.String() {
			t.Errorf("%q is %+v, and then %+v", line, e, again)
		}
	})
}
