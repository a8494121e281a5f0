// SPDX-License-Identifier: Apache-2.0

package usbbackend_test

import (
	"context"
	"encoding/binary"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
	"github.com/bluefield-go/bmc-rshim/usbbackend"
	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

// tally is a host that counts what is asked of its devices.
type tally struct {
	*usbdev.Bus
	controls, submits atomic.Int64
	asked             func(bytes int) // is told of bulk IN transfers of the TMFIFO
}

func (h *tally) Open(ctx context.Context, info usb.Info) (usb.Device, error) {
	d, err := h.Bus.Open(ctx, info)
	return &tallyDevice{d, h}, err
}

func (h *tally) sum() int64 { return h.controls.Load() + h.submits.Load() }

type tallyDevice struct {
	usb.Device
	h *tally
}

func (d *tallyDevice) Control(ctx context.Context, s usb.Setup, data []byte) (int, error) {
	d.h.controls.Add(1)
	return d.Device.Control(ctx, s, data)
}

func (d *tallyDevice) Submit(ep uint8, data []byte) (usb.Transfer, error) {
	d.h.submits.Add(1)
	if ep == tmInEP && d.h.asked != nil {
		d.h.asked(len(data))
	}
	return d.Device.Submit(ep, data)
}

// tmRig is a device whose DPU does with its TMFIFO what a test says.
type tmRig struct {
	ctx  context.Context
	dpu  *bluefield.DPU
	fn   *usbdev.Function
	bus  *tally
	info usb.Info
	d    *usbbackend.Device

	idle *time.Duration // spent in pauses of a load

	mu    sync.Mutex
	words []uint64             // that the DPU has read
	react func(words []uint64) // is told of them
	delay func() time.Duration // before the DPU reads on
}

// newTM makes a rig, in a bubble or not.
func newTM(tb testing.TB, gen reg.Generation, o usbdev.Options) *tmRig {
	tb.Helper()
	r := &tmRig{bus: &tally{Bus: usbdev.NewBus()}}
	r.dpu = bluefield.New(bluefield.Config{Generation: gen, NoFirmware: true, OnTM: r.arrive})
	r.dpu.LossyTM(true)
	r.fn = usbdev.New(r.dpu, o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = r.fn.Run(ctx)
	}()
	tb.Cleanup(func() {
		if r.d != nil {
			r.d.Close()
		}
		cancel()
		<-done
		if n := r.dpu.TMOverflow(); n != 0 {
			tb.Errorf("%d words were sent to a full FIFO", n)
		}
	})
	r.ctx = ctx
	r.bus.Plug("1-1", r.fn)
	infos, err := r.bus.Devices(ctx, reg.USBVendor)
	if err != nil || len(infos) != 1 {
		tb.Fatal(infos, err)
	}
	r.info = infos[0]
	return r
}

// open opens the device and starts its TMFIFO.
func (r *tmRig) open(tb testing.TB) *tmRig {
	tb.Helper()
	d, err := usbbackend.Open(r.ctx, r.bus, r.info, nil)
	if err != nil {
		tb.Fatal(err)
	}
	r.d = d
	d.TMStart()
	return r
}

func (r *tmRig) arrive(words []uint64) {
	r.mu.Lock()
	r.words = append(r.words, words...)
	react, delay := r.react, r.delay
	r.mu.Unlock()
	if react != nil {
		react(words)
	}
	if delay != nil {
		time.Sleep(delay())
	}
}

// arrived returns what the DPU has read.
func (r *tmRig) arrived() []uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.words
}

// numbers returns words that count from a number on.
func numbers(from, n int) []uint64 {
	w := make([]uint64, n)
	for i := range w {
		w[i] = uint64(from+i)<<8 | 0xa5
	}
	return w
}

func bytesOf(words []uint64) (b []byte) {
	for _, w := range words {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return b
}

// counts reports whether words are numbers from a number on.
func counts(words []uint64, from int) bool {
	for i, w := range words {
		if w != uint64(from+i)<<8|0xa5 {
			return false
		}
	}
	return true
}

// readTM reads n words.
func readTM(ctx context.Context, d *usbbackend.Device, n int) (words []uint64, err error) {
	buf := make([]byte, 4096)
	for len(words) < n && err == nil {
		var m int
		m, err = d.TMRead(ctx, buf)
		for b := buf[:m]; len(b) > 0; b = b[8:] {
			words = append(words, binary.LittleEndian.Uint64(b))
		}
	}
	return words, err
}

var tmOptions = []usbdev.EmptyIn{usbdev.EmptyAsChip, usbdev.EmptyNAK, usbdev.EmptyZero}

// eachTM runs f for both kinds of chip and all ways to be empty.
func eachTM(t *testing.T, o usbdev.Options, f func(t *testing.T, r *tmRig)) {
	t.Helper()
	for _, gen := range []reg.Generation{reg.BlueField2, reg.BlueField3} {
		for _, o.EmptyIn = range tmOptions {
			synctest.Test(t, func(t *testing.T) { f(t, newTM(t, gen, o)) })
			if t.Failed() {
				t.Fatalf("%v, empty %d", gen, o.EmptyIn)
			}
		}
	}
}
