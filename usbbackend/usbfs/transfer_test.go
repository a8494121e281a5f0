// SPDX-License-Identifier: Apache-2.0

package usbfs

import (
	"context"
	"errors"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

// fakeKernel keeps urbs as usbfs does (drivers/usb/core/devio.c), for what
// no device can be made to do at will.
type fakeKernel struct {
	mu       sync.Mutex
	dev      *Device
	pending  []*urb
	disabled map[uint8]bool // endpoints that take no continuation
	log      []string
	refuse   syscall.Errno // of the next submit
}

func newFake(t *testing.T) (*fakeKernel, *Device) {
	k := &fakeKernel{disabled: make(map[uint8]bool)}
	k.dev = makeDevice("1-1", []usb.Interface{{Endpoints: []usb.Endpoint{
		{Address: 0x01, Type: usb.Bulk}, {Address: 0x81, Type: usb.Bulk},
		{Address: 0x02, Type: usb.Interrupt}, {Address: 0x82, Type: usb.Interrupt},
	}}}, k.ioctl)
	return k, k.dev
}

func (k *fakeKernel) ioctl(req uintptr, arg unsafe.Pointer) syscall.Errno {
	switch req {
	case ioctlSubmitURB:
		k.mu.Lock()
		defer k.mu.Unlock()
		if err := k.refuse; err != 0 {
			k.refuse = 0
			return err
		}
		u := (*urb)(arg)
		if u.flags&bulkContinuation == 0 {
			k.disabled[u.endpoint] = false
		} else if k.disabled[u.endpoint] {
			return syscall.EREMOTEIO
		}
		k.pending = append(k.pending, u)
	case ioctlDiscardURB:
		if !k.take((*urb)(arg)) {
			return syscall.EINVAL
		}
		k.complete((*urb)(arg), syscall.ENOENT, 0)
	case ioctlResetEP:
		k.log = append(k.log, "reset")
	default:
		return syscall.ENOTTY
	}
	return 0
}

func (k *fakeKernel) take(u *urb) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	i := slices.Index(k.pending, u)
	if i < 0 {
		return false
	}
	k.pending = slices.Delete(k.pending, i, i+1)
	return true
}

// complete ends an urb that is no longer pending and reaps it.
func (k *fakeKernel) complete(u *urb, errno syscall.Errno, n int) {
	u.status, u.actualLength = -int32(errno), int32(n)
	(*transfer)(unsafe.Pointer(u)).finish()
}

// end ends the oldest pending urb of an endpoint, and those behind it as
// cancel_bulk_urbs does.
func (k *fakeKernel) end(t *testing.T, ep uint8, errno syscall.Errno, n int) {
	t.Helper()
	k.mu.Lock()
	var queue []*urb
	k.pending = slices.DeleteFunc(k.pending, func(u *urb) bool {
		if u.endpoint != ep {
			return false
		}
		queue = append(queue, u)
		return true
	})
	if len(queue) == 0 {
		t.Fatalf("nothing pending on 0x%02x", ep)
	}
	head, rest := queue[0], queue[1:]
	var unlinked []*urb
	if errno != 0 && errno != syscall.ENOENT {
		for len(rest) > 0 && rest[0].flags&bulkContinuation != 0 {
			unlinked, rest = append(unlinked, rest[0]), rest[1:]
		}
		k.disabled[ep] = len(rest) == 0
	}
	k.pending = append(k.pending, rest...)
	k.mu.Unlock()
	k.complete(head, errno, n)
	for _, u := range slices.Backward(unlinked) {
		k.complete(u, syscall.ECONNRESET, 0)
	}
}

func submit(t *testing.T, d *Device, ep uint8, size, count int) []usb.Transfer {
	t.Helper()
	var all []usb.Transfer
	for range count {
		tr, err := d.Submit(ep, make([]byte, size))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, tr)
	}
	return all
}

// results checks how transfers ended; all must have.
func results(t *testing.T, all []usb.Transfer, want ...error) {
	t.Helper()
	for i, tr := range all {
		select {
		case <-tr.Done():
		default:
			t.Fatalf("transfer %d has not ended", i)
		}
		if _, err := tr.Result(); !errors.Is(err, want[i]) {
			t.Errorf("transfer %d: %v, want %v", i, err, want[i])
		}
	}
}

func TestContinuation(t *testing.T) {
	k, d := newFake(t)
	submit(t, d, 0x01, 8, 3)
	submit(t, d, 0x81, 8, 2)
	for i, want := range []uint32{0, bulkContinuation, bulkContinuation, 0, 0} {
		if k.pending[i].flags != want {
			t.Errorf("flags of urb %d = %d, want %d", i, k.pending[i].flags, want)
		}
	}
}

