// SPDX-License-Identifier: Apache-2.0

package rshim_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/rshim/tmfifo"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
)

// load is what the tests below do at the same time. All that is sent is
// numbered or otherwise known, and all that arrives is compared with it.
type load struct {
	r *rig
	d *rshim.Device
	e *end

	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup
}

func newLoad(r *rig, d *rshim.Device, e *end) *load {
	l := &load{r: r, d: d, e: e}
	l.ctx, l.stop = context.WithCancel(r.ctx)
	return l
}

// stream makes bytes that are nowhere the same.
func stream(seed uint64, size int) []byte {
	rnd := rand.New(rand.NewPCG(13, seed))
	b := make([]byte, 0, size+8)
	for len(b) < size {
		b = binary.LittleEndian.AppendUint64(b, rnd.Uint64())
	}
	return b[:size]
}

// typing types p, and checks that the DPU gets just that.
func (l *load) typing(p []byte) {
	l.wg.Go(func() {
		cc := l.r.typist(l.d).cc
		for left := p; len(left) > 0; {
			n, err := cc.Write(l.r.ctx, left[:min(len(left), 4099)])
			if err != nil {
				l.r.t.Errorf("typing: %v", err)
				return
			}
			left = left[n:]
		}
		if !l.e.wait(time.Hour, func() bool { return len(l.e.typed) >= len(p) }) || !bytes.Equal(l.e.typed, p) {
			l.r.t.Errorf("the DPU got %d bytes of the %d typed, or others", len(l.e.typed), len(p))
		}
	})
}

// printing has the DPU print p in messages of all sizes, and checks that two
// openers read just that.
func (l *load) printing(p []byte) {
	ys := []*typist{l.r.typist(l.d), l.r.typist(l.d)}
	l.wg.Go(func() {
		for at, n := 0, 0; at < len(p); n++ {
			m := p[at:min(len(p), at+1+n*97%tmfifo.MaxConsole)]
			if err := l.e.send(l.r.ctx, tmfifo.Message{Type: tmfifo.Console, Payload: m}); err != nil {
				l.r.t.Errorf("printing: %v", err)
				return
			}
			at += len(m)
		}
		for _, y := range ys {
			if !y.wait(time.Hour, func() bool { return len(y.seen) >= len(p) }) || !bytes.Equal(y.seen, p) {
				l.r.t.Errorf("an opener got %d bytes of the %d printed, or others", len(y.seen), len(p))
			}
		}
	})
}

// pinging sends frames, which the DPU sends back, until the load is stopped,
// and checks that each comes back, in order. It returns the round-trip times.
func (l *load) pinging(every time.Duration) (times *[]time.Duration) {
	times = new([]time.Duration)
	back := l.r.receiver(l.d)
	l.wg.Go(func() {
		for n := 0; ; n++ {
			if !l.e.wait(time.Hour, func() bool { return len(l.e.frames) > n || l.ctx.Err() != nil }) || l.ctx.Err() != nil {
				return
			}
			l.e.mu.Lock()
			f := l.e.frames[n]
			l.e.mu.Unlock()
			if err := l.e.send(l.r.ctx, tmfifo.Message{Type: tmfifo.Net, Payload: f}); err != nil {
				return
			}
		}
	})
	l.wg.Go(func() {
		defer l.e.change(func() {}) // the answerer looks at ctx
		for n := 0; l.ctx.Err() == nil; n++ {
			f := frame(n, 60+n*37%1455)
			begin := time.Now()
			if err := l.d.Net().Send(l.r.ctx, f); err != nil {
				l.r.t.Errorf("ping %d: %v", n, err)
			}
			same := false
			if !back.wait(time.Minute, func() bool {
				same = len(back.frames) > n && bytes.Equal(back.frames[n], f)
				return len(back.frames) > n
			}) || !same {
				l.r.t.Errorf("ping %d did not come back, or not as it was sent", n)
				return
			}
			*times = append(*times, time.Since(begin))
			time.Sleep(every)
		}
	})
	return times
}

// lossless checks that nothing was dropped on the way.
func (l *load) lossless() {
	l.r.t.Helper()
	st := l.d.TMFIFO()
	for name, n := range map[string]int64{
		"frames to the DPU": st.NetToDPU.DroppedMessages, "frames from the DPU": st.NetFromDPU.DroppedMessages,
		"bytes typed": st.ConsoleToDPU.DroppedBytes, "words": int64(st.Decoded.Dropped()),
		"bytes printed": l.d.Console().Stats().Lost, "words to a full FIFO": l.e.dpu.TMOverflow(),
	} {
		if n != 0 {
			l.r.t.Errorf("%d %s were dropped", n, name)
		}
	}
}

