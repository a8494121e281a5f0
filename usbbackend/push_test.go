// SPDX-License-Identifier: Apache-2.0

package usbbackend_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
	"github.com/bluefield-go/bmc-rshim/usbbackend"
	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

const linkRate = 40_000_000 // bytes a second: what a bulk pipe of USB 2.0 carries

// profile is a link and a chip at its end.
type profile struct {
	gen     reg.Generation
	latency time.Duration // of every transfer, from its last byte to its completion
	drain   int64         // bytes a second that the chip reads, 0: all at once
}

func (p profile) String() string {
	s := fmt.Sprintf("BF%d/%v", int(p.gen), p.latency)
	if p.drain > 0 {
		s += fmt.Sprintf("/drain=%dMB", p.drain/1_000_000)
	}
	return s
}

var profiles = []profile{
	{reg.BlueField2, 0, 0},
	{reg.BlueField2, 125 * time.Microsecond, 0},
	{reg.BlueField2, time.Millisecond, 0},
	{reg.BlueField2, 125 * time.Microsecond, 10_000_000},
	{reg.BlueField3, 0, 0},
	{reg.BlueField3, 125 * time.Microsecond, 0},
	{reg.BlueField3, time.Millisecond, 0},
	{reg.BlueField3, 125 * time.Microsecond, 10_000_000},
}

// bound is what the link lets through, in bytes a second. A BlueField-3 must
// not be sent more than its FIFO is known to have room for. That a byte has
// arrived is known one latency after its transfer went (of 1 KiB: those of less
// would cost more than they gain), and that it has been read one more latency later, so
// that no more than a FIFO full gets through in that time.
func (p profile) bound() float64 {
	b := float64(linkRate)
	if p.drain > 0 {
		b = min(b, float64(p.drain))
	}
	if p.gen == reg.BlueField3 && p.latency > 0 {
		depth := float64(reg.For(p.gen).BootFIFODepth * 8)
		b = min(b, depth/((2*p.latency).Seconds()+1024/float64(linkRate)))
	}
	return b
}

// strategy is a way to push a stream.
type strategy struct {
	name string
	push func(ctx context.Context, bus *usbdev.Bus, info usb.Info, stream []byte) error
}

var strategies = []strategy{{"pipeline", pushPipeline}, {"one-urb", pushOneURB}}

// pushPipeline pushes as the daemon does.
func pushPipeline(ctx context.Context, bus *usbdev.Bus, info usb.Info, stream []byte) error {
	d, err := usbbackend.Open(ctx, bus, info, nil)
	if err != nil {
		return err
	}
	d.BootStart(10*time.Second, 10*time.Second)
	for len(stream) > 0 && err == nil {
		var n int
		n, err = d.BootWrite(ctx, stream[:min(len(stream), 128<<10)])
		stream = stream[n:]
	}
	if err == nil {
		err = d.BootFlush(ctx)
	}
	d.BootEnd()
	return errors.Join(err, d.Close())
}

// pushOneURB is the baseline, what the C daemon does: one transfer at a time,
// of 16 KiB to a BlueField-2; to a BlueField-3, of what a read of the fill level
// before each says there is room for, with 50 ms of sleep when that is nothing.
func pushOneURB(ctx context.Context, bus *usbdev.Bus, info usb.Info, stream []byte) error {
	dev, err := bus.Open(ctx, info)
	if err != nil {
		return err
	}
	defer dev.Close()
	gen, _ := reg.GenerationOf(info.Vendor, info.Product)
	m := reg.For(gen)
	const boot = 0x01
	for len(stream) > 0 {
		size := 16 << 10
		if gen == reg.BlueField3 {
			var count [8]byte
			value, index := gen.USB(m.BootFIFOCount)
			if _, err := dev.Control(ctx, usb.Setup{RequestType: reg.USBRequestRead, Value: value, Index: index}, count[:]); err != nil {
				return err
			}
			size = 8 * (m.BootFIFODepth - int(binary.LittleEndian.Uint64(count[:])))
			if size <= 0 {
				time.Sleep(50 * time.Millisecond)
				continue
			}
		}
		n, err := usb.Do(ctx, dev, boot, stream[:min(size, len(stream))])
		if err != nil {
			return err
		}
		stream = stream[n:]
	}
	return nil
}

// pushTo pushes size bytes to a chip that reads them at p's rate, and returns
// how long that took.
func pushTo(tb testing.TB, p profile, rate int64, s strategy, size int) time.Duration {
	tb.Helper()
	dpu := bluefield.New(bluefield.Config{Generation: p.gen, DrainRate: p.drain, NoFirmware: true})
	fn := usbdev.New(dpu, usbdev.Options{Latency: p.latency, LinkRate: rate})
	ctx, cancel := context.WithCancel(context.Background())
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
		tb.Fatal(infos, err)
	}
	dpu.WriteReg(dpu.Map().BootControl, 8, uint64(reg.BootRShim))
	begin := time.Now()
	if err := s.push(ctx, bus, infos[0], make([]byte, size)); err != nil {
		tb.Fatal(err)
	}
	took := time.Since(begin)
	if n, _ := fn.BootSum(); n != int64(size) {
		tb.Fatalf("%d of %d bytes arrived", n, size)
	}
	if over, lost := dpu.BootLost(); over != 0 || lost != 0 {
		tb.Fatalf("%d bytes overflowed, %d were lost", over, lost)
	}
	return took
}

// TestPushRate holds the push to 95 % of what the link lets through, and to
// being ahead of the baseline, or level with it where both keep the link busy
// all the time. Time is virtual: the rates are those of the
// protocol, exact and the same on every machine.
func TestPushRate(t *testing.T) {
	const size = 16 << 20
	t.Logf("%-18s %10s %10s %10s %8s", "MB/s", "link", "pipeline", "one-urb", "of link")
	for _, p := range profiles {
		rates := make(map[string]float64)
		for _, s := range strategies {
			synctest.Test(t, func(t *testing.T) {
				rates[s.name] = size / pushTo(t, p, linkRate, s, size).Seconds()
			})
		}
		ours, base, bound := rates["pipeline"], rates["one-urb"], p.bound()
		t.Logf("%-18v %10.2f %10.2f %10.2f %7.1f%%", p, bound/1e6, ours/1e6, base/1e6, 100*ours/bound)
		if ours < 0.95*bound {
			t.Errorf("%v: %.2f MB/s are %.1f %% of what the link lets through", p, ours/1e6, 100*ours/bound)
		}
		if ours < 0.998*base {
			t.Errorf("%v: %.2f MB/s, the baseline does %.2f", p, ours/1e6, base/1e6)
		}
	}
}

// BenchmarkBootPush is what the processor needs: a link without limits, in real
// time. The table of TestPushRate has the limits.
func BenchmarkBootPush(b *testing.B) {
	const size = 1 << 20
	for _, gen := range []reg.Generation{reg.BlueField2, reg.BlueField3} {
		for _, s := range strategies {
			b.Run(fmt.Sprintf("BF%d/%s", int(gen), s.name), func(b *testing.B) {
				b.SetBytes(size)
				for b.Loop() {
					pushTo(b, profile{gen: gen}, 0, s, size)
				}
			})
		}
	}
}
