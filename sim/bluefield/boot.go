// SPDX-License-Identifier: Apache-2.0

package bluefield

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/bfb"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

// Bits with which the BMC's side asks the running DPU for an upgrade without
// a reset, and in which it answers, in Scratchpad2; SWInt's bit is the bell.
const (
	upgradeRequest uint64 = 1 << 2
	upgradeStatus  uint64 = 3 << 11
	upgradeDone    uint64 = 2 << 11
	upgradeFailed  uint64 = 3 << 11
	swintKick      uint64 = 1 << 2
)

// runBoot is the life of the chip from one reset to the next, until ctx ends.
func (d *DPU) runBoot(ctx context.Context) {
	d.mu.Lock()
	mode := reg.BootMode(d.plain[d.m.BootControl])
	if d.cfg.Generation == reg.BlueField3 {
		bf := uint64(1) << 4 // DPU mode
		if d.cfg.NICMode {
			bf = 2 << 4
		}
		d.plain[d.m.Scratchpad2] |= bf
	}
	d.mu.Unlock()

	switch {
	case d.cfg.NoFirmware:
		d.setStage(StageROM)
		buf := make([]byte, maxDrain)
		for d.readBoot(ctx, buf, 0) > 0 {
		}
	case mode == reg.BootRShim:
		if d.bootRShim(ctx) {
			d.reboot()
		}
	case mode == reg.BootEMMCSwap:
		d.reboot() // BL2 swaps the partitions, and then boots as ever
	default:
		if d.bootEMMC(ctx, mode) {
			d.serveUpgrades(ctx)
		}
	}
}

// bootRShim reads a boot stream and lets its installer run. It returns true
// when the chip is to reboot, false when it is stuck or ctx has ended.
func (d *DPU) bootRShim(ctx context.Context) bool {
	d.setStage(StageROM)
	s := d.script()
	var (
		f   bfb.Follower
		buf = make([]byte, maxDrain)
		// What is still to be logged, and what part of the stream it needs.
		phases = []struct {
			due   func() bool
			lines []line
		}{
			{func() bool { return f.Offset() >= bfb.HeaderSize }, s.rom},
			{func() bool { img, _ := f.Image(); return img.Offset > 0 || f.Complete() }, s.bl2},
			{func() bool { img, _ := f.Image(); return img.ID >= bfb.IDInfo || f.Complete() }, s.firmware},
			{f.Complete, exitUEFI},
		}
	)
	for !f.Complete() {
		n := d.readBoot(ctx, buf, 0) // the boot ROM waits for ever
		if n == 0 {
			return false
		}
		f.Write(buf[:n])
		if d.Stage() == StageROM && f.Offset() >= bfb.HeaderSize {
			d.setStage(StageLoading)
		}
		if err := f.Err(); err != nil {
			d.badStream(ctx, err)
			return false
		}
		for len(phases) > 0 && phases[0].due() {
			if !d.logLines(ctx, phases[0].lines, reg.BootRShim) {
				return false
			}
			phases = phases[1:]
		}
	}
	d.setStage(StageInstalling)
	tail := f.Tail()
	for n := 1; n > 0; tail += int64(n) {
		n = d.readBoot(ctx, buf, tailEnd)
	}
	if ctx.Err() != nil {
		return false
	}
	n, sum := d.BootSum()
	d.event("stream", "bytes", n, "sha256", fmt.Sprintf("%x", sum))
	if tail > 0 && !d.logLines(ctx, foundConfig, reg.BootRShim) {
		return false
	}
	if !d.logLines(ctx, install, reg.BootRShim) {
		return false
	}
	return sleep(ctx, d.scaled(shutdown))
}

// badStream is the end of a boot from a bad stream: a panic when it is no BFB,
// an error when one of its images is damaged. The chip stays dead, and its FIFO
// fills up.
func (d *DPU) badStream(ctx context.Context, err error) {
	d.event("bad-stream", "err", err)
	if errors.Is(err, bfb.ErrCRC) {
		const text = "ERR[BL2]: image CRC error"
		d.logLine(ctx, text)
		d.bootConsole(text)
	} else {
		d.logPanic(ctx)
	}
	d.stuck()
}

// bootEMMC boots the installed system and returns true when it is up.
func (d *DPU) bootEMMC(ctx context.Context, mode reg.BootMode) bool {
	d.setStage(StageBooting)
	s := d.script()
	last := up
	if d.cfg.NICMode {
		last = upNIC
	}
	for _, lines := range [][]line{s.rom, s.bl2, s.firmware, exitUEFI, last} {
		if !d.logLines(ctx, lines, mode) {
			return false
		}
	}
	if !d.cfg.NICMode {
		d.enterTM(phaseShell)
	}
	d.setStage(StageReady)
	return true
}

// stuck is the end of a boot that goes no further.
func (d *DPU) stuck() {
	d.enterTM(phaseNone)
	d.setStage(StageStuck)
}

// serveUpgrades lets the installed system take boot streams without a reset.
func (d *DPU) serveUpgrades(ctx context.Context) {
	buf := make([]byte, maxDrain)
	for {
		d.mu.Lock()
		asked := d.plain[d.m.SWInt]&swintKick != 0 && d.plain[d.m.Scratchpad2]&upgradeRequest != 0
		kick := d.kick.wait()
		if asked {
			d.plain[d.m.SWInt] &^= swintKick
			d.plain[d.m.Scratchpad2] &^= upgradeRequest | upgradeStatus
		}
		d.mu.Unlock()
		if !asked {
			if !await(ctx, kick, 0) {
				return
			}
			continue
		}
		var f bfb.Follower
		for idle := time.Duration(0); ; {
			n := d.readBoot(ctx, buf, idle)
			if n == 0 {
				break
			}
			f.Write(buf[:n])
			if idle = upgradePause; f.Complete() || f.Err() != nil {
				idle = tailEnd
			}
		}
		if ctx.Err() != nil {
			return
		}
		status := upgradeDone
		if f.Finish() != nil || !d.logLines(ctx, upgraded, reg.BootEMMC) {
			status = upgradeFailed
		}
		d.mu.Lock()
		d.plain[d.m.Scratchpad2] |= status
		d.mu.Unlock()
	}
}

// reboot is a reset of the chip by itself, to boot from eMMC.
func (d *DPU) reboot() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.plain[d.m.BootControl] = uint64(reg.BootEMMC)
	d.askReset()
}

// scaled is how long something that takes t at StageScale 1 takes.
func (d *DPU) scaled(t time.Duration) time.Duration {
	return time.Duration(float64(t) * d.cfg.StageScale)
}

// logLines logs lines with their delays. It returns false when ctx has ended,
// or the scripted failure has struck.
func (d *DPU) logLines(ctx context.Context, lines []line, mode reg.BootMode) bool {
	for _, l := range lines {
		if !sleep(ctx, d.scaled(l.after)) {
			return false
		}
		text := l.text
		if text == "" {
			name := "emmc"
			if mode == reg.BootRShim {
				name = "rshim"
			}
			text = "INFO[BL2]: boot mode (" + name + ")"
		}
		d.logLine(ctx, text)
		d.bootConsole(text)
		if d.cfg.FailLine != "" && strings.Contains(text, d.cfg.FailAfter) {
			d.logLine(ctx, d.cfg.FailLine)
			d.bootConsole(d.cfg.FailLine)
			d.stuck()
			return false
		}
	}
	return ctx.Err() == nil
}
