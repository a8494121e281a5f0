// SPDX-License-Identifier: Apache-2.0

package bluefield_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
)

var generations = []reg.Generation{reg.BlueField1, reg.BlueField2, reg.BlueField3}

// each runs a test on every generation.
func each(t *testing.T, test func(t *testing.T, d *bluefield.DPU)) {
	for _, g := range generations {
		t.Run(g.String(), func(t *testing.T) {
			test(t, bluefield.New(bluefield.Config{Generation: g, OPN: "MBF2H332A-AENOT"}))
		})
	}
}

func TestPlainRegisters(t *testing.T) {
	each(t, func(t *testing.T, d *bluefield.DPU) {
		m := d.Map()
		for _, a := range []reg.Addr{m.Scratchpad1, m.Scratchpad2, m.Scratchpad3, m.Scratchpad6,
			m.Breadcrumb0, m.Breadcrumb1, m.SWInt, m.WatchdogControl} {
			write(d, a, 0x0123456789abcdef)
			if v := read(d, a); v != 0x0123456789abcdef {
				t.Errorf("%v reads back as %#x", a, v)
			}
			if v := d.ReadReg(a, 4); v != 0x89abcdef {
				t.Errorf("%v reads as %#x in 4 bytes", a, v)
			}
		}
		unknown := reg.Addr{Channel: reg.ChanTimer, Offset: 0x40}
		write(d, unknown, 1)
		if v := read(d, unknown); v != 0 {
			t.Errorf("unknown register reads %#x, want 0", v)
		}
		if v := read(d, m.FabricDim); v&0xff != 0x22 {
			t.Errorf("FABRIC_DIM = %#x", v)
		}
	})
}

func TestSemaphore(t *testing.T) {
	each(t, func(t *testing.T, d *bluefield.DPU) {
		sem := d.Map().Semaphore0
		if read(d, sem) != 0 {
			t.Fatal("free semaphore does not read 0")
		}
		for range 3 {
			if read(d, sem) == 0 {
				t.Fatal("taken twice")
			}
		}
		write(d, sem, 0)
		if read(d, sem) != 0 {
			t.Fatal("not free after release")
		}
	})
}

func TestScratchBufIncrements(t *testing.T) {
	each(t, func(t *testing.T, d *bluefield.DPU) {
		ctl, dat := d.Map().ScratchBufCtl, d.Map().ScratchBufDat
		write(d, ctl, 126)
		write(d, dat, 1)
		write(d, dat, 2)
		write(d, dat, 3) // wraps to 0
		if v := read(d, ctl); v != 1 {
			t.Fatalf("index %d after a wrap, want 1", v)
		}
		write(d, ctl, 126)
		for _, want := range []uint64{1, 2, 3} {
			if v := read(d, dat); v != want {
				t.Fatalf("read %d, want %d", v, want)
			}
		}
	})
}

func TestOPN(t *testing.T) {
	each(t, func(t *testing.T, d *bluefield.DPU) {
		m := d.Map()
		var words [4]uint32
		want := "MBF2H332A-AENOT"
		switch d.Config().Generation {
		case reg.BlueField1:
			t.Skip("has none")
		case reg.BlueField3:
			for i := range words {
				words[i] = uint32(d.ReadReg(reg.Addr{Channel: reg.ChanYU, Offset: reg.OPNOffsetBF3 + uint16(4*i)}, 4))
			}
		case reg.BlueField2:
			get := func(i int) uint32 {
				cnt := read(d, m.MemAccRspCnt)
				write(d, m.MemAccCtl, (reg.OPNMemBF2+uint64(4*i))|reg.MemAccSize4<<reg.MemAccSizeShift|reg.MemAccSend)
				if read(d, m.MemAccRspCnt) != cnt+1 {
					t.Fatal("no response")
				}
				return uint32(read(d, m.MemAccData))
			}
			if get(0) == reg.OPNWords(want)[0] {
				t.Fatal("readable without the privilege level")
			}
			write(d, m.MasterPrivLevel, 1<<m.MemAccLevelBit)
			for i := range words {
				words[i] = get(i)
			}
			// Write the first word anew.
			write(d, m.MemAccData, uint64(reg.OPNWords("ABCD")[0]))
			write(d, m.MemAccCtl, reg.OPNMemBF2|reg.MemAccWrite|reg.MemAccSize4<<reg.MemAccSizeShift|reg.MemAccSend)
			if v := get(0); v != reg.OPNWords("ABCD")[0] {
				t.Errorf("after a write: %#x", v)
			}
		}
		if got := reg.OPN(words); got != want {
			t.Errorf("OPN %q, want %q", got, want)
		}
	})
}

