// SPDX-License-Identifier: Apache-2.0

package usbbackend_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

// tmEnd is an end of a TMFIFO: usbbackend's, or the baseline's.
type tmEnd interface {
	TMRead(ctx context.Context, p []byte) (int, error)
	TMWrite(ctx context.Context, p []byte) error
	TMIdle(ctx context.Context) error
}

// oneURB is the baseline, what the C daemon does: before each write a read of
// the fill level, one transfer at a time in each direction, and reads by turns
// of the interrupt endpoint and of the bulk endpoint, until a BlueField-2 has
// nothing more to say, or once for what a BlueField-3 says it has. (It sleeps
// for a millisecond when the FIFO is full, for which there is no need here.)
type oneURB struct {
	dev  usb.Device
	gen  reg.Generation
	flow bool
}

const (
	tmOutEP, tmInEP, tmIntrEP = 0x02, 0x81, 0x82
)

func (b *oneURB) TMWrite(ctx context.Context, p []byte) error {
	for len(p) > 0 {
		var count [8]byte
		value, index := b.gen.USB(reg.For(b.gen).TmHostToTileSts)
		if _, err := b.dev.Control(ctx, usb.Setup{RequestType: reg.USBRequestRead, Value: value, Index: index}, count[:]); err != nil {
			return err
		}
		room := 8 * (reg.TmFIFODepth - int(binary.LittleEndian.Uint64(count[:])))
		if room == 0 {
			time.Sleep(time.Millisecond)
			continue
		}
		n, err := usb.Do(ctx, b.dev, tmOutEP, p[:min(room, len(p))])
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

func (b *oneURB) TMIdle(context.Context) error { return nil }

func (b *oneURB) TMRead(ctx context.Context, p []byte) (int, error) {
	for {
		size := 2048
		if !b.flow {
			var count [8]byte
			if _, err := usb.Do(ctx, b.dev, tmIntrEP, count[:]); err != nil {
				return 0, err
			}
			if b.gen == reg.BlueField3 {
				size = 8 * int(binary.LittleEndian.Uint64(count[:]))
			}
		}
		n, err := usb.Do(ctx, b.dev, tmInEP, p[:size])
		if b.flow = n > 0 && b.gen != reg.BlueField3; n > 0 || err != nil {
			return n, err
		}
	}
}

// baseline opens the device as the baseline does.
func (r *tmRig) baseline(tb testing.TB, gen reg.Generation) tmEnd {
	dev, err := r.bus.Open(r.ctx, r.info)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { dev.Close() })
	return &oneURB{dev: dev, gen: gen}
}

// A tmLoad is something to do with a TMFIFO, which returns how long it took
// for each of n.
type tmLoad struct {
	name string
	unit string
	n    int
	run  func(tb testing.TB, r *tmRig, e tmEnd, n int)
}

const tmFrame = 190 // words of a message with a full Ethernet frame

var tmLoads = []tmLoad{
	{"write, 1 KiB at a time", "MB/s", 1 << 18, func(tb testing.TB, r *tmRig, e tmEnd, n int) {
		tmWrites(tb, r, e, n, 128)
	}},
	{"write, 1514-byte frames", "MB/s", 1 << 18, func(tb testing.TB, r *tmRig, e tmEnd, n int) {
		tmWrites(tb, r, e, n, tmFrame)
	}},
	{"write, frames to a slow DPU", "MB/s", 1 << 18, func(tb testing.TB, r *tmRig, e tmEnd, n int) {
		r.slow(200 * time.Microsecond)
		tmWrites(tb, r, e, n, tmFrame)
	}},
	{"write, keys to a slow DPU", "MB/s", 1 << 14, func(tb testing.TB, r *tmRig, e tmEnd, n int) {
		r.slow(200 * time.Microsecond)
		tmWrites(tb, r, e, n, 2)
	}},
	{"write, single keys", "MB/s", 1 << 14, func(tb testing.TB, r *tmRig, e tmEnd, n int) {
		tmWrites(tb, r, e, n, 2)
	}},
	{"read, as much as there is", "MB/s", 1 << 18, func(tb testing.TB, r *tmRig, e tmEnd, n int) {
		tmReads(tb, r, e, n, 1024, 0)
	}},
	{"read, frames at 1 MB/s", "MB/s", 1 << 18, func(tb testing.TB, r *tmRig, e tmEnd, n int) {
		tmReads(tb, r, e, n, tmFrame, 8*tmFrame*time.Microsecond)
	}},
	{"read, bursts of 4.8 KB", "MB/s", 1 << 18, func(tb testing.TB, r *tmRig, e tmEnd, n int) {
		tmReads(tb, r, e, n, 600, 5*time.Millisecond)
	}},
	{"both at once", "MB/s", 1 << 18, func(tb testing.TB, r *tmRig, e tmEnd, n int) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			tmReads(tb, r, e, n/2, 256, 0)
		}()
		tmWrites(tb, r, e, n/2, 128)
		<-done
	}},
	{"round trip, 98-byte ping", "µs", 100, func(tb testing.TB, r *tmRig, e tmEnd, n int) {
		tmPings(tb, r, e, n, 14, 0)
	}},
	{"round trip, pings now and then", "µs", 100, func(tb testing.TB, r *tmRig, e tmEnd, n int) {
		tmPings(tb, r, e, n, 14, 5*time.Millisecond)
	}},
	{"round trip, full frame", "µs", 100, func(tb testing.TB, r *tmRig, e tmEnd, n int) {
		tmPings(tb, r, e, n, tmFrame, 0)
	}},
}

// slow makes the DPU rest after it has emptied its FIFO.
func (r *tmRig) slow(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.delay = func() time.Duration { return d }
}

