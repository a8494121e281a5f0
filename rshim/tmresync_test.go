// SPDX-License-Identifier: Apache-2.0

package rshim_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/rshim/tmfifo"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
)

// inStep checks that both channels work in both directions, from the very next
// message on.
func inStep(r *rig, fn *usbdev.Function, w *wire, name string) {
	r.t.Helper()
	d := r.attached(0)
	x, y := r.receiver(d), r.typist(d)
	defer x.stop()
	// The first frame in each direction.
	before := len(w.got())
	out, in := frame(1, 1514), frame(2, 777)
	if err := d.Net().Send(r.ctx, out); err != nil {
		r.t.Fatal(err)
	}
	w.wait(time.Minute, func() bool { return len(w.frames) > before })
	if got := w.got()[before:]; len(got) != 1 || !bytes.Equal(got[0], out) {
		r.t.Errorf("%s: the DPU got %d frames, of which the first is not what was sent", name, len(got))
	}
	time.Sleep(10 * time.Millisecond) // a DPU loses frames while its FIFO has not been emptied
	w.send(r.ctx, in)
	if !x.wait(30*time.Second, func() bool {
		return slices.ContainsFunc(x.frames, func(f []byte) bool { return bytes.Equal(f, in) })
	}) {
		r.t.Errorf("%s: the frame of the DPU was not received; %+v\n%+v", name, d.TMFIFO(), fn.DPU().TM())
	}
	y.say("\recho in step\r")
	y.expect("\r\nin step\r\n", 30*time.Second)
}

// R8: whoever had the RShim before may have left it in the middle of a message
// to the DPU. The first frame that we send is understood.
func TestR8HalfMessageToDPU(t *testing.T) {
	generations(t, func(t *testing.T, g reg.Generation) {
		for _, m := range []tmfifo.Message{
			{Type: tmfifo.Net, Payload: frame(9, 60)},
			{Type: tmfifo.Net, Payload: frame(9, 1514)},
			{Type: tmfifo.Console, Payload: bytes.Repeat([]byte("x"), 100)},
			{Type: tmfifo.Console, Payload: bytes.Repeat([]byte("x"), 4095)}, // the C daemon's longest
		} {
			all := words(m)
			for _, cut := range []int{1, len(all) / 2, len(all) - 1, len(all)} {
				withSoftware(t, bluefield.Config{Generation: g}, usbdev.Options{}, func(r *rig, fn *usbdev.Function, w *wire) {
					for left := all[:cut]; len(left) > 0; {
						n, more := fn.DPU().TMWrite(left)
						if left = left[n:]; len(left) > 0 {
							<-more
						}
					}
					r.bus.Plug("1-1", fn)
					r.attached(0)
					time.Sleep(time.Millisecond) // for the rest of it to be made up
					inStep(r, fn, w, fmt.Sprintf("%d of %d words of a message of type %d", cut, len(all), m.Type))
				})
			}
		}
	})
}

// R8 also: nor does it matter that a previous owner has read half of a message
// from the DPU, or of what.
func TestR8HalfMessageFromDPU(t *testing.T) {
	generations(t, func(t *testing.T, g reg.Generation) {
		for seed := range uint64(12) {
			withSoftware(t, bluefield.Config{Generation: g, DirtyHeaders: seed%2 == 1}, usbdev.Options{}, func(r *rig, fn *usbdev.Function, w *wire) {
				rnd := rand.New(rand.NewPCG(8, seed))
				dpu := fn.DPU()
				// The FIFO gets full of console output, or of frames.
				if seed%3 == 0 {
					dpu.TMWrite(words(tmfifo.Message{Type: tmfifo.Console, Payload: []byte("flood 100000\r")}))
				} else {
					for range 3 {
						f := frame(int(seed), 1000)
						for i := range f[14:] {
							f[14+i] = byte(rnd.Uint32())
						}
						w.send(r.ctx, f)
					}
				}
				time.Sleep(100 * time.Millisecond)
				dpu.TMRead(make([]uint64, 1+rnd.IntN(100)))
				r.bus.Plug("1-1", fn)
				d := r.attached(0)
				y := r.typist(d)
				if seed%3 == 0 {
					y.expect("flood done\n", time.Minute)
				}
				inStep(r, fn, w, fmt.Sprint("seed ", seed))
			})
		}
	})
}

// R8 also: nor a message that a DPU has begun and will never end, with which
// nothing is lost that comes later than it might still have.
func TestR8NeverEnds(t *testing.T) {
	generations(t, func(t *testing.T, g reg.Generation) {
		withSoftware(t, bluefield.Config{Generation: g}, usbdev.Options{}, func(r *rig, fn *usbdev.Function, w *wire) {
			fn.DPU().HalfTM(true)
			r.bus.Plug("1-1", fn)
			inStep(r, fn, w, "the end of a message")
			for range 3 {
				fn.DPU().HalfTM(false)
				time.Sleep(4 * time.Second)
				inStep(r, fn, w, "the beginning of a message")
			}
		})
	})
}

// R8 also: unplugged in the middle of everything, and back.
func TestR8UnplugMidMessage(t *testing.T) {
	generations(t, func(t *testing.T, g reg.Generation) {
		for seed := range uint64(6) {
			withSoftware(t, bluefield.Config{Generation: g}, usbdev.Options{Latency: 100 * time.Microsecond, LinkRate: 4 << 20}, func(r *rig, fn *usbdev.Function, w *wire) {
				rnd := rand.New(rand.NewPCG(80, seed))
				r.bus.Plug("1-1", fn)
				d := r.attached(0)
				y := r.typist(d)
				for range 4 {
					stop := make(chan struct{})
					go func() {
						for n := 0; ; n++ {
							select {
							case <-stop:
								return
							default:
								_ = d.Net().Send(r.ctx, frame(n, 60+n%1400))
							}
							time.Sleep(50 * time.Microsecond)
						}
					}()
					go func() {
						for n := 0; n < 20; n++ {
							w.send(r.ctx, frame(n, 60+n%1400))
						}
					}()
					y.say("flood 50000\r")
					time.Sleep(time.Duration(rnd.IntN(40_000)) * time.Microsecond)
					fn.Unplug()
					close(stop)
					time.Sleep(3 * time.Second)
					fn.Plug()
					r.attached(0)
					time.Sleep(10 * time.Second)
					w.change(func() { w.frames = nil })
					inStep(r, fn, w, fmt.Sprint("seed ", seed))
				}
			})
		}
	})
}
