// SPDX-License-Identifier: Apache-2.0

package usbbackend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

const (
	segmentSize  = 16 << 10 // one bulk transfer to a device that NAKs when full
	segmentCount = 8        // transfers in flight: 128 KiB cover 3 ms at 40 MB/s

	// A transfer that failed without moving a byte is tried again this often
	// before the failure is believed.
	maxFaults  = 8
	faultPause = 10 * time.Millisecond
	firstLook  = 500 * time.Millisecond
)

// pipeline keeps the endpoint of a FIFO busy. Bytes are copied into
// segments, each of which is one bulk transfer; several are in flight. A
// segment's bytes are kept until the device has taken them, so that whatever
// interrupts the flow (a stall, a bus error, a transfer that hangs), the
// stream goes on exactly behind the last byte taken.
//
// There is no goroutine behind it: it advances while its owner is in one of
// its methods, and transfers that are in flight finish on their own.
type pipeline struct {
	d    *Device
	log  *slog.Logger
	name string
	ep   uint8
	size int // of a buffer

	endless bool // a failure is never believed while the device is there

	stall    time.Duration // without a byte taken, after which the stream fails
	patience time.Duration // with a transfer in flight, before it is called back

	free   [][]byte  // buffers
	queue  []segment // in the order of the stream
	queued int64     // bytes of the stream copied in
	taken  int64     // bytes of it that the device took
	sent   int64     // bytes handed to the bus, taken or in flight
	moved  time.Time // when there was progress last, or the owner began to wait
	looked time.Time // when the oldest transfer was last called back
	faults int       // failures since then

	credits credits
}

// segment is a piece of the stream; t is nil while it is not in flight.
type segment struct {
	buf  []byte // whole buffer, for reuse
	data []byte // what of it is still to be taken
	t    usb.Transfer
}

// BootStart begins a boot stream at offset 0; what an earlier one left is
// dropped. The stream fails when the device neither takes a byte nor reads one
// from its FIFO for stall while some are waiting; an eighth later if meanwhile
// it took part of a transfer, which is not seen at once. A transfer that takes longer
// than transfer is called back, to be sent again from the first byte that was
// not taken.
func (d *Device) BootStart(stall, transfer time.Duration) {
	p := &d.boot
	p.cancel()
	p.credits.end()
	*p = pipeline{
		d: d, log: d.log, name: "boot", ep: d.bootOut, size: segmentSize,
		stall: stall, patience: max(min(transfer, stall/8), 10*time.Millisecond), free: p.free,
	}
	p.credits.startBoot(d)
}

// BootWrite queues data, whose length must be a multiple of 8, for the boot
// FIFO, and returns how much was queued: less than all only with an error.
// Queued bytes may still be on their way, at most 128 KiB of them.
// Without progress it fails with an error that is os.ErrDeadlineExceeded
// after the boot timeout.
func (d *Device) BootWrite(ctx context.Context, data []byte) (n int, err error) {
	p := &d.boot
	p.moved = time.Now()
	for len(data) > 0 {
		if err := p.advance(ctx, func() bool { return len(p.queue) < segmentCount }); err != nil {
			return n, err
		}
		m := p.add(data)
		n += m
		data = data[m:]
	}
	return n, p.submit()
}

// BootFlush waits until the device has taken all that was queued.
func (d *Device) BootFlush(ctx context.Context) error {
	d.boot.moved = time.Now()
	return d.boot.advance(ctx, func() bool { return len(d.boot.queue) == 0 })
}

// BootEnd drops what has not been taken and frees what the stream held.
func (d *Device) BootEnd() {
	d.BootDrop(0)
	d.boot.credits.end()
	d.boot.free = nil
}

// BootDrop calls back all that is in flight, and forgets the queued bytes from
// offset from of the stream on, unless the device has taken them already. It
// returns the offset at which the stream goes on.
func (d *Device) BootDrop(from int64) int64 {
	p := &d.boot
	p.cancel()
	at := p.taken
	for i := range p.queue {
		s := &p.queue[i]
		keep := min(max(from-at, 0), int64(len(s.data)))
		at += keep
		if s.data = s.data[:keep]; keep == 0 {
			for _, gone := range p.queue[i:] {
				p.free = append(p.free, gone.buf)
			}
			p.queue = p.queue[:i]
			break
		}
	}
	p.queued = at
	return at
}

