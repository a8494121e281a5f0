// SPDX-License-Identifier: Apache-2.0

package bus_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bluefield-go/bmc-rshim/dbus/bus"
	"github.com/bluefield-go/bmc-rshim/dbus/wire"
)

// A bus that does not let anybody in, or pretends to be none.
func TestHostileHandshake(t *testing.T) {
	for name, serve := range map[string]func(r *raw){
		"closes":    func(r *raw) { r.Close() },
		"rejects":   func(r *raw) { r.write([]byte("REJECTED EXTERNAL\r\n")) },
		"garbage":   func(r *raw) { r.write([]byte{0, 1, 2, '\r', '\n'}) },
		"endless":   func(r *raw) { r.write([]byte(strings.Repeat("OK ", 4000))) },
		"files":     func(r *raw) { r.sendFiles([]byte("ERROR\r\n"), 3) },
		"no files":  func(r *raw) { r.write([]byte("OK 00\r\n")); r.in.ReadString('N'); r.write([]byte("ERROR\r\n")) },
		"more":      func(r *raw) { r.write([]byte("OK 00\r\nAGREE_UNIX_FD")) },
		"more lies": func(r *raw) { r.write([]byte("OK 00\r\nAGREE_UNIX_FD\r\nx\r\n")) },
	} {
		t.Run(name, func(t *testing.T) {
			l := listen(t)
			before := openFDs(t)
			go func() {
				r := l.acceptRaw()
				serve(r)
				time.Sleep(300 * time.Millisecond)
				r.Close()
			}()
			if c, err := bus.Dial(t.Context(), l.address()); err == nil {
				t.Errorf("let in as %s", c.Name())
			}
			noLeak(t, before)
		})
	}
	for name, serve := range map[string]func(r *raw, hello *wire.Message){
		"error": func(r *raw, m *wire.Message) {
			r.send(wire.Message{Type: wire.Error, Serial: 1, ReplySerial: m.Serial, ErrorName: "a.b", Body: []any{uint32(1)}})
		},
		"other type":     func(r *raw, m *wire.Message) { r.answer(m, uint32(1)) },
		"nothing":        func(r *raw, m *wire.Message) { r.answer(m) },
		"no name":        func(r *raw, m *wire.Message) { r.answer(m, "'") },
		"other question": func(r *raw, m *wire.Message) { m.Serial++; r.answer(m, ":1.1") },
		"garbage":        func(r *raw, m *wire.Message) { r.write([]byte(strings.Repeat("x", 100))) },
	} {
		t.Run("hello "+name, func(t *testing.T) {
			l := listen(t)
			go func() {
				r := l.accept()
				serve(r, r.receive())
			}()
			if c, err := bus.Dial(t.Context(), l.address()); err == nil {
				t.Errorf("let in as %s", c.Name())
			}
		})
	}
}

func message(t *testing.T, m wire.Message) []byte {
	t.Helper()
	b, err := m.Append(nil, binary.BigEndian)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What a bus may send to a client that is in. After each the connection
// either answers a call, or has ended; nothing leaks.
func TestHostileMessages(t *testing.T) {
	call := message(t, wire.Message{Type: wire.MethodCall, Serial: 7, Path: "/", Member: "M", Sender: ":1.9"})
	signal := message(t, wire.Message{Type: wire.Signal, Serial: 7, Path: "/", Interface: "a.b", Member: "M", Sender: ":1.9", FDs: 2})
	patch := func(b []byte, at int, with string) []byte {
		b = slices.Clone(b)
		copy(b[at:], with)
		return b
	}
	// A call with a body of n bytes of no meaning.
	huge := func(n uint32) []byte {
		b := message(t, wire.Message{Type: wire.MethodCall, Serial: 7, Path: "/", Member: "M", Sender: ":1.9", Body: []any{[]byte{}}})
		binary.BigEndian.PutUint32(b[4:], n)
		return append(b[:len(b)-4], make([]byte, n)...)
	}
	for _, tt := range []struct {
		name  string
		b     []byte
		files int
		ends  bool
		want  string // error that is answered
	}{
		{"call", call, 0, false, bus.ErrNameUnknownObject},
		{"garbage", []byte(strings.Repeat("garbage ", 100)), 0, true, ""},
		{"message of 4 GiB", patch(call, 4, "\xff\xff\xff\xff"), 0, true, ""},
		{"message of 2 MiB", huge(2 << 20), 0, false, bus.ErrNameLimitsExceeded},
		{"message of 2 MiB with files", huge(2 << 20), 3, false, bus.ErrNameLimitsExceeded},
		{"array of 600 KiB", append(huge(600 << 10)[:len(huge(0))], append([]byte{0, 9, 0x5f, 0xfc}, make([]byte, 600<<10-4)...)...), 0, false, bus.ErrNameLimitsExceeded},
		{"body that is none", huge(7), 0, false, bus.ErrNameInvalidArgs},
		{"header of 128 KiB", append(patch(call[:16], 12, "\x00\x02\x00\x00"), make([]byte, 128<<10)...), 1, false, ""},
		{"type 9", patch(call, 1, "\x09"), 0, false, ""},
		{"reply that nobody waits for", message(t, wire.Message{Type: wire.MethodReturn, Serial: 9, ReplySerial: 12345, FDs: 1}), 1, false, ""},
		{"signal with files", signal, 2, false, ""},
		{"fewer files than told", signal, 1, true, ""},
		{"more files than told", signal, 3, true, ""},
		{"files that were not told", call, 1, true, ""},
		{"too many files", message(t, wire.Message{Type: wire.MethodCall, Serial: 7, Path: "/", Member: "M", Sender: ":1.9", FDs: 200}), 200, false, bus.ErrNameLimitsExceeded},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := listen(t)
			before := openFDs(t) + 2 // both ends of the connection
			accepted := make(chan *raw, 1)
			go func() {
				r := l.accept()
				r.welcome()
				accepted <- r
			}()
			c, err := bus.Dial(t.Context(), l.address())
			if err != nil {
				t.Fatal(err)
			}
			r := <-accepted
			done := make(chan error, 1)
			go func() { done <- c.Run(t.Context()) }()
			if tt.files > 0 {
				r.sendFiles(tt.b[:1], tt.files)
				r.write(tt.b[1:])
			} else {
				r.write(tt.b)
			}
			if tt.ends {
				select {
				case err := <-done:
					if _, ok := errors.AsType[*bus.OpError](err); !ok || errors.Is(err, bus.ErrClosed) {
						t.Errorf("ended with %v", err)
					}
				case <-time.After(patience):
					t.Fatal("goes on")
				}
				noLeak(t, before-1)
				return
			}
			if tt.want != "" {
				if m := r.await(7); m.ErrorName != tt.want {
					t.Errorf("answer %+v, want %s", m, tt.want)
				}
			}
			r.write(call)
			if m := r.await(7); m.ErrorName != bus.ErrNameUnknownObject {
				t.Errorf("then a call is answered with %+v", m)
			}
			noLeak(t, before)
			c.Close()
			if err := <-done; !errors.Is(err, bus.ErrClosed) {
				t.Error(err)
			}
		})
	}
}

