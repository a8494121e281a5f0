// SPDX-License-Identifier: Apache-2.0

package uevent_test

import (
	"context"
	"errors"
	"maps"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bluefield-go/bmc-rshim/internal/uevent"
)

const usbAdd = "add@/devices/platform/vhci_hcd.0/usb1/1-1\x00ACTION=add\x00DEVPATH=/devices/platform/vhci_hcd.0/usb1/1-1\x00" +
	"SUBSYSTEM=usb\x00MAJOR=189\x00MINOR=1\x00DEVNAME=bus/usb/001/002\x00DEVTYPE=usb_device\x00PRODUCT=22dc/214/100\x00SEQNUM=1234\x00"

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     uevent.Event
	}{
		{"usb", usbAdd, uevent.Event{Action: "add", Path: "/devices/platform/vhci_hcd.0/usb1/1-1", Env: map[string]string{
			"ACTION": "add", "DEVPATH": "/devices/platform/vhci_hcd.0/usb1/1-1", "SUBSYSTEM": "usb", "MAJOR": "189", "MINOR": "1",
			"DEVNAME": "bus/usb/001/002", "DEVTYPE": "usb_device", "PRODUCT": "22dc/214/100", "SEQNUM": "1234"}}},
		{"head only", "remove@/x", uevent.Event{Action: "remove", Path: "/x", Env: map[string]string{}}},
		{"odd fields", "add@/x\x00\x00=1\x00A\x00B=\x00C=d=e\x00C=f", uevent.Event{Action: "add", Path: "/x",
			Env: map[string]string{"B": "", "C": "d=e"}}},
		{"at in the path", "add@/a@b\x00", uevent.Event{Action: "add", Path: "/a@b", Env: map[string]string{}}},
	} {
		if got, err := uevent.Parse([]byte(tt.in)); err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %+v, %v, want %+v", tt.name, got, err, tt.want)
		}
	}
	for _, in := range []string{"", "\x00", "add", "@/x", "add@", "add@x", "libudev\x00\xfe\xed\xca\xfe", "add\x00@/x"} {
		if e, err := uevent.Parse([]byte(in)); err == nil {
			t.Errorf("%q: %+v, no error", in, e)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(usbAdd))
	f.Add([]byte("add@/x\x00A=\x00=\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := uevent.Parse(b)
		if err != nil {
			return
		}
		again := e.Action + "@" + e.Path
		for k, v := range e.Env {
			again += "\x00" + k + "=" + v
		}
		e2, err := uevent.Parse([]byte(again))
		if err != nil || e2.Action != e.Action || e2.Path != e.Path || !maps.Equal(e2.Env, e.Env) {
			t.Fatalf("%+v comes back as %+v, %v", e, e2, err)
		}
	})
}

// pair returns a Conn and the socket of whoever plays the kernel.
func pair(t *testing.T, subsystems ...string) (c *uevent.Conn, kernel int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = uevent.NewConn(fds[0], subsystems...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		unix.Close(fds[1])
	})
	return c, fds[1]
}

func send(t *testing.T, fd int, msg string) {
	t.Helper()
	if _, err := unix.Write(fd, []byte(msg)); err != nil {
		t.Fatal(err)
	}
}

func TestReceiveFilters(t *testing.T) {
	c, kernel := pair(t, "usb", "net")
	send(t, kernel, "not a uevent")
	send(t, kernel, "add@/mem\x00SUBSYSTEM=mem\x00")
	send(t, kernel, "add@/none\x00")
	send(t, kernel, usbAdd)
	send(t, kernel, "add@/eth0\x00SUBSYSTEM=net\x00")
	for _, want := range []string{"usb", "net"} {
		if e, err := c.Receive(t.Context()); err != nil || e.Subsystem() != want {
			t.Errorf("%+v, %v, want one of %s", e, err, want)
		}
	}
}

func TestReceiveTooLong(t *testing.T) {
	c, kernel := pair(t)
	send(t, kernel, "add@/x\x00A="+strings.Repeat("x", 9000))
	send(t, kernel, usbAdd)
	if _, err := c.Receive(t.Context()); !errors.Is(err, uevent.ErrLost) {
		t.Errorf("%v, want ErrLost", err)
	}
	if e, err := c.Receive(t.Context()); err != nil || e.Subsystem() != "usb" {
		t.Errorf("after ErrLost: %+v, %v", e, err)
	}
}

func TestReceiveEnds(t *testing.T) {
	c, kernel := pair(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	for range 2 { // the second time it has ended before
		if _, err := c.Receive(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v, want DeadlineExceeded", err)
		}
	}
	send(t, kernel, usbAdd)
	if _, err := c.Receive(t.Context()); err != nil {
		t.Errorf("after a cancelled one: %v", err)
	}
	time.AfterFunc(10*time.Millisecond, func() { c.Close() })
	for range 2 {
		if _, err := c.Receive(t.Context()); !errors.Is(err, os.ErrClosed) {
			t.Errorf("%v, want ErrClosed", err)
		}
	}
}

// listen opens a real socket.
func listen(t *testing.T) *uevent.Conn {
	t.Helper()
	c, err := uevent.Listen("mem")
	if err != nil {
		t.Skip("no uevents here: ", err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// provoke makes the kernel send an event about /dev/null.
func provoke(t *testing.T) {
	t.Helper()
	if err := os.WriteFile("/sys/devices/virtual/mem/null/uevent", []byte("change"), 0); err != nil {
		t.Skip("no uevent can be provoked: ", err)
	}
}

func TestKernel(t *testing.T) {
	c := listen(t)
	provoke(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	e, err := c.Receive(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if e.Action != "change" || e.Path != "/devices/virtual/mem/null" || e.Env["DEVNAME"] != "null" {
		t.Errorf("%+v", e)
	}
}

// TestForged sends to the socket as any process may.
func TestForged(t *testing.T) {
	c := listen(t)
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	// The kernel names the first such socket of a process after it.
	to := &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: c.PortID(t)}
	if err := unix.Sendto(fd, []byte("add@/forged\x00SUBSYSTEM=mem\x00"), 0, to); err != nil {
		t.Skip("not allowed to send: ", err)
	}
	provoke(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if e, err := c.Receive(ctx); err != nil || e.Path == "/forged" {
		t.Errorf("%+v, %v", e, err)
	}
}

// TestLost overruns the socket.
func TestLost(t *testing.T) {
	c := listen(t)
	c.SetReadBuffer(t, 1)
	for range 100 {
		provoke(t)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for range 101 {
		if _, err := c.Receive(ctx); errors.Is(err, uevent.ErrLost) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
	t.Error("no ErrLost")
}