// add copies the next segment in.
func (p *pipeline) add(data []byte) int {
	var buf []byte
	if n := len(p.free); n > 0 {
		buf, p.free = p.free[n-1], p.free[:n-1]
	} else {
		buf = make([]byte, p.size)
	}
	n := copy(buf[:min(p.size, p.credits.segment())], data)
	p.queue = append(p.queue, segment{buf: buf, data: buf[:n]})
	p.queued += int64(n)
	return n
}

// advance moves the stream on until done.
func (p *pipeline) advance(ctx context.Context, done func() bool) error {
	for {
		if err := p.reap(ctx); err != nil {
			return err
		}
		if err := p.submit(); err != nil {
			return err
		}
		if done() {
			return nil
		}
		if err := p.wait(ctx); err != nil {
			return err
		}
	}
}

// submit puts queued segments in flight, as far as the device's free space is
// known to hold them.
func (p *pipeline) submit() error {
	for i := range p.queue {
		s := &p.queue[i]
		if s.t != nil {
			continue
		}
		if !p.credits.allow(p.sent + int64(len(s.data))) {
			break
		}
		t, err := p.d.dev.Submit(p.ep, s.data)
		if errors.Is(err, usb.ErrCancelled) {
			break // something ahead of it has failed; reap sorts that out
		}
		if err != nil {
			return err
		}
		s.t = t
		p.sent += int64(len(s.data))
	}
	return nil
}

// reap accounts for the transfers that have ended.
func (p *pipeline) reap(ctx context.Context) error {
	for len(p.queue) > 0 && p.queue[0].t != nil {
		select {
		case <-p.queue[0].t.Done():
		default:
			return nil
		}
		n, err := p.queue[0].t.Result()
		if err == nil && n == len(p.queue[0].data) {
			p.take(n)
			continue
		}
		if err == nil {
			err = io.ErrShortWrite
		}
		// What is behind a failed transfer was not sent; take everything back.
		p.cancel()
		if err := p.recover(ctx, err); err != nil {
			return err
		}
	}
	return nil
}

// head is closed when the oldest transfer ends; nil without one.
func (p *pipeline) head() <-chan struct{} {
	if len(p.queue) == 0 || p.queue[0].t == nil {
		return nil
	}
	return p.queue[0].t.Done()
}

// take accounts for n bytes that the device took from the head of the queue.
func (p *pipeline) take(n int) {
	if n > 0 {
		p.taken += int64(n)
		p.moved, p.faults = time.Now(), 0
		p.credits.took(p.taken)
	}
	s := &p.queue[0]
	s.t, s.data = nil, s.data[n:]
	if len(s.data) == 0 {
		p.free = append(p.free, s.buf)
		p.queue = append(p.queue[:0], p.queue[1:]...)
	}
}

// wait waits for something to change: the oldest transfer ends, the device has
// more free space, or it is time to look whether a transfer hangs.
func (p *pipeline) wait(ctx context.Context) error {
	// Part of the oldest transfer may have been taken. To know it soon makes
	// the limit of the stall exact.
	look := p.moved.Add(min(p.patience, firstLook))
	if p.looked.After(p.moved) {
		look = p.looked.Add(p.patience)
	}
	timer := time.NewTimer(min(time.Until(look), time.Until(p.moved.Add(p.stall))))
	defer timer.Stop()
	select {
	case <-p.head():
		return nil
	case l := <-p.credits.poll(p.taken, p.sent):
		more, err := p.credits.grant(l)
		if more {
			p.moved = time.Now() // it reads, though not yet a transfer's worth
		}
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-p.d.dev.Gone():
		return p.d.fail(usb.ErrNoDevice)
	case <-p.d.open.Done():
		return p.d.fail(usb.ErrClosed)
	case <-timer.C:
	}
	p.credits.idled(p.taken)
	p.cancel() // finds out how much of the oldest transfer was taken
	p.looked = time.Now()
	if time.Since(p.moved) >= p.stall {
		return fmt.Errorf("boot FIFO took nothing for %v after %d bytes: %w", p.stall, p.taken, os.ErrDeadlineExceeded)
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	if d == 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
