// SPDX-License-Identifier: Apache-2.0

package reg_test

import (
	"testing"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

var generations = []reg.Generation{reg.BlueField1, reg.BlueField2, reg.BlueField3}

// TestMap holds both maps side by side: BlueField-1 and -2, BlueField-3.
func TestMap(t *testing.T) {
	type row struct {
		name     string
		get      func(*reg.Map) reg.Addr
		bf2, bf3 uint16
	}
	rows := []row{
		{"SEMAPHORE0", func(m *reg.Map) reg.Addr { return m.Semaphore0 }, 0x28, 0xf10},
		{"FABRIC_DIM", func(m *reg.Map) reg.Addr { return m.FabricDim }, 0x110, 0x110},
		{"SWINT", func(m *reg.Map) reg.Addr { return m.SWInt }, 0x318, 0x318},
		{"BOOT_FIFO_DATA", func(m *reg.Map) reg.Addr { return m.BootFIFOData }, 0x408, 0x2000},
		{"BOOT_FIFO_COUNT", func(m *reg.Map) reg.Addr { return m.BootFIFOCount }, 0x488, 0x1000},
		{"RESET_CONTROL", func(m *reg.Map) reg.Addr { return m.ResetControl }, 0x500, 0x500},
		{"BREADCRUMB0", func(m *reg.Map) reg.Addr { return m.Breadcrumb0 }, 0x510, 0x510},
		{"BREADCRUMB1", func(m *reg.Map) reg.Addr { return m.Breadcrumb1 }, 0x518, 0x518},
		{"BOOT_CONTROL", func(m *reg.Map) reg.Addr { return m.BootControl }, 0x528, 0x528},
		{"DEVICE_MSTR_PRIV_LVL", func(m *reg.Map) reg.Addr { return m.MasterPrivLevel }, 0x550, 0x820},
		{"SCRATCH_BUF_CTL", func(m *reg.Map) reg.Addr { return m.ScratchBufCtl }, 0x600, 0x600},
		{"SCRATCH_BUF_DAT", func(m *reg.Map) reg.Addr { return m.ScratchBufDat }, 0x610, 0x610},
		{"UPTIME", func(m *reg.Map) reg.Addr { return m.Uptime }, 0x630, 0x630},
		{"UPTIME_POR", func(m *reg.Map) reg.Addr { return m.UptimePOR }, 0x638, 0x638},
		{"MEM_ACC_CTL", func(m *reg.Map) reg.Addr { return m.MemAccCtl }, 0x8f0, 0x808},
		{"MEM_ACC_RSP_CNT", func(m *reg.Map) reg.Addr { return m.MemAccRspCnt }, 0x8f8, 0x810},
		{"MEM_ACC_DATA", func(m *reg.Map) reg.Addr { return m.MemAccData }, 0x900, 0x828},
		{"TM_HTT_DATA", func(m *reg.Map) reg.Addr { return m.TmHostToTile }, 0xa20, 0x4000},
		{"TM_HTT_STS", func(m *reg.Map) reg.Addr { return m.TmHostToTileSts }, 0xa28, 0x6000},
		{"TM_TTH_DATA", func(m *reg.Map) reg.Addr { return m.TmTileToHost }, 0xa40, 0x5000},
		{"TM_TTH_STS", func(m *reg.Map) reg.Addr { return m.TmTileToHostSts }, 0xa48, 0x6100},
		{"SCRATCHPAD1", func(m *reg.Map) reg.Addr { return m.Scratchpad1 }, 0xc20, 0xc40},
		{"SCRATCHPAD2", func(m *reg.Map) reg.Addr { return m.Scratchpad2 }, 0xc28, 0xc48},
		{"SCRATCHPAD3", func(m *reg.Map) reg.Addr { return m.Scratchpad3 }, 0xc30, 0xc50},
		{"SCRATCHPAD6", func(m *reg.Map) reg.Addr { return m.Scratchpad6 }, 0xc48, 0xc68},
	}
	for _, g := range generations {
		m := reg.For(g)
		for _, r := range rows {
			want := reg.Addr{Channel: reg.ChanRShim, Offset: r.bf2}
			if g == reg.BlueField3 {
				want.Offset = r.bf3
			}
			if got := r.get(m); got != want {
				t.Errorf("%v: %s at %v, want %v", g, r.name, got, want)
			}
		}
		if got := m.WatchdogControl; got != (reg.Addr{Channel: 0xf}) {
			t.Errorf("%v: WDOG1 WCS at %v", g, got)
		}
	}
	for _, tt := range []struct {
		g     reg.Generation
		bit   uint
		depth int
	}{{reg.BlueField1, 48, 512}, {reg.BlueField2, 48, 512}, {reg.BlueField3, 0, 1024}} {
		if m := reg.For(tt.g); m.MemAccLevelBit != tt.bit || m.BootFIFODepth != tt.depth {
			t.Errorf("%v: level bit %d, FIFO of %d words", tt.g, m.MemAccLevelBit, m.BootFIFODepth)
		}
	}
}

func TestValues(t *testing.T) {
	for _, tt := range []struct {
		name      string
		got, want uint64
	}{
		{"keepalive", reg.Keepalive, 0x5089836482},
		{"OSP_REQ", reg.OwnershipRequest, ascii("OSP_REQ")},
		{"OSP_ACK", reg.OwnershipAck, ascii("OSP_ACK")},
		{"LOCK", reg.Locked, 0x4B434F4C00000000},
		{"reset key", reg.ResetKey, 0xca710001},
		{"reset pending", reg.ResetPending, 0x200000000},
		{"reset disable", reg.ResetDisable, 0x100000000},
		{"log words", reg.LogWords, reg.LogIndexMask + 1},
		{"OPN on BlueField-2", reg.OPNMemBF2, 0x2800fd8},
		{"OPN on BlueField-3", uint64(reg.OPNOffsetBF3), 0x9bdc},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: %#x, want %#x", tt.name, tt.got, tt.want)
		}
	}
}

func ascii(s string) (v uint64) {
	for _, c := range []byte(s) {
		v = v<<8 | uint64(c)
	}
	return v
}

func TestGenerationOf(t *testing.T) {
	for _, tt := range []struct {
		vendor, product uint16
		want            reg.Generation
		name            string
	}{
		{0x22dc, 0x0004, reg.BlueField1, "BlueField-1"},
		{0x22dc, 0x0214, reg.BlueField2, "BlueField-2"},
		{0x22dc, 0x021c, reg.BlueField3, "BlueField-3"},
		{0x22dc, 0x0005, 0, ""},
		{0x15b3, 0x0214, 0, ""},
	} {
		got, ok := reg.GenerationOf(tt.vendor, tt.product)
		if got != tt.want || ok != (tt.want != 0) || ok && got.String() != tt.name {
			t.Errorf("%04x:%04x: %v, %v", tt.vendor, tt.product, got, ok)
		}
	}
}

func TestForPanics(t *testing.T) {
	for _, g := range []reg.Generation{-1, 0, 4} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("a map of generation %d", int(g))
				}
			}()
			reg.For(g)
		}()
	}
}

func TestLinear(t *testing.T) {
	if got := reg.Linear(0x13000c40); got != (reg.Addr{Channel: 0x1300, Offset: 0xc40}) {
		t.Errorf("got %v", got)
	}
	if got := reg.Linear(0x10528).String(); got != "0x1:0x528" {
		t.Errorf("got %s", got)
	}
}
