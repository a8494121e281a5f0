// SPDX-License-Identifier: Apache-2.0

package bluefield_test

import (
	"bytes"
	"crypto/sha256"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/bootlog"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
)

// inOrder checks that log has all lines in the given order.
func inOrder(t *testing.T, log string, lines ...string) {
	t.Helper()
	rest := log
	for _, l := range lines {
		_, after, ok := strings.Cut(rest, l)
		if !ok {
			t.Fatalf("log lacks %q, or has it too early:\n%s", l, log)
		}
		rest = after
	}
}

func TestBootFromEMMC(t *testing.T) {
	for _, c := range []struct {
		cfg  bluefield.Config
		last string
	}{
		{bluefield.Config{}, "INFO[MISC]: DPU is ready"},
		{bluefield.Config{Generation: reg.BlueField2, StageScale: 1}, "INFO[MISC]: DPU is ready"},
		{bluefield.Config{NICMode: true}, "In Enhanced NIC mode"},
	} {
		synctest.Test(t, func(t *testing.T) {
			d := start(t, c.cfg)
			if err := d.WaitStage(t.Context(), bluefield.StageReady); err != nil {
				t.Fatal(err)
			}
			inOrder(t, log(t, d), "INFO[BL2]: start", "DDR POST passed", "INFO[BL31]: start", "exit Boot Service", c.last)
			want := "DPU mode"
			if c.cfg.NICMode {
				want = "NIC mode"
			}
			if got := reg.BFModeOf(read(d, d.Map().Scratchpad2)).String(); d.Config().Generation == reg.BlueField3 && got != want {
				t.Errorf("BF_MODE %q, want %q", got, want)
			}
			if d.LogLost() != 0 {
				t.Error("lines were lost")
			}
		})
	}
}

func TestInstall(t *testing.T) {
	for _, c := range []struct {
		gen   reg.Generation
		lines []string
	}{
		{reg.BlueField3, []string{"INFO[PSC]: PSC BL1 START", "INFO[BL2]: boot mode (rshim)", "UEFI loaded", "exit Boot Service",
			"INFO[MISC]: Found bf.cfg", "Installation finished. Rebooting..."}},
		{reg.BlueField2, []string{"INFO[BL2]: start", "calc DDR freq", "UEFI loaded", "exit Boot Service",
			"INFO[MISC]: Found bf.cfg", "Installation finished. Rebooting..."}},
	} {
		synctest.Test(t, func(t *testing.T) {
			var sink bytes.Buffer
			d := start(t, bluefield.Config{Generation: c.gen, Capture: true, Sink: &sink, StageScale: 1})
			bootRShim(t, d)
			img := image(t, 100_000, "ubuntu_PASSWORD=x\n")
			begun := time.Now()
			// Collect the log as bfb-install does, or it overflows.
			done := make(chan struct{})
			go func() { defer close(done); push(t, d, img) }()
			var got strings.Builder
			for d.Stage() != bluefield.StageReset {
				got.WriteString(log(t, d))
				time.Sleep(time.Millisecond)
			}
			<-done
			inOrder(t, got.String(), c.lines...)
			n, sum := d.BootSum()
			if n != int64(len(img)) || sum != sha256.Sum256(img) {
				t.Errorf("%d bytes arrived, %d were sent; or their sum differs", n, len(img))
			}
			if !bytes.Equal(d.BootBytes(), img) || !bytes.Equal(sink.Bytes(), img) {
				t.Error("captured or sunk bytes differ")
			}
			if err := d.WaitStage(t.Context(), bluefield.StageReady); err != nil {
				t.Fatal(err)
			}
			inOrder(t, log(t, d), "INFO[BL2]: start", "Linux up", "DPU is ready")
			if took := time.Since(begun); took < 5*time.Second || took > 20*time.Second {
				t.Errorf("installation and reboot took %v, want about ten seconds", took)
			}
			if n2, sum2 := d.BootSum(); n2 != n || sum2 != sum {
				t.Error("the reboot into eMMC touched the record")
			}
		})
	}
}

