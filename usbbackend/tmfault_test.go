// SPDX-License-Identifier: Apache-2.0

package usbbackend_test

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

// TestTMInFaults: an endpoint towards us that fails four times in a row, in
// whatever way, goes on, nothing is lost, and it is as quick afterwards as it
// was before.
func TestTMInFaults(t *testing.T) {
	for _, f := range []usbdev.Fault{
		{Kind: usbdev.Stall}, {Kind: usbdev.Stall, After: 64},
		{Kind: usbdev.Protocol}, {Kind: usbdev.Protocol, After: 64},
		{Kind: usbdev.NAK, For: time.Second}, {Kind: usbdev.NAK, For: time.Second, After: 64},
	} {
		for _, f.Endpoint = range []uint8{tmInEP, tmIntrEP} {
			eachTM(t, usbdev.Options{Latency: 125 * time.Microsecond}, func(t *testing.T, r *tmRig) {
				r.open(t)
				words := make(chan uint64, 4096)
				go func() {
					buf := make([]byte, 2048)
					for {
						n, err := r.d.TMRead(r.ctx, buf)
						if err != nil {
							return
						}
						for b := buf[:n]; len(b) > 0; b = b[8:] {
							words <- binary.LittleEndian.Uint64(b)
						}
					}
				}()
				next := 0
				send := func(n int) time.Duration {
					begin := time.Now()
					if err := r.dpu.SendTM(r.ctx, numbers(next, n)); err != nil {
						t.Fatal(err)
					}
					for range n {
						if w := <-words; !counts([]uint64{w}, next) {
							t.Fatalf("%+v: word %d is %#x", f, next, w)
						}
						next++
					}
					return time.Since(begin)
				}
				send(100)
				time.Sleep(time.Second)
				usual := send(100)
				time.Sleep(time.Second)
				for n := range 4 {
					f.Nth = n + 1
					r.fn.Inject(f)
				}
				for range 10 {
					if took := send(100); took > 6*time.Second {
						t.Errorf("%+v: %v", f, took)
					}
					time.Sleep(2 * time.Second)
				}
				time.Sleep(10 * time.Second)
				r.fn.ClearFaults()
				// Where the interrupt was posted before words came that it did
				// not tell of, it takes another look to find those it does.
				if took := send(100); took > usual+125*time.Microsecond {
					t.Errorf("%+v: %v afterwards, %v before", f, took, usual)
				}
				time.Sleep(time.Second)
				if took := send(100); took > usual {
					t.Errorf("%+v: %v in the end, %v before", f, took, usual)
				}
			})
		}
	}
}

// TestTMOutFaults is TestTMInFaults towards the DPU. Nobody writes any more
// when the failure happens.
func TestTMOutFaults(t *testing.T) {
	for _, f := range []usbdev.Fault{
		{Kind: usbdev.Stall}, {Kind: usbdev.Stall, After: 64},
		{Kind: usbdev.Protocol}, {Kind: usbdev.Protocol, After: 64},
		{Kind: usbdev.NAK, For: time.Second}, {Kind: usbdev.NAK, For: time.Second, After: 64},
	} {
		f.Endpoint = tmOutEP
		eachTM(t, usbdev.Options{Latency: 125 * time.Microsecond}, func(t *testing.T, r *tmRig) {
			r.open(t)
			time.Sleep(time.Second)
			for n := range 4 {
				f.Nth = n + 1
				r.fn.Inject(f)
			}
			sent := 0
			for range 3 {
				if err := r.d.TMWrite(r.ctx, bytesOf(numbers(sent, 50))); err != nil {
					t.Fatal(err)
				}
				sent += 50
			}
			time.Sleep(6 * time.Second)
			if words := r.arrived(); len(words) != sent || !counts(words, 0) {
				t.Errorf("%+v: %d of %d words arrived, in order: %v", f, len(words), sent, counts(words, 0))
			}
		})
	}
}

