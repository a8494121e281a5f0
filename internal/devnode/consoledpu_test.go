// SPDX-License-Identifier: Apache-2.0

package devnode

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/rshim/tmfifo"
)

// dpu is a Backend with somebody behind the console.
type dpu struct {
	*chip
	out chan []byte // messages to the host

	consoleMu sync.Mutex
	dec       tmfifo.Decoder
	typed     bytes.Buffer  // by the host
	echo      bool          // to the host what it typed
	heard     chan struct{} // closed when more is typed
	held      chan struct{} // not nil: nothing is taken until it is closed
}

func newDPU() *dpu {
	m := reg.For(reg.BlueField3)
	return &dpu{
		chip: &chip{gen: reg.BlueField3, gone: make(chan struct{}), regs: map[reg.Addr]uint64{
			m.FabricDim: 0x22, m.BootControl: uint64(reg.BootEMMC),
		}},
		out:   make(chan []byte, 64),
		heard: make(chan struct{}),
	}
}

// say is output of the console.
func (d *dpu) say(p string) {
	for len(p) > 0 {
		n := min(len(p), 1000)
		d.out <- tmfifo.Append(nil, tmfifo.Message{Type: tmfifo.Console, Payload: []byte(p[:n])})
		p = p[n:]
	}
}

func (d *dpu) setEcho(on bool) {
	d.consoleMu.Lock()
	defer d.consoleMu.Unlock()
	d.echo = on
}

// hold has the DPU take no input until the function it returns is called.
func (d *dpu) hold() (release func()) {
	d.consoleMu.Lock()
	defer d.consoleMu.Unlock()
	held := make(chan struct{})
	d.held = held
	return func() { close(held) }
}

// takeTyped waits until n bytes have been typed and returns them.
func (d *dpu) takeTyped(t *testing.T, n int) string {
	t.Helper()
	limit := time.After(60 * time.Second)
	for {
		d.consoleMu.Lock()
		have, heard := d.typed.Len(), d.heard
		if have >= n {
			defer d.consoleMu.Unlock()
			return string(d.typed.Next(n))
		}
		d.consoleMu.Unlock()
		select {
		case <-heard:
		case <-limit:
			t.Fatalf("%d of %d bytes typed", have, n)
		}
	}
}

func (d *dpu) TMStart()                     {}
func (d *dpu) TMStop()                      {}
func (d *dpu) TMIdle(context.Context) error { return nil }

func (d *dpu) TMRead(ctx context.Context, p []byte) (int, error) {
	select {
	case m := <-d.out:
		return copy(p, m), nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (d *dpu) TMWrite(ctx context.Context, p []byte) error {
	d.consoleMu.Lock()
	held := d.held
	d.consoleMu.Unlock()
	if held != nil {
		select {
		case <-held:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	var echoed string
	d.consoleMu.Lock()
	d.dec.Decode(p, func(m tmfifo.Message) {
		if m.Type != tmfifo.Console {
			return
		}
		d.typed.Write(m.Payload)
		if d.echo {
			echoed += string(m.Payload)
		}
	})
	close(d.heard)
	d.heard = make(chan struct{})
	d.consoleMu.Unlock()
	d.say(echoed)
	return nil
}

// serveDPU attaches a device to a DPU, and returns what detaches it.
func serveDPU(t *testing.T, d *rshim.Device, b rshim.Backend) (detach func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = d.Serve(ctx, b)
	}()
	detach = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	t.Cleanup(detach)
	limit := time.After(60 * time.Second)
	for {
		changed := d.Changed()
		if s, _ := d.State(); s == rshim.Attached {
			return detach
		}
		select {
		case <-changed:
		case <-limit:
			t.Fatal(d.State())
		}
	}
}

// withConsole runs f with an opened console of an attached device.
func withConsole(t *testing.T, f func(ctx context.Context, b *dpu, d consoleDevice, file *consoleFile)) {
	synctest.Test(t, func(t *testing.T) {
		b, d := newDPU(), rshim.New(0, rshim.Options{})
		detach := serveDPU(t, d, b)
		defer detach()
		dev := consoleDevice{d.Console(), newTTY(), slog.New(slog.DiscardHandler)}
		file, err := dev.Open(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Release(t.Context())
		f(t.Context(), b, dev, file.(*consoleFile))
	})
}
