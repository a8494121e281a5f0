// SPDX-License-Identifier: Apache-2.0

package usbdev_test

import (
	"context"
	"encoding/binary"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

const where usb.Location = "2-1.7"

// plug runs a function on a bus until the test, in a bubble, ends.
func plug(t *testing.T, cfg bluefield.Config, o usbdev.Options) (*usbdev.Bus, *usbdev.Function) {
	t.Helper()
	f := usbdev.New(bluefield.New(cfg), o)
	b := usbdev.NewBus()
	b.Plug(where, f)
	done := make(chan struct{})
	go func() { defer close(done); f.Run(t.Context()) }()
	t.Cleanup(func() { <-done })
	synctest.Wait()
	return b, f
}

// open opens the only device on a bus.
func open(t *testing.T, b *usbdev.Bus) (usb.Device, usb.Info) {
	t.Helper()
	infos, err := b.Devices(t.Context(), reg.USBVendor)
	if err != nil || len(infos) != 1 {
		t.Fatalf("devices %v, %v; want one", infos, err)
	}
	d, err := b.Open(t.Context(), infos[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d, infos[0]
}

// setup does most of the above for a device without firmware.
func setup(t *testing.T, o usbdev.Options) (usb.Device, *usbdev.Function) {
	t.Helper()
	b, f := plug(t, bluefield.Config{NoFirmware: true}, o)
	d, _ := open(t, b)
	return d, f
}

func readReg(ctx context.Context, d usb.Device, g reg.Generation, a reg.Addr) (uint64, error) {
	v, i := g.USB(a)
	var b [8]byte
	_, err := d.Control(ctx, usb.Setup{RequestType: reg.USBRequestRead, Value: v, Index: i}, b[:])
	return binary.LittleEndian.Uint64(b[:]), err
}

func writeReg(ctx context.Context, d usb.Device, g reg.Generation, a reg.Addr, x uint64) error {
	v, i := g.USB(a)
	_, err := d.Control(ctx, usb.Setup{RequestType: reg.USBRequestWrite, Value: v, Index: i}, binary.LittleEndian.AppendUint64(nil, x))
	return err
}

func submit(t *testing.T, d usb.Device, ep uint8, data []byte) usb.Transfer {
	t.Helper()
	x, err := d.Submit(ep, data)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// want checks a transfer's result.
func want(t *testing.T, x usb.Transfer, n int, err error) {
	t.Helper()
	gotN, got := x.Result()
	var op *usb.OpError
	if gotN != n || !errors.Is(got, err) || got != nil && !errors.As(got, &op) {
		t.Errorf("result %d, %v; want %d, %v", gotN, got, n, err)
	}
}

func isDone(x usb.Transfer) bool {
	synctest.Wait()
	select {
	case <-x.Done():
		return true
	default:
		return false
	}
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i) ^ byte(i>>8)*7
	}
	return b
}
