// SPDX-License-Identifier: Apache-2.0

package bus_test

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bluefield-go/bmc-rshim/dbus/bustest"
	"github.com/bluefield-go/bmc-rshim/dbus/wire"
)

// raw is a connection on which the test writes what it likes.
type raw struct {
	t *testing.T
	*net.UnixConn
	in *bufio.Reader
}

// rawDial connects and authenticates to a bus.
func rawDial(t *testing.T, b *bustest.Bus) *raw {
	t.Helper()
	c, err := net.Dial("unix", strings.TrimPrefix(b.Address(), "unix:path="))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	r := &raw{t, c.(*net.UnixConn), bufio.NewReader(c)}
	r.write([]byte("\x00AUTH EXTERNAL " + hex.EncodeToString(fmt.Append(nil, os.Geteuid())) + "\r\n"))
	if line, err := r.in.ReadString('\n'); err != nil || !strings.HasPrefix(line, "OK ") {
		t.Fatal(line, err)
	}
	r.write([]byte("NEGOTIATE_UNIX_FD\r\nBEGIN\r\n"))
	if line, err := r.in.ReadString('\n'); err != nil || !strings.HasPrefix(line, "AGREE") {
		t.Fatal(line, err)
	}
	return r
}

func (r *raw) hello() {
	r.call(1, "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello")
}

func (r *raw) write(b []byte) {
	r.t.Helper()
	if err := r.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		r.t.Fatal(err)
	}
	if _, err := r.Write(b); err != nil {
		r.t.Fatal(err)
	}
}

func (r *raw) send(m wire.Message) {
	r.t.Helper()
	b, err := m.Append(nil, binary.LittleEndian)
	if err != nil {
		r.t.Fatal(err)
	}
	r.write(b)
}

func (r *raw) call(serial uint32, dest string, path wire.ObjectPath, iface, member string, args ...any) {
	r.t.Helper()
	r.send(wire.Message{Type: wire.MethodCall, Serial: serial, Destination: dest, Path: path, Interface: iface, Member: member, Body: args})
}

// receive returns the next message.
func (r *raw) receive() *wire.Message {
	r.t.Helper()
	if err := r.SetReadDeadline(time.Now().Add(patience)); err != nil {
		r.t.Fatal(err)
	}
	b, err := r.in.Peek(wire.FixedSize)
	if err != nil {
		r.t.Fatal(err)
	}
	header, body, err := wire.Lengths(b)
	if err != nil {
		r.t.Fatal(err)
	}
	b = make([]byte, header+body)
	for n := 0; n < len(b); {
		k, err := r.in.Read(b[n:])
		if err != nil {
			r.t.Fatal(err)
		}
		n += k
	}
	m, err := wire.Decode(b)
	if err != nil {
		r.t.Fatal(err)
	}
	return m
}

// await returns the answer to a call.
func (r *raw) await(serial uint32) *wire.Message {
	r.t.Helper()
	for {
		if m := r.receive(); m.ReplySerial == serial {
			return m
		}
	}
}

// sendFiles sends bytes with n file descriptors.
func (r *raw) sendFiles(b []byte, n int) {
	r.t.Helper()
	fds := make([]int, n)
	for i := range fds {
		fds[i] = 2
	}
	if k, _, err := r.WriteMsgUnix(b, unix.UnixRights(fds...), nil); err != nil || k != len(b) {
		r.t.Fatal(k, err)
	}
}

// listener is a bus that the test plays.
type listener struct {
	t *testing.T
	*net.UnixListener
}

func listen(t *testing.T) *listener {
	t.Helper()
	dir, err := os.MkdirTemp("", "bus")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return &listener{t, l}
}

func (l *listener) address() string { return "unix:path=" + l.Addr().String() }

// accept takes a client in as far as BEGIN.
func (l *listener) accept() *raw {
	l.t.Helper()
	r := l.acceptRaw()
	for _, step := range []struct{ want, answer string }{
		{"\x00AUTH EXTERNAL ", "OK 0123456789abcdef0123456789abcdef\r\n"}, {"NEGOTIATE_UNIX_FD\r\n", "AGREE_UNIX_FD\r\n"}, {"BEGIN\r\n", ""},
	} {
		if line, err := r.in.ReadString('\n'); err != nil || !strings.HasPrefix(line, step.want) {
			l.t.Fatalf("%q, %v, want %q", line, err, step.want)
		}
		r.write([]byte(step.answer))
	}
	return r
}

func (l *listener) acceptRaw() *raw {
	l.t.Helper()
	if err := l.SetDeadline(time.Now().Add(patience)); err != nil {
		l.t.Fatal(err)
	}
	c, err := l.AcceptUnix()
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { c.Close() })
	return &raw{l.t, c, bufio.NewReader(c)}
}

// welcome answers Hello.
func (r *raw) welcome() {
	r.t.Helper()
	m := r.receive()
	if m.Member != "Hello" {
		r.t.Fatalf("%+v", m)
	}
	r.answer(m, ":1.1")
}

func (r *raw) answer(m *wire.Message, body ...any) {
	r.t.Helper()
	r.send(wire.Message{Type: wire.MethodReturn, Serial: 1000 + m.Serial, ReplySerial: m.Serial, Sender: "org.freedesktop.DBus", Destination: ":1.1", Body: body})
}
