// SPDX-License-Identifier: Apache-2.0

package i2c_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/bluefield-go/bmc-rshim/i2c"
)

// Each error says what is missing, and how to get it.
func TestOpenErrors(t *testing.T) {
	dev, root := t.TempDir(), t.TempDir()
	o := i2c.Options{Bus: 3, Addr: 0x32, Dev: dev, Root: root}
	check := func(name string, o i2c.Options, target error, hints ...string) {
		t.Helper()
		tr, err := i2c.Open(o)
		if err == nil {
			tr.Close()
			t.Errorf("%s: no error", name)
			return
		}
		var oe *i2c.OpError
		if target != nil && (!errors.Is(err, target) || !errors.As(err, &oe)) {
			t.Errorf("%s: %v, want %v", name, err, target)
		}
		for _, h := range hints {
			if !strings.Contains(err.Error(), h) {
				t.Errorf("%s: %q does not say %q", name, err, h)
			}
		}
	}
	check("address of 8 bits", i2c.Options{Addr: 0x80}, nil, "0x80", "7 bits")
	check("own address of 8 bits", i2c.Options{Addr: 0x32, Own: 0xff}, nil, "0xff")
	check("no address", i2c.Options{}, nil, "address is missing")
	check("no bus", o, i2c.ErrNoBus, filepath.Join(dev, "i2c-3"), "modprobe i2c-dev")

	if err := os.WriteFile(filepath.Join(dev, "i2c-3"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	check("no queue", o, i2c.ErrNoQueue, "3-1010/slave-mqueue",
		"echo slave-mqueue 0x1010 > "+root+"/bus/i2c/devices/i2c-3/new_device")
	o.Own = 0x20
	check("no queue at another address", o, i2c.ErrNoQueue, "echo slave-mqueue 0x1020 >")

	device := filepath.Join(root, "bus/i2c/devices/3-1020")
	if err := os.MkdirAll(device, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(device, "name"), []byte("mctp-i2c-interface\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	check("address taken", o, i2c.ErrNoQueue, `taken by "mctp-i2c-interface"`, "another own address")
	if err := os.WriteFile(filepath.Join(device, "slave-mqueue"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	check("no queue but a file", o, nil, "epoll_ctl")
}

// A queue that another program reads is not opened.
func TestQueueInUse(t *testing.T) {
	root := t.TempDir()
	device := filepath.Join(root, "bus/i2c/devices/3-1010")
	if err := os.MkdirAll(device, 0o755); err != nil {
		t.Fatal(err)
	}
	// A FIFO can be waited for, as sysfs' file can.
	mkfifo(t, filepath.Join(device, "slave-mqueue"))
	q, err := i2c.OpenQueue(root, 3, i2c.DefaultOwn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := i2c.OpenQueue(root, 3, i2c.DefaultOwn); !errors.Is(err, i2c.ErrInUse) {
		t.Errorf("second one: %v", err)
	}
	q.Close()
	q, err = i2c.OpenQueue(root, 3, i2c.DefaultOwn)
	if err != nil {
		t.Fatal(err)
	}
	q.Close()
}

func TestWriteErrors(t *testing.T) {
	dev := t.TempDir()
	if err := os.WriteFile(filepath.Join(dev, "i2c-0"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := i2c.OpenBus(dev, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Write(t.Context(), 0x32, []byte{1}); err == nil || !strings.Contains(err.Error(), "i2c-0 address 0x32: send") {
		t.Errorf("a file that is no bus: %v", err)
	}
	if err := b.Write(t.Context(), 0x32, make([]byte, 8193)); err == nil {
		t.Error("too long: no error")
	}
	b.Close()
	if err := b.Write(t.Context(), 0x32, []byte{1}); err == nil {
		t.Error("closed: no error")
	}
}

func mkfifo(t *testing.T, path string) {
	t.Helper()
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	// Without somebody who might write, opening it to read would wait.
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
}
