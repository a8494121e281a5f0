// SPDX-License-Identifier: Apache-2.0

package usbtest

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

// testOrder sends a thousand transfers of all sizes, sixteen at a time.
func testOrder(t *testing.T, r *run) {
	d := r.open(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	sizes := []int{64 << 10, chunk, 8, 512, 511, 513}
	total := 0
	for i := range 1000 {
		if i >= len(sizes) {
			sizes = append(sizes, 8*(1+rnd.IntN(256)))
		}
		total += sizes[i]
	}
	data := random(total)
	var queue []usb.Transfer
	var want []int
	first := func() {
		ends(t, "transfer", queue[0], want[0], nil)
		queue, want = queue[1:], want[1:]
	}
	for rest := data; len(sizes) > 0; sizes = sizes[1:] {
		queue = append(queue, submit(t, d, r.boot, rest[:sizes[0]]))
		want = append(want, sizes[0])
		rest = rest[sizes[0]:]
		if len(queue) == 16 {
			first()
		}
	}
	for len(queue) > 0 {
		first()
	}
	r.arrived(t, data)
}

func testZeroLength(t *testing.T, r *run) {
	d := r.open(t)
	data := random(1024)
	a := submit(t, d, r.boot, data[:512])
	b := submit(t, d, r.boot, nil)
	c := submit(t, d, r.boot, data[512:])
	ends(t, "before", a, 512, nil)
	ends(t, "zero length", b, 0, nil)
	ends(t, "after", c, 512, nil)
	r.arrived(t, data)
}

func testCancel(t *testing.T, r *run) {
	d := r.open(t)
	data := random(chunk)
	soon(t, "cancelling", func() time.Duration {
		r.DPU.SetNAK(r.boot, true)
		defer r.DPU.SetNAK(r.boot, false)
		ctx, cancel := context.WithCancel(r.ctx)
		cancelled := make(chan time.Time, 1)
		time.AfterFunc(20*time.Millisecond, func() { cancelled <- time.Now(); cancel() })
		if n, err := usb.Do(ctx, d, r.boot, data); n != 0 || !errors.Is(err, context.Canceled) {
			t.Errorf("%d, %v, want 0, Canceled", n, err)
		}
		return time.Since(<-cancelled)
	})
	// Somewhere in the middle of a transfer: n is exact whatever it is.
	r.DPU.SetLinkRate(1 << 20)
	var sent []byte
	for i := range 10 {
		ctx, cancel := context.WithTimeout(r.ctx, time.Duration(i)*2*time.Millisecond)
		n, err := usb.Do(ctx, d, r.boot, data)
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) || err == nil && n != len(data) {
			t.Errorf("%d, %v", n, err)
		}
		sent = append(sent, data[:n]...)
		r.arrived(t, sent)
	}
}

func testCancelMiddle(t *testing.T, r *run) {
	d := r.open(t)
	data := random(8 * chunk)
	piece := func(i int) []byte { return data[i*chunk : (i+1)*chunk] }
	r.DPU.SetNAK(r.boot, true)
	var all []usb.Transfer
	for i := range 8 {
		all = append(all, submit(t, d, r.boot, piece(i)))
	}
	all[3].Cancel()
	for i := 3; i < 8; i++ {
		ends(t, "behind", all[i], 0, usb.ErrCancelled)
	}
	for _, tr := range all[:3] {
		pending(t, "before", tr)
	}
	r.DPU.SetNAK(r.boot, false)
	for _, tr := range all[:3] {
		ends(t, "before", tr, chunk, nil)
	}
	all[0].Cancel() // it has ended: nothing happens
	ends(t, "after", submit(t, d, r.boot, piece(3)), chunk, nil)
	r.arrived(t, data[:4*chunk])
}

