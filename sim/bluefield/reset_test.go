// SPDX-License-Identifier: Apache-2.0

package bluefield_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
)

// bus notes when a DPU leaves the bus and comes back.
type bus struct {
	mu         sync.Mutex
	begun      time.Time
	left, back time.Duration // since begun; -1: not at all
}

func watch(d *bluefield.DPU) *bus {
	b := &bus{begun: time.Now(), left: -1, back: -1}
	d.OnBus(func(present bool) {
		b.mu.Lock()
		defer b.mu.Unlock()
		if present {
			b.back = time.Since(b.begun)
		} else {
			b.left = time.Since(b.begun)
		}
	})
	return b
}

func (b *bus) times() (left, back time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.left, b.back
}

func TestReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := start(t, bluefield.Config{})
		m := d.Map()
		b := watch(d)
		write(d, m.Breadcrumb1, 5)
		write(d, m.Scratchpad1, 6)
		write(d, m.BootControl, 0)
		d.BootWrite(make([]byte, 1024), 512)
		write(d, m.ResetControl, 0x1234) // not the key
		time.Sleep(time.Second)
		if d.Stage() != bluefield.StageReady {
			t.Fatal("reset without the key")
		}
		b.mu.Lock()
		b.begun = time.Now()
		b.mu.Unlock()
		write(d, m.ResetControl, reg.ResetKey|reg.ResetPending)
		time.Sleep(2 * time.Second)
		if left, back := b.times(); left != 5*time.Millisecond || back != 505*time.Millisecond {
			t.Errorf("left the bus after %v, back after %v; want 5 ms, 505 ms", left, back)
		}
		if read(d, m.Breadcrumb1) != 5 || read(d, m.Scratchpad1) != 0 || read(d, m.BootControl) != 0 {
			t.Error("breadcrumb and boot mode survive a reset, scratchpads do not")
		}
		if v := read(d, m.BootFIFOCount); v != 0 {
			t.Errorf("%d words in the boot FIFO after a reset", v)
		}
		if n, _ := d.BootSum(); n != 0 {
			t.Errorf("record of %d bytes after a reset into the boot ROM", n)
		}
	})
}

func TestResetNotReady(t *testing.T) {
	for _, zero := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			d := start(t, bluefield.Config{Reset: bluefield.ResetBehaviour{Drop: time.Second, Ready: 3 * time.Second, ReadZero: zero}})
			m := d.Map()
			b := watch(d)
			write(d, m.BootControl, 0)
			write(d, m.ResetControl, reg.ResetKey)
			time.Sleep(1100 * time.Millisecond)
			want := bluefield.BadRegister
			if zero {
				want = 0
			}
			if _, back := b.times(); back < 0 {
				t.Error("not back on the bus")
			}
			if v := read(d, m.FabricDim); v != want {
				t.Errorf("FABRIC_DIM %#x before it is ready, want %#x", v, want)
			}
			if n, _ := d.BootWrite(make([]byte, 1024), 512); n != 1024 {
				t.Errorf("took %d, want all, to swallow it", n)
			}
			time.Sleep(3 * time.Second)
			if v := read(d, m.FabricDim); v&0xff != 0x22 {
				t.Errorf("FABRIC_DIM %#x when ready", v)
			}
			if n, _ := d.BootSum(); n != 0 {
				t.Errorf("%d bytes arrived at an unready chip", n)
			}
			if _, lost := d.BootLost(); lost != 1024 {
				t.Errorf("%d bytes swallowed, want 1024", lost)
			}
		})
	}
}

func TestResetHeldStaysNever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := start(t, bluefield.Config{Reset: bluefield.ResetBehaviour{Held: 4 * time.Second, Stay: true}})
		m := d.Map()
		b := watch(d)
		write(d, m.Scratchpad1, 6)
		write(d, m.ResetControl, reg.ResetKey)
		time.Sleep(4 * time.Second)
		if read(d, m.Scratchpad1) != 6 || read(d, m.ResetControl)&reg.ResetPending == 0 {
			t.Error("a held reset changes nothing, and is pending")
		}
		time.Sleep(100 * time.Millisecond)
		if v := read(d, m.Scratchpad1); v != bluefield.BadRegister {
			t.Errorf("reads %#x in reset", v)
		}
		time.Sleep(time.Second)
		v := read(d, m.Scratchpad1)
		if left, _ := b.times(); v != 0 || left >= 0 {
			t.Errorf("reads %#x after it, left the bus at %v", v, left)
		}
		d.SetReset(bluefield.ResetBehaviour{Never: true})
		d.Reset()
		time.Sleep(time.Hour)
		if left, back := b.times(); left < 0 || back >= 0 {
			t.Error("is to leave the bus and not come back")
		}
	})
}

func TestBootPartitionSwap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := start(t, bluefield.Config{})
		m := d.Map()
		left := 0
		d.OnBus(func(present bool) {
			if !present {
				left++
			}
		})
		write(d, m.BootControl, uint64(reg.BootEMMCSwap))
		write(d, m.ResetControl, reg.ResetKey)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if left != 2 || read(d, m.BootControl) != uint64(reg.BootEMMC) || d.Stage() != bluefield.StageReady {
			t.Errorf("%d resets, boot mode %d, stage %v; want 2, eMMC, ready", left, read(d, m.BootControl), d.Stage())
		}
	})
}
