// SPDX-License-Identifier: Apache-2.0

package usbfs_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
	"github.com/bluefield-go/bmc-rshim/usbbackend/usbfs"
)

// plug writes a device into a sysfs tree; attributes come in pairs of name
// and value and stand over the usual ones.
func plug(t *testing.T, sys, loc string, attributes ...string) {
	t.Helper()
	dir := filepath.Join(sys, "bus/usb/devices", loc)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	all := append([]string{
		"idVendor", "22dc", "idProduct", "0214", "bcdDevice", "0100",
		"busnum", "1", "devnum", "7", "speed", "480", "bConfigurationValue", "1",
	}, attributes...)
	for i := 0; i < len(all); i += 2 {
		if err := os.WriteFile(filepath.Join(dir, all[i]), []byte(all[i+1]+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDevices(t *testing.T) {
	sys := t.TempDir()
	plug(t, sys, "1-1.7")
	plug(t, sys, "2-3", "idProduct", "021c", "speed", "12", "devnum", "19", "bcdDevice", "0a21")
	plug(t, sys, "2-4", "idVendor", "1d6b") // someone else's
	plug(t, sys, "usb1")                    // root hub
	plug(t, sys, "1-1.7:1.0")               // interface
	plug(t, sys, "1-5", "devnum", "")       // half gone
	if err := os.Remove(filepath.Join(sys, "bus/usb/devices/1-5/speed")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", filepath.Join(sys, "bus/usb/devices/1-6")); err != nil {
		t.Fatal(err) // quite gone
	}

	got, err := usbfs.New(usbfs.Options{SysRoot: sys}).Devices(context.Background(), 0x22dc)
	if err != nil {
		t.Fatal(err)
	}
	want := []usb.Info{
		{Location: "1-1.7", Address: 7, Vendor: 0x22dc, Product: 0x0214, Release: 0x0100, Speed: usb.SpeedHigh},
		{Location: "2-3", Address: 19, Vendor: 0x22dc, Product: 0x021c, Release: 0x0a21, Speed: usb.SpeedFull},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestSpeeds(t *testing.T) {
	for s, want := range map[string]usb.Speed{
		"1.5": usb.SpeedLow, "12": usb.SpeedFull, "480": usb.SpeedHigh, "5000": usb.SpeedSuper,
		"20000": usb.SpeedSuper, "unknown": usb.SpeedUnknown, "": usb.SpeedUnknown,
	} {
		sys := t.TempDir()
		plug(t, sys, "1-1", "speed", s)
		got, err := usbfs.New(usbfs.Options{SysRoot: sys}).Devices(context.Background(), 0x22dc)
		if err != nil || len(got) != 1 || got[0].Speed != want {
			t.Errorf("%q: %+v, %v, want %v", s, got, err, want)
		}
	}
}

func TestNoUSB(t *testing.T) {
	h := usbfs.New(usbfs.Options{SysRoot: t.TempDir()})
	if got, err := h.Devices(context.Background(), 0x22dc); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	sys := t.TempDir()
	plug(t, sys, "1-1")
	if _, err := usbfs.New(usbfs.Options{SysRoot: sys}).Devices(ctx, 0x22dc); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestOpenTooEarly opens a device that the kernel has not configured yet.
func TestOpenTooEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sys := t.TempDir()
		plug(t, sys, "1-1", "bConfigurationValue", "")
		h := usbfs.New(usbfs.Options{SysRoot: sys, DevRoot: t.TempDir()})
		info := usb.Info{Location: "1-1", Address: 7}

		start := time.Now()
		if _, err := h.Open(t.Context(), info); err == nil || time.Since(start) > 2*time.Second {
			t.Errorf("never configured: %v after %v", err, time.Since(start))
		}
		if err := h.Reset(t.Context(), info); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Reset: %v, want that the node is missing", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := h.Open(ctx, info); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("cancelled: %v", err)
		}
		time.AfterFunc(100*time.Millisecond, func() { plug(t, sys, "1-1") })
		if _, err := h.Open(t.Context(), info); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("configured after a while: %v, want that the node is missing", err)
		}
	})
}

func TestOpenErrors(t *testing.T) {
	sys, dev := t.TempDir(), t.TempDir()
	plug(t, sys, "1-1.7")
	h := usbfs.New(usbfs.Options{SysRoot: sys, DevRoot: dev})
	for _, tt := range []struct {
		name string
		info usb.Info
		node string // made as a file before
		want error
	}{
		{"gone", usb.Info{Location: "1-2", Address: 7}, "", usb.ErrNoDevice},
		{"enumerated anew", usb.Info{Location: "1-1.7", Address: 6}, "", usb.ErrNoDevice},
		{"no node", usb.Info{Location: "1-1.7", Address: 7}, "", fs.ErrNotExist},
		{"node of something else", usb.Info{Location: "1-1.7", Address: 7}, "bus/usb/001/007", nil},
		{"no location", usb.Info{Location: "../../x", Address: 7}, "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.node != "" {
				path := filepath.Join(dev, tt.node)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte("not descriptors"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			d, err := h.Open(context.Background(), tt.info)
			if d != nil || err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("Open: %v, %v, want %v", d, err, tt.want)
			}
			var op *usb.OpError
			if !errors.As(err, &op) || op.Location != tt.info.Location {
				t.Errorf("%v is no OpError of %s", err, tt.info.Location)
			}
			if err := h.Reset(context.Background(), tt.info); err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("Reset: %v, want %v", err, tt.want)
			}
		})
	}
}
