// SPDX-License-Identifier: Apache-2.0

package cuse

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestInit(t *testing.T) {
	k, s := connect(t, Options{Name: "rshim0/boot", UnrestrictedIoctl: true}, funcs{})
	select {
	case <-s.Ready():
		t.Fatal("ready before INIT")
	default:
	}
	e, body := k.call(opCuseInit, bytesOf(initIn{Major: 7, Minor: 45, Flags: cuseUnrestrictedIoctl}))
	out, info, ok := take[initOut](body)
	if e != 0 || !ok {
		t.Fatalf("INIT: %v, %d bytes", e, len(body))
	}
	if want := (initOut{Major: 7, Minor: 38, Flags: cuseUnrestrictedIoctl, MaxRead: MaxIO, MaxWrite: MaxIO}); out != want {
		t.Errorf("INIT: got %+v, want %+v", out, want)
	}
	if string(info) != "DEVNAME=rshim0/boot\x00" {
		t.Errorf("INIT: info %q", info)
	}
	select {
	case <-s.Ready():
	case <-time.After(time.Minute):
		t.Fatal("not ready after INIT")
	}
	k.cancel()
	if err := k.wait(); err != nil {
		t.Errorf("stopped: %v", err)
	}
}

func TestInitFails(t *testing.T) {
	for name, c := range map[string]struct {
		opcode       uint32
		in           []byte
		unrestricted bool
	}{
		"other opcode":          {opcode: opOpen, in: bytesOf(openIn{})},
		"cut short":             {opcode: opCuseInit, in: make([]byte, 8)},
		"old kernel":            {opcode: opCuseInit, in: bytesOf(initIn{Major: 7, Minor: 12})},
		"other major":           {opcode: opCuseInit, in: bytesOf(initIn{Major: 8, Minor: 38})},
		"no unrestricted ioctl": {opcode: opCuseInit, in: bytesOf(initIn{Major: 7, Minor: 38}), unrestricted: true},
	} {
		t.Run(name, func(t *testing.T) {
			k, s := connect(t, Options{Name: "test", UnrestrictedIoctl: c.unrestricted}, funcs{})
			k.send(c.opcode, c.in)
			if n, err := k.f.Read(make([]byte, 1)); n != 0 { // the end: it hung up
				t.Errorf("answered: %d bytes, %v", n, err)
			}
			var op *OpError
			if err := k.wait(); !errors.As(err, &op) || op.Op != "init" || op.Device != "test" {
				t.Errorf("error %v", err)
			}
			select {
			case <-s.Ready():
				t.Error("ready")
			default:
			}
		})
	}
}

func TestRunUnavailable(t *testing.T) {
	err := New(Options{Name: "test", DevPath: t.TempDir() + "/cuse"}, funcs{}).Run(t.Context())
	if !errors.Is(err, ErrUnavailable) || !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "modprobe cuse") {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	err = New(Options{Name: "test", DevPath: os.DevNull}, funcs{}).Run(t.Context())
	if err == nil {
		t.Error("/dev/null served as /dev/cuse")
	}
}

func TestNames(t *testing.T) {
	for name, want := range map[string]bool{
		"rshim0/boot": true, "rshim63/misc": true, "x": true,
		"": false, ".": false, "/dev/x": false, "../x": false, "a/../b": false, "a//b": false,
		"a!b": false, " a": false, "a b": false, "a\x00": false, "a\nDEVNAME=b": false, "é": false,
		strings.Repeat("x", 256): false,
	} {
		if got := validName(name); got != want {
			t.Errorf("validName(%q) = %v", name, got)
		}
	}
	if err := New(Options{Name: "../null"}, funcs{}).Run(t.Context()); err == nil {
		t.Error("Run took a bad name")
	}
}

func TestGone(t *testing.T) {
	var released atomic.Int32
	k := serving(t, Options{}, funcs{release: func(context.Context) { released.Add(1) }})
	k.open()
	k.open()
	k.f.Close()
	if err := k.wait(); !errors.Is(err, ErrGone) {
		t.Errorf("got %v, want ErrGone", err)
	}
	if n := released.Load(); n != 2 {
		t.Errorf("%d files released, want 2", n)
	}
}

// Calls that are blocked and files that are open do not hold up the end, and
// nobody is answered after the channel is closed.
func TestStop(t *testing.T) {
	entered := make(chan bool)
	var released atomic.Int32
	k := serving(t, Options{}, funcs{
		read: func(ctx context.Context, p []byte, off int64) (int, error) {
			entered <- true
			<-ctx.Done()
			return 0, ctx.Err()
		},
		release: func(ctx context.Context) {
			if ctx.Err() == nil {
				t.Error("released with a context that still lasts")
			}
			released.Add(1)
		},
	})
	fh := k.open()
	k.open()
	for range 3 {
		k.send(opRead, bytesOf(ioIn{FH: fh, Size: 1}))
		<-entered
	}
	k.cancel()
	if err := k.wait(); err != nil {
		t.Errorf("got %v", err)
	}
	if n := released.Load(); n != 2 {
		t.Errorf("%d files released, want 2", n)
	}
	if n, err := k.f.Read(make([]byte, 100)); n != 0 {
		t.Errorf("%d bytes after the end, %v", n, err)
	}
}