// With no file descriptors left a call that brings some is refused, and the
// connection goes on.
func TestNoFilesLeft(t *testing.T) {
	l := listen(t)
	accepted := make(chan *raw, 1)
	go func() {
		r := l.accept()
		r.welcome()
		accepted <- r
	}()
	c, err := bus.Dial(t.Context(), l.address())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r := <-accepted
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go c.Run(ctx)
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	// Descriptors are the lowest that are free, so that none is left below this.
	var fds []int
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	for range 20 {
		fd, err := unix.Dup(2)
		if err != nil {
			t.Fatal(err)
		}
		fds = append(fds, fd)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &old)
	limit := old
	limit.Cur = uint64(fds[len(fds)-1] + 1)
	b := message(t, wire.Message{Type: wire.MethodCall, Serial: 7, Path: "/", Member: "M", Sender: ":1.9", FDs: 5})
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	r.sendFiles(b, 5)
	m := r.await(7)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if m.ErrorName != bus.ErrNameLimitsExceeded {
		t.Errorf("answer %+v", m)
	}
	r.sendFiles(b, 5)
	if m := r.await(7); m.ErrorName != bus.ErrNameUnknownObject {
		t.Errorf("then a call is answered with %+v", m)
	}
}

// A call that is too big for us, but not for the bus, is answered.
func TestBigCall(t *testing.T) {
	r := newRig(t, bus.Options{})
	c := r.peer()
	if err := r.call(c, devPath, devIface+".Echo", strings.Repeat("x", 3<<20)).Err; errorName(err) != bus.ErrNameLimitsExceeded {
		t.Errorf("3 MiB: %v", err)
	}
	if err := r.call(c, devPath, "org.freedesktop.DBus.Peer.Ping").Err; err != nil {
		t.Error(err)
	}
	if !r.s.Owned() {
		t.Error("the name is lost")
	}
}

// A service on a bus that talks nonsense tries again, and serves when the bus has come to its senses.
func TestServiceHostileBus(t *testing.T) {
	l := listen(t)
	s := bus.New(bus.Options{Name: name, Address: l.address()})
	if _, err := s.Add(devPath, actInterface()); err != nil {
		t.Fatal(err)
	}
	run(t, s)
	for _, nonsense := range []string{"", "garbage garbage garbage", "l\x01\x00\x01\xff\xff\xff\xff"} {
		r := l.accept()
		r.welcome()
		r.write([]byte(nonsense))
		r.Close()
	}
	r := l.accept()
	r.welcome()
	for {
		m := r.receive()
		if m.Member == "RequestName" {
			r.answer(m, uint32(1))
			break
		}
		r.answer(m)
	}
	await(t, "name", s.Owned)
	r.call(50, ":1.1", devPath, "org.freedesktop.DBus.Properties", "GetAll", "")
	if m := r.await(50); m.Type != wire.MethodReturn {
		t.Errorf("%+v", m)
	}
}

// An abstract socket is a bus as well.
func TestAbstract(t *testing.T) {
	name := fmt.Sprintf("bmc-rshim-test-%d", os.Getpid())
	u, err := net.ListenUnix("unix", &net.UnixAddr{Name: "@" + name, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	l := &listener{t, u}
	go func() { l.accept().welcome() }()
	c, err := bus.Dial(t.Context(), "unix:abstract="+name)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.Name() != ":1.1" {
		t.Error(c.Name())
	}
}
