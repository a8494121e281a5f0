// SPDX-License-Identifier: Apache-2.0

package usbdev

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

// maxStep is how much one endpoint moves over a link of limited rate before
// the others have their turn.
const maxStep = 2048

// pollInterval is that of the interrupt endpoint: bInterval 4 at high speed.
const pollInterval = time.Millisecond

// step is what came of trying to move some data of a transfer.
type step struct {
	n    int             // bytes moved
	done bool            // the transfer has ended
	err  error           // why, if not as it should
	more <-chan struct{} // nothing moved: try again when this is closed,
	wait time.Duration   // or after this time, if above 0

	register bool // it is a register access, still to be made
}

// serve carries out an endpoint's transfers, one after the other.
func (f *Function) serve(ctx context.Context, e *endpoint) {
	for ctx.Err() == nil {
		f.mu.Lock()
		if e.cur == nil && len(e.queue) > 0 && !e.stopped {
			e.cur, e.queue = e.queue[0], e.queue[1:]
			e.cur.fault = f.dueFault(e)
		}
		u, work := e.cur, e.work.wait()
		if u == nil {
			f.mu.Unlock()
			pause(ctx, work, nil, 0)
			continue
		}
		s := f.step(e, u)
		if s.register {
			if s.n, s.err = f.register(u); e.cur != u {
				f.mu.Unlock()
				continue
			}
		}
		u.Actual += s.n
		wait := s.wait
		if s.n > 0 {
			wait = f.reserve(s.n)
		}
		now := time.Now()
		f.mu.Unlock()

		switch {
		case s.n > 0 && wait > 0:
			pause(ctx, nil, nil, wait)
			f.mu.Lock()
			f.link.Woke(time.Since(now) - wait)
			f.mu.Unlock()
		case s.n == 0 && !s.done:
			pause(ctx, work, s.more, wait)
		}
		if s.done {
			f.end(e, u, s.err)
		}
	}
}

// pause waits until one of the channels is closed, limit (if above 0) has
// passed or ctx has ended.
func pause(ctx context.Context, a, b <-chan struct{}, limit time.Duration) {
	var expired <-chan time.Time
	if limit > 0 {
		t := time.NewTimer(limit)
		defer t.Stop()
		expired = t.C
	}
	select {
	case <-a:
	case <-b:
	case <-expired:
	case <-ctx.Done():
	}
}

// end passes a transfer on to its completion, unless it was taken away.
func (f *Function) end(e *endpoint, u *URB, err error) {
	f.mu.Lock()
	if e.cur != u {
		f.mu.Unlock()
		return
	}
	e.cur, u.Err = nil, err
	// A host controller stops an endpoint at a failure until the driver has
	// seen it, so that the driver can take back what is queued behind.
	e.stopped = err != nil
	if f.latency <= 0 && len(e.ending) == 0 {
		f.mu.Unlock()
		u.Complete(u)
		f.goOn(e, err)
		return
	}
	e.ending = append(e.ending, due{u, time.Now().Add(f.latency)})
	e.endlet.ring()
	f.mu.Unlock()
}

// goOn lets an endpoint that a failure stopped continue.
func (f *Function) goOn(e *endpoint, err error) {
	if err == nil {
		return
	}
	resume := func() {
		f.mu.Lock()
		e.stopped = false
		e.work.ring()
		f.mu.Unlock()
	}
	f.mu.Lock()
	wait := f.errorPause
	f.mu.Unlock()
	if wait > 0 && !errors.Is(err, usb.ErrStall) { // a halt keeps what is behind from moving
		time.AfterFunc(wait, resume)
		return
	}
	resume()
}

// finish completes an endpoint's transfers when their latency is over.
func (f *Function) finish(ctx context.Context, e *endpoint) {
	for ctx.Err() == nil {
		f.mu.Lock()
		changed := e.endlet.wait()
		if len(e.ending) == 0 {
			f.mu.Unlock()
			pause(ctx, changed, nil, 0)
			continue
		}
		d := e.ending[0]
		if left := time.Until(d.at); left > 0 {
			f.mu.Unlock()
			pause(ctx, changed, nil, left)
			continue
		}
		e.ending = e.ending[1:]
		f.mu.Unlock()
		d.u.Complete(d.u)
		f.goOn(e, d.u.Err)
	}
}

