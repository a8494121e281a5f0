// SPDX-License-Identifier: Apache-2.0

package simncsi_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bluefield-go/bmc-rshim/ncsi"
	"github.com/bluefield-go/bmc-rshim/ncsi/ncsitest"
	"github.com/bluefield-go/bmc-rshim/ncsi/oem"
	"github.com/bluefield-go/bmc-rshim/sim/ncsi"
)

const limit = 30 * time.Second

// command and response are Ethernet frames, from the BMC's MAC address and
// padded as Linux does.
const (
	command  = "ffffffffffff 020000000001 88f8 0001000150000008 0000000000000000 00008119 00131900 ffff15ca 0000 0000000000000000 00000000"
	response = "ffffffffffff ffffffffffff 88f8 00010001d0000010 0000000000000000 00000000 00008119 00131900 00000002 fffe95c0 00000000000000000000"
)

func locked() *simncsi.NIC {
	return simncsi.New(simncsi.Config{State: simncsi.State{Stored: oem.Locked}})
}

func TestFrame(t *testing.T) {
	n := locked()
	want := unhex(t, response)
	if r := n.Frame(unhex(t, command)); len(r.Packets) != 1 || !bytes.Equal(r.Packets[0], want) || len(want) != 60 {
		t.Errorf("%x", r.Packets)
	}
	// The tail comes behind the padding's place, the checksum before it.
	n.Inject(simncsi.Fault{Kind: simncsi.Tail})
	if r := n.Frame(unhex(t, command)); len(r.Packets) != 1 || !bytes.HasPrefix(r.Packets[0], want[:50]) || !bytes.HasPrefix(r.Packets[0][50:], []byte{0xde, 0xad}) {
		t.Errorf("%x", r.Packets)
	}
	ipv6 := unhex(t, strings.Replace(command, "88f8", "86dd", 1))
	for _, f := range [][]byte{nil, want[:13], ipv6} {
		if r := n.Frame(f); r.Packets != nil {
			t.Errorf("%x: %x", f, r.Packets)
		}
	}
}

// TestServePackets has a NIC at one end of a pair of sockets, as QEMU has them.
func TestServePackets(t *testing.T) {
	dir := t.TempDir()
	listen := func(name string) *net.UnixConn {
		c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, name), Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetReadDeadline(time.Now().Add(limit))
		return c
	}
	qemu, socket, other := listen("qemu"), listen("nic"), listen("other")
	for _, peer := range []net.Addr{nil, qemu.LocalAddr()} {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		n := locked()
		socket.SetReadDeadline(time.Time{})
		go func() { done <- n.ServePackets(ctx, socket, peer) }()
		from := qemu
		if peer != nil {
			from = other // whoever asks, the answer goes to the peer
		}
		n.Inject(simncsi.Fault{Kind: simncsi.Slow, Delay: time.Millisecond})
		for range 2 {
			if _, err := from.WriteTo(unhex(t, command), socket.LocalAddr()); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 2000)
			size, err := qemu.Read(buf)
			if err != nil || !bytes.Equal(buf[:size], unhex(t, response)) {
				t.Fatalf("%x, %v", buf[:size], err)
			}
		}
		// Cancelled while it is about to answer.
		n.Inject(simncsi.Fault{Kind: simncsi.Slow, Delay: time.Hour})
		if _, err := from.WriteTo(unhex(t, command), socket.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		for s, _ := n.State(); s.Counts.OEM < 3; s, _ = n.State() {
			time.Sleep(time.Millisecond)
		}
		cancel()
		if err := receive(t, done); err != nil {
			t.Error(err)
		}
	}
	socket.Close()
	if err := locked().ServePackets(t.Context(), socket, nil); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

func receive[T any](t *testing.T, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(limit):
		t.Fatal("nothing comes")
	}
	return v
}

func TestServeTap(t *testing.T) {
	tap, nic := net.Pipe()
	defer tap.Close()
	tap.SetDeadline(time.Now().Add(limit))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- locked().ServeTap(ctx, nic) }()
	buf := make([]byte, 2000)
	for range 2 {
		if _, err := tap.Write(unhex(t, command)); err != nil {
			t.Fatal(err)
		}
		if size, err := tap.Read(buf); err != nil || !bytes.Equal(buf[:size], unhex(t, response)) {
			t.Fatalf("%x, %v", buf[:size], err)
		}
	}
	cancel()
	if err := receive(t, done); err != nil {
		t.Error(err)
	}

	tap, nic = net.Pipe()
	tap.Close()
	if err := locked().ServeTap(t.Context(), nic); err != io.EOF {
		t.Error(err)
	}
}

