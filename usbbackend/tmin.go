// SPDX-License-Identifier: Apache-2.0

package usbbackend

import (
	"context"
	"fmt"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

const (
	tmPosted = 4           // bulk IN transfers at once, when much comes
	tmMuch   = tmDepth / 4 // bytes at once that are a sign of it
	tmFull   = tmDepth * 3 / 4

	// A bulk IN transfer that takes longer was asked for in vain.
	tmHang = 250 * time.Millisecond
)

// tmIn is the direction from the DPU. There is no goroutine behind it: it
// advances while its owner is in TMRead, and transfers that are posted finish
// on their own.
//
// The interrupt endpoint tells that there are words. It is asked when no words
// are being read, and costs nothing while it has nothing to say. Then it is
// the bulk endpoint's turn.
//
// With an empty FIFO, that of a BlueField-1 or -2 answers at once with
// nothing, and so it is asked until it does, for all that the FIFO can hold.
//
// That of a BlueField-3 NAKs, and a transfer which ends in a full packet does
// not end until there is more: it must be asked for no more than there is.
// How much that is, the interrupt tells, and while much comes the fill level,
// which is read in parallel: what has been received before the level was asked
// for was not in the FIFO any more, whatever the moment at which the device
// samples it, so that at least received + level bytes of the stream have been
// sent by the DPU.
type tmIn struct {
	d      *Device
	levels levels // BlueField-3's

	intr    usb.Transfer // nil while not posted
	intrBuf []byte
	intrAt  int64     // value of got when it was posted
	bulk    []inbound // posted, in order
	free    [][]byte

	got   int64 // bytes received
	limit int64 // offset of the stream that may be asked up to, BlueField-3
	asked int64 // value of got when the level was last asked for

	flow   bool // BlueField-1 and -2: no empty answer yet
	look   bool // BlueField-3: there may be words that nobody tells of
	much   bool // comes
	strict bool // only the interrupt is believed
	told   bool // by the interrupt, and nothing has come yet

	looking bool // at the fill level, because of look

	faults int       // failures in a row
	halted uint8     // endpoint to be cleared
	until  time.Time // nothing is posted before
	moved  time.Time // when the oldest bulk transfer became the oldest
}

// inbound is a bulk IN transfer.
type inbound struct {
	buf      []byte // whole buffer, for reuse
	size     int    // what of it was asked for
	t        usb.Transfer
	recalled bool // what became of it is of no interest, but for its data
}

func (in *tmIn) start(d *Device) {
	in.end()
	*in = tmIn{d: d, intrBuf: make([]byte, 8), asked: -1}
	in.levels.start(d, d.tmInLevel)
	in.again()
}

func (in *tmIn) end() {
	if in.d == nil {
		return
	}
	in.recall()
	if in.intr != nil {
		in.intr.Cancel()
		_, _ = in.intr.Result()
	}
	in.levels.end()
	*in = tmIn{}
}

// TMRead waits for words from the DPU and returns what has come, whole words.
// p has room for 2048 bytes or more. It is for one goroutine. When ctx ends,
// what was asked of the device stays so, and nothing is lost.
func (d *Device) TMRead(ctx context.Context, p []byte) (int, error) {
	in := &d.tmIn
	if in.d == nil {
		return 0, errTMStopped
	}
	if len(p) < tmDepth {
		return 0, fmt.Errorf("read the TMFIFO into %d bytes: %w", len(p), errTMLength)
	}
	for {
		n, err := in.harvest(p)
		if err == nil {
			err = in.post(ctx)
		}
		if n > 0 {
			return n, nil // an error will be seen again
		}
		if err == nil {
			err = in.wait(ctx)
		}
		if err != nil {
			return 0, err
		}
	}
}

// harvest accounts for the transfers that have ended, and returns how many
// bytes of theirs are in p.
func (in *tmIn) harvest(p []byte) (n int, err error) {
	if ended(in.intr) {
		m, err := in.intr.Result()
		in.intr = nil
		if err = in.heard(in.intrBuf[:m], err); err != nil {
			return 0, err
		}
	}
	for len(in.bulk) > 0 && ended(in.bulk[0].t) {
		b := in.bulk[0]
		m, err := b.t.Result()
		m &^= 7 // the FIFO holds words; less than one is rubbish
		if n+m > len(p) {
			break
		}
		in.bulk = append(in.bulk[:0], in.bulk[1:]...)
		in.free = append(in.free, b.buf)
		in.moved = time.Now()
		n += copy(p[n:], b.buf[:m])
		if err := in.came(b, m, err); err != nil {
			return n, err
		}
	}
	return n, nil
}

func ended(t usb.Transfer) bool {
	if t == nil {
		return false
	}
	select {
	case <-t.Done():
		return true
	default:
		return false
	}
}

// counts reports whether the device must be asked for what there is and no
// more.
func (in *tmIn) counts() bool { return in.d.gen == reg.BlueField3 }

// posted is the offset of the stream up to which it was asked for.
func (in *tmIn) posted() int64 {
	n := in.got
	for i := range in.bulk {
		n += int64(in.bulk[i].size)
	}
	return n
}

// recall calls the bulk transfers back; what they moved is harvested as ever.
func (in *tmIn) recall() {
	for _, b := range in.bulk {
		b.t.Cancel()
	}
	for i := range in.bulk {
		_, _ = in.bulk[i].t.Result()
		in.bulk[i].recalled = true
	}
}

// post asks the device for what there is to be asked.
func (in *tmIn) post(ctx context.Context) error {
	if in.halted != 0 {
		// Should this fail, the next transfer will, and it is tried again.
		err := in.d.clearHalt(ctx, in.halted)
		if lost(err) {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		in.halted = 0
	}
	if time.Now().Before(in.until) || len(in.bulk) > 0 && in.bulk[0].recalled {
		return nil
	}
	if in.counts() {
		if look := in.look && in.levels.reads == 0; look || in.much && in.got > in.asked && in.levels.reads < maxReads {
			in.look, in.looking = in.look && !look, look
			in.asked = in.got
			in.levels.ask(in.got, 0)
		}
		for at := in.posted(); at < in.limit && len(in.bulk) < tmPosted; at = in.posted() {
			size := int(min(in.limit-at, tmDepth))
			if size > tmFull {
				size = tmDepth / 2 // what the level says of the first half comes the sooner
			}
			if err := in.submit(size); err != nil {
				return err
			}
		}
	} else if in.flow && (in.much || len(in.bulk) == 0) {
		want := 2
		if in.much {
			want = tmPosted
		}
		for len(in.bulk) < want {
			if err := in.submit(tmDepth); err != nil {
				return err
			}
		}
	}
	if in.intr != nil || len(in.bulk) > 0 || in.look || in.looking {
		return nil
	}
	t, err := in.d.dev.Submit(in.d.tmIntrEP, in.intrBuf)
	if err == nil { // t may hold a nil pointer otherwise
		in.intr, in.intrAt = t, in.got
	}
	return err
}

func (in *tmIn) submit(size int) error {
	var buf []byte
	if n := len(in.free); n > 0 {
		buf, in.free = in.free[n-1], in.free[:n-1]
	} else {
		buf = make([]byte, tmDepth)
	}
	t, err := in.d.dev.Submit(in.d.tmInEP, buf[:size])
	if err != nil {
		in.free = append(in.free, buf)
		return err
	}
	if len(in.bulk) == 0 {
		in.moved = time.Now()
	}
	in.bulk = append(in.bulk, inbound{buf: buf, size: size, t: t})
	return nil
}

// wait waits for something to change. It sets a timer only while bulk transfers
// are posted, or after failures.
func (in *tmIn) wait(ctx context.Context) error {
	var intr, head <-chan struct{}
	if in.intr != nil {
		intr = in.intr.Done()
	}
	var expired <-chan time.Time
	pause := time.Until(in.until)
	if len(in.bulk) > 0 {
		head = in.bulk[0].t.Done()
		if hang := tmHang - time.Since(in.moved); pause <= 0 || hang < pause {
			pause = hang
		}
	}
	if len(in.bulk) > 0 || pause > 0 {
		timer := time.NewTimer(pause)
		defer timer.Stop()
		expired = timer.C
	}
	select {
	case <-intr:
	case <-head:
	case l := <-in.levels.answers:
		return in.answered(l)
	case <-expired:
		if len(in.bulk) > 0 && time.Since(in.moved) >= tmHang && !ended(in.bulk[0].t) {
			return in.hangs()
		}
	case <-ctx.Done():
		return ctx.Err()
	case <-in.d.dev.Gone():
		return in.d.fail(usb.ErrNoDevice)
	case <-in.d.open.Done():
		return in.d.fail(usb.ErrClosed)
	}
	return nil
}
