// SPDX-License-Identifier: Apache-2.0

package rshim_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/rshim/tmfifo"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
)

// TestTMFIFOCounters: every frame and every byte is counted once, where it
// went or that it was dropped.
func TestTMFIFOCounters(t *testing.T) {
	generations(t, func(t *testing.T, g reg.Generation) {
		withEnd(t, bluefield.Config{Generation: g}, usbdev.Options{}, func(r *rig, fn *usbdev.Function, d *rshim.Device, e *end) {
			var want rshim.TMFIFOStats
			send := func(size int) {
				if err := d.Net().Send(r.ctx, frame(size, size)); err != nil {
					t.Error(err)
				}
			}
			check := func(when string) {
				t.Helper()
				time.Sleep(time.Second)
				got := d.TMFIFO()
				got.Decoded, got.Starts, got.Resyncs = tmfifo.Counts{}, 0, 0
				if got != want {
					t.Errorf("%s:\n%+v, want\n%+v", when, got, want)
				}
			}
			want.Running = true
			check("attached")
			for size := 14; size <= tmfifo.MaxFrame; size += 100 {
				send(size)
				want.NetToDPU.Messages++
				want.NetToDPU.Bytes += int64(size)
			}
			check("frames to the DPU")
			if _, frames, _ := e.got(); len(frames) != int(want.NetToDPU.Messages) {
				t.Errorf("the DPU got %d frames", len(frames))
			}
			for _, size := range []int{0, 13, tmfifo.MaxFrame + 1, 9000} {
				if err := d.Net().Send(r.ctx, make([]byte, size)); !errors.Is(err, rshim.ErrInvalid) {
					t.Errorf("a frame of %d bytes: %v", size, err)
				}
				want.NetToDPU.DroppedMessages++
				want.NetToDPU.DroppedBytes += int64(size)
			}
			check("frames that are none")

			// A DPU that does not read, for longer than Send waits.
			fn.DPU().HoldTM(true)
			begin := time.Now()
			for range 200 {
				send(1000)
			}
			if took := time.Since(begin); took < time.Second || took > 1100*time.Millisecond {
				t.Errorf("200 frames to a DPU that does not read took %v, want the patience of a second", took)
			}
			fn.DPU().HoldTM(false)
			time.Sleep(time.Second)
			_, frames, _ := e.got()
			passed := int64(len(frames)) - want.NetToDPU.Messages
			if passed < 16 || passed > 20 {
				t.Errorf("%d frames were kept, want the queue's 16, and what is on its way", passed)
			}
			want.NetToDPU.Messages += passed
			want.NetToDPU.Bytes += 1000 * passed
			want.NetToDPU.DroppedMessages += 200 - passed
			want.NetToDPU.DroppedBytes += 1000 * (200 - passed)
			check("a DPU that does not read")

			// Frames that nobody fetches, and one that is none.
			for range 100 {
				if err := e.send(r.ctx, tmfifo.Message{Type: tmfifo.Net, Payload: frame(1, 500)}); err != nil {
					r.t.Fatal(err)
				}
			}
			want.NetFromDPU = rshim.Traffic{Messages: 64, Bytes: 64 * 500, DroppedMessages: 36, DroppedBytes: 36 * 500}
			check("frames that nobody fetches")
			p := make([]byte, tmfifo.MaxFrame)
			if n, err := d.Net().Receive(r.ctx, p[:499]); n != 0 || !errors.Is(err, io.ErrShortBuffer) {
				t.Errorf("Receive with a small buffer: %d, %v", n, err)
			}
			for range 64 {
				if n, err := d.Net().Receive(r.ctx, p); n != 500 || err != nil || !bytes.Equal(p[:n], frame(1, 500)) {
					r.t.Fatalf("Receive: %d, %v", n, err)
				}
			}
			ctx, cancel := context.WithTimeout(r.ctx, time.Second)
			defer cancel()
			if n, err := d.Net().Receive(ctx, p); n != 0 || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Receive of nothing: %d, %v", n, err)
			}

			y := r.typist(d)
			y.say(strings.Repeat("x", 5000))
			time.Sleep(time.Second)
			want.ConsoleToDPU = d.TMFIFO().ConsoleToDPU
			want.ConsoleToDPU.Bytes = 5000
			if err := e.send(r.ctx, tmfifo.Message{Type: tmfifo.Console, Payload: make([]byte, 77)}); err != nil {
				r.t.Fatal(err)
			}
			want.ConsoleFromDPU = rshim.Traffic{Messages: 1, Bytes: 77}
			if err := d.WriteMisc(r.ctx, "PEER_MAC 1:2:3:4:5:6"); err != nil {
				t.Error(err)
			}
			want.ControlToDPU.Messages = 2
			check("console and control messages")

			fn.Unplug()
			r.state(d, rshim.Gone)
			begin = time.Now()
			send(100)
			if took := time.Since(begin); took > 0 {
				t.Errorf("a frame for nobody took %v", took)
			}
			want.Running = false
			want.NetToDPU.DroppedMessages++
			want.NetToDPU.DroppedBytes += 100
			check("unplugged")
		})
	})
}

