// SPDX-License-Identifier: Apache-2.0

package bluefield_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
)

func TestBootFIFODepth(t *testing.T) {
	each(t, func(t *testing.T, d *bluefield.DPU) {
		m := d.Map()
		size := m.BootFIFODepth * 8
		n, _ := d.BootWrite(make([]byte, size-520), 512)
		if n != size-520 {
			t.Fatalf("took %d of %d", n, size-520)
		}
		// 520 bytes are left: one whole packet, and one word.
		if n, _ = d.BootWrite(make([]byte, 2000), 512); n != 512 {
			t.Errorf("took %d of packets, want 512", n)
		}
		for range 3 {
			write(d, m.BootFIFOData, 1)
		}
		if over, _ := d.BootLost(); over != 16 {
			t.Errorf("%d bytes lost, want 16", over)
		}
		if w, ok := m.BootFIFOWords(read(d, m.BootFIFOCount)); !ok || w != m.BootFIFODepth {
			t.Errorf("count is %d words", w)
		}
		if n, _ := d.BootSum(); n != int64(size) {
			t.Errorf("%d bytes arrived, want %d", n, size)
		}
	})
}

func TestDrainRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := start(t, bluefield.Config{NoFirmware: true, DrainRate: 1_000_000})
		begun := time.Now()
		push(t, d, make([]byte, 1_008_192))
		// All but what the FIFO holds has been read when the last byte is taken.
		if took := time.Since(begun); took < 999*time.Millisecond || took > 1001*time.Millisecond {
			t.Errorf("took %v, want 1 s", took)
		}
	})
}

func TestPauseAndHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := start(t, bluefield.Config{NoFirmware: true, Generation: reg.BlueField2})
		d.PauseDrain(10_000, 250*time.Second)
		begun := time.Now()
		push(t, d, make([]byte, 10_000+4096))
		if took := time.Since(begun); took != 0 {
			t.Errorf("the FIFO's worth beyond the pause took %v", took)
		}
		push(t, d, make([]byte, 8))
		if took := time.Since(begun); took != 250*time.Second {
			t.Errorf("paused %v, want 250 s", took)
		}
		synctest.Wait()
		d.HoldDrain(true)
		push(t, d, make([]byte, 4096))
		time.Sleep(time.Hour)
		if n, _ := d.BootWrite(make([]byte, 8), 512); n != 0 {
			t.Error("read while held")
		}
		d.HoldDrain(false)
		push(t, d, make([]byte, 8))

		synctest.Wait()
		d.PauseDrain(0, time.Hour)
		push(t, d, make([]byte, 4096))
		begun = time.Now()
		go func() {
			time.Sleep(time.Minute)
			d.HoldDrain(false)
		}()
		push(t, d, make([]byte, 8))
		if took := time.Since(begun); took != time.Minute {
			t.Errorf("paused %v, want until it was ended", took)
		}
	})
}