func TestBadStream(t *testing.T) {
	good := image(t, 9000, "")
	for name, c := range map[string]struct {
		img  []byte
		want string
	}{
		"magic": {append([]byte("\x00\x00\x00\x00"), good...), "PANIC(BL1)"},
		"crc":   {append(append(good[:64:64], ^good[64]), good[65:]...), "ERR[BL2]: image CRC error"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := start(t, bluefield.Config{})
				bootRShim(t, d)
				d.BootWrite(c.img[:8192], 512)
				if err := d.WaitStage(t.Context(), bluefield.StageStuck); err != nil {
					t.Fatal(err)
				}
				inOrder(t, log(t, d), c.want)
				d.BootWrite(make([]byte, 8192), 512)
				if n, _ := d.BootWrite(make([]byte, 512), 512); n != 0 {
					t.Error("a dead chip reads its FIFO")
				}
				bootRShim(t, d) // a reset revives it
			})
		})
	}
}

func TestFailLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := start(t, bluefield.Config{FailAfter: "VDDQ", FailLine: "ERR[BL2]: DDR init fail on MSS0"})
		if err := d.WaitStage(t.Context(), bluefield.StageStuck); err != nil {
			t.Fatal(err)
		}
		got := log(t, d)
		inOrder(t, got, "VDDQ", "ERR[BL2]: DDR init fail on MSS0")
		if strings.Contains(got, "DDR POST passed") {
			t.Errorf("went on after the failure:\n%s", got)
		}
	})
}

// The boot ROM waits for a stalled host for ever, and a DPU that waits costs
// nothing: the fake clock would not reach a week otherwise.
func TestROMWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := start(t, bluefield.Config{})
		bootRShim(t, d)
		img := image(t, 40_000, "")
		push(t, d, img[:12_345])
		time.Sleep(7 * 24 * time.Hour)
		if s := d.Stage(); s != bluefield.StageLoading {
			t.Fatalf("stage %v after a stall, want loading", s)
		}
		push(t, d, img[12_345:])
		if err := d.WaitStage(t.Context(), bluefield.StageReady); err != nil {
			t.Fatal(err)
		}
	})
}

func TestUpgradeWithoutReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := start(t, bluefield.Config{})
		m := d.Map()
		if err := d.WaitStage(t.Context(), bluefield.StageReady); err != nil {
			t.Fatal(err)
		}
		write(d, m.Scratchpad2, read(d, m.Scratchpad2)|1<<2)
		write(d, m.SWInt, 1<<2)
		push(t, d, image(t, 50_000, ""))
		time.Sleep(time.Second)
		if v := read(d, m.Scratchpad2); v>>11&3 != 2 {
			t.Errorf("SCRATCHPAD2 = %#x, want status 10b", v)
		}
		inOrder(t, log(t, d), "Runtime upgrade finished")
	})
}

func TestLogRingFills(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := bluefield.New(bluefield.Config{})
		for range 40 {
			d.Log(t.Context(), "INFO[MISC]: twenty-four characters..")
		}
		if v := read(d, d.Map().ScratchBufCtl); v > 0x7f-1 {
			t.Errorf("index %d, writers stop at 126", v)
		}
		// 4 words each: 31 lines fit, and half of one more.
		if d.LogLost() != 40-32 {
			t.Errorf("%d lines lost, want 8", d.LogLost())
		}
		if got := strings.Split(log(t, d), "\n"); got[30] != " INFO[MISC]: twenty-four characters.." || got[31] != " INFO[MISC]: twenty-f" {
			t.Errorf("the last lines are %q", got[30:])
		}
	})
}

func TestLogWaitsForSemaphore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := bluefield.New(bluefield.Config{})
		sem := d.Map().Semaphore0
		read(d, sem)
		begun := time.Now()
		d.Log(t.Context(), "INFO[MISC]: lost")
		if took := time.Since(begun); took != 100*time.Millisecond || d.LogLost() != 1 {
			t.Errorf("gave up after %v with %d lost, want 100 ms and 1", took, d.LogLost())
		}
		go func() {
			time.Sleep(50 * time.Millisecond)
			write(d, sem, 0)
		}()
		d.Log(t.Context(), "WARN[UEFI]: kept")
		if took := time.Since(begun); took != 150*time.Millisecond {
			t.Errorf("waited until %v", took)
		}
		if got := log(t, d); got != " WARN[UEFI]: kept\n" {
			t.Errorf("log is %q", got)
		}
	})
}

func TestSetLog(t *testing.T) {
	d := bluefield.New(bluefield.Config{})
	d.SetLog(bootlog.EncodeMessage(bootlog.BL31, bootlog.Err, "hostile %s"), 3)
	if got := log(t, d); !strings.Contains(got, "ERR[BL31]: hostile ") {
		t.Errorf("log is %q", got)
	}
}