// testCancelRace cancels at random while data move.
func testCancelRace(t *testing.T, r *run) {
	d := r.open(t)
	rnd := rand.New(rand.NewPCG(3, 4))
	r.DPU.SetLinkRate(2 << 20) // 8 ms for a chunk
	data := random(8 * chunk)
	var sent []byte
	for cancelled := 0; cancelled < 10; {
		n, err := push(t, d, r.boot, data, chunk, func(all []usb.Transfer) {
			time.Sleep(time.Duration(rnd.IntN(20)) * time.Millisecond)
			all[rnd.IntN(len(all))].Cancel()
		})
		switch {
		case errors.Is(err, usb.ErrCancelled):
			cancelled++
		case err != nil:
			t.Fatal(err)
		case r.ctx.Err() != nil:
			t.Fatal("nothing is ever cancelled")
		}
		sent = append(sent, data[:n]...)
		r.arrived(t, sent)
	}
}

// testStall pushes with eight transfers queued, of which the fourth stalls
// halfway; what did not go is sent again.
func testStall(t *testing.T, r *run) {
	d := r.open(t)
	r.faults(t, d, usbdev.Stall, usb.ErrStall, func() {
		if n, err := push(t, d, r.boot, make([]byte, chunk), chunk, nil); n != 0 || !errors.Is(err, usb.ErrStall) {
			t.Errorf("still halted: %d, %v, want 0, ErrStall", n, err)
		}
		if err := d.ClearHalt(r.ctx, r.boot); err != nil {
			t.Fatal(err)
		}
	})
}

// testBusError is testStall with an error that does not halt the endpoint, so
// that nothing but the host keeps what is queued behind from being sent.
func testBusError(t *testing.T, r *run) {
	d := r.open(t)
	if r.Detach != nil {
		// A host controller stops an endpoint at an error until the driver
		// has seen it. A simulated one behind a socket can but wait.
		r.DPU.SetErrorPause(4 * time.Second)
	}
	r.faults(t, d, usbdev.Protocol, usb.ErrProtocol, func() {})
}

// testUnseenError submits behind a transfer that has failed, as who has not
// looked yet whether it has.
func testUnseenError(t *testing.T, r *run) {
	d := r.open(t)
	data := random(1024)
	for range 10 {
		r.DPU.Inject(usbdev.Fault{Endpoint: r.boot, Kind: usbdev.Protocol})
		a := submit(t, d, r.boot, data[:512])
		select {
		case <-a.Done():
		case <-time.After(limit):
			t.Fatal("no end")
		}
		if b, err := d.Submit(r.boot, data[512:]); err == nil {
			ends(t, "unseen", b, 0, usb.ErrCancelled)
		} else if !errors.Is(err, usb.ErrCancelled) {
			t.Errorf("unseen: %v", err)
		}
		ends(t, "first", a, 0, usb.ErrProtocol)
	}
	ends(t, "again", submit(t, d, r.boot, data), 1024, nil)
	r.arrived(t, data)
}

func (r *run) faults(t *testing.T, d usb.Device, kind usbdev.Kind, want error, resume func()) {
	t.Helper()
	const fault = 3*chunk + 4096
	data := random(4 * fault)
	for sent := 0; sent < len(data); sent += fault {
		r.DPU.Inject(usbdev.Fault{Endpoint: r.boot, Nth: 4, After: fault % chunk, Kind: kind})
		queue := random(sent + 8*chunk)[sent:]
		if n, err := push(t, d, r.boot, queue, chunk, nil); n != fault || !errors.Is(err, want) {
			t.Fatalf("%d, %v, want %d, %v", n, err, fault, want)
		}
		resume()
	}
	r.arrived(t, data)
}

func testTwoIn(t *testing.T, r *run) {
	d := r.open(t)
	bulk, intr := make([]byte, 2048), make([]byte, 8)
	a, b := submit(t, d, r.tmIn, bulk), submit(t, d, r.tmInt, intr)
	r.DPU.QueueIn(r.tmInt, []byte("8 bytes!"))
	ends(t, "interrupt", b, 8, nil)
	pending(t, "bulk", a)
	b = submit(t, d, r.tmInt, make([]byte, 8))
	r.DPU.QueueIn(r.tmIn, random(1000))
	ends(t, "bulk", a, 1000, nil)
	pending(t, "interrupt", b)
	if string(intr) != "8 bytes!" || string(bulk[:1000]) != string(random(1000)) {
		t.Error("other data than were sent")
	}
}

