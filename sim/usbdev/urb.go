// SPDX-License-Identifier: Apache-2.0

package usbdev

import (
	"slices"
	"time"

	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

// URB is one transfer. The submitter fills in the first group and leaves it
// alone until Complete is called, once, with no lock held.
type URB struct {
	Endpoint uint8 // address with direction; 0 is control in either direction
	Setup    usb.Setup
	Data     []byte // what to send, or where to put what is received
	Complete func(*URB)

	// The result, valid from Complete on: bytes moved, exact also on failure,
	// and nil or one of package usb's errors.
	Actual int
	Err    error

	ep    *endpoint
	fault *Fault
	pulls bool // the cable, when it strikes
}

// endpoint is an endpoint and the host controller's queue for it. The
// function's mu guards it.
type endpoint struct {
	usb.Endpoint
	queue   []*URB // not begun
	cur     *URB   // being carried out
	ending  []due  // data moved, completion waits for the latency
	stopped bool   // a failed transfer's Complete has not returned

	work   bell // queue, halted, nak or raw have changed, or cur was taken away
	endlet bell // ending has changed

	halted   bool
	stalls   int // transfers to stall
	nak      bool
	nakUntil time.Time
	raw      [][]byte  // to be sent on an IN endpoint, by QueueIn
	poll     time.Time // no interrupt packet before
}

type due struct {
	u  *URB
	at time.Time
}

// drop takes all transfers off the endpoint, to end with err unless they were
// only waiting for the latency. The caller completes them.
func (e *endpoint) drop(err error) (ended []*URB) {
	for _, d := range e.ending {
		ended = append(ended, d.u)
	}
	if e.cur != nil {
		e.queue = append([]*URB{e.cur}, e.queue...)
	}
	for _, u := range e.queue {
		u.Err = err
		ended = append(ended, u)
	}
	e.ending, e.cur, e.queue, e.stopped = nil, nil, nil, false
	e.work.ring()
	e.endlet.ring()
	return ended
}

func complete(ended []*URB) {
	for _, u := range ended {
		u.Complete(u)
	}
}

// Submit queues a transfer. Those of one endpoint are carried out in order.
// The error is usb.ErrNoDevice when the function is not on the bus, and
// usb.ErrStall for an endpoint that it does not have; then Complete is not
// called.
func (f *Function) Submit(u *URB) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.submit(u)
}

func (f *Function) submit(u *URB) error {
	if !f.present {
		return usb.ErrNoDevice
	}
	if u.ep = f.endpoint(u.Endpoint); u.ep == nil {
		return usb.ErrStall
	}
	u.ep.queue = append(u.ep.queue, u)
	u.ep.work.ring()
	return nil
}

// endpoint finds an endpoint by its address, nil if there is none.
func (f *Function) endpoint(addr uint8) *endpoint {
	for _, e := range f.eps {
		if e.Address == addr {
			return e
		}
	}
	return nil
}

// Unlink ends a transfer early, with usb.ErrCancelled and the exact count of
// what has moved. When all data have moved already it ends at once as it would
// have later. It does nothing to a transfer that has ended.
func (f *Function) Unlink(u *URB) {
	f.mu.Lock()
	ended := f.take(u, false)
	f.mu.Unlock()
	complete(ended)
}

// take takes u off its endpoint and, if it is not to succeed and behind is
// set, all that is queued behind it. The caller holds mu, and completes what is
// returned without it.
func (f *Function) take(u *URB, behind bool) (ended []*URB) {
	e := u.ep
	if e == nil {
		return nil
	}
	if i := slices.IndexFunc(e.ending, func(d due) bool { return d.u == u }); i >= 0 {
		e.ending = slices.Delete(e.ending, i, i+1)
		e.endlet.ring()
		ended = []*URB{u}
		if u.Err != nil {
			e.stopped = false
			e.work.ring()
			if behind {
				ended = append(ended, f.takeBehind(u)...)
			}
		}
		return ended
	}
	if e.cur == u {
		e.cur = nil
		ended = append(ended, u)
		if u.Actual == len(u.Data) && u.Actual > 0 && u.fault == nil {
			e.work.ring()
			return ended // all has moved
		}
		if behind {
			ended = append(ended, f.takeBehind(u)...)
		}
	} else if i := slices.Index(e.queue, u); i >= 0 {
		to := i + 1
		if behind {
			to = len(e.queue)
		}
		ended = append(ended, e.queue[i:to]...)
		e.queue = slices.Delete(e.queue, i, to)
	}
	for _, c := range ended {
		c.Err = usb.ErrCancelled
	}
	e.work.ring()
	return ended
}

// takeBehind takes what is queued on u's endpoint after u, which has failed.
func (f *Function) takeBehind(u *URB) (ended []*URB) {
	ended = append(ended, u.ep.queue...)
	u.ep.queue = nil
	for _, c := range ended {
		c.Err = usb.ErrCancelled
	}
	return ended
}

// bell wakes those who wait for a change. The function's mu guards it.
type bell struct{ ch chan struct{} }

func (b *bell) wait() <-chan struct{} {
	if b.ch == nil {
		b.ch = make(chan struct{})
	}
	return b.ch
}

func (b *bell) ring() {
	if b.ch != nil {
		close(b.ch)
		b.ch = nil
	}
}