// TestTMFIFOFairness: a network that could fill the FIFO leaves the console its
// share, and the other way round; single keys and frames get through a
// saturated FIFO in a few milliseconds.
func TestTMFIFOFairness(t *testing.T) {
	generations(t, func(t *testing.T, g reg.Generation) {
		for _, size := range []int{60, 1514} {
			withEnd(t, bluefield.Config{Generation: g}, usbdev.Options{Latency: 125 * time.Microsecond, LinkRate: 1_000_000}, func(r *rig, fn *usbdev.Function, d *rshim.Device, e *end) {
				cc := d.Console().Open(false)
				defer cc.Close()
				// rates measures what gets through in three seconds.
				rates := func(console, network bool) (typed, sent int) {
					ctx, cancel := context.WithTimeout(r.ctx, 3*time.Second)
					defer cancel()
					e.change(func() { e.typed, e.frames = nil, nil })
					l := newLoad(r, d, e)
					l.wg.Go(func() {
						for console && ctx.Err() == nil {
							_, _ = cc.Write(ctx, make([]byte, 4096))
						}
					})
					l.wg.Go(func() {
						for n := 0; network && ctx.Err() == nil; n++ {
							_ = d.Net().Send(ctx, frame(n, size))
						}
					})
					l.wg.Wait()
					e.mu.Lock()
					defer e.mu.Unlock()
					for _, f := range e.frames {
						sent += len(f)
					}
					return len(e.typed), sent
				}
				typedAlone, _ := rates(true, false)
				_, sentAlone := rates(false, true)
				typed, sent := rates(true, true)
				t.Logf("frames of %d bytes: console %d KB/s (alone %d), network %d KB/s (alone %d)",
					size, typed/3000, typedAlone/3000, sent/3000, sentAlone/3000)
				if typedAlone < 3*900_000 || sentAlone < 3*750_000 {
					t.Error("one alone does not use what there is")
				}
				// A big frame is half as much again as the console's longest message.
				if share := 100 * typed / typedAlone; share < 35 {
					t.Errorf("frames of %d bytes leave the console %d %%", size, share)
				}
				if share := 100 * sent / sentAlone; share < 30 {
					t.Errorf("frames of %d bytes get %d %% beside the console", size, share)
				}

				// How long a key takes through frames, and a ping through a paste.
				time.Sleep(time.Second)
				ctx, cancel := context.WithCancel(r.ctx)
				l := newLoad(r, d, e)
				l.wg.Go(func() {
					for n := 0; ctx.Err() == nil; n++ {
						_ = d.Net().Send(ctx, frame(n, size))
					}
				})
				time.Sleep(time.Second)
				e.change(func() { e.typed = nil })
				begin := time.Now()
				if _, err := cc.Write(r.ctx, []byte("k")); err != nil || !e.wait(time.Minute, func() bool { return len(e.typed) == 1 }) {
					t.Errorf("a key did not arrive (%v)", err)
				}
				key := time.Since(begin)
				cancel()
				l.wg.Wait()
				ctx, cancel = context.WithCancel(r.ctx)
				l.wg.Go(func() {
					for ctx.Err() == nil {
						_, _ = cc.Write(ctx, make([]byte, 4096))
					}
				})
				time.Sleep(time.Second)
				e.change(func() { e.frames = nil })
				begin = time.Now()
				if err := d.Net().Send(r.ctx, frame(1, 98)); err != nil || !e.wait(time.Minute, func() bool { return len(e.frames) == 1 }) {
					t.Errorf("a frame did not arrive (%v)", err)
				}
				ping := time.Since(begin)
				cancel()
				l.wg.Wait()
				t.Logf("a key takes %v, a ping %v", key, ping)
				if key > 10*time.Millisecond || ping > 10*time.Millisecond {
					t.Errorf("through a saturated FIFO a key takes %v, a ping %v", key, ping)
				}
			})
		}
	})
}

