// SPDX-License-Identifier: Apache-2.0

package usbbackend_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
)

// TestTMExact: whatever goes wrong on the three endpoints and in the registers,
// both directions at once are exact, and the FIFO is never offered more than it
// has room for.
func TestTMExact(t *testing.T) {
	const size = 20_000 // words each way
	for seed := range uint64(48) {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(4, seed))
			pick := func(ns ...int) int { return ns[rnd.IntN(len(ns))] }
			gen := reg.BlueField2 + reg.Generation(seed%2)
			r := newTM(t, gen, usbdev.Options{
				Latency:  time.Duration(pick(0, 10, 125, 1000, 20_000)) * time.Microsecond,
				LinkRate: int64(pick(0, 1_000_000, linkRate)),
				EmptyIn:  tmOptions[seed/2%3],
			}).open(t)
			slow := rand.New(rand.NewPCG(44, seed))
			r.delay = func() time.Duration {
				return time.Duration(slow.IntN(3000)) * time.Microsecond * time.Duration(slow.IntN(2))
			}

			ctx, cancel := context.WithTimeout(r.ctx, time.Hour)
			defer cancel()
			var wg sync.WaitGroup
			over := make(chan struct{})
			wg.Go(func() { r.trouble(rand.New(rand.NewPCG(444, seed)), over) })
			var flow sync.WaitGroup
			flow.Go(func() { // the DPU
				rnd := rand.New(rand.NewPCG(4444, seed))
				for at := 0; at < size; {
					n := min(size-at, 1+rnd.IntN(400)>>rnd.IntN(9))
					if err := r.dpu.SendTM(ctx, numbers(at, n)); err != nil {
						t.Errorf("seed %d: the DPU: %v", seed, err)
						return
					}
					at += n
					time.Sleep(time.Duration(rnd.IntN(5000)*rnd.IntN(2)) * time.Microsecond)
				}
			})
			flow.Go(func() { // what comes from it
				words, err := readTM(ctx, r.d, size)
				if err != nil || len(words) != size || !counts(words, 0) {
					t.Errorf("seed %d: read %d words, in order: %v, %v", seed, len(words), counts(words, 0), err)
				}
			})
			for at := 0; at < size; {
				n := min(size-at, 1+rnd.IntN(256)>>rnd.IntN(8))
				some, cancel := context.WithTimeout(ctx, time.Duration(1+rnd.IntN(5000))*time.Millisecond)
				err := r.d.TMWrite(some, bytesOf(numbers(at, n)))
				if err == nil {
					at += n
					if rnd.IntN(20) == 0 {
						err = r.d.TMIdle(some)
					}
				}
				cancel()
				if err != nil && !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
					t.Fatalf("seed %d: after %d words: %v", seed, at, err)
				}
				time.Sleep(time.Duration(rnd.IntN(5000)*rnd.IntN(2)) * time.Microsecond)
			}
			if err := r.d.TMIdle(ctx); err != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
			flow.Wait()
			close(over)
			wg.Wait()
			time.Sleep(time.Second)
			if words := r.arrived(); len(words) != size || !counts(words, 0) {
				t.Errorf("seed %d: %d words arrived, in order: %v", seed, len(words), counts(words, 0))
			}
		})
	}
}

