// SPDX-License-Identifier: Apache-2.0

package usbdev

import (
	"context"
	"errors"
	"sync"

	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

// device is an open function; it implements usb.Device.
type device struct {
	f     *Function
	at    usb.Location
	epoch int
	gone  chan struct{}
	ifs   []usb.Interface

	// mu comes before the function's.
	mu     sync.Mutex
	closed bool
	out    map[*transfer]struct{} // submitted, not done
	pipes  map[uint8]*pipe
}

// pipe is the state of an OUT endpoint that the prefix rule needs.
type pipe struct {
	under  int       // transfers not done
	failed bool      // one of them has failed or was cancelled: none may follow
	broke  *transfer // has failed, and nobody has seen that
}

type transfer struct {
	d    *device
	urb  URB
	pipe *pipe // nil for IN and control
	done chan struct{}

	n   int
	err error
}

func (f *Function) open(at usb.Location, epoch int) (*device, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.present || f.epoch != epoch {
		return nil, &usb.OpError{Op: "open", Location: at, Err: usb.ErrNoDevice}
	}
	return &device{
		f: f, at: at, epoch: epoch, gone: f.gone, ifs: f.interfaces(),
		out: map[*transfer]struct{}{}, pipes: map[uint8]*pipe{},
	}, nil
}

func (d *device) Interfaces() []usb.Interface { return d.ifs }
func (d *device) Gone() <-chan struct{}       { return d.gone }

func (d *device) fail(op string, err error) error {
	return &usb.OpError{Op: op, Location: d.at, Err: err}
}

// here reports why the device cannot be used, if so. The caller holds d.mu and
// f.mu.
func (d *device) here() error {
	switch {
	case d.closed:
		return usb.ErrClosed
	case !d.f.present || d.f.epoch != d.epoch:
		return usb.ErrNoDevice
	}
	return nil
}

func (d *device) Claim(iface int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.f.mu.Lock()
	defer d.f.mu.Unlock()
	if err := d.here(); err != nil {
		return d.fail("claim", err)
	}
	if iface < 0 || iface >= len(d.ifs) {
		return d.fail("claim", errors.New("no such interface"))
	}
	if owner := d.f.claims[iface]; owner != nil && owner != d {
		return d.fail("claim", usb.ErrBusy)
	}
	d.f.claims[iface] = d
	return nil
}

func (d *device) Submit(ep uint8, data []byte) (usb.Transfer, error) {
	return d.submit("transfer", URB{Endpoint: ep, Data: data})
}

func (d *device) submit(op string, u URB) (*transfer, error) {
	t := &transfer{d: d, urb: u, done: make(chan struct{})}
	t.urb.Complete = func(*URB) { t.complete(op) }
	d.mu.Lock()
	defer d.mu.Unlock()
	if u.Endpoint != 0 && u.Endpoint&0x80 == 0 {
		if d.pipes[u.Endpoint] == nil {
			d.pipes[u.Endpoint] = &pipe{}
		}
		t.pipe = d.pipes[u.Endpoint]
	}
	d.f.mu.Lock()
	err := d.here()
	if err == nil && t.pipe != nil && (t.pipe.failed || t.pipe.broke != nil) {
		d.f.mu.Unlock()
		t.err = d.fail(op, usb.ErrCancelled)
		close(t.done)
		return t, nil
	}
	if err == nil {
		err = d.f.submit(&t.urb)
	}
	if err == nil {
		// Before the function's lock is released, since the transfer may
		// complete right then.
		d.out[t] = struct{}{}
		if t.pipe != nil {
			t.pipe.under++
		}
	}
	d.f.mu.Unlock()
	if err != nil {
		return nil, d.fail(op, err)
	}
	return t, nil
}

// complete is called by the function when the transfer has ended.
func (t *transfer) complete(op string) {
	d := t.d
	d.mu.Lock()
	var behind []*URB
	if t.pipe != nil && t.urb.Err != nil && t.urb.Err != usb.ErrCancelled {
		// It failed by itself: all that the endpoint still has is behind it.
		t.pipe.failed, t.pipe.broke = true, t
		d.f.mu.Lock()
		behind = d.f.takeBehind(&t.urb)
		d.f.mu.Unlock()
	}
	t.n = t.urb.Actual
	if t.urb.Err != nil {
		t.err = d.fail(op, t.urb.Err)
		if d.closed && errors.Is(t.urb.Err, usb.ErrCancelled) {
			t.err = d.fail(op, usb.ErrClosed)
		}
	}
	delete(d.out, t)
	if t.pipe != nil {
		if t.pipe.under--; t.pipe.under == 0 {
			t.pipe.failed = false
		}
	}
	close(t.done)
	d.mu.Unlock()
	complete(behind)
}

func (t *transfer) Done() <-chan struct{} { return t.done }

func (t *transfer) Result() (int, error) {
	<-t.done
	if t.pipe != nil && t.err != nil {
		t.d.mu.Lock()
		if t.pipe.broke == t {
			t.pipe.broke = nil
		}
		t.d.mu.Unlock()
	}
	return t.n, t.err
}

func (t *transfer) Cancel() {
	d := t.d
	d.mu.Lock()
	d.f.mu.Lock()
	ended := d.f.take(&t.urb, t.pipe != nil)
	d.f.mu.Unlock()
	if t.pipe != nil && len(ended) > 0 && ended[0].Err != nil {
		t.pipe.failed = true // nothing may slip in until all of ended is done
	}
	d.mu.Unlock()
	complete(ended)
}

func (d *device) Control(ctx context.Context, s usb.Setup, data []byte) (int, error) {
	t, err := d.submit("control", URB{Setup: s, Data: data})
	if err != nil {
		return 0, err
	}
	select {
	case <-t.done:
	case <-ctx.Done():
		t.Cancel()
	}
	n, err := t.Result()
	if errors.Is(err, usb.ErrCancelled) && ctx.Err() != nil {
		err = d.fail("control", ctx.Err())
	}
	return n, err
}

func (d *device) ClearHalt(ctx context.Context, ep uint8) error {
	_, err := d.Control(ctx, usb.Setup{RequestType: 0x02, Request: clearFeature, Index: uint16(ep)}, nil)
	return err
}

func (d *device) Close() error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil
	}
	d.closed = true
	var ended []*URB
	d.f.mu.Lock()
	for t := range d.out {
		ended = append(ended, d.f.take(&t.urb, false)...)
	}
	for i, owner := range d.f.claims {
		if owner == d {
			delete(d.f.claims, i)
		}
	}
	d.f.mu.Unlock()
	d.mu.Unlock()
	complete(ended)
	return nil
}
