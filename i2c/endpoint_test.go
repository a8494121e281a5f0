// SPDX-License-Identifier: Apache-2.0

package i2c

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bluefield-go/bmc-rshim/mctp"
	"github.com/bluefield-go/bmc-rshim/ncsi"
	"github.com/bluefield-go/bmc-rshim/ncsi/oem"
)

const (
	bmcAddr, nicAddr = 0x10, 0x32
	bmcEID, nicEID   = mctp.EID(0x08), mctp.EID(0x1d)
)

// wire is a bus with a queue, in memory.
type wire struct {
	sent  chan []byte // with the address in front
	queue chan []byte
	next  []byte
	err   error // of Write
}

func newWire() *wire { return &wire{sent: make(chan []byte, 100), queue: make(chan []byte, 100)} }

func (w *wire) Write(_ context.Context, addr uint8, data []byte) error {
	if w.err == nil {
		w.sent <- append([]byte{addr << 1}, data...)
	}
	return w.err
}

func (w *wire) Next(buf []byte) (int, error) {
	b := w.next
	w.next = nil
	if b == nil {
		select {
		case b = <-w.queue:
		default:
		}
	}
	return copy(buf, b), nil
}

func (w *wire) Wait(ctx context.Context) error {
	select {
	case w.next = <-w.queue:
		return nil
	case <-ctx.Done():
		return &OpError{Op: "receive", Device: "wire", Err: ctx.Err()}
	}
}

func (w *wire) Close() error { return nil }

// endpoint is the BMC's.
func endpoint(w *wire, o Options) *Endpoint {
	if o.Addr == 0 {
		o.Addr = nicAddr
	}
	if err := o.setDefaults(); err != nil {
		panic(err)
	}
	return newEndpoint(o, w, w)
}

// frames are those that carry a message from an address to another one.
func frames(t testing.TB, dest, src uint8, m mctp.Message) [][]byte {
	t.Helper()
	var all [][]byte
	for p := range m.Packets(0, 2) {
		b, err := Frame{Dest: dest, Src: src, Packet: p}.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b)
	}
	return all
}

// toBMC is a message's first frame.
func toBMC(t testing.TB, m mctp.Message) []byte { return frames(t, bmcAddr, nicAddr, m)[0] }

func TestSendGolden(t *testing.T) {
	w := newWire()
	e := endpoint(w, Options{EID: bmcEID})
	e.seq.Store(3) // the next message begins with 0
	body, _ := hex.DecodeString("02" + "0001000150000008" + "0000000000000000" + "00008119" + "00131900" + "ffff15ca")
	err := e.Send(t.Context(), Message{nicAddr, mctp.Message{Dest: nicEID, Src: bmcEID, TO: true, Tag: 1, Body: body}})
	if err != nil {
		t.Fatal(err)
	}
	const want = "640f2221011d08c902000100015000000800000000000000000000811900131900ffff15cad6"
	if got := hex.EncodeToString(<-w.sent); got != want {
		t.Errorf("sent %s\nwant %s", got, want)
	}
}

// A message of 221 bytes goes in four frames, as the other end takes it.
func TestSendFragments(t *testing.T) {
	w := newWire()
	e := endpoint(w, Options{EID: bmcEID})
	body := append([]byte{2}, bytes.Repeat([]byte("mctp"), 55)...)
	m := mctp.Message{Dest: nicEID, Src: bmcEID, TO: true, Tag: 5, Body: body}
	if err := e.Send(t.Context(), Message{nicAddr, m}); err != nil {
		t.Fatal(err)
	}
	other := endpoint(newWire(), Options{Own: nicAddr, Addr: bmcAddr, EID: nicEID})
	for _, size := range []int{64, 64, 64, 29} {
		b := <-w.sent
		if len(b) != size+9 {
			t.Errorf("frame of %d bytes, want %d", len(b), size+9)
		}
		if got, ok := other.take(b); ok && (!bytes.Equal(got.Body, body) || got.Addr != bmcAddr || size != 29) {
			t.Errorf("%+v", got)
		} else if !ok && size == 29 {
			t.Error("no message")
		}
	}
}