// trouble makes things go wrong until over.
func (r *tmRig) trouble(rnd *rand.Rand, over <-chan struct{}) {
	pick := func(ns ...int64) int64 { return ns[rnd.IntN(len(ns))] }
	_, out, in, intr := r.fn.Endpoints()
	m := r.dpu.Map()
	for {
		select {
		case <-over:
			r.fn.ClearFaults()
			return
		case <-time.After(time.Duration(1+rnd.IntN(40)) * time.Millisecond):
		}
		f := usbdev.Fault{
			Endpoint: []uint8{out, in, intr, 0}[rnd.IntN(4)], Nth: 1 + rnd.IntN(3),
			After: 8 * rnd.IntN(70) * rnd.IntN(2),
		}
		switch rnd.IntN(8) {
		case 0, 1:
			f.Kind = usbdev.Stall
			r.fn.Inject(f)
		case 2, 3:
			f.Kind = usbdev.Protocol
			r.fn.Inject(f)
		case 4:
			f.Kind, f.For = usbdev.NAK, time.Duration(rnd.IntN(1500))*time.Millisecond
			r.fn.Inject(f)
		case 5: // the fill levels cannot be; that from the DPU may even lie
			r.dpu.BadReads(m.TmHostToTileSts, uint64(pick(0xbad00acce55, 0xbadacce55, -1, 257, 511)), 0, 1+rnd.IntN(3))
			r.dpu.BadReads(m.TmTileToHostSts, uint64(pick(0xbad00acce55, -1, 300, 0, 1, 17, 256)), 0, 1+rnd.IntN(3))
		case 6: // the interrupt is garbage, of any length
			r.fn.QueueIn(intr, garbage(rnd))
		case 7:
			r.dpu.HoldTM(true)
			time.Sleep(time.Duration(rnd.IntN(800)) * time.Millisecond)
			r.dpu.HoldTM(false)
		}
	}
}

// garbage is what an interrupt endpoint may say.
func garbage(rnd *rand.Rand) []byte {
	ns := []uint64{0, 1, 5, 255, 256, 257, 2048, 1 << 31, 1<<63 + 1, ^uint64(0), 0xbad00acce55}
	return bytesOf(ns[rnd.IntN(len(ns)):][:1])[:rnd.IntN(9)]
}

// TestTMAsksForWhatIsThere: a BlueField-3 is never asked for more than it has,
// if what it says is true.
func TestTMAsksForWhatIsThere(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			const size = 10_000 // words
			rnd := rand.New(rand.NewPCG(8, seed))
			r := newTM(t, reg.BlueField3, usbdev.Options{
				Latency: time.Duration(rnd.IntN(1000)) * time.Microsecond, LinkRate: linkRate, EmptyIn: tmOptions[seed%3],
			})
			var sent, asked atomic.Int64
			r.bus.asked = func(n int) {
				if a, s := asked.Add(int64(n)), sent.Load(); a > s {
					t.Errorf("seed %d: asked for %d bytes, of which there are %d", seed, a, s)
				}
			}
			r.open(t)
			go func() {
				for at, burst := 0, 0; at < size; burst-- {
					if burst == 0 {
						time.Sleep(time.Duration(rnd.IntN(3000)*rnd.IntN(2)) * time.Microsecond)
						burst = 1 + rnd.IntN(300)
						// What is said and what is read may overtake each other.
						r.fn.SetLatency(time.Duration(rnd.IntN(1000)) * time.Microsecond)
						r.fn.Inject(usbdev.Fault{
							Endpoint: []uint8{0, tmInEP, tmIntrEP}[rnd.IntN(3)], Kind: usbdev.NAK,
							For: time.Duration(rnd.IntN(1000)) * time.Microsecond,
						})
					}
					sent.Add(8) // a word too soon at most
					if err := r.dpu.SendTM(r.ctx, numbers(at, 1)); err != nil {
						return
					}
					at++
					time.Sleep(time.Duration(rnd.IntN(2)) * time.Microsecond)
				}
			}()
			if words, err := readTM(r.ctx, r.d, size); err != nil || !counts(words, 0) {
				t.Errorf("seed %d: read %d words, %v", seed, len(words), err)
			}
		})
	}
}

