// SPDX-License-Identifier: Apache-2.0

package bluefield_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
)

// msg is a message on the TMFIFO: its header's eight bytes, and its payload.
type msg struct {
	head [8]byte
	body []byte
}

func (m msg) size() int { return int(binary.BigEndian.Uint16(m.head[1:])) }

// words is the message as it goes over the FIFO.
func (m msg) words() (w []uint64) {
	p := append(m.head[:], m.body...)
	for p = append(p, make([]byte, -len(p)&7)...); len(p) > 0; p = p[8:] {
		w = append(w, binary.LittleEndian.Uint64(p))
	}
	return w
}

// to makes a message for the DPU.
func to(typ byte, body string) msg {
	m := msg{head: [8]byte{typ}, body: []byte(body)}
	binary.BigEndian.PutUint16(m.head[1:], uint16(len(body)))
	return m
}

// host is the host's end of a TMFIFO. It reads when it is told to.
type host struct {
	t    *testing.T
	d    *bluefield.DPU
	part []uint64 // of a message
}

// words reads all that the DPU sends without time passing.
func (h *host) words() (all []uint64) {
	buf := make([]uint64, 2*reg.TmFIFODepth)
	for {
		synctest.Wait()
		n, _ := h.d.TMRead(buf)
		if n == 0 {
			return all
		}
		all = append(all, buf[:n]...)
	}
}

// read is words, taken apart.
func (h *host) read() (msgs []msg) {
	h.part = append(h.part, h.words()...)
	for len(h.part) > 0 {
		var m msg
		binary.LittleEndian.PutUint64(m.head[:], h.part[0])
		n := (m.size() + 7) / 8
		if 1+n > len(h.part) {
			break
		}
		for _, w := range h.part[1 : 1+n] {
			m.body = binary.LittleEndian.AppendUint64(m.body, w)
		}
		m.body = m.body[:m.size()]
		h.part = h.part[1+n:]
		msgs = append(msgs, m)
	}
	return msgs
}

// of is read, and keeps the messages of one type.
func (h *host) of(typ byte) (msgs []msg) {
	return slices.DeleteFunc(h.read(), func(m msg) bool { return m.head[0] != typ })
}

// console is read, and returns the text.
func (h *host) console() string { return text(h.of(3)) }

func text(msgs []msg) string {
	var b strings.Builder
	for _, m := range msgs {
		if m.head[0] == 3 {
			b.Write(m.body)
		}
	}
	return b.String()
}

// send gives the DPU messages; false when it does not take them.
func (h *host) send(msgs ...msg) bool {
	for _, m := range msgs {
		for w := m.words(); len(w) > 0; {
			n, _ := h.d.TMWrite(w)
			if w = w[n:]; n == 0 {
				return false
			}
			synctest.Wait()
		}
	}
	return true
}

func (h *host) typ(text string) {
	h.t.Helper()
	if !h.send(to(3, text)) {
		h.t.Fatalf("%q was not taken", text)
	}
}

// during reads every millisecond, for so long.
func (h *host) during(span time.Duration) (msgs []msg) {
	for end := time.Now().Add(span); time.Now().Before(end); time.Sleep(time.Millisecond) {
		msgs = append(msgs, h.read()...)
	}
	return append(msgs, h.read()...)
}

// ready starts a DPU, lets it boot, and reads what it has said.
func ready(t *testing.T, cfg bluefield.Config) (*host, string) {
	t.Helper()
	h := &host{t: t, d: start(t, cfg)}
	if err := h.d.WaitStage(t.Context(), bluefield.StageReady); err != nil {
		t.Fatal(err)
	}
	return h, h.console()
}

// wire is a network: what the host sent goes to in, what is put into out goes
// to the host.
type wire struct{ in, out chan []byte }

func newWire() wire { return wire{make(chan []byte, 1000), make(chan []byte)} }

func (w wire) Write(p []byte) (int, error) {
	w.in <- bytes.Clone(p)
	return len(p), nil
}

func (w wire) Read(p []byte) (int, error) {
	f, ok := <-w.out
	if !ok {
		return 0, io.EOF
	}
	return copy(p, f), nil
}

func (w wire) Close() error {
	close(w.out)
	return nil
}

