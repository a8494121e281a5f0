// SPDX-License-Identifier: Apache-2.0

package usbbackend_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
	"github.com/bluefield-go/bmc-rshim/usbbackend"
	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

// audit is a host whose devices check, whenever a transfer to the boot FIFO is
// submitted, that the FIFO has room for all that is under way. (The model NAKs
// what does not fit; a BlueField-3 may lose it.)
type audit struct {
	*usbdev.Bus
	t    *testing.T
	dpu  *bluefield.DPU
	seed uint64

	mu   *sync.Mutex
	lies *[]uint64 // what the next reads of the fill level return, 0: the truth
}

func (h audit) Open(ctx context.Context, info usb.Info) (usb.Device, error) {
	d, err := h.Bus.Open(ctx, info)
	if err != nil {
		return nil, err
	}
	return &auditDevice{Device: d, h: h}, nil
}

type auditDevice struct {
	usb.Device
	h audit

	mu   sync.Mutex
	sent int64 // bytes submitted, as far as they were not given back
}

func (d *auditDevice) Control(ctx context.Context, s usb.Setup, data []byte) (int, error) {
	n, err := d.Device.Control(ctx, s, data)
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	if len(*d.h.lies) > 0 && reg.BlueField3.FromUSB(s.Value, s.Index) == d.h.dpu.Map().BootFIFOCount {
		if lie := (*d.h.lies)[0]; lie != 0 {
			binary.LittleEndian.PutUint64(data, lie)
		}
		*d.h.lies = (*d.h.lies)[1:]
	}
	return n, err
}

func (d *auditDevice) Submit(ep uint8, data []byte) (usb.Transfer, error) {
	d.mu.Lock()
	d.sent += int64(len(data))
	sent := d.sent
	d.mu.Unlock()
	m := d.h.dpu.Map()
	// What is read out between these two only makes the check stricter.
	arrived, _ := d.h.dpu.BootSum()
	words, _ := m.BootFIFOWords(d.h.dpu.ReadReg(m.BootFIFOCount, 8))
	level := 8 * int64(words)
	if room := arrived - level + int64(8*m.BootFIFODepth); sent > room {
		d.h.t.Errorf("seed %d: sent up to %d, there is room up to %d", d.h.seed, sent, room)
	}
	t, err := d.Device.Submit(ep, data)
	if err != nil {
		d.giveBack(len(data))
		return nil, err
	}
	return &auditTransfer{Transfer: t, d: d, size: len(data)}, nil
}

func (d *auditDevice) giveBack(n int) {
	d.mu.Lock()
	d.sent -= int64(n)
	d.mu.Unlock()
}

type auditTransfer struct {
	usb.Transfer
	d    *auditDevice
	size int
	once sync.Once
}

func (t *auditTransfer) Result() (int, error) {
	n, err := t.Transfer.Result()
	t.once.Do(func() { t.d.giveBack(t.size - n) })
	return n, err
}

// TestCreditsNeverOverflow: a BlueField-3's boot FIFO is never offered more than
// it has room for, and the stream arrives byte for byte, whatever goes wrong.
func TestCreditsNeverOverflow(t *testing.T) {
	for seed := range uint64(100) {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(3, seed))
			pick := func(ns ...int64) int64 { return ns[rnd.IntN(len(ns))] }
			dpu := bluefield.New(bluefield.Config{NoFirmware: true, DrainRate: pick(0, 5_000, 300_000, 3_000_000, 30_000_000)})
			fn := usbdev.New(dpu, usbdev.Options{Latency: time.Duration(pick(0, 10, 125, 1000, 20_000)) * time.Microsecond, LinkRate: pick(0, 1_000_000, linkRate)})
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				_ = fn.Run(ctx)
			}()
			defer func() {
				cancel()
				<-done
			}()
			bus := usbdev.NewBus()
			bus.Plug("1-1", fn)
			infos, err := bus.Devices(ctx, reg.USBVendor)
			if err != nil || len(infos) != 1 {
				t.Fatal(infos, err)
			}
			h := audit{bus, t, dpu, seed, new(sync.Mutex), new([]uint64)}
			d, err := usbbackend.Open(ctx, h, infos[0], nil)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()

			stream := make([]byte, 100_000&^7+8*rnd.IntN(20_000))
			for i := range stream {
				stream[i] = byte(rnd.Uint32())
			}
			quiet := make(chan struct{})
			var wg sync.WaitGroup
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(33, seed))
				pick := func(ns ...int64) int64 { return ns[rnd.IntN(len(ns))] }
				for {
					select {
					case <-quiet:
						return
					case <-time.After(time.Duration(1+rnd.IntN(50)) * time.Millisecond):
					}
					f := usbdev.Fault{Endpoint: uint8(rnd.IntN(2)), Nth: 1 + rnd.IntN(3), After: 512 * rnd.IntN(4)}
					switch rnd.IntN(6) {
					case 0:
						f.Kind = usbdev.Stall
						fn.Inject(f)
					case 1:
						f.Kind = usbdev.Protocol
						fn.Inject(f)
					case 2:
						f.Kind, f.For = usbdev.NAK, time.Duration(rnd.IntN(3000))*time.Millisecond
						fn.Inject(f)
					case 3: // the fill level cannot be, or is nonsense
						bad := uint64(pick(0xbad00acce55, -1, 1025, 1<<40))
						h.mu.Lock()
						*h.lies = append(*h.lies, 0, bad, bad, 0, 0, bad)
						h.mu.Unlock()
					case 4:
						dpu.PauseDrain(0, time.Duration(rnd.IntN(2000))*time.Millisecond)
					case 5:
						dpu.SetDrainRate(pick(0, 5_000, 300_000, 3_000_000))
					}
					time.Sleep(time.Duration(rnd.IntN(1000)) * time.Millisecond)
				}
			})

			d.BootStart(time.Hour, 2*time.Second)
			for at := 0; at < len(stream); {
				p := stream[at:][:min(len(stream)-at, 8*(1+rnd.IntN(9000)))]
				ctx, cancel := context.WithTimeout(ctx, time.Duration(1+rnd.IntN(5000))*time.Millisecond)
				_, err := d.BootWrite(ctx, p)
				if err == nil && rnd.IntN(3) == 0 {
					err = d.BootFlush(ctx)
				}
				cancel()
				switch {
				case err == nil:
					at += len(p)
				case errors.Is(err, context.DeadlineExceeded):
					at = int(d.BootDrop(int64(at)))
				default:
					t.Fatalf("seed %d: after %d bytes: %v", seed, at, err)
				}
			}
			close(quiet)
			wg.Wait()
			fn.ClearFaults()
			if err := d.BootFlush(ctx); err != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
			d.BootEnd()
			if n, sum := fn.BootSum(); n != int64(len(stream)) || sum != sha256.Sum256(stream) {
				t.Errorf("seed %d: %d of %d bytes arrived, or others", seed, n, len(stream))
			}
		})
	}
}