// TestTMFull: a FIFO that nobody reads for ten minutes costs a few looks a second,
// a write ends with its context and has sent nothing, and all goes on
// afterwards.
func TestTMFull(t *testing.T) {
	eachTM(t, usbdev.Options{Latency: 125 * time.Microsecond}, func(t *testing.T, r *tmRig) {
		r.open(t)
		r.dpu.HoldTM(true)
		sent := 0
		for {
			ctx, cancel := context.WithTimeout(r.ctx, time.Minute)
			err := r.d.TMWrite(ctx, bytesOf(numbers(sent, 3)))
			cancel()
			if err != nil {
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Fatal(err)
				}
				break
			}
			sent += 3
		}
		if sent != 255 {
			t.Errorf("%d words sent to a FIFO of 256", sent)
		}
		before := r.bus.sum()
		ctx, cancel := context.WithTimeout(r.ctx, 10*time.Minute)
		err := r.d.TMWrite(ctx, bytesOf(numbers(sent, 2)))
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if n := float64(r.bus.sum()-before) / 600; n > 6 {
			t.Errorf("%.1f transfers a second while nothing goes", n)
		}
		before = r.bus.sum()
		time.Sleep(time.Hour)
		if n := r.bus.sum() - before; n > 1 {
			t.Errorf("%d transfers while nobody wants anything", n)
		}
		r.dpu.HoldTM(false)
		begin := time.Now()
		for range 100 {
			if err := r.d.TMWrite(r.ctx, bytesOf(numbers(sent, 256))); err != nil {
				t.Fatal(err)
			}
			sent += 256
		}
		if err := r.d.TMIdle(r.ctx); err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took > 100*3*125*time.Microsecond {
			t.Errorf("%v to send what was held up", took)
		}
		synctest.Wait()
		if words := r.arrived(); len(words) != sent || !counts(words, 0) {
			t.Errorf("%d of %d words arrived, in order: %v", len(words), sent, counts(words, 0))
		}
	})
}

// TestTMResumes: a DPU that reads on is noticed in the time it was deaf, and
// not much later than a second.
func TestTMResumes(t *testing.T) {
	for _, deaf := range []time.Duration{time.Millisecond, 20 * time.Millisecond, time.Second, time.Minute} {
		eachTM(t, usbdev.Options{}, func(t *testing.T, r *tmRig) {
			r.open(t)
			r.dpu.HoldTM(true)
			if err := r.d.TMWrite(r.ctx, bytesOf(numbers(0, 256))); err != nil {
				t.Fatal(err)
			}
			var resumed time.Time
			time.AfterFunc(deaf, func() { resumed = time.Now(); r.dpu.HoldTM(false) })
			if err := r.d.TMWrite(r.ctx, bytesOf(numbers(256, 256))); err != nil {
				t.Fatal(err)
			}
			if late := time.Since(resumed); late > min(2*deaf, 1010*time.Millisecond) {
				t.Errorf("deaf for %v, noticed %v later", deaf, late)
			}
		})
	}
}

// TestTMIdle: with nothing to do nothing is done, and no timer is set, or years
// would not pass in the time of this test.
func TestTMIdle(t *testing.T) {
	eachTM(t, usbdev.Options{Latency: time.Millisecond, LinkRate: linkRate}, func(t *testing.T, r *tmRig) {
		r.open(t)
		echoed := make(chan int, 1)
		go func() {
			words, _ := readTM(r.ctx, r.d, 1200)
			echoed <- len(words)
		}()
		for i := range 4 {
			time.Sleep(time.Hour)
			if err := r.dpu.SendTM(r.ctx, numbers(i, 200)); err != nil {
				t.Error(err)
			}
			if err := r.d.TMWrite(r.ctx, bytesOf(numbers(0, 200))); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Second)
			before := r.bus.sum()
			time.Sleep(50 * 365 * 24 * time.Hour)
			if n := r.bus.sum() - before; n != 0 {
				t.Errorf("%d transfers with nothing to do", n)
			}
		}
		if err := r.dpu.SendTM(r.ctx, numbers(0, 400)); err != nil {
			t.Error(err)
		}
		if n := <-echoed; n != 1200 {
			t.Errorf("%d words were read", n)
		}
	})
}
