// SPDX-License-Identifier: Apache-2.0

package usbfs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

// Device is an open device.
type Device struct {
	loc       usb.Location
	ifs       []usb.Interface
	endpoints map[uint8]*endpoint // fixed; 0 is the control endpoint

	file   *os.File
	kernel kernel

	inflight sync.WaitGroup // transfers that the kernel has
	gone     chan struct{}
	unplug   sync.Once
	close    sync.Once
	reaped   chan struct{} // closed when the reaper has returned
}

var _ usb.Device = (*Device)(nil)

// kernel does an ioctl on the node of a device.
type kernel func(req uintptr, arg unsafe.Pointer) syscall.Errno

// newDevice takes over the file of a usbfs node and starts its reaper, which
// Close ends.
func newDevice(f *os.File, loc usb.Location, ifs []usb.Interface) (*Device, error) {
	if err := f.SetWriteDeadline(time.Time{}); err != nil {
		return nil, err // the runtime's poller did not take it: no usbfs node
	}
	conn, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	d := makeDevice(loc, ifs, func(req uintptr, arg unsafe.Pointer) syscall.Errno {
		errno := syscall.EBADF
		conn.Control(func(fd uintptr) { errno = ioctl(fd, req, arg) })
		return errno
	})
	d.file = f
	go d.reap(conn)
	return d, nil
}

// makeDevice is newDevice without file and reaper.
func makeDevice(loc usb.Location, ifs []usb.Interface, k kernel) *Device {
	d := &Device{
		loc:       loc,
		ifs:       ifs,
		endpoints: make(map[uint8]*endpoint),
		kernel:    k,
		gone:      make(chan struct{}),
		reaped:    make(chan struct{}),
	}
	d.endpoints[0] = &endpoint{dev: d, urbType: urbControl}
	for _, i := range ifs {
		for _, e := range i.Endpoints {
			switch e.Type {
			case usb.Bulk:
				d.endpoints[e.Address] = &endpoint{dev: d, address: e.Address, urbType: urbBulk, chained: !e.In()}
			case usb.Interrupt:
				// Nothing keeps the kernel from sending the second of two
				// interrupt transfers after the first has failed, so OUT
				// ones are not offered. An RShim has none.
				if e.In() {
					d.endpoints[e.Address] = &endpoint{dev: d, address: e.Address, urbType: urbInterrupt}
				}
			}
		}
	}
	return d
}

// ioctl does an ioctl. Each may wait for the lock of the device, which whoever
// takes a transfer back or resets the device holds until the hardware answers:
// the runtime has to be told (no RawSyscall).
func ioctl(fd, req uintptr, arg unsafe.Pointer) syscall.Errno {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, req, uintptr(arg))
		if errno != syscall.EINTR {
			return errno
		}
	}
}

// reap collects transfers that have ended, until the file is closed.
//
// usbfs signals POLLOUT when there is something to reap and POLLHUP when the
// device is gone, each with a wake-up, which is what the runtime's
// edge-triggered poller needs: no thread waits in the kernel, and an idle
// device costs nothing.
func (d *Device) reap(conn syscall.RawConn) {
	defer close(d.reaped)
	conn.Write(func(fd uintptr) (done bool) {
		var ended []*transfer
		for {
			var u *urb
			errno := ioctl(fd, ioctlReapURBNDelay, unsafe.Pointer(&u))
			if errno == 0 {
				ended = append(ended, (*transfer)(unsafe.Pointer(u)))
				continue
			}
			// Unplugging may kill transfers with the status that discarding
			// them gives; only now it shows which it was.
			if errno != syscall.EAGAIN {
				d.setGone()
			}
			break
		}
		for _, t := range ended {
			t.finish()
		}
		return false
	})
}

// setGone records that the device is unplugged.
func (d *Device) setGone() {
	d.unplug.Do(func() {
		d.end(usb.ErrNoDevice)
		close(d.gone)
	})
}

// end makes every later transfer fail with err, and returns those that the
// kernel has, by endpoint.
func (d *Device) end(err error) (pending [][]*transfer) {
	for _, e := range d.endpoints {
		e.mu.Lock()
		if e.end == nil {
			e.end = err
		}
		pending = append(pending, slices.Clone(e.queue))
		e.mu.Unlock()
	}
	return pending
}

// over returns why the device can no longer be used, if so.
func (d *Device) over() error {
	e := d.endpoints[0]
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.end
}

// Close ends all transfers with ErrClosed and closes the device. It returns
// when the kernel has given back every buffer and nothing is left behind.
func (d *Device) Close() error {
	d.close.Do(func() {
		for _, queue := range d.end(usb.ErrClosed) {
			d.discard(queue)
		}
		// What was discarded is ready to be reaped, so this wait is short.
		d.inflight.Wait()
		d.file.Close()
		<-d.reaped
	})
	return nil
}

