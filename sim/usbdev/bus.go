// SPDX-License-Identifier: Apache-2.0

package usbdev

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

// Bus is a USB host in this process, with functions plugged into it. It
// implements usb.Host.
type Bus struct {
	changes chan struct{} // holds one

	mu       sync.Mutex
	slots    map[usb.Location]*slot
	lastAddr int
}

type slot struct {
	f     *Function
	epoch int // at which addr was given
	addr  int
}

var _ usb.Host = (*Bus)(nil)

// NewBus returns a bus with nothing on it.
func NewBus() *Bus {
	return &Bus{changes: make(chan struct{}, 1), slots: map[usb.Location]*slot{}}
}

// Plug puts a function at a place on the bus, and plugs it in. Somebody has to
// run the function.
func (b *Bus) Plug(at usb.Location, f *Function) {
	b.mu.Lock()
	b.slots[at] = &slot{f: f}
	b.mu.Unlock()
	f.mu.Lock()
	f.watch = append(f.watch, b.notify)
	f.mu.Unlock()
	f.Plug()
	b.notify()
}

// Unplug takes the function at a place away, if there is one.
func (b *Bus) Unplug(at usb.Location) {
	b.mu.Lock()
	s := b.slots[at]
	delete(b.slots, at)
	b.mu.Unlock()
	if s != nil {
		s.f.Unplug()
		b.notify()
	}
}

// Changes gets a value after devices have come or gone, one for any number of
// changes that nobody has asked about yet.
func (b *Bus) Changes() <-chan struct{} { return b.changes }

func (b *Bus) notify() {
	select {
	case b.changes <- struct{}{}:
	default:
	}
}

// Name is "simulate".
func (b *Bus) Name() string { return "simulate" }

// Devices lists what is plugged in, by location.
func (b *Bus) Devices(ctx context.Context, vendor uint16) ([]usb.Info, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var infos []usb.Info
	for _, at := range slices.SortedFunc(maps.Keys(b.slots), func(x, y usb.Location) int { return strings.Compare(string(x), string(y)) }) {
		if info, _, ok := b.info(at); ok && info.Vendor == vendor {
			infos = append(infos, info)
		}
	}
	return infos, nil
}

// info describes the device at a place now, numbering it if it is new. The
// caller holds mu.
func (b *Bus) info(at usb.Location) (usb.Info, *slot, bool) {
	s := b.slots[at]
	if s == nil {
		return usb.Info{}, nil, false
	}
	st, _ := s.f.State()
	if !st.Present {
		return usb.Info{}, nil, false
	}
	if s.epoch != st.Epoch {
		b.lastAddr++
		s.epoch, s.addr = st.Epoch, b.lastAddr
	}
	info := s.f.identity()
	info.Location, info.Address, info.Speed = at, s.addr, st.Speed
	return info, s, true
}

// find returns the function that info describes, if it still is there.
func (b *Bus) find(op string, want usb.Info) (*Function, int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	info, s, ok := b.info(want.Location)
	if !ok || info.Address != want.Address {
		return nil, 0, &usb.OpError{Op: op, Location: want.Location, Err: usb.ErrNoDevice}
	}
	return s.f, s.epoch, nil
}

// Open opens a device.
func (b *Bus) Open(ctx context.Context, info usb.Info) (usb.Device, error) {
	if err := ctx.Err(); err != nil {
		return nil, &usb.OpError{Op: "open", Location: info.Location, Err: err}
	}
	f, epoch, err := b.find("open", info)
	if err != nil {
		return nil, err
	}
	return f.open(info.Location, epoch)
}

// Reset resets a port and waits for the device to be back.
func (b *Bus) Reset(ctx context.Context, info usb.Info) error {
	f, epoch, err := b.find("reset", info)
	if err != nil {
		return err
	}
	f.Reset()
	for {
		st, changed := f.State()
		if st.Present && st.Epoch > epoch {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return &usb.OpError{Op: "reset", Location: info.Location, Err: ctx.Err()}
		}
	}
}
