// SPDX-License-Identifier: Apache-2.0

package rshim

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// errOff is why a device of a Set that does not serve cannot be taken.
var errOff = fmt.Errorf("%w: serving is switched off", ErrBlocked)

// Changed returns a channel that is closed when next a device appears or is
// gone, or Serving changes.
func (set *Set) Changed() <-chan struct{} {
	set.mu.Lock()
	defer set.mu.Unlock()
	return waitFor(&set.changed)
}

// Device returns rshim<index>, nil if there is none.
func (set *Set) Device(index int) *Device {
	set.mu.Lock()
	defer set.mu.Unlock()
	if index < 0 || index >= len(set.slots) || set.slots[index] == nil {
		return nil
	}
	return set.slots[index].device
}

// Serving reports whether the devices are served: that is so unless Serve has
// switched it off.
func (set *Set) Serving() bool {
	set.mu.Lock()
	defer set.mu.Unlock()
	return !set.off
}

// Serve switches serving off and on. Off, every RShim is given up and left
// alone, as in drop mode, which devices that appear then begin with; neither
// Force nor the drop mode takes them, the error being ErrBlocked. On, the devices
// are taken again, but for those whose drop mode was set by itself. What is so
// already stays untouched.
//
// It cannot be switched off while a boot stream is open, which is ErrBusy and
// changes nothing. It returns when all devices are given up, or have been asked
// for: a device that another backend owns by then is no error, and neither is
// one that does not answer.
func (set *Set) Serve(ctx context.Context, on bool) error {
	select {
	case set.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-set.turn }()
	devices, err := set.switchTo(!on)
	if err != nil || devices == nil {
		return err
	}
	set.log.Info("serving", "on", on)
	var wg sync.WaitGroup
	errs := make([]error, len(devices))
	for i, d := range devices {
		wg.Go(func() {
			if err := d.followOff(ctx, !on); !on && !errors.Is(err, ErrGone) {
				errs[i] = d.opError("give up", err)
			}
		})
	}
	wg.Wait()
	return errors.Join(append(errs, ctx.Err())...)
}

// switchTo decides that all devices are left alone, or are not any longer, and
// returns those for which that makes a difference.
func (set *Set) switchTo(off bool) (devices []*Device, err error) {
	set.mu.Lock()
	defer set.mu.Unlock()
	if set.off == off {
		return nil, nil
	}
	devices = make([]*Device, 0, len(set.slots))
	for _, s := range set.slots {
		if s == nil || s.device == nil {
			continue
		}
		if err = s.device.setOff(off); err != nil {
			err = s.device.opError("give up", err)
			break
		}
		devices = append(devices, s.device)
	}
	if err != nil {
		for _, d := range devices {
			_ = d.setOff(!off) // nothing has come of it yet
		}
		return nil, err
	}
	set.off = off
	wake(&set.changed)
	return devices, nil
}

// setOff decides that the device is left alone with its whole set, or is not.
func (d *Device) setOff(off bool) (err error) {
	d.update(func() {
		if off && d.boot != nil {
			err = fmt.Errorf("%w: it would be lost", ErrBusy)
			return
		}
		d.off = off
	})
	return err
}

// followOff carries out what setOff has decided.
func (d *Device) followOff(ctx context.Context, off bool) error {
	d.mu.Lock()
	drop := d.drop
	d.mu.Unlock()
	if drop {
		return nil // it is left alone anyway
	}
	return d.followDrop(ctx, off)
}