// Gone is closed when the device has been seen to be unplugged.
func (d *Device) Gone() <-chan struct{} { return d.gone }

// Interfaces describes the active configuration; not to be changed.
func (d *Device) Interfaces() []usb.Interface { return d.ifs }

// Claim takes an interface, detaching a kernel driver from it, but not
// another program. To claim what one has is no error.
func (d *Device) Claim(iface int) error {
	if err := d.over(); err != nil {
		return d.fail("claim", err) // the kernel may learn of it later than we
	}
	if iface < 0 || iface > 0xff {
		return d.fail("claim", syscall.EINVAL)
	}
	c := disconnectClaim{iface: uint32(iface), flags: claimExceptDriver}
	copy(c.driver[:], "usbfs")
	errno := d.kernel(ioctlDisconnectClaim, unsafe.Pointer(&c))
	if errno == syscall.EBUSY {
		// Claimed through usbfs: by us or by another program? This one
		// knows the difference.
		errno = d.kernel(ioctlClaimInterface, unsafe.Pointer(&c.iface))
	}
	if errno != 0 {
		return d.fail("claim", d.cause(errno))
	}
	return nil
}

// Control does one control transfer and returns how many bytes of data moved.
// When ctx ends first, the transfer is cancelled.
func (d *Device) Control(ctx context.Context, s usb.Setup, data []byte) (int, error) {
	n, err := d.control(ctx, s, data)
	if err != nil {
		return n, d.fail("control", err)
	}
	return n, nil
}

func (d *Device) control(ctx context.Context, s usb.Setup, data []byte) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if len(data) > 0xffff {
		return 0, syscall.EINVAL
	}
	buf := make([]byte, 8+len(data))
	buf[0], buf[1] = s.RequestType, s.Request
	binary.LittleEndian.PutUint16(buf[2:], s.Value)
	binary.LittleEndian.PutUint16(buf[4:], s.Index)
	binary.LittleEndian.PutUint16(buf[6:], uint16(len(data)))
	in := s.RequestType&0x80 != 0
	if !in {
		copy(buf[8:], data)
	}
	t, err := d.endpoints[0].submit(buf)
	if err != nil {
		return 0, err
	}
	select {
	case <-t.done:
	case <-ctx.Done():
		t.Cancel()
		<-t.done
	}
	if in {
		copy(data, buf[8:8+t.n])
	}
	if errors.Is(t.err, usb.ErrCancelled) && ctx.Err() != nil {
		return t.n, ctx.Err()
	}
	return t.n, t.err
}

// Submit queues a bulk or interrupt transfer. The kernel takes up to 64 KiB
// well; longer ones may fail with ENOMEM.
func (d *Device) Submit(ep uint8, data []byte) (usb.Transfer, error) {
	e := d.endpoints[ep]
	if e == nil || ep == 0 {
		return nil, d.fail("submit", fmt.Errorf("no endpoint 0x%02x to submit to", ep))
	}
	t, err := e.submit(data)
	if err != nil {
		return nil, d.fail("submit", err)
	}
	return t, nil
}

// ClearHalt resumes an endpoint after ErrStall.
//
// It does in two steps what USBDEVFS_CLEAR_HALT does in one: that one would
// wait up to 5 s for the device, deaf to ctx, and keep every other call on
// the device waiting.
func (d *Device) ClearHalt(ctx context.Context, ep uint8) error {
	e := d.endpoints[ep]
	if e == nil || ep == 0 {
		return d.fail("clear halt", fmt.Errorf("no endpoint 0x%02x", ep))
	}
	// What was queued behind the stalled transfer must be out of the way
	// before the device takes data again.
	for _, t := range e.doomed() {
		select {
		case <-t.done:
		case <-ctx.Done():
			return d.fail("clear halt", ctx.Err())
		}
	}
	clearHalt := usb.Setup{RequestType: 0x02, Request: 1, Value: 0, Index: uint16(ep)} // CLEAR_FEATURE(ENDPOINT_HALT)
	if _, err := d.control(ctx, clearHalt, nil); err != nil {
		return d.fail("clear halt", err)
	}
	// The device starts again at DATA0; the host controller has to as well.
	n := uint32(ep)
	if errno := d.kernel(ioctlResetEP, unsafe.Pointer(&n)); errno != 0 {
		return d.fail("clear halt", d.cause(errno))
	}
	return nil
}

// cause translates the errno of a system call.
func (d *Device) cause(errno syscall.Errno) error {
	if errno == syscall.EBADF {
		return usb.ErrClosed
	}
	err := errorOf(errno)
	if err == usb.ErrNoDevice {
		d.setGone()
	}
	return err
}

func (d *Device) fail(op string, err error) error {
	return &usb.OpError{Op: op, Location: d.loc, Err: err}
}