// noisy is the server's end of a line that echoes and has other people's
// messages on it.
type noisy struct{ net.Conn }

func (n noisy) Read(b []byte) (int, error) {
	size, err := n.Conn.Read(b)
	if err == nil {
		_, err = n.Conn.Write(b[:size])
	}
	return size, err
}

func (n noisy) Write(b []byte) (int, error) {
	noise := "[    1.234567] random: crng init done\r\nnic\nnic 1\n\n" + strings.Repeat("x", 70<<10) + "\n"
	if _, err := io.WriteString(n.Conn, noise); err != nil {
		return 0, err
	}
	return n.Conn.Write(b)
}

// remote returns the Control of a NIC at the other end of a line.
func remote(t *testing.T, n *simncsi.NIC) *simncsi.Remote {
	t.Helper()
	near, far := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- simncsi.ServeControl(n, noisy{far}) }()
	t.Cleanup(func() {
		near.Close()
		if err := receive(t, done); err != nil && !errors.Is(err, io.ErrClosedPipe) {
			t.Error(err)
		}
	})
	return simncsi.NewRemote(near)
}

// TestRemoteSuite has the conformance suite reach the NIC through a line.
func TestRemoteSuite(t *testing.T) {
	ncsitest.Run(t, func(t *testing.T) *ncsitest.Rig {
		n := simncsi.New(simncsi.Config{Channels: 3})
		timeout := 200 * time.Millisecond
		return &ncsitest.Rig{Transport: simncsi.NewMemory(n, timeout), NIC: remote(t, n), Channel: 2, Timeout: timeout}
	})
}

func TestRemote(t *testing.T) {
	n := locked()
	r := remote(t, n)
	for i := range 40 {
		n.Respond(append([]byte{0, 1, 0, byte(i + 1), 0x50, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0}, oem.GetHostAccess()...))
	}
	got, err := r.State()
	if err != nil || got.Stored != oem.Locked || got.Counts.OEM != 40 || got.Counts.Commands != 40 || got.Counts.Sets != 0 ||
		len(got.Counts.IIDs) != simncsi.MaxIIDs || got.Counts.IIDs[0] != 9 || !slices.IsSorted(got.Counts.IIDs) {
		t.Errorf("%+v, %v", got, err)
	}
	if err := r.SetState(simncsi.State{Stored: oem.Enabled, Untrusted: true}); err != nil {
		t.Error(err)
	}
	if err := r.Reboot(); err != nil {
		t.Error(err)
	}
	if s, _ := n.State(); s.Active != oem.Enabled || !s.Untrusted || s.Counts.OEM != 40 {
		t.Errorf("%+v", s)
	}
	if err := r.Inject(simncsi.Fault{Kind: simncsi.Refuse, Code: ncsi.Failed, Reason: ncsi.NotPowered, Size: 4}); err != nil {
		t.Error(err)
	}
	if got := send(t, n, 0, ncsi.OEM, "00008119 00131900"); !bytes.Equal(got, unhex(t, "0001000a 00008119")) {
		t.Errorf("%x", got)
	}
	for want, err := range map[string]error{
		`remote NIC: inject: fault "fire" is not known`:                    r.Inject(simncsi.Fault{Kind: "fire"}),
		`remote NIC: inject: fault "short": negative count, size or delay`: r.Inject(simncsi.Fault{Kind: simncsi.Short, Size: -1}),
	} {
		if err == nil || err.Error() != want {
			t.Errorf("%v instead of %s", err, want)
		}
	}
	if err := r.SetState(simncsi.State{Stored: 9}); err == nil || !strings.Contains(err.Error(), "host access 9 has no name") {
		t.Error(err)
	}
}

// TestServeControl gives the server what no Remote sends.
func TestServeControl(t *testing.T) {
	var out bytes.Buffer
	in := "nic 1 dance\nnic 2 set {\nnic 3 inject nothing\r\nnic 4 ok\nnic 5 error\nhello\nnic 6 uninitialise\n  nic 7 clear  \n"
	if err := simncsi.ServeControl(locked(), struct {
		io.Reader
		io.Writer
	}{strings.NewReader(in), &out}); err != nil {
		t.Error(err)
	}
	want := `nic 1 error unknown verb "dance"
nic 2 error unexpected end of JSON input
nic 3 error invalid character 'o' in literal null (expecting 'u')
nic 6 ok
nic 7 ok
`
	if out.String() != want {
		t.Errorf("%s\ninstead of\n%s", out.String(), want)
	}
}