// TestStallIsExact: a FIFO that stays full fails the stream when the time is up,
// whatever a single transfer may take.
func TestStallIsExact(t *testing.T) {
	for _, gen := range []reg.Generation{reg.BlueField2, reg.BlueField3} {
		for _, stall := range []time.Duration{100 * time.Millisecond, time.Second, 7 * time.Second, 300 * time.Second} {
			for _, transfer := range []time.Duration{300 * time.Millisecond, 7 * time.Second, 40 * time.Second} {
				withBoot(t, gen, func(ctx context.Context, fn *usbdev.Function, d *usbbackend.Device) {
					fn.DPU().HoldDrain(true)
					d.BootStart(stall, transfer)
					begin := time.Now()
					_, err := d.BootWrite(ctx, make([]byte, 1<<20))
					if late := time.Since(begin) - stall; !errors.Is(err, os.ErrDeadlineExceeded) || late < 0 || late > 600*time.Millisecond {
						t.Errorf("%v, stall %v, transfer %v: %v, %v late", gen, stall, transfer, err, late)
					}
					d.BootEnd()
				})
			}
		}
	}
}

// TestClearHaltFails: a halt that cannot be cleared at the first try, or whose
// clearing hangs, does not end the stream, nor hold it up for ever.
func TestClearHaltFails(t *testing.T) {
	for _, gen := range []reg.Generation{reg.BlueField2, reg.BlueField3} {
		withBoot(t, gen, func(ctx context.Context, fn *usbdev.Function, d *usbbackend.Device) {
			d.BootStart(10*time.Second, 10*time.Second)
			if _, err := d.BootWrite(ctx, make([]byte, 8192)); err != nil {
				t.Fatal(err)
			}
			if err := d.BootFlush(ctx); err != nil {
				t.Fatal(err)
			}
			fn.StallNext(1)
			for n := range 3 { // one of them is the clearing of the halt
				fn.Inject(usbdev.Fault{Endpoint: 0, Nth: n + 1, Kind: usbdev.Protocol})
			}
			if _, err := d.BootWrite(ctx, make([]byte, 8192)); err != nil {
				t.Error(err)
			}
			if err := d.BootFlush(ctx); err != nil {
				t.Error(err)
			}
			fn.ClearFaults()
			fn.SetNAK(0, true)
			fn.StallNext(1)
			begin := time.Now()
			_, err := d.BootWrite(ctx, make([]byte, 8192))
			if err == nil {
				err = d.BootFlush(ctx)
			}
			if took := time.Since(begin); err == nil || took > 15*time.Second {
				t.Errorf("%v: %v after %v", gen, err, took)
			}
			d.BootEnd()
		})
	}
}

// TestCloseEndsPush: a push that waits for room ends when the device is closed,
// whatever its own limits.
func TestCloseEndsPush(t *testing.T) {
	for _, gen := range []reg.Generation{reg.BlueField2, reg.BlueField3} {
		withBoot(t, gen, func(ctx context.Context, fn *usbdev.Function, d *usbbackend.Device) {
			fn.DPU().HoldDrain(true)
			d.BootStart(time.Hour, time.Hour)
			time.AfterFunc(time.Minute, func() { d.Close() })
			begin := time.Now()
			_, err := d.BootWrite(ctx, make([]byte, 1<<20))
			if took := time.Since(begin); !errors.Is(err, usb.ErrClosed) || took != time.Minute {
				t.Errorf("%v: %v after %v", gen, err, took)
			}
			d.BootEnd()
		})
	}
}

// withBoot runs f with a device whose chip just reads its boot FIFO.
func withBoot(t *testing.T, gen reg.Generation, f func(ctx context.Context, fn *usbdev.Function, d *usbbackend.Device)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		fn := usbdev.New(bluefield.New(bluefield.Config{Generation: gen, NoFirmware: true}), usbdev.Options{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = fn.Run(ctx)
		}()
		defer func() {
			cancel()
			<-done
		}()
		bus := usbdev.NewBus()
		bus.Plug("1-1", fn)
		infos, err := bus.Devices(ctx, reg.USBVendor)
		if err != nil || len(infos) != 1 {
			t.Fatal(infos, err)
		}
		d, err := usbbackend.Open(ctx, bus, infos[0], nil)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		f(ctx, fn, d)
	})
}