// TestSlowConsole: an opener that does not read holds the network up once, and
// not for long.
func TestSlowConsole(t *testing.T) {
	withEnd(t, bluefield.Config{}, usbdev.Options{}, func(r *rig, fn *usbdev.Function, d *rshim.Device, e *end) {
		cc := d.Console().Open(false)
		defer cc.Close()
		x := r.receiver(d)
		var slowest time.Duration
		for n := range 1000 {
			if err := e.send(r.ctx, tmfifo.Message{Type: tmfifo.Console, Payload: make([]byte, 1000)}); err != nil {
				r.t.Fatal(err)
			}
			begin := time.Now()
			if err := e.send(r.ctx, tmfifo.Message{Type: tmfifo.Net, Payload: frame(n, 100)}); err != nil {
				r.t.Fatal(err)
			}
			if !x.waitFrames(n+1, time.Minute) {
				r.t.Fatalf("frame %d did not arrive", n)
			}
			slowest = max(slowest, time.Since(begin))
		}
		if slowest > 250*time.Millisecond || slowest == 0 {
			t.Errorf("the slowest frame took %v", slowest)
		}
	})
}

// TestTMFIFOIdle: with nothing to carry, the TMFIFO's registers are left alone,
// and so is the TMFIFO.
func TestTMFIFOIdle(t *testing.T) {
	generations(t, func(t *testing.T, g reg.Generation) {
		withEnd(t, bluefield.Config{Generation: g}, usbdev.Options{}, func(r *rig, fn *usbdev.Function, d *rshim.Device, e *end) {
			y := r.typist(d)
			y.say("something")
			if err := d.Net().Send(r.ctx, frame(1, 1514)); err != nil {
				r.t.Fatal(err)
			}
			time.Sleep(time.Minute)
			before := d.TMFIFO()
			var sizes, sizesAfter int
			e.look(func() { sizes = e.sizes })
			fn.DPU().Record(100_000)
			time.Sleep(time.Hour)
			m := reg.For(g)
			for _, a := range fn.DPU().Recorded() {
				if slices.Contains([]reg.Addr{m.TmHostToTile, m.TmHostToTileSts, m.TmTileToHost, m.TmTileToHostSts}, a.Addr) {
					r.t.Fatalf("%+v", a)
				}
			}
			e.look(func() { sizesAfter = e.sizes })
			if after := d.TMFIFO(); after != before || sizes != sizesAfter {
				t.Errorf("before %+v\nafter %+v", before, after)
			}
		})
	})
}

