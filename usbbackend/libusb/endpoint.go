// SPDX-License-Identifier: Apache-2.0

//go:build libusb

package libusb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/google/gousb"

	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

// endpoint carries out the transfers of one endpoint, one after the other, in
// a goroutine of its own.
type endpoint struct {
	dev      *Device
	address  uint8
	out      bool
	transfer func(context.Context, []byte) (int, error)
	wake     chan struct{} // holds one: queue or end has changed

	mu    sync.Mutex
	queue []*transfer // not begun
	now   *transfer   // under way
	broke *transfer   // of an OUT endpoint, has failed, and nobody has seen that
	end   error       // why no transfers are taken any more
}

// transfer is a transfer that was submitted.
type transfer struct {
	ep     *endpoint
	data   []byte
	ctx    context.Context
	cancel context.CancelFunc

	done chan struct{}
	n    int   // valid when done
	err  error // valid when done
}

var _ usb.Transfer = (*transfer)(nil)

func (e *endpoint) submit(data []byte) (*transfer, error) {
	t := &transfer{ep: e, data: data, done: make(chan struct{})}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	e.mu.Lock()
	defer e.mu.Unlock()
	err := e.end
	if err == nil && e.out && e.now != nil && e.now.ctx.Err() != nil {
		err = usb.ErrCancelled // behind one that is being cancelled
	}
	if err == nil && e.broke != nil {
		err = usb.ErrCancelled
	}
	if err != nil {
		t.cancel()
		return nil, err
	}
	e.queue = append(e.queue, t)
	e.signal()
	return t, nil
}

func (e *endpoint) signal() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

func (e *endpoint) run() {
	for {
		e.mu.Lock()
		if len(e.queue) > 0 {
			e.now, e.queue = e.queue[0], e.queue[1:]
		}
		t, end := e.now, e.end
		e.mu.Unlock()
		switch {
		case t != nil:
			e.serve(t)
		case end != nil:
			return
		default:
			<-e.wake
		}
	}
}

func (e *endpoint) serve(t *transfer) {
	var n int
	var err error
	for {
		before := e.dev.altered.Load()
		n, err = e.transfer(t.ctx, t.data)
		// Taken back because of a neighbour, and with nothing moved?
		if again := n == 0 && e.dev.altered.Load() != before; !again || t.ctx.Err() != nil {
			break
		}
	}
	switch {
	case errors.Is(err, gousb.TransferCancelled) && n == len(t.data) && n > 0:
		err = nil // cancelled when its last byte had moved
	case err == nil && n < len(t.data) && e.out:
		err = fmt.Errorf("%w: %w", usb.ErrProtocol, io.ErrShortWrite)
		fallthrough
	case err != nil || n == 0 && len(t.data) > 0:
		if t.ctx.Err() == nil && !e.dev.present() {
			err = usb.ErrNoDevice
		}
	}
	if err = cause(err); errors.Is(err, usb.ErrNoDevice) {
		e.dev.finish(usb.ErrNoDevice)
	}

	e.mu.Lock()
	e.now = nil
	if e.end != nil && errors.Is(err, usb.ErrCancelled) {
		err = e.end
	}
	var behind []*transfer
	if e.out && err != nil {
		behind, e.queue, e.broke = e.queue, nil, t
	}
	e.mu.Unlock()
	t.finish(n, err)
	drop(behind, usb.ErrCancelled)
}

// finish takes no transfers any more and ends those there are.
func (e *endpoint) finish(err error) {
	e.mu.Lock()
	if e.end == nil {
		e.end = err
	}
	err = e.end
	queue, now := e.queue, e.now
	e.queue = nil
	e.signal()
	e.mu.Unlock()
	if now != nil {
		now.cancel()
	}
	drop(queue, err)
}

// Cancel ends the transfer early, and on an OUT endpoint those behind it.
func (t *transfer) Cancel() {
	e := t.ep
	e.mu.Lock()
	from, to := -1, 0
	if e.now == t {
		t.cancel()
		if e.out {
			from, to = 0, len(e.queue)
		}
	} else if from = slices.Index(e.queue, t); from >= 0 {
		if to = from + 1; e.out {
			to = len(e.queue)
		}
	}
	var dropped []*transfer
	if from >= 0 {
		dropped = slices.Clone(e.queue[from:to])
		e.queue = slices.Delete(e.queue, from, to)
	}
	e.mu.Unlock()
	drop(dropped, usb.ErrCancelled)
}

func drop(queue []*transfer, err error) {
	for _, t := range slices.Backward(queue) {
		t.finish(0, err)
	}
}

func (t *transfer) finish(n int, err error) {
	t.cancel()
	t.n = n
	if err != nil {
		t.err = &usb.OpError{Op: "transfer", Location: t.ep.dev.loc, Err: err}
	}
	close(t.done)
}

// Done is closed when the transfer has ended.
func (t *transfer) Done() <-chan struct{} { return t.done }

// Result waits for the end of the transfer and tells how it ended.
func (t *transfer) Result() (int, error) {
	<-t.done
	if e := t.ep; t.err != nil {
		e.mu.Lock()
		if e.broke == t {
			e.broke = nil
		}
		e.mu.Unlock()
	}
	return t.n, t.err
}
