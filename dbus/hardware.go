// SPDX-License-Identifier: Apache-2.0

package dbus

import (
	"context"
	"sync"
	"time"

	"github.com/bluefield-go/bmc-rshim/dbus/bus"
	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

const (
	hardwarePause    = 30 * time.Second // between looks at the registers: others can change them
	hardwarePatience = 5 * time.Second  // of a look
)

// hardware is what only the chip's registers tell: properties are answered from
// what was read last, since a chip may take seconds to answer, or not answer.
type hardware struct {
	v    *device
	wake chan struct{}
	turn chan struct{} // filled by who reads and publishes: what is older is not told later
	seen struct {      // owned by device.follow
		state        rshim.State
		since, reset time.Time
	}

	mu    sync.Mutex
	began time.Time // the chip's count, since its reset; zero: it does not tell
}

// look has the registers read when the status says that they may have changed.
func (h *hardware) look(st rshim.Status) {
	now := h.seen
	now.state, now.since, now.reset = st.State, st.Attached, st.Reset
	if now == h.seen {
		return
	}
	h.seen = now
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// run reads the registers from time to time.
func (h *hardware) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		h.refresh(ctx)
		timer.Reset(hardwarePause)
		select {
		case <-timer.C:
		case <-h.wake:
		case <-ctx.Done():
		}
	}
}

// refresh reads the registers of a device that is ours, and publishes what they
// say.
func (h *hardware) refresh(ctx context.Context) {
	select {
	case h.turn <- struct{}{}:
		defer func() { <-h.turn }()
	case <-ctx.Done():
		return
	}
	st := h.v.d.Status()
	if !isOurs(st.State) {
		h.forget()
		return
	}
	if st.State != rshim.Attached || st.Generation == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, hardwarePatience)
	defer cancel()
	regs := reg.For(st.Generation)
	change := func(property, value string) {
		_ = h.v.o.Update(bus.Change{Interface: ifaceDevice, Property: property, Value: value})
	}
	if v, err := h.v.d.ReadReg(ctx, regs.BootControl, 8); err == nil && !reg.Bad(v) {
		change("BootMode", bootMode(reg.BootMode(v&reg.BootModeMask)))
	}
	if st.Generation < reg.BlueField3 {
		return
	}
	if v, err := h.v.d.ReadReg(ctx, regs.Scratchpad2, 8); err == nil {
		change("BFMode", enum(ifaceDevice, "BFModes", bfModes[reg.BFModeOf(v)&3]))
	}
	if v, err := h.v.d.ReadReg(ctx, regs.Uptime, 8); err == nil && !reg.Bad(v) {
		h.mu.Lock()
		h.began = time.Now().Add(-time.Duration(v) * (time.Second / reg.UptimeHz))
		h.mu.Unlock()
	}
}

// forget forgets what a chip that is not ours may have changed.
func (h *hardware) forget() {
	_ = h.v.o.Update(
		bus.Change{Interface: ifaceDevice, Property: "BootMode", Value: enum(ifaceDevice, "BootModes", "Unknown")},
		bus.Change{Interface: ifaceDevice, Property: "BFMode", Value: enum(ifaceDevice, "BFModes", bfModes[0])},
	)
	h.mu.Lock()
	h.began = time.Time{}
	h.mu.Unlock()
}

// uptime is the seconds since the chip's reset, 0 if it does not tell.
func (h *hardware) uptime() any {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.began.IsZero() {
		return uint64(0)
	}
	return uint64(max(0, time.Since(h.began)/time.Second))
}