// What is not for us, or not from the NIC, never gets through.
func TestReceiveFilters(t *testing.T) {
	good := mctp.Message{Dest: bmcEID, Src: nicEID, Tag: 1, Body: []byte("\x02good")}
	with := func(change func(*mctp.Message)) mctp.Message {
		m := good
		change(&m)
		return m
	}
	spoil := func(b []byte, at int) []byte { b[at] ^= 1; return b }
	long := frames(t, bmcAddr, nicAddr, with(func(m *mctp.Message) { m.Body = make([]byte, 200) }))
	for _, tt := range []struct {
		name string
		in   [][]byte
	}{
		{"nothing", nil},
		{"noise", [][]byte{{0x20}, {0x20, 0x0f}, bytes.Repeat([]byte{0xff}, 120)}},
		{"bad PEC", [][]byte{spoil(toBMC(t, good), 12)}},
		{"other address", frames(t, bmcAddr+1, nicAddr, good)},
		{"other device", frames(t, bmcAddr, nicAddr+1, good)},
		{"other endpoint", [][]byte{toBMC(t, with(func(m *mctp.Message) { m.Dest = 9 }))}},
		{"broadcast", [][]byte{toBMC(t, with(func(m *mctp.Message) { m.Dest = mctp.Broadcast }))}},
		{"one frame missing", [][]byte{long[0], long[2], long[3]}},
		{"one frame twice", [][]byte{long[0], long[1], long[1], long[2], long[3]}},
		{"end alone", long[3:]},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWire()
			e := endpoint(w, Options{EID: bmcEID})
			for _, b := range tt.in {
				w.queue <- b
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if m, err := e.Receive(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: %+v, %v", tt.name, m, err)
			}
			// The null endpoint is whoever is at the address.
			for _, dest := range []mctp.EID{bmcEID, mctp.Null} {
				w.queue <- toBMC(t, with(func(m *mctp.Message) { m.Dest = dest }))
				if m, err := e.Receive(t.Context()); err != nil || string(m.Body) != "\x02good" || m.Addr != nicAddr {
					t.Errorf("%s: afterwards %+v, %v", tt.name, m, err)
				}
			}
		})
	}
}

// Somebody who never stops talking does not keep Receive from ending.
func TestReceiveFlood(t *testing.T) {
	w := newWire()
	e := newEndpoint(endpoint(w, Options{}).o, w, flood{w, toBMC(t, mctp.Message{Dest: 9, Src: nicEID, Body: []byte{2}})})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if m, err := e.Receive(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%+v, %v", m, err)
	}
	if err := e.flush(); err != nil {
		t.Error(err)
	}
}

type flood struct {
	*wire
	frame []byte
}

func (f flood) Next(buf []byte) (int, error) { return copy(buf, f.frame), nil }

