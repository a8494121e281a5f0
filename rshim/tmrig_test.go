// SPDX-License-Identifier: Apache-2.0

package rshim_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/rshim/tmfifo"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
)

// box collects what arrives, and lets a test wait for it.
type box struct {
	mu      sync.Mutex
	changed chan struct{}
}

func newBox() box { return box{changed: make(chan struct{})} }

func (b *box) change(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
	close(b.changed)
	b.changed = make(chan struct{})
}

// look calls f with the lock held.
func (b *box) look(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
}

// wait waits until done, which is called with the lock held, says so.
func (b *box) wait(limit time.Duration, done func() bool) bool {
	timeout := time.After(limit)
	for {
		b.mu.Lock()
		ok, changed := done(), b.changed
		b.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-changed:
		case <-timeout:
			return false
		}
	}
}

// wire is what the DPU's network interface is connected to.
type wire struct {
	box
	frames [][]byte // from the host
	out    chan []byte
	closed chan struct{}
	once   sync.Once
}

func newWire() *wire {
	return &wire{box: newBox(), out: make(chan []byte), closed: make(chan struct{})}
}

func (w *wire) Write(frame []byte) (int, error) {
	w.change(func() { w.frames = append(w.frames, bytes.Clone(frame)) })
	return len(frame), nil
}

func (w *wire) Read(p []byte) (int, error) {
	select {
	case f := <-w.out:
		return copy(p, f), nil
	case <-w.closed:
		return 0, io.EOF
	}
}

func (w *wire) Close() error {
	w.once.Do(func() { close(w.closed) })
	return nil
}

// got returns the frames from the host.
func (w *wire) got() (frames [][]byte) {
	w.look(func() { frames = slices.Clone(w.frames) })
	return frames
}

// send has the DPU send a frame.
func (w *wire) send(ctx context.Context, frame []byte) {
	select {
	case w.out <- frame:
	case <-w.closed:
	case <-ctx.Done():
	}
}

// end is the DPU's side of the TMFIFO where a test looks at, and makes, the
// messages itself.
type end struct {
	box
	dpu     *bluefield.DPU
	turn    chan struct{} // filled by who sends
	dec     tmfifo.Decoder
	typed   []byte           // payload of console messages
	frames  [][]byte         // of the network
	control []tmfifo.Message // all others
	sizes   int              // bytes, headers included
}

func (e *end) onTM(words []uint64) {
	e.change(func() {
		var b []byte
		for _, w := range words {
			b = binary.LittleEndian.AppendUint64(b, w)
		}
		e.sizes += len(b)
		e.dec.Decode(b, func(m tmfifo.Message) {
			m.Payload = bytes.Clone(m.Payload)
			switch m.Type {
			case tmfifo.Console:
				e.typed = append(e.typed, m.Payload...)
			case tmfifo.Net:
				e.frames = append(e.frames, m.Payload)
			default:
				e.control = append(e.control, m)
			}
		})
	})
}

// got returns what has come from the host.
func (e *end) got() (typed []byte, frames [][]byte, control []tmfifo.Message) {
	e.look(func() { typed, frames, control = bytes.Clone(e.typed), slices.Clone(e.frames), slices.Clone(e.control) })
	return typed, frames, control
}

// send sends a message to the host.
func (e *end) send(ctx context.Context, m tmfifo.Message) error {
	e.turn <- struct{}{}
	defer func() { <-e.turn }()
	return e.dpu.SendTM(ctx, words(m))
}

// words are the words of messages.
func words(ms ...tmfifo.Message) (ws []uint64) {
	var b []byte
	for _, m := range ms {
		b = tmfifo.Append(b, m)
	}
	for ; len(b) > 0; b = b[8:] {
		ws = append(ws, binary.LittleEndian.Uint64(b))
	}
	return ws
}

