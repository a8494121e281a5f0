// SPDX-License-Identifier: Apache-2.0

package ncsimctp_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/mctp"
	"github.com/bluefield-go/bmc-rshim/mctp/ncsimctp"
	"github.com/bluefield-go/bmc-rshim/ncsi"
)

const peer mctp.EID = 0x1d

// link answers each request with the messages that its function returns, one a
// moment.
type link func(command ncsi.Packet) []mctp.Message

func (l link) Exchange(ctx context.Context, body []byte, take func(mctp.Message) bool) error {
	if body[0] != byte(mctp.NCSI) {
		return errors.New("not NC-SI")
	}
	command, sum, err := ncsi.Parse(body[1:])
	if err != nil || sum != ncsi.ChecksumOK {
		return errors.Join(err, errors.New("checksum "+sum.String()))
	}
	for _, m := range l(command) {
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
		if take(m) {
			return nil
		}
	}
	<-ctx.Done()
	return ctx.Err()
}

// response is the message that answers a command, after change.
func response(command ncsi.Packet, change func(*mctp.Message, *ncsi.Packet)) mctp.Message {
	p := ncsi.Packet{IID: command.IID, Type: command.Type.Response(), Channel: command.Channel, Payload: []byte("\x00\x00\x00\x00done")}
	m := mctp.Message{Dest: 8, Src: peer}
	if change != nil {
		change(&m, &p)
	}
	m.Body, _ = p.Append(append(m.Body, byte(mctp.NCSI)))
	return m
}

func answer(changes ...func(*mctp.Message, *ncsi.Packet)) link {
	return func(command ncsi.Packet) (all []mctp.Message) {
		for _, c := range changes {
			all = append(all, response(command, c))
		}
		return all
	}
}

// spoiled answers with a response whose bytes are changed.
func spoiled(change func(b []byte) []byte) link {
	return func(command ncsi.Packet) []mctp.Message {
		m := response(command, nil)
		m.Body = change(m.Body)
		return []mctp.Message{m}
	}
}

func do(l link) ([]byte, error) {
	tr := ncsimctp.New(l, ncsimctp.Options{Peer: peer})
	return tr.Do(context.Background(), 0x1f, ncsi.OEM, []byte("\x00\x00\x81\x19\x00\x13\x19\x00"))
}

// checksum returns the last four bytes.
func checksum(b []byte) []byte { return b[len(b)-4:] }

// One wrong message comes; what answers is taken, and what does not is not.
func TestMatching(t *testing.T) {
	for _, tt := range []struct {
		name string
		link link
		want string // in the error's text; "": taken
	}{
		{"response", answer(nil), ""},
		{"zero checksum", spoiled(func(b []byte) []byte { clear(checksum(b)); return b }), ""},
		{"no checksum", spoiled(func(b []byte) []byte { return b[:len(b)-4] }), ""},
		{"bytes behind it", spoiled(func(b []byte) []byte { return append(b, 1, 2, 3) }), ""},
		{"other channel", answer(func(_ *mctp.Message, p *ncsi.Packet) { p.Channel = 0 }), ""},
		{"bad checksum", spoiled(func(b []byte) []byte { checksum(b)[3] ^= 1; return b }), "checksum"},
		{"length beyond the end", spoiled(func(b []byte) []byte { b[1+7] = 255; return b }), "payload"},
		{"cut off", spoiled(func(b []byte) []byte { return b[:9] }), "bytes"},
		{"type alone", spoiled(func(b []byte) []byte { return b[:1] }), "bytes"},
		{"nothing at all", spoiled(func([]byte) []byte { return nil }), "timeout"},
		{"integrity check", spoiled(func(b []byte) []byte { b[0] |= 0x80; return b }), "message type"},
		{"other type", spoiled(func(b []byte) []byte { b[0] = 1; return b }), "message type"},
		{"other endpoint", answer(func(m *mctp.Message, _ *ncsi.Packet) { m.Src++ }), "EID"},
		{"request", answer(func(m *mctp.Message, _ *ncsi.Packet) { m.TO = true }), "request"},
		{"other IID", answer(func(_ *mctp.Message, p *ncsi.Packet) { p.IID++ }), "instance ID"},
		{"command", answer(func(_ *mctp.Message, p *ncsi.Packet) { p.Type = ncsi.OEM }), "instead of OEM response"},
		{"other command", answer(func(_ *mctp.Message, p *ncsi.Packet) { p.Type = ncsi.PLDM.Response() }), "instead of OEM response"},
		{"AEN", answer(func(_ *mctp.Message, p *ncsi.Packet) { p.Type, p.IID = ncsi.AEN, 0 }), "instead of OEM response"},
		{"nothing", answer(), "timeout"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				got, err := do(tt.link)
				if tt.want == "" {
					if err != nil || string(got) != "\x00\x00\x00\x00done" {
						t.Errorf("%q, %v", got, err)
					}
					return
				}
				if !errors.Is(err, os.ErrDeadlineExceeded) || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%v, want a timeout because of %q", err, tt.want)
				}
				if d := time.Since(began); d != ncsimctp.DefaultTimeout {
					t.Errorf("after %v", d)
				}
			})
		})
	}
}