func TestControl(t *testing.T) {
	get := mctp.Message{Dest: mctp.Null, Src: 0x21, TO: true, Tag: 6, Body: []byte{0x00, 0x8a, 0x02}}
	good := toBMC(t, mctp.Message{Src: nicEID, Body: []byte("\x02good")})
	for _, tt := range []struct {
		name string
		eid  mctp.EID
		in   mctp.Message
		want string // of the frame that answers, from the source address on
	}{
		{"get endpoint ID", bmcEID, get, "21 01 2108c6 00 0a 02 00 08 02 00"},
		{"without an ID", mctp.Null, get, ""},
		{"response", bmcEID, mctp.Message{Src: 0x21, Body: []byte{0x00, 0x0a, 0x02, 0x00}}, ""},
		{"cut off", bmcEID, mctp.Message{Src: 0x21, TO: true, Body: []byte{0x00}}, ""},
	} {
		w := newWire()
		e := endpoint(w, Options{EID: tt.eid})
		e.seq.Store(3)
		w.queue <- frames(t, bmcAddr, 0x20, tt.in)[0] // the bus owner, another device than the NIC
		w.queue <- good
		if m, err := e.Receive(t.Context()); err != nil || string(m.Body) != "\x02good" {
			t.Fatalf("%s: %+v, %v", tt.name, m, err)
		}
		got := ""
		if len(w.sent) > 0 {
			b := <-w.sent
			if b[0] != 0x20<<1 {
				t.Errorf("%s: answered to 0x%02x", tt.name, b[0]>>1)
			}
			got = hex.EncodeToString(b[3 : len(b)-1])
		}
		if want := strings.ReplaceAll(tt.want, " ", ""); got != want {
			t.Errorf("%s: answered %s, want %s", tt.name, got, want)
		}
	}
	// An answer that cannot be sent is nobody's trouble.
	w := newWire()
	w.err = errors.New("broken")
	var log bytes.Buffer
	e := endpoint(w, Options{EID: bmcEID, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	w.queue <- frames(t, bmcAddr, 0x20, get)[0]
	w.queue <- good
	if m, err := e.Receive(t.Context()); err != nil || string(m.Body) != "\x02good" {
		t.Errorf("%+v, %v", m, err)
	}
	if !strings.Contains(log.String(), "broken") {
		t.Errorf("log: %s", &log)
	}
}

// nic answers commands: first with what precede makes of the response, then
// with the response.
func nic(t *testing.T, w *wire, precede ...func(response mctp.Message) (frame []byte)) {
	for b := range w.sent {
		f, err := ParseFrame(b)
		if err != nil {
			t.Error(err)
			return
		}
		command, _, err := ncsi.Parse(f.Packet.Payload[1:])
		if err != nil {
			t.Error(err)
			return
		}
		body, _ := ncsi.Packet{IID: command.IID, Type: command.Type.Response(), Payload: []byte("done")}.Append([]byte{2})
		m := mctp.Message{Dest: f.Packet.Src, Src: nicEID, Tag: f.Packet.Tag, Body: body}
		for _, p := range precede {
			w.queue <- p(m)
		}
		w.queue <- toBMC(t, m)
	}
}

// The response is found behind all that is none, what was there before the
// command among it.
func TestTransport(t *testing.T) {
	for _, o := range []Options{{EID: bmcEID, PeerEID: nicEID}, {}} {
		w := newWire()
		tr := newTransport(endpoint(w, o))
		w.queue <- toBMC(t, mctp.Message{Dest: o.EID, Src: nicEID, Body: []byte{2, 0}})
		go nic(t, w,
			func(m mctp.Message) []byte { m.Tag = (m.Tag + 1) & 7; return toBMC(t, m) },
			func(m mctp.Message) []byte { m.TO = true; return toBMC(t, m) },
			func(m mctp.Message) []byte { m.Body = []byte{2, 1}; return toBMC(t, m) },
			func(m mctp.Message) []byte { return toBMC(t, m)[:20] },
			func(m mctp.Message) []byte { return frames(t, bmcAddr, nicAddr+1, m)[0] },
		)
		for range 20 {
			if got, err := tr.Do(t.Context(), 0, ncsi.OEM, []byte("command")); err != nil || string(got) != "done" {
				t.Errorf("%q, %v", got, err)
			}
		}
		close(w.sent)
	}
}

func TestTransportErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire()
		tr := newTransport(endpoint(w, Options{Timeout: 3 * time.Second}))
		began := time.Now()
		if _, err := tr.Do(t.Context(), 0, ncsi.OEM, nil); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != 3*time.Second {
			t.Errorf("no response: %v after %v", err, time.Since(began))
		}
		for cause, kept := range map[error]bool{ErrNoAck: true, unix.EOPNOTSUPP: true, unix.EMSGSIZE: true, unix.EIO: false, unix.EAGAIN: false} {
			w.err = &OpError{Op: "send", Device: "wire", Err: cause}
			if _, err := tr.Do(t.Context(), 0, ncsi.OEM, nil); !errors.Is(err, cause) || oem.IsNotSent(err) != kept {
				t.Errorf("%v: %v, not sent: %v", cause, err, !kept)
			}
		}
	})
}

// The log has the frames, byte for byte.
func TestTrace(t *testing.T) {
	var log bytes.Buffer
	w := newWire()
	e := endpoint(w, Options{EID: bmcEID, PeerEID: nicEID, Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	e.seq.Store(3)
	body, _ := hex.DecodeString("02" + "0001000150000008" + "0000000000000000" + "00008119" + "00131900" + "ffff15ca")
	if err := e.Send(t.Context(), Message{nicAddr, mctp.Message{Dest: nicEID, Src: bmcEID, TO: true, Tag: 1, Body: body}}); err != nil {
		t.Fatal(err)
	}
	in := toBMC(t, mctp.Message{Dest: bmcEID, Src: nicEID, Body: []byte("\x02good")})
	w.queue <- in
	if _, err := e.Receive(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"i2c: frame sent" frame=640f2221011d08c902000100015000000800000000000000000000811900131900ffff15cad6`,
		`"i2c: frame received" frame=` + hex.EncodeToString(in),
	} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %s in\n%s", want, &log)
		}
	}
}

// FuzzEndpoint gives any two writes to an endpoint. A message after them comes
// through.
func FuzzEndpoint(f *testing.F) {
	m := mctp.Message{Dest: bmcEID, Src: nicEID, Body: make([]byte, 100)}
	m.Body[0] = 2
	both := frames(f, bmcAddr, nicAddr, m)
	f.Add(both[0], both[1])
	f.Add(toBMC(f, mctp.Message{Src: 0x21, TO: true, Body: []byte{0, 0x80, 1, 0, 29}}), []byte{0x20})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		w := newWire()
		e := endpoint(w, Options{EID: bmcEID})
		for _, in := range [][]byte{a, b} {
			if len(in) > 0 {
				w.queue <- in
			}
		}
		last := toBMC(t, mctp.Message{Dest: bmcEID, Src: nicEID, Tag: 7, Body: []byte("\x02last")})
		w.queue <- last
		for range 3 {
			m, err := e.Receive(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if string(m.Body) == "\x02last" {
				return
			}
		}
		t.Error("the last message is lost")
	})
}