// withSoftware runs f with a DPU at 1-1 that has a shell on its console and a
// wire on its network; not yet plugged in, but booted.
func withSoftware(t *testing.T, cfg bluefield.Config, o usbdev.Options, f func(r *rig, fn *usbdev.Function, w *wire)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWire()
		cfg.Console, cfg.Net = true, w
		r := newRig(t, rshim.Options{})
		fn := usbdev.New(bluefield.New(cfg), o)
		r.start(fn)
		if err := fn.DPU().WaitStage(r.ctx, bluefield.StageReady); err != nil {
			t.Fatal(err)
		}
		f(r, fn, w)
	})
}

// withEnd runs f with an attached DPU whose TMFIFO is the test's.
func withEnd(t *testing.T, cfg bluefield.Config, o usbdev.Options, f func(r *rig, fn *usbdev.Function, d *rshim.Device, e *end)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		e := &end{box: newBox(), turn: make(chan struct{}, 1)}
		cfg.OnTM = e.onTM
		r := newRig(t, rshim.Options{})
		fn := r.plug("1-1", cfg, o)
		e.dpu = fn.DPU()
		f(r, fn, r.attached(0), e)
	})
}

// typist is somebody at the console.
type typist struct {
	box
	r    *rig
	cc   *rshim.ConsoleConn
	seen []byte // and not expected yet
}

func (r *rig) typist(d *rshim.Device) *typist {
	y := &typist{box: newBox(), r: r, cc: d.Console().Open(false)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		p := make([]byte, 4096)
		for {
			n, err := y.cc.Read(context.Background(), p)
			if err != nil {
				return
			}
			y.change(func() { y.seen = append(y.seen, p[:n]...) })
		}
	}()
	r.t.Cleanup(func() {
		y.cc.Close()
		<-done
	})
	return y
}

// got returns what was seen and not expected.
func (y *typist) got() (seen []byte) {
	y.look(func() { seen = bytes.Clone(y.seen) })
	return seen
}

// say types.
func (y *typist) say(text string) {
	y.r.t.Helper()
	ctx, cancel := context.WithTimeout(y.r.ctx, time.Minute)
	defer cancel()
	if _, err := y.cc.Write(ctx, []byte(text)); err != nil {
		y.r.t.Errorf("typing %.40q: %v", text, err)
	}
}

// expect waits for text, and forgets all up to its end, which it returns.
func (y *typist) expect(text string, limit time.Duration) []byte {
	y.r.t.Helper()
	var before []byte
	if !y.wait(limit, func() bool {
		i := bytes.Index(y.seen, []byte(text))
		if i >= 0 {
			before = slices.Clone(y.seen[:i+len(text)])
			y.seen = slices.Delete(y.seen, 0, i+len(text))
		}
		return i >= 0
	}) {
		y.mu.Lock()
		defer y.mu.Unlock()
		y.r.t.Fatalf("no %q on the console within %v, but %.300q", text, limit, y.seen)
	}
	return before
}

// frame makes an Ethernet frame with a number, and other content for each.
func frame(n, size int) []byte {
	f := make([]byte, size)
	copy(f, []byte{0x00, 0x1a, 0xca, 0xff, 0xff, 0x01, 0x00, 0x1a, 0xca, 0xff, 0xff, 0x02, 0x88, 0xb5})
	for i := 14; i < size; i++ {
		f[i] = byte(i*7 + n*131 + n>>8)
	}
	if size >= 18 {
		binary.BigEndian.PutUint32(f[14:], uint32(n))
	}
	return f
}

// receiver collects the frames of a device's network.
type receiver struct {
	box
	frames [][]byte
	stop   func()
}

func (r *rig) receiver(d *rshim.Device) *receiver {
	x := &receiver{box: newBox()}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		p := make([]byte, tmfifo.MaxFrame)
		for {
			n, err := d.Net().Receive(ctx, p)
			if err != nil {
				return
			}
			x.change(func() { x.frames = append(x.frames, bytes.Clone(p[:n])) })
		}
	}()
	x.stop = func() {
		cancel()
		<-done
	}
	r.t.Cleanup(x.stop)
	return x
}

// waitFrames waits until n frames have come.
func (x *receiver) waitFrames(n int, limit time.Duration) bool {
	return x.wait(limit, func() bool { return len(x.frames) >= n })
}