// tmWrites sends n bytes, so many words at a time.
func tmWrites(tb testing.TB, r *tmRig, e tmEnd, n, words int) {
	chunk := bytesOf(numbers(0, words))
	for left := n; left > 0; left -= len(chunk) {
		if err := e.TMWrite(r.ctx, chunk[:min(len(chunk), left)]); err != nil {
			tb.Error(err)
			return
		}
	}
	if err := e.TMIdle(r.ctx); err != nil {
		tb.Error(err)
	}
}

// tmReads reads n bytes that the DPU sends, so many words at a time, with a
// pause behind each.
func tmReads(tb testing.TB, r *tmRig, e tmEnd, n, words int, pause time.Duration) {
	done := make(chan struct{})
	defer func() { <-done }()
	go func() {
		defer close(done)
		chunk := numbers(0, words)
		for left := n / 8; left > 0 && r.dpu.SendTM(r.ctx, chunk[:min(words, left)]) == nil; left -= words {
			time.Sleep(pause)
		}
	}()
	buf := make([]byte, 4096)
	for n > 0 {
		m, err := e.TMRead(r.ctx, buf)
		if err != nil {
			tb.Error(err)
			return
		}
		n -= m
	}
}

// tmPings sends messages that the DPU sends back, the next after a random
// pause. Only the answers are waited for; what a pause adds is taken off.
func tmPings(tb testing.TB, r *tmRig, e tmEnd, n, words int, pause time.Duration) {
	rnd := rand.New(rand.NewPCG(5, 5))
	ping, buf := bytesOf(numbers(0, words)), make([]byte, 4096)
	echo := make(chan []uint64, 1024)
	defer close(echo)
	go func() {
		for w := range echo {
			_ = r.dpu.SendTM(r.ctx, w)
		}
	}()
	r.mu.Lock()
	r.react = func(w []uint64) { echo <- w }
	r.mu.Unlock()
	answers := make(chan int, 1024)
	go func() {
		defer close(answers)
		for left := n * len(ping); left > 0; {
			m, err := e.TMRead(r.ctx, buf)
			if err != nil {
				tb.Error(err)
				return
			}
			answers <- m
			left -= m
		}
	}()
	for range n {
		if pause > 0 {
			d := time.Duration(rnd.Int64N(int64(pause)))
			time.Sleep(d)
			*r.idle += d
		}
		if err := e.TMWrite(r.ctx, ping); err != nil {
			tb.Error(err)
			return
		}
		for got := 0; got < len(ping); {
			m, ok := <-answers
			if !ok {
				return
			}
			got += m
		}
	}
	r.mu.Lock()
	r.react = nil
	r.mu.Unlock()
}

// result turns how long a load took into its unit.
func (l tmLoad) result(took time.Duration) float64 {
	if l.unit == "µs" {
		return float64(took.Microseconds()) / float64(l.n)
	}
	return float64(l.n) / took.Seconds() / 1e6
}

// TestTMRate holds the TMFIFO to being no slower than the baseline whatever it
// is used for. Time is virtual, see TestPushRate.
func TestTMRate(t *testing.T) {
	for _, l := range tmLoads {
		t.Logf("%-32s %12s %12s %8s", l.name, "ours", "one-urb", "")
		for _, p := range []profile{
			{gen: reg.BlueField2}, {gen: reg.BlueField2, latency: 125 * time.Microsecond}, {gen: reg.BlueField2, latency: time.Millisecond},
			{gen: reg.BlueField3}, {gen: reg.BlueField3, latency: 125 * time.Microsecond}, {gen: reg.BlueField3, latency: time.Millisecond},
		} {
			var took, asked [2]float64
			for i := range took {
				synctest.Test(t, func(t *testing.T) {
					r := newTM(t, p.gen, usbdev.Options{Latency: p.latency, LinkRate: linkRate})
					var e tmEnd
					if i == 0 {
						e = r.open(t).d
					} else {
						e = r.baseline(t, p.gen)
					}
					idle := time.Duration(0)
					r.idle = &idle
					begin, before := time.Now(), r.bus.sum()
					l.run(t, r, e, l.n)
					took[i] = float64(time.Since(begin) - idle)
					asked[i] = float64(r.bus.sum() - before)
				})
			}
			ours, base := l.result(time.Duration(took[0])), l.result(time.Duration(took[1]))
			t.Logf("    %-18v %12.2f %12.2f %s %7.2fx  transfers %6.0f %6.0f", p, ours, base, l.unit, took[1]/took[0], asked[0], asked[1])
			if took[0] > 1.005*took[1] {
				t.Errorf("%s, %v: %.3f %s, the baseline does %.3f", l.name, p, ours, l.unit, base)
			}
		}
	}
}

// BenchmarkTMFIFO has no latency and a link without limits, and so shows what
// the processor needs, and the timers of the machine: the model's DPU takes a
// moment to read its FIFO, after which both look again. The table of
// TestTMRate has the limits.
func BenchmarkTMFIFO(b *testing.B) {
	for _, l := range tmLoads {
		for _, gen := range []reg.Generation{reg.BlueField2, reg.BlueField3} {
			for _, who := range []string{"ours", "one-urb"} {
				b.Run(fmt.Sprintf("%s/BF%d/%s", l.name, int(gen), who), func(b *testing.B) {
					r := newTM(b, gen, usbdev.Options{})
					var e tmEnd
					if who == "ours" {
						e = r.open(b).d
					} else {
						e = r.baseline(b, gen)
					}
					r.idle = new(time.Duration)
					if l.unit == "MB/s" {
						b.SetBytes(int64(l.n))
					}
					for b.Loop() {
						l.run(b, r, e, l.n)
					}
				})
			}
		}
	}
}
