// SPDX-License-Identifier: Apache-2.0

package usbbackend

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

// cancel calls all transfers back and accounts for what they moved. Because
// the bytes moved are a prefix of those submitted, the sum of the counts is
// all there is to know.
func (p *pipeline) cancel() {
	n := 0
	for i := range p.queue {
		if t := p.queue[i].t; t != nil {
			t.Cancel()
		}
	}
	for i := range p.queue {
		if t := p.queue[i].t; t != nil {
			m, _ := t.Result()
			n += m
			p.queue[i].t = nil
		}
	}
	for n > 0 && len(p.queue) > 0 {
		m := min(n, len(p.queue[0].data))
		p.take(m)
		n -= m
	}
	p.sent = p.taken
}

// recover decides whether the stream can go on after a transfer failed.
func (p *pipeline) recover(ctx context.Context, err error) error {
	if lost(err) {
		return err
	}
	if errors.Is(err, usb.ErrStall) {
		// Should this fail, the next transfer will, and it is tried again.
		cerr := p.d.clearHalt(ctx, p.ep)
		if cerr != nil {
			err = fmt.Errorf("%w, and cannot be cleared: %w", err, cerr)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if lost(cerr) {
			return err
		}
	}
	p.faults++
	p.log.Debug("transfer failed", "op", p.name, "bytes", p.taken, "err", err, "faults", p.faults)
	if p.endless {
		return p.d.pause(ctx, backOff(p.faults))
	}
	if p.faults > maxFaults {
		return fmt.Errorf("boot FIFO after %d bytes, %d failures in a row: %w", p.taken, p.faults, err)
	}
	if p.faults > 1 {
		return sleep(ctx, faultPause)
	}
	return nil
}

// backOff is how long to wait after so many failures in a row.
func backOff(faults int) time.Duration {
	if faults < 2 {
		return 0
	}
	return min(faultPause<<min(faults-2, 10), maxPause)
}

// pause waits, but not for a device that is no more.
func (d *Device) pause(ctx context.Context, t time.Duration) error {
	if t == 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(t)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-d.dev.Gone():
		return d.fail(usb.ErrNoDevice)
	case <-d.open.Done():
		return d.fail(usb.ErrClosed)
	}
}

func (d *Device) fail(err error) error {
	return &usb.OpError{Op: "wait", Location: d.info.Location, Err: err}
}

const (
	clearLimit = time.Second
	maxPause   = time.Second
)

// clearHalt resumes an endpoint after a STALL.
func (d *Device) clearHalt(ctx context.Context, ep uint8) error {
	ctx, cancel := context.WithTimeout(ctx, clearLimit)
	defer cancel()
	return d.dev.ClearHalt(ctx, ep)
}

// lost reports whether err means that the device can be used no more.
func lost(err error) bool {
	return errors.Is(err, usb.ErrNoDevice) || errors.Is(err, usb.ErrClosed)
}
