// SPDX-License-Identifier: Apache-2.0

package bluefield

import (
	"context"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

// ResetBehaviour is what a soft reset looks like from outside. The zero value
// is a healthy chip.
type ResetBehaviour struct {
	Lag  time.Duration // from the key to the reset, the chip as before; 0: 5 ms
	Drop time.Duration // off the bus, or unreadable with Stay; 0: 500 ms
	// Ready is how long the chip, back on the bus, still reads bad and
	// swallows what is written to the boot FIFO.
	Ready time.Duration
	// ReadZero makes an unready chip read 0 everywhere, not BadRegister.
	ReadZero bool
	// Held is how long platform code holds the reset back (ResetDisable),
	// before Lag.
	Held  time.Duration
	Never bool // the chip does not come back
	Stay  bool // the chip does not leave the bus
}

// SetReset changes Config.Reset for resets to come.
func (d *DPU) SetReset(b ResetBehaviour) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reset = b
}

// Reset resets the chip as a write of the key does.
func (d *DPU) Reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.askReset()
}

// askReset asks Run for a reset. The caller holds mu.
func (d *DPU) askReset() {
	d.resetting = true
	select {
	case d.resets <- struct{}{}:
	default: // one is under way
	}
}

// OnBus makes fn the one who is told when the chip leaves the bus and comes
// back. It returns whether the chip is on it now.
func (d *DPU) OnBus(fn func(present bool)) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.busFn = fn
	return d.onBus
}

// waitReset waits until a reset is due; false when ctx ended first.
func (d *DPU) waitReset(ctx context.Context) (ResetBehaviour, bool) {
	select {
	case <-d.resets:
	case <-ctx.Done():
		return ResetBehaviour{}, false
	}
	d.mu.Lock()
	b := d.reset
	d.mu.Unlock()
	if b.Lag == 0 {
		b.Lag = 5 * time.Millisecond
	}
	if b.Drop == 0 {
		b.Drop = 500 * time.Millisecond
	}
	d.event("reset-asked")
	return b, sleep(ctx, b.Held+b.Lag)
}

// doReset carries a reset out, up to where the boot ROM begins; false when ctx
// ended first.
func (d *DPU) doReset(ctx context.Context, b ResetBehaviour) bool {
	d.setStage(StageReset)
	d.mu.Lock()
	d.notReady, d.resetting = true, false
	select {
	case <-d.resets: // asked for again meanwhile: this is the answer to both
	default:
	}
	keep := map[reg.Addr]uint64{}
	for _, a := range []reg.Addr{d.m.Breadcrumb0, d.m.Breadcrumb1, d.m.BootControl} {
		keep[a] = d.plain[a]
	}
	d.plain = keep
	mode := reg.BootMode(keep[d.m.BootControl])
	d.sem, d.ring, d.ringIdx = 0, [reg.LogWords]uint64{}, 0
	d.semFree.ring()
	d.clearBoot()
	d.clearTM()
	d.mu.Unlock()
	d.event("reset", "mode", int(mode))

	if !b.Stay {
		d.setBus(false)
	}
	if b.Never {
		<-ctx.Done()
		return false
	}
	if !sleep(ctx, b.Drop) {
		return false
	}
	d.mu.Lock()
	d.resetAt = time.Now()
	d.notReady = b.Ready > 0
	d.mu.Unlock()
	if !b.Stay {
		d.setBus(true)
	}
	if !sleep(ctx, b.Ready) {
		return false
	}
	d.mu.Lock()
	d.notReady = false
	d.mu.Unlock()
	return true
}

func (d *DPU) setBus(present bool) {
	d.mu.Lock()
	d.onBus = present
	fn := d.busFn
	d.mu.Unlock()
	d.event("bus", "present", present)
	if fn != nil {
		fn(present)
	}
}