// TestConsoleAndNetSurvive: what is open stays open through a reset, whoever
// asked for it, and being unplugged. What was typed before a reset does not
// come up after it, what is typed meanwhile does.
func TestConsoleAndNetSurvive(t *testing.T) {
	type event struct {
		name string
		do   func(r *rig, fn *usbdev.Function, d *rshim.Device)
		away rshim.State // the state that the device goes through
		// reads means that the old system reads what was sent, before it goes.
		reads bool
	}
	swReset := func(r *rig, fn *usbdev.Function, d *rshim.Device) {
		if err := d.WriteMisc(r.ctx, "SW_RESET 1"); err != nil {
			r.t.Error(err)
		}
	}
	events := []event{
		{"SW_RESET", swReset, rshim.Rebooting, false},
		{"SW_RESET on the bus", func(r *rig, fn *usbdev.Function, d *rshim.Device) {
			fn.DPU().SetReset(bluefield.ResetBehaviour{Stay: true})
			swReset(r, fn, d)
		}, rshim.Rebooting, false},
		{"SW_RESET held back", func(r *rig, fn *usbdev.Function, d *rshim.Device) {
			fn.DPU().SetReset(bluefield.ResetBehaviour{Held: 5 * time.Second})
			swReset(r, fn, d)
		}, rshim.Rebooting, true},
		{"reset of its own", func(r *rig, fn *usbdev.Function, d *rshim.Device) { fn.DPU().Reset() }, rshim.Gone, false},
		{"unplugged", func(r *rig, fn *usbdev.Function, d *rshim.Device) {
			fn.Unplug()
			time.AfterFunc(3*time.Second, fn.Plug)
		}, rshim.Gone, false},
	}
	generations(t, func(t *testing.T, g reg.Generation) {
		for _, ev := range events {
			t.Run(ev.name, func(t *testing.T) {
				withSoftware(t, bluefield.Config{Generation: g}, usbdev.Options{}, func(r *rig, fn *usbdev.Function, w *wire) {
					r.bus.Plug("1-1", fn)
					d := r.attached(0)
					y, x := r.typist(d), r.receiver(d)
					y.say("echo one\r")
					y.expect("\r\none\r\n", time.Minute)
					fn.DPU().HoldTM(true)
					y.say("echo " + strings.Repeat("stale ", 1000))
					for n := range 10 {
						if err := d.Net().Send(r.ctx, frame(n, 1000)); err != nil {
							t.Error(err)
						}
					}
					time.Sleep(time.Second)
					ev.do(r, fn, d)
					r.state(d, ev.away)
					fn.DPU().HoldTM(!ev.reads)
					y.say("\recho two\r") // for the one that comes back
					time.Sleep(4 * time.Second)
					if ev.reads && bytes.Contains(y.got(), []byte("two")) {
						t.Error("the system that is to be reset got what was typed for the next")
					}
					time.Sleep(2 * time.Second)
					fn.DPU().HoldTM(false)
					text := y.expect("\r\ntwo\r\n", time.Minute)
					// One that was not reset still gets what was on its way.
					if !ev.reads && ev.name != "unplugged" && (bytes.Contains(text, []byte("stale")) || len(w.got()) > 0) {
						t.Errorf("%d frames, %q", len(w.got()), text)
					}
					if in := fn.DPU().TM().ConsoleIn; in > 3000 || len(w.got()) > 2 {
						t.Errorf("the DPU got %d bytes and %d frames", in, len(w.got()))
					}
					r.attached(0)
					time.Sleep(time.Minute)
					y.say("\recho three\r")
					y.expect("\r\nthree\r\n", time.Minute)
					for n := range 5 {
						w.send(r.ctx, frame(n, 500))
						if !x.waitFrames(n+1, time.Minute) {
							r.t.Fatalf("no frame %d", n)
						}
						if err := d.Net().Send(r.ctx, frame(100+n, 500)); err != nil {
							t.Error(err)
						}
					}
					if !w.wait(time.Minute, func() bool {
						n := len(w.frames)
						return n >= 5 && bytes.Equal(w.frames[n-1], frame(104, 500))
					}) {
						t.Errorf("the DPU got %d frames", len(w.got()))
					}
					// Nobody else can have used the TMFIFO of a chip that we have reset.
					if st := d.TMFIFO(); ev.name == "SW_RESET" && (st.Starts != 2 || st.Resyncs != 1) || st.Errors != 0 {
						t.Errorf("%+v", st)
					}
				})
			})
		}
	})
}