// TestBootOnConsole follows the framing of each of the DPU's software.
func TestBootOnConsole(t *testing.T) {
	for _, g := range []reg.Generation{reg.BlueField2, reg.BlueField3} {
		synctest.Test(t, func(t *testing.T) {
			h := &host{t: t, d: start(t, bluefield.Config{Generation: g, Console: true, StageScale: 1})}
			var msgs []msg
			for h.d.Stage() != bluefield.StageReady {
				msgs = append(msgs, h.during(50*time.Millisecond)...)
			}
			var want strings.Builder
			for line := range strings.Lines(log(t, h.d)) {
				if line = strings.TrimSpace(line); !strings.HasPrefix(line, "INFO[PSC]") {
					want.WriteString(line + "\r\n")
				}
			}
			// The whole log does not fit into the log ring.
			if got := text(msgs); !strings.HasPrefix(got, want.String()) || !strings.HasSuffix(got, "\r\nINFO[MISC]: Linux up\r\nINFO[MISC]: DPU is ready\r\n"+bluefield.Prompt) {
				t.Errorf("console %q, log %q", got, want.String())
			}
			var sizes [3][]int // ATF, UEFI, Linux
			at, fill := 0, 0
			for _, m := range msgs {
				switch {
				case m.head == [8]byte{1}:
					fill++
					at = 1
				case bytes.HasPrefix(m.body, []byte("INFO[MISC]")):
					at = 2
					fallthrough
				default:
					sizes[at] = append(sizes[at], m.size())
				}
			}
			if fill != 192 {
				t.Errorf("UEFI began with %d empty messages, want 192", fill)
			}
			first := slices.IndexFunc(sizes[0], func(n int) bool { return n < 8 })
			if first < 3 || slices.ContainsFunc(sizes[0][first+1:], func(n int) bool { return n != 1 }) {
				t.Errorf("ATF's messages have sizes %d", sizes[0])
			}
			if n := strings.Count(text(msgs), "[UEFI]"); len(sizes[1]) != n {
				t.Errorf("%d messages for %d lines of UEFI", len(sizes[1]), n)
			}
			if st := h.d.TM(); st.ConsoleOut != int64(len(text(msgs))) || st.ConsoleOutLost != 0 {
				t.Errorf("%+v for %d bytes", st, len(text(msgs)))
			}
		})
	}
}

func TestBootWithNobodyReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{t: t, d: start(t, bluefield.Config{Console: true, StageScale: 1})}
		if err := h.d.WaitStage(t.Context(), bluefield.StageReady); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n, _ := h.d.TMPending(); n < reg.TmFIFODepth-2 {
			t.Errorf("%d words in the FIFO", n)
		}
		lost := h.d.TM().ConsoleOutLost
		got := h.console()
		if lost == 0 || !strings.HasPrefix(got, "INFO[BL2]: start\r\n") || !strings.HasSuffix(got, "DPU is ready\r\n"+bluefield.Prompt) {
			t.Errorf("%d bytes lost, %q", lost, got)
		}
	})
}

func TestNobodyReadsBeforeUEFI(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire()
		h, _ := ready(t, bluefield.Config{Console: true, Net: w})
		bootRShim(t, h.d)
		synctest.Wait()
		for h.send(to(3, "echo too early\r")) {
		}
		if v := read(h.d, h.d.Map().TmHostToTileSts); v != reg.TmFIFODepth {
			t.Errorf("%d words in the FIFO, want it full", v)
		}
		w.out <- []byte("a frame to a host that is not there")
		push(t, h.d, image(t, 4096, ""))
		h.during(2 * time.Second) // the installer's Linux is up
		if v := read(h.d, h.d.Map().TmHostToTileSts); v != 0 {
			t.Errorf("%d words in the FIFO, want none", v)
		}
		if err := h.d.WaitStage(t.Context(), bluefield.StageReady); err != nil {
			t.Fatal(err)
		}
		h.console()
		if st := h.d.TM(); st.ConsoleInLost == 0 || st.FramesOutLost != 1 || st.FramesOut != 0 {
			t.Errorf("%+v", st)
		}
		h.typ("echo up\r")
		if got := h.console(); got != "echo up\r\nup\r\n"+bluefield.Prompt {
			t.Errorf("console %q", got)
		}
	})
}

func TestStuckBoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := start(t, bluefield.Config{Console: true, FailAfter: "VDDQ", FailLine: "ERR[BL2]: DDR init fail on MSS0"})
		h := &host{t: t, d: d}
		time.Sleep(time.Second)
		if got := h.console(); d.Stage() != bluefield.StageStuck || !strings.HasSuffix(got, "mV\r\nERR[BL2]: DDR init fail on MSS0\r\n") {
			t.Errorf("stage %v, console %q", d.Stage(), got)
		}
		for h.send(to(1, "nobody reads this")) {
		}
	})
}

func TestOnTMReplacesTheSoftware(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got := 0
		d := start(t, bluefield.Config{Console: true, OnTM: func(w []uint64) { got += len(w) }})
		h := &host{t: t, d: d}
		time.Sleep(time.Second)
		h.send(to(3, "echo\r"))
		if w := h.words(); got != 2 || len(w) != 0 {
			t.Errorf("OnTM got %d words, the host %d", got, len(w))
		}
	})
}

// control is a control message with its checksum.
func control(typ byte, args ...byte) msg {
	m := msg{head: [8]byte{typ}}
	copy(m.head[3:], args)
	for _, b := range m.head[:7] {
		m.head[7] -= b
	}
	return m
}

func TestControlMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _ := ready(t, bluefield.Config{Console: true})
		ask := func() []msg {
			h.send(control(0xfd))
			return h.read()
		}
		want := []msg{
			control(0xfe, 0x00, 0x1a, 0xca), control(0xff, 0xff, 0xff, 0x01),
			control(0xfb), control(0xfc),
		}
		equal := func(a, b msg) bool { return a.head == b.head }
		if got := ask(); !slices.EqualFunc(got, want, equal) {
			t.Errorf("answered % x, want % x", got, want)
		}
		bad := control(0xfe, 9, 9, 9)
		bad.head[7]++
		unchecked := control(0xff, 4, 5, 6)
		unchecked.head[7] = 0
		h.send(control(0xfe, 2, 2, 3), unchecked, bad, control(0xfb, 0x0f, 0xfe, 0x00, 0x02), control(0xfc, 0x12, 0x34, 0x56, 0x78))
		h.d.Reset() // which none of it minds
		time.Sleep(time.Second)
		h.console()
		want = []msg{
			control(0xfe, 2, 2, 3), control(0xff, 4, 5, 6),
			control(0xfb, 0x0f, 0xfe, 0x00, 0x02), control(0xfc, 0x12, 0x34, 0x56, 0x78),
		}
		if got := ask(); !slices.EqualFunc(got, want, equal) {
			t.Errorf("answered % x, want % x", got, want)
		}
		st := h.d.TM()
		if st.MAC != [6]byte{2, 2, 3, 4, 5, 6} || st.PXEID != 0x78563412 || st.VLAN != [2]uint16{4094, 2} || st.Control != 6 || st.Bad != 1 {
			t.Errorf("%+v", st)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		h, _ := ready(t, bluefield.Config{Console: true, UpstreamKernel: true})
		h.send(control(0xfd))
		if got := h.read(); len(got) != 0 {
			t.Errorf("an upstream kernel answers % x", got)
		}
	})
}

func TestInjection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _ := ready(t, bluefield.Config{Console: true})
		h.d.NoiseTM(1000)
		h.d.NoiseTM(1000)
		noise := h.words()
		if len(noise) != 2000 || slices.Equal(noise[:1000], noise[1000:]) || !slices.Contains(noise, 0) {
			t.Errorf("%d words of noise", len(noise))
		}
		h.d.HalfTM(false)
		h.d.HalfTM(true)
		h.typ("echo\r")
		msgs := h.read()
		if len(msgs) < 2 || msgs[0].head != [8]byte{1, 2, 0} || !strings.HasPrefix(string(msgs[0].body), "half a message; half") {
			t.Fatalf("%q", msgs)
		}
		// The halves are a word short of the whole: the end of it is lacking
		// the header. The console follows, in as many messages as it likes.
		if got := text(msgs); got != "echo\r\n\r\n"+bluefield.Prompt {
			t.Errorf("console %q", got)
		}
	})
}

func TestDirtyHeaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _ := ready(t, bluefield.Config{Console: true, DirtyHeaders: true})
		h.typ("echo 1\r")
		msgs := h.of(3)
		if text(msgs) != "echo 1\r\n1\r\n"+bluefield.Prompt {
			t.Errorf("console %q", text(msgs))
		}
		for _, m := range msgs {
			if [5]byte(m.head[3:]) == [5]byte{} {
				t.Errorf("clean header % x", m.head)
			}
		}
	})
}