// TestTMLooks: what is there at the start is read even if the interrupt has been
// lost on somebody else.
func TestTMLooks(t *testing.T) {
	eachTM(t, usbdev.Options{}, func(t *testing.T, r *tmRig) {
		if err := r.dpu.SendTM(r.ctx, numbers(0, 200)); err != nil {
			t.Fatal(err)
		}
		r.fn.SetNAK(tmIntrEP, true)
		r.open(t)
		ctx, cancel := context.WithTimeout(r.ctx, time.Second)
		defer cancel()
		if words, err := readTM(ctx, r.d, 200); err != nil || !counts(words, 0) {
			t.Errorf("read %d words, %v", len(words), err)
		}
	})
}

// TestTMGarbageInterrupts: an interrupt endpoint that only talks nonsense is
// not listened to all the time, and words come all the same.
func TestTMGarbageInterrupts(t *testing.T) {
	eachTM(t, usbdev.Options{}, func(t *testing.T, r *tmRig) {
		r.open(t)
		rnd := rand.New(rand.NewPCG(6, 6))
		for range 1000 {
			r.fn.QueueIn(tmIntrEP, garbage(rnd))
		}
		r.fn.QueueIn(tmInEP, make([]byte, 13)) // and a word and a half that no FIFO has
		done := make(chan []uint64)
		go func() {
			words, _ := readTM(r.ctx, r.d, 101)
			done <- words
		}()
		before := r.bus.sum()
		time.Sleep(time.Minute)
		if n := r.bus.sum() - before; n > 60*6 {
			t.Errorf("%d transfers in a minute of nonsense", n)
		}
		if err := r.dpu.SendTM(r.ctx, numbers(0, 100)); err != nil {
			t.Fatal(err)
		}
		words := <-done
		if len(words) != 101 || words[0] != 0 || !counts(words[1:], 0) {
			t.Errorf("read %d words: %x", len(words), words)
		}
	})
}

// TestTMGone: whatever is waited for ends when the device is unplugged or
// closed, at any point.
func TestTMGone(t *testing.T) {
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(7, seed))
			r := newTM(t, reg.BlueField2+reg.Generation(seed%2), usbdev.Options{
				Latency: time.Duration(rnd.IntN(1000)) * time.Microsecond, LinkRate: 2_000_000, EmptyIn: tmOptions[seed/2%3],
			}).open(t)
			var wg sync.WaitGroup
			var gone time.Time
			check := func(what string, err error) {
				if !errors.Is(err, usb.ErrNoDevice) && !errors.Is(err, usb.ErrClosed) {
					t.Errorf("seed %d: %s: %v", seed, what, err)
				}
				if late := time.Since(gone); gone.IsZero() || late > 0 {
					t.Errorf("seed %d: %s ends %v late", seed, what, late)
				}
			}
			wg.Go(func() {
				_, err := readTM(r.ctx, r.d, 1<<30)
				check("TMRead", err)
			})
			wg.Go(func() {
				var err error
				for n := 0; err == nil; n++ {
					if err = r.d.TMWrite(r.ctx, make([]byte, 8*(1+n%256))); err == nil && n%5 == 0 {
						err = r.d.TMIdle(r.ctx)
					}
				}
				check("TMWrite", err)
			})
			ctx, cancel := context.WithCancel(r.ctx)
			wg.Go(func() {
				for r.dpu.SendTM(ctx, make([]uint64, 100)) == nil {
				}
			})
			time.Sleep(time.Duration(rnd.IntN(20000)) * time.Microsecond)
			switch rnd.IntN(4) { // what they may be in the middle of
			case 0:
				r.dpu.HoldTM(true)
				time.Sleep(time.Second)
			case 1: // clearing a halt that cannot be cleared
				r.fn.SetNAK(0, true)
				r.fn.StallNext([]uint8{tmOutEP, tmInEP, tmIntrEP}[rnd.IntN(3)])
				time.Sleep(time.Duration(rnd.IntN(2000)) * time.Millisecond)
			case 2: // a pause after failures
				for _, ep := range []uint8{tmOutEP, tmInEP, tmIntrEP} {
					for n := range 8 {
						r.fn.Inject(usbdev.Fault{Endpoint: ep, Nth: n + 1, Kind: usbdev.Protocol})
					}
				}
				time.Sleep(time.Duration(rnd.IntN(1000)) * time.Millisecond)
			}
			synctest.Wait()
			gone = time.Now()
			if rnd.IntN(2) == 0 {
				r.fn.Unplug()
			} else {
				r.d.Close()
			}
			wg.Go(cancel)
			wg.Wait()
			r.d.TMStop()
			if late := time.Since(gone); late > 0 {
				t.Errorf("seed %d: TMStop %v late", seed, late)
			}
		})
	}
}

