// SPDX-License-Identifier: Apache-2.0

package usbfs

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"unsafe"

	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

// endpoint keeps the order of the transfers of one endpoint.
type endpoint struct {
	dev     *Device
	address uint8
	urbType uint8
	chained bool // bulk OUT: a failure ends what is queued behind it

	// mu is held across the ioctl that submits, which queues and does not
	// wait: what is submitted must reach the kernel in the order of queue,
	// and nothing may slip in behind a transfer while it is being cancelled.
	mu    sync.Mutex
	queue []*transfer // what the kernel has, oldest first
	broke *transfer   // of a chained endpoint, has failed, and nobody has seen that
	end   error       // why no transfers are taken any more
}

// transfer is a transfer that the kernel has or had.
type transfer struct {
	urb urb // first: the kernel gives its address back

	ep     *endpoint
	pin    runtime.Pinner
	doomed bool // cancelled, or behind one that failed; guarded by ep.mu

	done chan struct{}
	n    int   // valid when done
	err  error // valid when done
}

var _ usb.Transfer = (*transfer)(nil)

// submit hands a transfer to the kernel. Until it is reaped the kernel holds
// the addresses of the urb and of data, so both are pinned, and queue keeps
// them alive.
func (e *endpoint) submit(data []byte) (*transfer, error) {
	t := &transfer{ep: e, done: make(chan struct{})}
	t.urb = urb{
		typ:          e.urbType,
		endpoint:     e.address,
		buffer:       unsafe.Pointer(unsafe.SliceData(data)),
		bufferLength: int32(len(data)),
	}
	t.pin.Pin(t)
	if len(data) > 0 {
		t.pin.Pin(t.urb.buffer)
	}
	errno, err := e.push(t)
	if err == nil && errno != 0 {
		err = e.dev.cause(errno)
		if errno == syscall.EREMOTEIO {
			err = usb.ErrCancelled // a transfer before it failed, see bulkContinuation
		}
	}
	if err != nil {
		t.pin.Unpin()
		return nil, err
	}
	return t, nil
}

func (e *endpoint) push(t *transfer) (syscall.Errno, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.end != nil {
		return 0, e.end
	}
	if e.broke != nil {
		return 0, usb.ErrCancelled
	}
	if e.chained && len(e.queue) > 0 {
		if slices.ContainsFunc(e.queue, isDoomed) {
			return 0, usb.ErrCancelled
		}
		t.urb.flags = bulkContinuation
	}
	e.queue = append(e.queue, t)
	e.dev.inflight.Add(1)
	errno := e.dev.kernel(ioctlSubmitURB, unsafe.Pointer(&t.urb))
	if errno != 0 {
		e.queue = slices.Delete(e.queue, len(e.queue)-1, len(e.queue))
		e.dev.inflight.Done()
	}
	return errno, nil
}

// finish settles a transfer that has been reaped.
func (t *transfer) finish() {
	e := t.ep
	errno := syscall.Errno(-t.urb.status)
	if errno == syscall.ENODEV || errno == syscall.ESHUTDOWN {
		e.dev.setGone()
	}
	err := errorOf(errno)
	t.n = int(t.urb.actualLength)
	switch all := t.n == int(t.urb.bufferLength); {
	case all && t.n > 0 && errors.Is(err, usb.ErrCancelled):
		err = nil // discarded when its last byte had moved
	case !all && err == nil && e.chained:
		// No host controller does this; USB/IP's other end might.
		err = fmt.Errorf("%w: %w", usb.ErrProtocol, io.ErrShortWrite)
	}

	e.mu.Lock()
	i := slices.Index(e.queue, t)
	var behind []*transfer
	if err != nil && e.chained {
		behind = e.doom(i + 1)
		if e.broke == nil {
			e.broke = t
		}
	}
	e.queue = slices.Delete(e.queue, i, i+1)
	switch {
	case err == nil:
	case e.end == usb.ErrNoDevice, e.end != nil && errors.Is(err, usb.ErrCancelled):
		err = e.end
	case t.doomed && t.n == 0:
		err = usb.ErrCancelled // a halted endpoint stalls those behind too
	}
	e.mu.Unlock()

	// The kernel has done this already for the failures it knows of.
	e.dev.discard(behind)
	if err != nil {
		t.err = &usb.OpError{Op: "transfer", Location: e.dev.loc, Err: err}
	}
	t.pin.Unpin()
	close(t.done)
	e.dev.inflight.Done()
}

// doom marks the transfers from the i-th on, and returns them.
func (e *endpoint) doom(i int) []*transfer {
	for _, t := range e.queue[i:] {
		t.doomed = true
	}
	return slices.Clone(e.queue[i:])
}

// doomed returns the transfers that are about to end.
func (e *endpoint) doomed() []*transfer {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(e.queue), func(t *transfer) bool { return !t.doomed })
}

func isDoomed(t *transfer) bool { return t.doomed }

// discard takes transfers of one endpoint back from the kernel, the newest
// first, so that none is sent after one before it was not. Each of its ioctls
// returns when the host controller has let go of the transfer. Those that
// have ended by themselves meanwhile are unknown to the kernel, which is fine.
func (d *Device) discard(queue []*transfer) {
	for _, t := range slices.Backward(queue) {
		d.kernel(ioctlDiscardURB, unsafe.Pointer(&t.urb))
	}
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

// Cancel ends the transfer early, and on an OUT endpoint those behind it.
func (t *transfer) Cancel() {
	e := t.ep
	e.mu.Lock()
	i := slices.Index(e.queue, t)
	var dropped []*transfer
	switch {
	case i < 0: // it has ended
	case e.chained:
		dropped = e.doom(i)
	default:
		t.doomed = true
		dropped = []*transfer{t}
	}
	e.mu.Unlock()
	e.dev.discard(dropped)
}