// The response is found behind all that is none.
func TestGoesOnWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got, err := do(answer(
			func(m *mctp.Message, _ *ncsi.Packet) { m.Src++ },
			func(_ *mctp.Message, p *ncsi.Packet) { p.Type, p.IID = ncsi.AEN, 0 },
			func(_ *mctp.Message, p *ncsi.Packet) { p.IID--; p.Payload = []byte("late") },
			nil,
			func(_ *mctp.Message, p *ncsi.Packet) { p.Payload = []byte("twice") },
		))
		if err != nil || string(got) != "\x00\x00\x00\x00done" {
			t.Errorf("%q, %v", got, err)
		}
	})
}

// Without a peer any endpoint's response is taken.
func TestAnyPeer(t *testing.T) {
	tr := ncsimctp.New(answer(nil), ncsimctp.Options{})
	if _, err := tr.Do(t.Context(), 0, ncsi.OEM, nil); err != nil {
		t.Error(err)
	}
}

func TestIIDs(t *testing.T) {
	var got []uint8
	tr := ncsimctp.New(link(func(command ncsi.Packet) []mctp.Message {
		got = append(got, command.IID)
		return []mctp.Message{response(command, nil)}
	}), ncsimctp.Options{})
	seen := make(map[uint8]bool)
	for range 255 {
		if _, err := tr.Do(t.Context(), 0, ncsi.OEM, nil); err != nil {
			t.Fatal(err)
		}
		seen[got[len(got)-1]] = true
	}
	if len(seen) != 255 || seen[0] {
		t.Errorf("%d instance IDs of 255, %v", len(seen), got)
	}
	if _, err := tr.DoIID(t.Context(), 77, 0, ncsi.OEM, nil); err != nil || got[255] != 77 {
		t.Errorf("%d instead of 77, %v", got[255], err)
	}
	// Two programs begin at different places, all but once in 255 times.
	first := make(map[uint8]bool)
	for range 20 {
		first[ncsimctp.New(nil, ncsimctp.Options{}).NextIID()] = true
	}
	if len(first) < 3 {
		t.Errorf("20 transports begin with %v", first)
	}
}

func TestErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		tr := ncsimctp.New(link(func(ncsi.Packet) []mctp.Message { cancel(); return nil }), ncsimctp.Options{Timeout: time.Hour})
		if _, err := tr.Do(ctx, 0, ncsi.OEM, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
		if _, err := tr.Do(t.Context(), 0, ncsi.OEM, make([]byte, ncsi.MaxPayload+1)); err == nil {
			t.Error("too long: no error")
		}
		tr = ncsimctp.New(answer(), ncsimctp.Options{Timeout: time.Hour})
		soon, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := tr.Do(soon, 0, ncsi.OEM, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the context's deadline: %v", err)
		}
		broken := errors.New("broken")
		tr = ncsimctp.New(failing{broken}, ncsimctp.Options{})
		if _, err := tr.Do(t.Context(), 0, ncsi.OEM, nil); !errors.Is(err, broken) || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the link's error: %v", err)
		}
	})
}

type failing struct{ err error }

func (f failing) Exchange(context.Context, []byte, func(mctp.Message) bool) error { return f.err }

// One command is under way at a time, and who waits for its turn waits no
// longer than its timeout.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		under := 0
		tr := ncsimctp.New(link(func(command ncsi.Packet) []mctp.Message {
			if under++; under > 1 {
				t.Error("two commands at a time")
			}
			defer func() { under-- }()
			time.Sleep(600 * time.Millisecond)
			return []mctp.Message{response(command, nil)}
		}), ncsimctp.Options{})
		errs := make(chan error)
		for range 3 {
			go func() {
				_, err := tr.Do(t.Context(), 0, ncsi.OEM, nil)
				errs <- err
			}()
		}
		var ok, late int
		for range 3 {
			switch err := <-errs; {
			case err == nil:
				ok++
			case errors.Is(err, os.ErrDeadlineExceeded):
				late++
			default:
				t.Error(err)
			}
		}
		if ok != 1 || late != 2 {
			t.Errorf("%d answered, %d too late", ok, late)
		}
	})
}

// The log has the packets, byte for byte.
func TestTrace(t *testing.T) {
	var out bytes.Buffer
	tr := ncsimctp.New(answer(nil), ncsimctp.Options{
		Peer:   peer,
		Logger: slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if _, err := tr.DoIID(t.Context(), 1, 0, ncsi.OEM, []byte("\x00\x00\x81\x19\x00\x13\x19\x00")); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"eid=29", "020001000150000008000000000000000000008119" + "00131900ffff15ca", "02000100" + "01d0"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %s in\n%s", want, &out)
		}
	}
}