// TestTMRestart: stopping with half a message under way leaves nothing under
// way; after a start, all that is sent arrives, and what comes is read.
func TestTMRestart(t *testing.T) {
	for wait := range 12 {
		eachTM(t, usbdev.Options{Latency: time.Millisecond, LinkRate: 1_000_000}, func(t *testing.T, r *tmRig) {
			r.open(t)
			ctx, cancel := context.WithTimeout(r.ctx, time.Duration(wait)*500*time.Microsecond)
			defer cancel()
			go func() { _ = r.dpu.SendTM(r.ctx, numbers(0, 900)) }()
			var before []uint64
			var wg sync.WaitGroup
			wg.Go(func() { before, _ = readTM(ctx, r.d, 900) })
			wg.Go(func() {
				for n := 0; r.d.TMWrite(ctx, bytesOf(numbers(n, 200))) == nil; n += 200 {
				}
			})
			wg.Wait()
			r.d.TMStop()
			synctest.Wait()
			if err := r.d.TMWrite(r.ctx, make([]byte, 8)); err == nil || errors.Is(err, usb.ErrNoDevice) {
				t.Errorf("a write while stopped: %v", err)
			}
			if _, err := r.d.TMRead(r.ctx, make([]byte, 2048)); err == nil {
				t.Error("a read while stopped")
			}
			begin, old := r.bus.sum(), len(r.arrived())
			time.Sleep(time.Hour)
			if n, more := r.bus.sum()-begin, len(r.arrived())-old; n != 0 || more != 0 {
				t.Errorf("%d transfers and %d words while stopped", n, more)
			}
			if !counts(r.arrived(), 0) || !counts(before, 0) {
				t.Error("out of order before")
			}

			r.d.TMStart()
			for n := 1000; n < 2000; n += 200 {
				if err := r.d.TMWrite(r.ctx, bytesOf(numbers(n, 200))); err != nil {
					t.Fatal(err)
				}
			}
			var after []uint64
			for len(after) == 0 || !counts(after[len(after)-1:], 899) {
				words, err := readTM(r.ctx, r.d, 1)
				if err != nil {
					t.Fatal(err)
				}
				after = append(after, words...)
			}
			if from := int(after[0] >> 8); !counts(after, from) || from < len(before) || from > len(before)+256*4 {
				t.Errorf("%d words before, and then from %d on, in order: %v", len(before), from, counts(after, from))
			}
			if err := r.d.TMIdle(r.ctx); err != nil {
				t.Error(err)
			}
			synctest.Wait()
			if words := r.arrived()[old:]; len(words) != 1000 || !counts(words, 1000) {
				t.Errorf("%d words arrived after the start, in order: %v", len(words), counts(words, 1000))
			}
		})
	}
}

// TestTMMisuse: what cannot be is refused.
func TestTMMisuse(t *testing.T) {
	eachTM(t, usbdev.Options{}, func(t *testing.T, r *tmRig) {
		r.open(t)
		for _, n := range []int{1, 7, 9, 2049, 2056} {
			if err := r.d.TMWrite(r.ctx, make([]byte, n)); err == nil {
				t.Errorf("%d bytes were written", n)
			}
		}
		if err := r.d.TMWrite(r.ctx, nil); err != nil {
			t.Error(err)
		}
		if _, err := r.d.TMRead(r.ctx, make([]byte, 2047)); err == nil {
			t.Error("a read into too little")
		}
		ctx, cancel := context.WithCancel(r.ctx)
		cancel()
		if err := r.d.TMWrite(ctx, make([]byte, 8)); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if _, err := r.d.TMRead(ctx, make([]byte, 2048)); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		synctest.Wait()
		if n := len(r.arrived()); n != 0 {
			t.Errorf("%d words arrived", n)
		}
		r.d.TMStart() // without a stop
		if err := r.d.TMWrite(r.ctx, bytesOf(numbers(0, 256))); err != nil {
			t.Error(err)
		}
	})
}