func TestUptime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := start(t, bluefield.Config{})
		time.Sleep(10 * time.Second)
		if v := read(d, d.Map().Uptime); v != 10*reg.UptimeHz {
			t.Errorf("uptime %d, want 10 s", v)
		}
		write(d, d.Map().ResetControl, reg.ResetKey)
		time.Sleep(1505 * time.Millisecond)
		if v := read(d, d.Map().Uptime); v != 1*reg.UptimeHz {
			t.Errorf("uptime %d after a reset, want 1 s", v)
		}
		if v := read(d, d.Map().UptimePOR); v != 2301*reg.UptimeHz/200 {
			t.Errorf("time since power-on %d", v)
		}
	})
}

func TestBadReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := bluefield.New(bluefield.Config{})
		dim := d.Map().FabricDim
		d.BadReads(dim, 0xbadacce55, 1, 2)
		var got []uint64
		for range 5 {
			got = append(got, read(d, dim))
		}
		if want := []uint64{0x22, 0xbadacce55, 0xbadacce55, 0x22, 0x22}; !slices.Equal(got, want) {
			t.Errorf("reads %#x, want %#x", got, want)
		}
		d.BadAll(^uint64(0), time.Second)
		if v := read(d, dim); v != ^uint64(0) {
			t.Errorf("read %#x", v)
		}
		read(d, d.Map().Semaphore0)
		time.Sleep(time.Second)
		if v := read(d, d.Map().Semaphore0); v != 0 {
			t.Error("a bad read took the semaphore")
		}
	})
}

func TestRecord(t *testing.T) {
	d := bluefield.New(bluefield.Config{})
	var seen []reg.Addr
	m := d.Map()
	d.Record(3)
	write(d, m.Breadcrumb0, 7)
	read(d, m.Breadcrumb0)
	d.ReadReg(m.FabricDim, 4)
	read(d, m.FabricDim) // beyond the limit
	want := []bluefield.Access{{true, m.Breadcrumb0, 8, 7}, {false, m.Breadcrumb0, 8, 7}, {false, m.FabricDim, 4, 0x22}}
	if got := d.Recorded(); !slices.Equal(got, want) {
		t.Errorf("recorded %v, want %v", got, want)
	}
	d = bluefield.New(bluefield.Config{OnWrite: func(a reg.Addr, v uint64) { seen = append(seen, a) }})
	write(d, m.Scratchpad1, reg.Keepalive)
	if !slices.Equal(seen, []reg.Addr{m.Scratchpad1}) {
		t.Errorf("OnWrite saw %v", seen)
	}
}

func TestTMFIFO(t *testing.T) {
	each(t, func(t *testing.T, d *bluefield.DPU) {
		m := d.Map()
		if err := d.SendTM(t.Context(), []uint64{1, 2, 3}); err != nil {
			t.Fatal(err)
		}
		if v := read(d, m.TmTileToHostSts); v != 3 {
			t.Errorf("%d words wait, want 3", v)
		}
		if v := read(d, m.TmTileToHost); v != 1 {
			t.Errorf("first word %d", v)
		}
		w := make([]uint64, 5)
		if n, _ := d.TMRead(w); n != 2 || w[0] != 2 || w[1] != 3 {
			t.Errorf("rest is %d %v", n, w)
		}
		// Nobody runs the DPU: its side fills up.
		for i := range reg.TmFIFODepth + 2 {
			write(d, m.TmHostToTile, uint64(i))
		}
		if v := read(d, m.TmHostToTileSts); v != reg.TmFIFODepth {
			t.Errorf("%d words in a full FIFO", v)
		}
		if n := d.TMOverflow(); n != 2 {
			t.Errorf("%d words lost, want 2", n)
		}
		if n, _ := d.TMWrite([]uint64{1}); n != 0 {
			t.Error("a full FIFO took a word")
		}
	})
}

func TestTMFIFODrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []uint64
		d := start(t, bluefield.Config{OnTM: func(w []uint64) { got = append(got, w...) }})
		d.HoldTM(true)
		write(d, d.Map().TmHostToTile, 5)
		write(d, d.Map().TmHostToTile, 6)
		synctest.Wait()
		if v := read(d, d.Map().TmHostToTileSts); v != 2 {
			t.Fatalf("%d words while held, want 2", v)
		}
		d.HoldTM(false)
		synctest.Wait()
		if v := read(d, d.Map().TmHostToTileSts); v != 0 || !slices.Equal(got, []uint64{5, 6}) {
			t.Errorf("%d words left, DPU got %v", v, got)
		}
	})
}