// R13: console floods in both directions, pings and a push, all at the same
// time: every byte arrives, once, in order, and nothing stops anything else.
func TestR13ConsoleNetAndPush(t *testing.T) {
	size := 3 << 20
	if testing.Short() {
		size = 300 << 10
	}
	generations(t, func(t *testing.T, g reg.Generation) {
		withEnd(t, bluefield.Config{Generation: g, NoFirmware: true}, usbdev.Options{Latency: 125 * time.Microsecond, LinkRate: 40_000_000}, func(r *rig, fn *usbdev.Function, d *rshim.Device, e *end) {
			if err := d.WriteMisc(r.ctx, "BOOT_RESET_SKIP 1"); err != nil { // the DPU's software is to stay
				r.t.Fatal(err)
			}
			l := newLoad(r, d, e)
			l.typing(stream(1, size))
			l.printing(stream(2, size))
			p := newLoad(r, d, e)
			pings := p.pinging(5 * time.Millisecond)
			begin := time.Now()
			pushed := image(t, g, 2*size)
			l.wg.Go(func() {
				if err := push(r.ctx, d, pushed); err != nil {
					t.Errorf("push: %v", err)
				}
			})
			l.wg.Wait()
			took := time.Since(begin)
			p.stop()
			p.wg.Wait()
			arrived(t, fn, pushed)
			l.lossless()
			slices.Sort(*pings)
			if len(*pings) < 5 {
				r.t.Fatalf("%d pings in %v", len(*pings), took)
			}
			t.Logf("%d bytes each way, a push of %d bytes and %d pings (median %v, slowest %v) in %v",
				size, len(pushed), len(*pings), (*pings)[len(*pings)/2], (*pings)[len(*pings)-1], took)
		})
	})
}

// R13 also: with a shell on the console, while a push resets the DPU and boots
// it. The console and the network need not be opened again.
func TestR13PushReboots(t *testing.T) {
	generations(t, func(t *testing.T, g reg.Generation) {
		withSoftware(t, bluefield.Config{Generation: g}, usbdev.Options{Latency: 125 * time.Microsecond, LinkRate: 40_000_000}, func(r *rig, fn *usbdev.Function, w *wire) {
			r.bus.Plug("1-1", fn)
			d := r.attached(0)
			y, x := r.typist(d), r.receiver(d)
			const size = 200_000
			both := func() {
				y.say(fmt.Sprintf("\rflood %d\r", size))
				text := y.expect("flood done\n", time.Minute)
				if i := bytes.Index(text, []byte("00000000 ")); i < 0 || !bytes.Equal(text[i:][:size], bluefield.FloodText(size)) {
					t.Error("the flood did not arrive as it was printed")
				}
				typed := bytes.ReplaceAll(stream(3, size), []byte{3}, []byte{4})
				y.say(fmt.Sprintf("sink %d\r", size))
				y.say(string(typed))
				y.expect(fmt.Sprintf("sink %d sha256 %x\n", size, sha256.Sum256(typed)), time.Minute)
			}
			both()
			if err := push(r.ctx, d, image(t, g, 1<<20)); err != nil {
				r.t.Fatal(err)
			}
			r.attached(0)
			if err := fn.DPU().WaitStage(r.ctx, bluefield.StageReady); err != nil {
				r.t.Fatal(err)
			}
			both()
			w.send(r.ctx, frame(7, 700))
			if !x.waitFrames(1, time.Minute) {
				t.Error("no frame after the push")
			}
		})
	})
}