// TestTMFIFODuringReset: from SW_RESET on, the chip's registers are left alone
// for a while, whatever the TMFIFO was about to do; if it does not reset, all
// goes on.
func TestTMFIFODuringReset(t *testing.T) {
	generations(t, func(t *testing.T, g reg.Generation) {
		for _, held := range []time.Duration{3 * time.Second, time.Hour} {
			withSoftware(t, bluefield.Config{Generation: g, Reset: bluefield.ResetBehaviour{Held: held}}, usbdev.Options{Latency: 125 * time.Microsecond}, func(r *rig, fn *usbdev.Function, w *wire) {
				r.bus.Plug("1-1", fn)
				d := r.attached(0)
				y := r.typist(d)
				y.say("flood 500000\r")
				y.expect("00000100", time.Minute)
				fn.DPU().HoldTM(true) // so that its fill level is read again and again
				y.say(strings.Repeat("x", 5000))
				time.Sleep(10 * time.Millisecond)
				fn.DPU().Record(100_000)
				if err := d.WriteMisc(r.ctx, "SW_RESET 1"); err != nil {
					r.t.Fatal(err)
				}
				trace := fn.DPU().Recorded()
				if last := trace[len(trace)-1]; !last.Write || last.Addr != reg.For(g).ResetControl {
					t.Errorf("the last access is %+v, want the reset", last)
				}
				time.Sleep(400 * time.Millisecond)
				if more := fn.DPU().Recorded()[len(trace):]; len(more) > 0 {
					t.Errorf("%d accesses within 400 ms of the reset: %+v", len(more), more[0])
				}
				fn.DPU().HoldTM(false)
				r.attached(0)
				y.expect("dpu# ", time.Minute)
				y.say("\recho alive\r")
				y.expect("\r\nalive\r\n", time.Minute)
			})
		}
	})
}

// TestTMFIFONotOurs: while another owner has the RShim, its TMFIFO is not
// touched; what is typed waits, and frames are dropped.
func TestTMFIFONotOurs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, rshim.Options{DisplayLevel: 1})
		fn, _ := owned(r)
		d := r.device(0)
		r.state(d, rshim.Contended)
		fn.DPU().HoldTM(true)
		if err := fn.DPU().SendTM(r.ctx, words(tmfifo.Message{Type: tmfifo.Console, Payload: []byte("for the owner")})); err != nil {
			t.Fatal(err)
		}
		y := r.typist(d)
		y.say("typed")
		begin := time.Now()
		if err := d.Net().Send(r.ctx, frame(1, 100)); err != nil {
			t.Error(err)
		}
		if got := peerLines(t, d.Misc(r.ctx)); got != noPeer {
			t.Errorf("got\n%s", got)
		}
		if err := d.WriteMisc(r.ctx, "PXE_ID 1"); !errors.Is(err, rshim.ErrNotOwner) {
			t.Errorf("PXE_ID: %v", err)
		}
		if took := time.Since(begin); took > 100*time.Millisecond {
			t.Errorf("it took %v", took)
		}
		time.Sleep(time.Minute)
		if n, _ := fn.DPU().TMPending(); n != 3 || len(y.got()) != 0 {
			t.Errorf("%d words are left of the owner's 3, and %q was read", n, y.got())
		}
		if st := d.TMFIFO(); st.Running || st.Starts != 0 || st.NetToDPU.DroppedMessages != 1 || y.cc.Queued() != 5 {
			t.Errorf("%+v, %d bytes are queued", st, y.cc.Queued())
		}
	})
}