// step moves what data can be moved now. The caller holds mu.
func (f *Function) step(e *endpoint, u *URB) step {
	if e.halted {
		return step{done: true, err: usb.ErrStall}
	}
	if e.stalls > 0 {
		e.stalls--
		return f.fail(e, usb.ErrStall)
	}
	if left := time.Until(e.nakUntil); e.nak || !e.nakUntil.IsZero() && left > 0 {
		return step{wait: max(0, left)}
	}
	data := u.Data[u.Actual:]
	if x := u.fault; x != nil {
		if u.Actual >= min(x.After, len(u.Data)) || e.Type == usb.Control {
			return f.strike(e, u)
		}
		if !e.In() {
			data = data[:min(len(data), x.After-u.Actual)]
		}
	}
	var s step
	switch {
	case e.Type == usb.Control:
		if f.isRegister(u.Setup, len(u.Data)) {
			return step{done: true, register: true}
		}
		n, err := f.standard(u.Setup, u.Data)
		return step{n: n, done: true, err: err}
	case len(e.raw) > 0 && e.In():
		s = e.sendRaw(data)
	case e.Type == usb.Interrupt:
		s = f.interrupt(e, data)
	case e.In():
		s = f.bulkIn(data)
	default:
		s = f.bulkOut(e, data)
	}
	if u.Actual+s.n >= len(u.Data) {
		s.done = true
	}
	if u.fault != nil && s.err == nil && u.Actual+s.n >= min(u.fault.After, len(u.Data)) {
		s.done = false // it strikes in the next step
	}
	return s
}

func (f *Function) bulkOut(e *endpoint, data []byte) (s step) {
	if f.rate > 0 || f.speed == usb.SpeedLow {
		data = data[:min(len(data), maxStep)]
	}
	if e.Address == f.opt.Boot {
		s.n, s.more = f.dpu.BootWrite(data, e.MaxPacket)
		return s
	}
	// Bytes of an incomplete word at the end are dropped.
	words := make([]uint64, len(data)/8)
	for i := range words {
		words[i] = binary.LittleEndian.Uint64(data[8*i:])
	}
	s.n, s.more = f.dpu.TMWrite(words)
	if s.n *= 8; s.n == len(words)*8 {
		s.n = len(data)
	}
	return s
}

func (f *Function) bulkIn(buf []byte) (s step) {
	words := make([]uint64, min(len(buf)/8, reg.TmFIFODepth))
	n, more := f.dpu.TMRead(words)
	for i, w := range words[:n] {
		binary.LittleEndian.PutUint64(buf[8*i:], w)
	}
	return step{n: 8 * n, done: n > 0 || f.opt.EmptyIn == EmptyZero, more: more}
}

// interrupt reports how many words wait in the TMFIFO, as long as any do.
func (f *Function) interrupt(e *endpoint, buf []byte) step {
	n, more := f.dpu.TMPending()
	if n == 0 {
		return step{more: more}
	}
	if left := time.Until(e.poll); left > 0 {
		return step{wait: left}
	}
	e.poll = time.Now().Add(pollInterval)
	b := binary.LittleEndian.AppendUint64(nil, uint64(n))
	if len(buf) < len(b) {
		return step{done: true, err: usb.ErrOverflow}
	}
	return step{n: copy(buf, b), done: true}
}

// sendRaw sends packets of the first message of QueueIn.
func (e *endpoint) sendRaw(buf []byte) (s step) {
	msg := e.raw[0]
	for len(msg) > 0 && s.n < len(buf) {
		p := min(len(msg), e.MaxPacket)
		if p > len(buf)-s.n {
			s.done, s.err = true, usb.ErrOverflow
		} else {
			s.n += copy(buf[s.n:], msg[:p])
		}
		msg = msg[p:]
		if s.done {
			break
		}
	}
	if e.raw[0] = msg; len(msg) == 0 {
		e.raw = e.raw[1:]
		s.done = true
	}
	return s
}