func TestFailureEndsThoseBehind(t *testing.T) {
	k, d := newFake(t)
	all := submit(t, d, 0x01, 8, 4)
	k.end(t, 0x01, 0, 8)
	k.end(t, 0x01, syscall.EPIPE, 3)
	results(t, all, nil, usb.ErrStall, usb.ErrCancelled, usb.ErrCancelled)
	if n, _ := all[1].Result(); n != 3 {
		t.Errorf("n = %d, want 3", n)
	}
	// Nothing is left, so a new start is taken.
	all = submit(t, d, 0x01, 8, 1)
	k.end(t, 0x01, 0, 8)
	results(t, all, nil)
}

func TestSubmitBeforeFailureIsReaped(t *testing.T) {
	k, d := newFake(t)
	submit(t, d, 0x01, 8, 1)
	k.disabled[0x01] = true // the kernel has seen it fail, we have not
	if _, err := d.Submit(0x01, make([]byte, 8)); !errors.Is(err, usb.ErrCancelled) {
		t.Errorf("%v, want ErrCancelled", err)
	}
}

func TestShortWriteEndsThoseBehind(t *testing.T) {
	k, d := newFake(t)
	all := submit(t, d, 0x01, 8, 3)
	k.end(t, 0x01, 0, 5)
	results(t, all, usb.ErrProtocol, usb.ErrCancelled, usb.ErrCancelled)
}

func TestShortReadIsFine(t *testing.T) {
	k, d := newFake(t)
	all := submit(t, d, 0x81, 64, 2)
	k.end(t, 0x81, 0, 5)
	k.end(t, 0x81, syscall.EOVERFLOW, 0)
	results(t, all, nil, usb.ErrOverflow)
}

func TestCancelNewestFirst(t *testing.T) {
	k, d := newFake(t)
	all := submit(t, d, 0x01, 8, 4)
	order := make(chan int, 4)
	fake := d.kernel
	d.kernel = func(req uintptr, arg unsafe.Pointer) syscall.Errno {
		if req == ioctlDiscardURB {
			order <- slices.IndexFunc(all, func(tr usb.Transfer) bool { return &tr.(*transfer).urb == (*urb)(arg) })
			if _, err := d.Submit(0x01, nil); !errors.Is(err, usb.ErrCancelled) {
				t.Errorf("Submit while cancelling: %v, want ErrCancelled", err)
			}
		}
		return fake(req, arg)
	}
	all[1].Cancel()
	for _, want := range []int{3, 2, 1} {
		if got := <-order; got != want {
			t.Errorf("discarded %d, want %d", got, want)
		}
	}
	results(t, all[1:], usb.ErrCancelled, usb.ErrCancelled, usb.ErrCancelled)
	// The one before is untouched, and what follows it is taken again.
	more := submit(t, d, 0x01, 8, 1)
	k.end(t, 0x01, 0, 8)
	k.end(t, 0x01, 0, 8)
	results(t, append(all[:1:1], more...), nil, nil)
	all[1].Cancel() // ended: nothing to do
	if len(order) != 0 {
		t.Error("Cancel of an ended transfer discards")
	}
}

func TestCancelledTooLate(t *testing.T) {
	k, d := newFake(t)
	all := submit(t, d, 0x01, 8, 1)
	k.end(t, 0x01, syscall.ENOENT, 8)
	results(t, all, nil) // all of it has been sent
	all = submit(t, d, 0x01, 0, 1)
	k.end(t, 0x01, syscall.ENOENT, 0)
	results(t, all, usb.ErrCancelled) // who knows
}

func TestCancelOfInLeavesOthers(t *testing.T) {
	k, d := newFake(t)
	all := submit(t, d, 0x82, 8, 3)
	all[1].Cancel()
	k.end(t, 0x82, 0, 8)
	k.end(t, 0x82, 0, 8)
	results(t, all, nil, usb.ErrCancelled, nil)
}

