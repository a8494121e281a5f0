// SPDX-License-Identifier: Apache-2.0

package usbdev

import (
	"slices"
	"time"

	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

// Kind is a kind of Fault.
type Kind int

// Kinds of faults.
const (
	Stall    Kind = iota // STALL; the endpoint stays halted, but for control
	Protocol             // a transaction error
	Unplug               // the cable is pulled
	NAK                  // the function is not ready for Fault.For
)

// Fault is something that goes wrong once with a transfer.
type Fault struct {
	Endpoint uint8 // address; 0 is control
	Nth      int   // which transfer from now on, 1 (or 0) is the next to begin
	After    int   // bytes that are moved before; control transfers never are
	Kind     Kind
	For      time.Duration // NAK
}

// Inject arranges for a fault. Transfers that have begun are spared.
func (f *Function) Inject(x Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	x.Nth = max(x.Nth, 1)
	f.faults = append(f.faults, x)
}

// ClearFaults forgets the faults that have not struck yet.
func (f *Function) ClearFaults() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = nil
}

// SetErrorPause makes an endpoint wait after a failed transfer has completed,
// before it goes on. It is for callers whose Complete cannot take back what is
// queued behind.
func (f *Function) SetErrorPause(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.errorPause = d
}

// dueFault counts a transfer that begins and returns the fault that is meant
// for it. The caller holds mu.
func (f *Function) dueFault(e *endpoint) (hit *Fault) {
	f.faults = slices.DeleteFunc(f.faults, func(x Fault) bool {
		return x.Endpoint == e.Address && x.Nth <= 0
	})
	for i := range f.faults {
		x := &f.faults[i]
		if x.Endpoint != e.Address {
			continue
		}
		if x.Nth--; x.Nth == 0 && hit == nil {
			c := *x
			hit = &c
		}
	}
	return hit
}

// strike makes a transfer's fault happen. The caller holds mu.
func (f *Function) strike(e *endpoint, u *URB) step {
	x := u.fault
	switch x.Kind {
	case Unplug:
		// Not from here: the lock is held, and this transfer is to end with
		// all others.
		if !u.pulls {
			u.pulls = true
			time.AfterFunc(0, f.Unplug)
		}
		return step{more: f.gone}
	case NAK:
		u.fault = nil
		e.nakUntil = time.Now().Add(x.For)
		return step{wait: x.For}
	case Protocol:
		return step{done: true, err: usb.ErrProtocol}
	}
	return f.fail(e, usb.ErrStall)
}

// fail ends a transfer with a STALL. The caller holds mu.
func (f *Function) fail(e *endpoint, err error) step {
	e.halted = e.Type != usb.Control
	return step{done: true, err: err}
}

// SetNAK makes an endpoint answer everything with NAK until it is set off.
func (f *Function) SetNAK(ep uint8, on bool) {
	f.with(ep, func(e *endpoint) { e.nak = on })
}

// StallNext makes the next transfer of an endpoint stall, the one under way
// included; 0 is control.
func (f *Function) StallNext(ep uint8) {
	f.with(ep, func(e *endpoint) { e.stalls++ })
}

// QueueIn makes the function send data on an IN endpoint, whatever the model
// has to say: packets of the endpoint's size, and the end of a transfer where
// data ends. A packet that does not fit into what the host asked for is babble.
func (f *Function) QueueIn(ep uint8, data []byte) {
	f.with(ep, func(e *endpoint) { e.raw = append(e.raw, slices.Clone(data)) })
}

func (f *Function) with(ep uint8, change func(*endpoint)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e := f.endpoint(ep); e != nil {
		change(e)
		e.work.ring()
	}
}

// SetLatency changes Options.Latency.
func (f *Function) SetLatency(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.latency = d
}

// SetLinkRate changes Options.LinkRate.
func (f *Function) SetLinkRate(bytesPerSecond int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rate = bytesPerSecond
}

// SetLowSpeed makes the next n enumerations come up at low speed.
func (f *Function) SetLowSpeed(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.low = n
}

// Endpoints returns the addresses of the endpoints.
func (f *Function) Endpoints() (boot, tmOut, tmIn, tmInt uint8) {
	return f.opt.Boot, f.opt.TMOut, f.opt.TMIn, f.opt.TMInt
}

// BootSum is the DPU's BootSum.
func (f *Function) BootSum() (n int64, sum [32]byte) { return f.dpu.BootSum() }
