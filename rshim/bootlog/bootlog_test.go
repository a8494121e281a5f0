// SPDX-License-Identifier: Apache-2.0

package bootlog_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/bluefield-go/bmc-rshim/rshim/bootlog"
)

func lines(words ...uint64) string {
	entries, _ := bootlog.Decode(words)
	var b []byte
	for _, e := range entries {
		b = e.Append(b)
	}
	return string(b)
}

// TestGoldenWords is put together by hand from the layout of the header.
func TestGoldenWords(t *testing.T) {
	for _, tt := range []struct {
		name  string
		words []uint64
		want  string
	}{
		{"message", []uint64{0x2401_0000_0000_0000, 0x00000074_72617473}, " INFO[BL2]: start\n"},
		{"two words, no NUL", []uint64{0x4402_0000_0000_0001, 0x3736353433323130, 0x4645444342413938}, " WARN[BL31]: 0123456789ABCDEF\n"},
		{"argument", []uint64{0x1402_ffff_ffc4_0102, 0x6f72726520435350, 0x64252072}, " ERR[BL1]: PSC error -60\n"},
		{"panic", []uint64{0x4102_0000_dead_beef, 0xd53e_4020, 0x123456789abcdef0}, " PANIC(BL31): PC = 0xdeadbeef\n   elr_el3         0x123456789abcdef0\n"},
		{"exception, data abort", []uint64{0x5200_0000_9600_0045}, " Exception(UEFI): syndrome = 0x96000045(Data Abort)\n"},
		{"exception, data abort from below", []uint64{0x5200_0000_9200_0045}, " Exception(UEFI): syndrome = 0x92000045(Data Abort)\n"},
		{"exception, SError", []uint64{0x2200_0000_be00_0000}, " Exception(BL2): syndrome = 0xbe000000(SError)\n"},
		{"exception, other", []uint64{0x3200_0000_0200_0000}, " Exception(BL2R): syndrome = 0x2000000\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := lines(tt.words...); got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

// bootLog is the boot log of a BlueField-3 as bfb-install prints it.
var bootLog = []struct {
	module bootlog.Module
	text   string
}{
	{bootlog.PSC, "PSC BL1 START"},
	{bootlog.BL2, "start"},
	{bootlog.BL2, "boot mode (rshim)"},
	{bootlog.BL2, "VDDQ: 1120 mV"},
	{bootlog.BL2, "DDR POST passed"},
	{bootlog.BL2, "UEFI loaded"},
	{bootlog.BL31, "start"},
	{bootlog.BL31, "lifecycle GA Secured"},
	{bootlog.BL31, "VDD: 850 mV"},
	{bootlog.BL31, "runtime"},
	{bootlog.BL31, "MB ping success"},
	{bootlog.UEFI, "eMMC init"},
	{bootlog.UEFI, "eMMC probed"},
	{bootlog.UEFI, "UPVS valid"},
	{bootlog.UEFI, "PMI: updates started"},
	{bootlog.UEFI, "PMI: total updates: 1"},
	{bootlog.UEFI, "PMI: updates completed, status 0"},
	{bootlog.UEFI, "PCIe enum start"},
	{bootlog.UEFI, "PCIe enum end"},
	{bootlog.UEFI, "UEFI Secure Boot (enabled)"},
	{bootlog.UEFI, "PK configured"},
	{bootlog.UEFI, "Redfish enabled"},
	{bootlog.UEFI, "exit Boot Service"},
	{bootlog.MISC, "Found bf.cfg"},
	{bootlog.MISC, "Ubuntu installation started"},
	{bootlog.MISC, "Installing OS image"},
	{bootlog.MISC, "Changing the default password for user ubuntu"},
	{bootlog.MISC, "Ubuntu installation completed"},
	{bootlog.MISC, "Updating NIC firmware..."},
	{bootlog.MISC, "NIC firmware update done: 32.43.1014"},
	{bootlog.MISC, "Installation finished. Rebooting..."},
	{bootlog.MISC, "Linux up"},
	{bootlog.MISC, "DPU is ready"},
}

func TestGoldenBootLog(t *testing.T) {
	var words []uint64
	var want strings.Builder
	for _, l := range bootLog {
		words = append(words, bootlog.EncodeMessage(l.module, bootlog.Info, l.text)...)
		want.WriteString(" INFO[" + l.module.String() + "]: " + l.text + "\n")
	}
	entries, n := bootlog.Decode(words)
	if n != len(words) || len(entries) != len(bootLog) {
		t.Errorf("%d of %d words, %d entries", n, len(words), len(entries))
	}
	if got := lines(words...); got != want.String() {
		t.Errorf("got\n%s", got)
	}
	if !strings.HasPrefix(want.String(), " INFO[PSC]: PSC BL1 START\n INFO[BL2]: start\n") {
		t.Errorf("modules have wrong names: %s", want.String())
	}

	// What has been used is used up: a reader may come back with the rest,
	// wherever it was cut.
	for cut := range words {
		first, n := bootlog.Decode(words[:cut])
		rest, _ := bootlog.Decode(words[n:])
		if n > cut || len(first)+len(rest) != len(entries) {
			t.Fatalf("cut at %d: %d entries, then %d", cut, len(first), len(rest))
		}
	}
}

func TestNames(t *testing.T) {
	if got := bootlog.Module(7).String() + bootlog.Level(4).String() + bootlog.Level(255).String(); got != "MISCINFOINFO" {
		t.Errorf("got %s", got)
	}
	for l, want := range []string{"INFO", "WARN", "ERR", "ASSERT"} {
		words := bootlog.EncodeMessage(bootlog.BL2R, bootlog.Level(l), "x")
		if got := lines(words...); got != " "+want+"[BL2R]: x\n" {
			t.Errorf("got %q", got)
		}
	}
}

func TestCrashRoundTrip(t *testing.T) {
	regs := []bootlog.Register{
		{bootlog.Sys(3, 6, 4, 0, 1), 0x1234}, // elr_el3
		{bootlog.Sys(3, 4, 1, 1, 0), ^uint64(0)},
		{bootlog.Sys(3, 0, 15, 1, 4), 0},
		{bootlog.Sys(2, 0, 0, 2, 2), 1},
	}
	words := bootlog.EncodePanic(bootlog.BL31, 0xcafe, regs...)
	words = append(words, bootlog.EncodeException(bootlog.BL2, 0x24<<26, regs[:1]...)...)
	entries, n := bootlog.Decode(words)
	if n != len(words) || len(entries) != 2 || !slices.Equal(entries[0].Registers, regs) || entries[0].Code != 0xcafe {
		t.Fatalf("got %+v", entries)
	}
	const want = " PANIC(BL31): PC = 0xcafe\n" +
		"   elr_el3         0x1234\n" +
		"   hcr_el2         0xffffffffffffffff\n" +
		"   s3_0_c15_c1_4   0x0\n" +
		"   s2_0_c0_c2_2    0x1\n" +
		" Exception(BL2): syndrome = 0x90000000(Data Abort)\n" +
		"   elr_el3         0x1234\n"
	if got := lines(words...); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if e, n := bootlog.Decode(bootlog.EncodePanic(bootlog.BL2, 1, make([]bootlog.Register, 70)...)); n != 127 || len(e[0].Registers) != 63 {
		t.Errorf("70 registers: %d words, %d registers", n, len(e[0].Registers))
	}
}

func TestRegisterNames(t *testing.T) {
	// MRS X0, <register>, as an assembler has it.
	for name, instruction := range map[string]uint32{
		"midr_el1":        0xd5380000,
		"mpidr_el1":       0xd53800a0,
		"id_aa64dfr0_el1": 0xd5380500,
		"id_aa64afr0_el1": 0xd5380580,
		"sctlr_el1":       0xd5381000,
		"hcr_el2":         0xd53c1100,
		"esr_el3":         0xd53e5200,
		"far_el2":         0xd53c6000,
		"ttbr1_el1":       0xd5382020,
		"csselr_el1":      0xd53a0000,
		"tpidrro_el0":     0xd53bd060,
		"spsr_abt":        0xd53c4320,
		"daif":            0xd53b4220,
		"currentel":       0xd5384240,
		"cntv_cval_el0":   0xd53be340,
		"s3_0_c15_c15_7":  0xd538ffe0,
		"s2_3_c0_c4_0":    0xd5330400,
	} {
		for rt := range uint32(2) { // the target register makes no difference
			words := []uint64{0x0102_0000_0000_0000, uint64(instruction | rt), 0}
			entries, _ := bootlog.Decode(words)
			if got := entries[0].Registers[0].Name(); got != name {
				t.Errorf("%#x: got %s, want %s", instruction, got, name)
			}
		}
	}
	seen := map[string]int{}
	for e := range 1 << 16 {
		seen[bootlog.Register{Encoding: uint16(e)}.Name()]++
	}
	if len(seen) != 1<<16 {
		t.Errorf("%d names for 65536 encodings", len(seen))
	}
}

func TestEncodeMessageBounds(t *testing.T) {
	for _, tt := range []struct{ text, words int }{{0, 2}, {1, 2}, {8, 2}, {9, 3}, {1015, 128}, {1016, 128}, {2000, 128}} {
		text := strings.Repeat("t", tt.text)
		words := bootlog.EncodeMessage(bootlog.UEFI, bootlog.Err, text)
		entries, n := bootlog.Decode(words)
		if len(words) != tt.words || n != tt.words || entries[0].Text != text[:min(len(text), bootlog.MaxEncodedText)] {
			t.Errorf("%d bytes: %d words, got %+v", tt.text, len(words), entries)
		}
	}
}