func TestUnplugged(t *testing.T) {
	for name, unplug := range map[string]func(t *testing.T, k *fakeKernel, d *Device){
		// The kernel kills what is pending, and reaping then says ENODEV,
		// which the reaper tells before it settles what it has reaped.
		"reaper": func(t *testing.T, k *fakeKernel, d *Device) {
			d.setGone()
			k.end(t, 0x01, syscall.ENOENT, 0)
		},
		"status": func(t *testing.T, k *fakeKernel, d *Device) {
			k.end(t, 0x01, syscall.ESHUTDOWN, 0)
		},
		"submit": func(t *testing.T, k *fakeKernel, d *Device) {
			k.refuse = syscall.ENODEV
			if _, err := d.Submit(0x81, nil); !errors.Is(err, usb.ErrNoDevice) {
				t.Errorf("Submit: %v", err)
			}
			k.end(t, 0x01, syscall.EPROTO, 0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			k, d := newFake(t)
			all := submit(t, d, 0x01, 8, 2)
			unplug(t, k, d)
			results(t, all, usb.ErrNoDevice, usb.ErrNoDevice)
			select {
			case <-d.Gone():
			default:
				t.Error("Gone is not closed")
			}
			if _, err := d.Submit(0x01, nil); !errors.Is(err, usb.ErrNoDevice) {
				t.Errorf("Submit: %v", err)
			}
			if _, err := d.Control(context.Background(), usb.Setup{}, nil); !errors.Is(err, usb.ErrNoDevice) {
				t.Errorf("Control: %v", err)
			}
			if err := d.ClearHalt(context.Background(), 0x01); !errors.Is(err, usb.ErrNoDevice) {
				t.Errorf("ClearHalt: %v", err)
			}
			if err := d.Claim(0); !errors.Is(err, usb.ErrNoDevice) {
				t.Errorf("Claim: %v", err)
			}
		})
	}
}

func TestClearHaltWaitsForThoseBehind(t *testing.T) {
	k, d := newFake(t)
	all := submit(t, d, 0x01, 8, 2)
	// The head has failed and is reaped; the other is on its way.
	last := all[1].(*transfer)
	if !k.take(&last.urb) {
		t.Fatal("not pending")
	}
	k.end(t, 0x01, syscall.EPIPE, 0)

	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if err := d.ClearHalt(ctx, 0x01); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("ClearHalt: %v", err)
	}
	k.mu.Lock()
	if len(k.pending) != 0 {
		t.Error("the halt was cleared before")
	}
	k.mu.Unlock()

	result := make(chan error)
	go func() { result <- d.ClearHalt(context.Background(), 0x01) }()
	k.complete(&last.urb, syscall.EPIPE, 0) // a halted endpoint stalls it too
	results(t, all, usb.ErrStall, usb.ErrCancelled)
	for { // the control transfer
		k.mu.Lock()
		n := len(k.pending)
		k.mu.Unlock()
		if n > 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	setup := unsafe.Slice((*byte)(k.pending[0].buffer), 8)
	if !slices.Equal(setup, []byte{0x02, 1, 0, 0, 0x01, 0, 0, 0}) {
		t.Errorf("setup % x", setup)
	}
	k.end(t, 0, 0, 0)
	if err := <-result; err != nil {
		t.Error(err)
	}
	if !slices.Equal(k.log, []string{"reset"}) {
		t.Errorf("log %v: the host's side was not reset", k.log)
	}
}

func TestControl(t *testing.T) {
	k, d := newFake(t)
	ctx, cancel := context.WithCancel(context.Background())
	type reply struct {
		n   int
		err error
	}
	result := make(chan reply)
	data := make([]byte, 8)
	read := func() {
		n, err := d.Control(ctx, usb.Setup{RequestType: 0xc2, Value: 1, Index: 0xc28}, data)
		result <- reply{n, err}
	}
	pending := func() *urb {
		for {
			k.mu.Lock()
			if len(k.pending) > 0 {
				u := k.pending[0]
				k.mu.Unlock()
				return u
			}
			k.mu.Unlock()
			time.Sleep(time.Millisecond)
		}
	}

	go read()
	buf := unsafe.Slice((*byte)(pending().buffer), 16)
	if !slices.Equal(buf[:8], []byte{0xc2, 0, 1, 0, 0x28, 0x0c, 8, 0}) {
		t.Errorf("setup % x", buf[:8])
	}
	copy(buf[8:], "12345678")
	k.end(t, 0, 0, 5)
	if r := <-result; r.n != 5 || r.err != nil || string(data) != "12345\x00\x00\x00" {
		t.Errorf("%d, %v, %q", r.n, r.err, data)
	}

	go read()
	pending()
	cancel()
	if r := <-result; r.n != 0 || !errors.Is(r.err, context.Canceled) {
		t.Errorf("cancelled: %d, %v", r.n, r.err)
	}
	if _, err := d.Control(context.Background(), usb.Setup{}, make([]byte, 1<<16)); err == nil {
		t.Error("64 KiB do not fit a control transfer")
	}
}

func TestNoSuchEndpoint(t *testing.T) {
	_, d := newFake(t)
	for _, ep := range []uint8{0x00, 0x80, 0x02, 0x03} { // 0x02 is interrupt OUT
		if _, err := d.Submit(ep, nil); err == nil {
			t.Errorf("0x%02x: no error", ep)
		}
		if err := d.ClearHalt(context.Background(), ep); err == nil {
			t.Errorf("ClearHalt 0x%02x: no error", ep)
		}
	}
}