// R12 with console and network: who reads misc up to ten times a second, at
// any level, is answered within 50 ms, and costs neither the push nor the
// console more than 5 %, nor pings more than two transfers.
func TestR12MiscWithConsoleAndNet(t *testing.T) {
	generations(t, func(t *testing.T, g reg.Generation) {
		type result struct{ push, console, ping, misc time.Duration }
		// Every 0 means that nobody reads misc.
		timed := func(level string, every time.Duration) (res result) {
			withEnd(t, bluefield.Config{Generation: g, NoFirmware: true}, usbdev.Options{Latency: time.Millisecond, LinkRate: 40_000_000}, func(r *rig, fn *usbdev.Function, d *rshim.Device, e *end) {
				for _, c := range []string{"DISPLAY_LEVEL " + level, "BOOT_RESET_SKIP 1"} {
					if err := d.WriteMisc(r.ctx, c); err != nil {
						r.t.Fatal(err)
					}
				}
				pushed := image(t, g, map[reg.Generation]int{reg.BlueField2: 30 << 20, reg.BlueField3: 4 << 20}[g])
				const text = 750_000
				l, p := newLoad(r, d, e), newLoad(r, d, e)
				pings := p.pinging(20 * time.Millisecond)
				begin := time.Now()
				l.typing(stream(1, text))
				l.printing(stream(2, text))
				l.wg.Go(func() {
					for every > 0 && d.Push().Phase != rshim.PushDone {
						pushing, asked := d.Push().Phase == rshim.PushStreaming, time.Now()
						d.Misc(r.ctx)
						if pushing {
							res.misc = max(res.misc, time.Since(asked))
						}
						time.Sleep(every)
					}
				})
				var writing sync.WaitGroup
				writing.Go(func() {
					if err := push(r.ctx, d, pushed); err != nil {
						t.Error(err)
					}
					res.push = time.Since(begin)
				})
				if !e.wait(time.Hour, func() bool { return len(e.typed) == text }) {
					t.Error("typing did not end")
				}
				res.console = time.Since(begin)
				writing.Wait()
				l.wg.Wait()
				p.stop()
				p.wg.Wait()
				arrived(t, fn, pushed)
				l.lossless()
				for _, took := range *pings {
					res.ping += took / time.Duration(len(*pings))
				}
			})
			return res
		}
		alone := timed("0", 0)
		for _, reader := range []struct {
			level string
			every time.Duration
		}{{"0", 100 * time.Millisecond}, {"1", 100 * time.Millisecond}, {"2", 100 * time.Millisecond}, {"1", time.Second}} {
			with := timed(reader.level, reader.every)
			t.Logf("%+v: %+v, alone %+v", reader, with, alone)
			if with.misc >= 50*time.Millisecond {
				t.Errorf("%+v: misc took %v", reader, with.misc)
			}
			for name, v := range map[string][2]time.Duration{
				"the push": {with.push, alone.push}, "the console": {with.console, alone.console},
			} {
				if v[0] > v[1]*105/100 {
					t.Errorf("%+v: %s took %v, without readers %v", reader, name, v[0], v[1])
				}
			}
			// How long one takes depends on what it falls in with: a transfer
			// more or less, of a millisecond each.
			if with.ping > alone.ping+2*time.Millisecond {
				t.Errorf("%+v: a ping took %v, without readers %v", reader, with.ping, alone.ping)
			}
		}
	})
}

// R25: whatever words the DPU sends, they harm nothing but the messages that
// they hit, and never stop the console or the network.
func TestR25GarbageFromDPU(t *testing.T) {
	generations(t, func(t *testing.T, g reg.Generation) {
		for seed := range uint64(8) {
			withSoftware(t, bluefield.Config{Generation: g, DirtyHeaders: seed%2 == 1}, usbdev.Options{}, func(r *rig, fn *usbdev.Function, w *wire) {
				rnd := rand.New(rand.NewPCG(25, seed))
				r.bus.Plug("1-1", fn)
				d := r.attached(0)
				y, x := r.typist(d), r.receiver(d)
				for n := range 30 {
					fn.DPU().NoiseTM(1 + rnd.IntN(700))
					if n%2 == 0 {
						time.Sleep(4 * time.Second) // nothing is pending then
					}
					// A DPU that is not quiet either: some of it is lost, and
					// then no more.
					lost := 0
					for ; lost < 100; lost++ {
						in := frame(n*1000+lost, 60+rnd.IntN(1400))
						w.send(r.ctx, in)
						if x.wait(20*time.Millisecond, func() bool {
							return slices.ContainsFunc(x.frames, func(f []byte) bool { return bytes.Equal(f, in) })
						}) {
							break
						}
					}
					if limit := map[bool]int{true: 0, false: 20}[n%2 == 0]; lost > limit {
						t.Errorf("seed %d: %d frames were lost after noise %d; %+v", seed, lost, n, d.TMFIFO().Decoded)
					}
					y.say(fmt.Sprintf("\recho after %d\r", n))
					y.expect(fmt.Sprintf("\r\nafter %d\r\n", n), 30*time.Second)
					x.change(func() { x.frames = nil })
				}
				if st := d.TMFIFO(); st.Decoded.Dropped() == 0 || st.Errors != 0 || st.Starts != 1 {
					t.Errorf("%+v", st)
				}
				if !strings.HasPrefix(d.Misc(r.ctx), "DISPLAY_LEVEL") {
					t.Error("no misc")
				}
			})
		}
	})
}