func testShortIn(t *testing.T, r *run) {
	d := r.open(t)
	data := random(4096)
	for _, tt := range []struct{ sent, asked int }{{100, 2048}, {8, 8}, {700, 2048}, {512, 512}, {1536, 1536}, {1, 512}} {
		r.DPU.QueueIn(r.tmIn, data[:tt.sent])
		buf := make([]byte, tt.asked)
		n, err := usb.Do(r.ctx, d, r.tmIn, buf)
		if n != tt.sent || err != nil || string(buf[:n]) != string(data[:n]) {
			t.Errorf("%d of %d: %d, %v", tt.sent, tt.asked, n, err)
		}
	}
	// Two reads are queued before either has data.
	bufs := [2][]byte{make([]byte, 512), make([]byte, 512)}
	a, b := submit(t, d, r.tmIn, bufs[0]), submit(t, d, r.tmIn, bufs[1])
	r.DPU.QueueIn(r.tmIn, []byte("first"))
	r.DPU.QueueIn(r.tmIn, []byte("second"))
	ends(t, "first", a, 5, nil)
	ends(t, "second", b, 6, nil)
	if string(bufs[0][:5]) != "first" || string(bufs[1][:6]) != "second" {
		t.Errorf("%q, %q", bufs[0][:5], bufs[1][:6])
	}
}

func testCancelIn(t *testing.T, r *run) {
	d := r.open(t)
	a, b := submit(t, d, r.tmIn, make([]byte, 512)), submit(t, d, r.tmIn, make([]byte, 512))
	soon(t, "cancelling", func() time.Duration {
		tr := submit(t, d, r.tmInt, make([]byte, 8))
		start := time.Now()
		tr.Cancel()
		ends(t, "interrupt", tr, 0, usb.ErrCancelled)
		return time.Since(start)
	})
	a.Cancel()
	ends(t, "bulk", a, 0, usb.ErrCancelled)
	r.DPU.QueueIn(r.tmIn, []byte("for b")) // which has not been cancelled
	ends(t, "behind", b, 5, nil)
}

func testStallIn(t *testing.T, r *run) {
	d := r.open(t)
	r.DPU.StallNext(r.tmIn)
	if n, err := usb.Do(r.ctx, d, r.tmIn, make([]byte, 512)); n != 0 || !errors.Is(err, usb.ErrStall) {
		t.Errorf("%d, %v, want 0, ErrStall", n, err)
	}
	if err := d.ClearHalt(r.ctx, r.tmIn); err != nil {
		t.Fatal(err)
	}
	r.DPU.QueueIn(r.tmIn, []byte("again"))
	if n, err := usb.Do(r.ctx, d, r.tmIn, make([]byte, 512)); n != 5 || err != nil {
		t.Errorf("after ClearHalt: %d, %v", n, err)
	}
}

func testOverflow(t *testing.T, r *run) {
	d := r.open(t)
	r.DPU.QueueIn(r.tmIn, random(512))
	if _, err := usb.Do(r.ctx, d, r.tmIn, make([]byte, 64)); !errors.Is(err, usb.ErrOverflow) {
		t.Errorf("%v, want ErrOverflow", err)
	}
}

func testNoEndpoint(t *testing.T, r *run) {
	d := r.open(t)
	for _, ep := range []uint8{0x0f, 0x8f, 0x71} {
		if tr, err := d.Submit(ep, make([]byte, 8)); err == nil {
			if _, err = wait(t, tr); err == nil {
				t.Errorf("endpoint 0x%02x: no error", ep)
			}
		}
	}
}
