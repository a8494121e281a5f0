// SPDX-License-Identifier: Apache-2.0

package usbtest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

func testDescriptors(t *testing.T, r *run) {
	info := r.find(t)
	if _, _, err := info.Location.Split(); err != nil {
		t.Error(err)
	}
	if info.Address <= 0 || info.Vendor != reg.USBVendor || info.Product != reg.USBProductBlueField2 || info.Speed != usb.SpeedHigh {
		t.Errorf("%+v", info)
	}
	if others, err := r.Host.Devices(r.ctx, 0xffff); err != nil || len(others) != 0 {
		t.Errorf("devices of another vendor: %v, %v", others, err)
	}
	ctx, cancel := context.WithCancel(r.ctx)
	cancel()
	if _, err := r.Host.Open(ctx, info); !errors.Is(err, context.Canceled) {
		t.Errorf("Open with a cancelled context: %v", err)
	}

	want := map[int][]usb.Endpoint{
		reg.USBSubclassBoot: {{Address: r.boot, Type: usb.Bulk, MaxPacket: 512}},
		reg.USBSubclassTMFIFO: {
			{Address: r.tmOut, Type: usb.Bulk, MaxPacket: 512},
			{Address: r.tmIn, Type: usb.Bulk, MaxPacket: 512},
			{Address: r.tmInt, Type: usb.Interrupt, MaxPacket: 8},
		},
	}
	ifs := r.open(t).Interfaces()
	if len(ifs) != len(want) {
		t.Fatalf("interfaces %+v", ifs)
	}
	for _, i := range ifs {
		got := slices.SortedFunc(slices.Values(i.Endpoints), func(a, b usb.Endpoint) int {
			return int(a.Address) - int(b.Address)
		})
		if i.Class != 0xff || !slices.Equal(got, want[int(i.Subclass)]) {
			t.Errorf("interface %+v, want endpoints %+v", i, want[int(i.Subclass)])
		}
	}
}

// scratchpad2 is a register that the DPU leaves alone: channel 1 (RShim),
// offset 0xc28.
func scratchpad2(request uint8) usb.Setup {
	return usb.Setup{RequestType: request, Value: 1, Index: 0xc28}
}

func writeScratch(ctx context.Context, d usb.Device, v uint64) error {
	n, err := d.Control(ctx, scratchpad2(reg.USBRequestWrite), binary.LittleEndian.AppendUint64(nil, v))
	if err == nil && n != 8 {
		err = errors.New("short control write")
	}
	return err
}

func readScratch(ctx context.Context, d usb.Device) (uint64, error) {
	var b [8]byte
	n, err := d.Control(ctx, scratchpad2(reg.USBRequestRead), b[:])
	if err == nil && n != 8 {
		err = errors.New("short control read")
	}
	return binary.LittleEndian.Uint64(b[:]), err
}

// roundTrip checks that registers can be written and read.
func roundTrip(t *testing.T, ctx context.Context, d usb.Device, v uint64) {
	t.Helper()
	if err := writeScratch(ctx, d, v); err != nil {
		t.Fatal(err)
	}
	if got, err := readScratch(ctx, d); got != v || err != nil {
		t.Fatalf("%#x, %v, want %#x", got, err, v)
	}
}

func testRegisters(t *testing.T, r *run) {
	d := r.open(t)
	for _, v := range []uint64{0x0123456789abcdef, 0, ^uint64(0)} {
		roundTrip(t, r.ctx, d, v)
	}
	// A descriptor is shorter than what is asked for.
	var b [64]byte
	n, err := d.Control(r.ctx, usb.Setup{RequestType: 0x80, Request: 6, Value: 1 << 8}, b[:])
	if n != 18 || err != nil || binary.LittleEndian.Uint16(b[8:]) != reg.USBVendor {
		t.Errorf("device descriptor: %d, %v, % x", n, err, b[:n])
	}
}

func testControlStall(t *testing.T, r *run) {
	d := r.open(t)
	r.DPU.StallNext(0)
	if _, err := readScratch(r.ctx, d); !errors.Is(err, usb.ErrStall) {
		t.Errorf("%v, want ErrStall", err)
	}
	roundTrip(t, r.ctx, d, 42) // the next request resumes
}

func testControlCancel(t *testing.T, r *run) {
	d := r.open(t)
	soon(t, "cancelling a control transfer", func() time.Duration {
		r.DPU.SetNAK(0, true)
		defer r.DPU.SetNAK(0, false)
		ctx, cancel := context.WithCancel(r.ctx)
		cancelled := make(chan time.Time, 1)
		time.AfterFunc(20*time.Millisecond, func() { cancelled <- time.Now(); cancel() })
		if _, err := readScratch(ctx, d); !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want Canceled", err)
		}
		return time.Since(<-cancelled)
	})
	ctx, cancel := context.WithCancel(r.ctx)
	cancel()
	if _, err := readScratch(ctx, d); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before: %v, want Canceled", err)
	}
	roundTrip(t, r.ctx, d, 43)
}

func testControlDuringPush(t *testing.T, r *run) {
	d := r.open(t)
	const want = 0xb1f0
	if err := writeScratch(r.ctx, d, want); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(r.ctx)
	defer cancel()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for reads := 0; reads < 5 || ctx.Err() == nil; reads++ {
				if v, err := readScratch(r.ctx, d); v != want || err != nil {
					t.Errorf("%#x, %v, want %#x", v, err, want)
					return
				}
			}
		})
	}
	data := random(2 << 20)
	for sent := 0; sent < len(data); sent += 16 * chunk {
		if _, err := push(t, d, r.boot, data[sent:sent+16*chunk], chunk, nil); err != nil {
			t.Error(err)
			break
		}
	}
	cancel()
	wg.Wait()
	r.arrived(t, data)
}

func testClaim(t *testing.T, r *run) {
	info := r.find(t)
	d := r.open(t)
	for _, i := range d.Interfaces() {
		if err := d.Claim(i.Number); err != nil {
			t.Errorf("a second claim: %v", err)
		}
	}
	if err := d.Claim(77); err == nil {
		t.Error("claim of no interface: no error")
	}
	other, err := r.Host.Open(r.ctx, info)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for _, i := range other.Interfaces() {
		if err := other.Claim(i.Number); !errors.Is(err, usb.ErrBusy) {
			t.Errorf("someone else's claim: %v, want ErrBusy", err)
		}
	}
	// The first one is none the worse, and leaves to the other.
	data := bytes.Repeat([]byte("x"), 512)
	if n, err := usb.Do(r.ctx, d, r.boot, data); n != len(data) || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	for _, i := range other.Interfaces() {
		if err := other.Claim(i.Number); err != nil {
			t.Errorf("claim after the other's Close: %v", err)
		}
	}
}
