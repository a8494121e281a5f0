// SPDX-License-Identifier: Apache-2.0

package bluefield_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
)

func TestFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire()
		h, _ := ready(t, bluefield.Config{Console: true, Net: w})
		big := strings.Repeat("f", 1518)
		h.send(to(1, "first"), msg{}, to(1, ""), to(1, big+"!"), to(1, big), to(3, "x"))
		for _, want := range []string{"first", big} {
			if got := string(<-w.in); got != want {
				t.Errorf("the network got %q", got)
			}
		}
		var want []string
		for i := range 100 {
			f := fmt.Appendf(nil, "frame %d", i)
			go func() { w.out <- f }()
			want = append(want, string(f))
			synctest.Wait()
		}
		w.out <- bytes.Repeat([]byte{1}, 1519)
		h.typ("y")
		var got []string
		console := ""
		for _, m := range h.read() {
			if m.head[0] == 1 {
				got = append(got, string(m.body))
			}
			console += text([]msg{m})
		}
		// Those that wait are in goroutines without an order.
		if len(got) != len(want) || got[0] != want[0] || got[20] != want[20] || console != "xy" {
			t.Errorf("the host got %d frames %q, console %q", len(got), got, console)
		}
		if st := h.d.TM(); st.FramesIn != 2 || st.FramesInLost != 1 || st.Bad != 1 || st.Skipped != 2 || st.FramesOut != 100 || st.FramesOutLost != 1 {
			t.Errorf("%+v", st)
		}
	})
}

// TestHostTakesNothing is a host that stops reading: frames leave room to the
// console, and are given up after 2 s, with zeros in their place.
func TestHostTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire()
		h, _ := ready(t, bluefield.Config{Console: true, Net: w})
		frame := bytes.Repeat([]byte("f"), 1500)
		begun := time.Now()
		for range 4 { // one is sent, one is under way, and two wait
			w.out <- frame
		}
		synctest.Wait()
		if n, _ := h.d.TMPending(); n != reg.TmFIFODepth-16 {
			t.Errorf("frames fill %d words", n)
		}
		w.out <- frame // when the second is given up
		if took := time.Since(begun); took != 2*time.Second {
			t.Errorf("a frame was given up after %v", took)
		}
		w.out <- frame // at once
		if took := time.Since(begun); took != 2*time.Second {
			t.Errorf("another one after %v", took)
		}
		synctest.Wait()
		words := h.words()
		h.part = words
		var zeros, frames int
		for _, m := range h.read() {
			switch {
			case m.head == [8]byte{}:
				zeros++
			case m.size() != 1500:
				t.Errorf("header % x", m.head)
			case frames == 0:
				frames++
				if !bytes.Equal(m.body, frame) {
					t.Error("the first frame is not what it was")
				}
			default:
				frames++
				if n := bytes.IndexByte(m.body, 0); n != (reg.TmFIFODepth-16-2-188)*8 {
					t.Errorf("the second frame is zeros from %d on", n)
				}
			}
		}
		// As many zeros follow as the frame has words, though some were sent.
		if frames != 2 || zeros != reg.TmFIFODepth-16-2-188 {
			t.Errorf("%d frames, %d empty words", frames, zeros)
		}
		if st := h.d.TM(); st.FramesOut != 1 || st.FramesOutLost != 5 {
			t.Errorf("%+v", st)
		}
		w.out <- []byte("alive")
		if got := h.of(1); len(got) != 1 || string(got[0].body) != "alive" {
			t.Errorf("then %q", got)
		}
	})
}

func TestConsoleBetweenFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire()
		h, _ := ready(t, bluefield.Config{Console: true, Net: w})
		go func() {
			for range 50 {
				w.out <- bytes.Repeat([]byte("f"), 1500)
			}
		}()
		h.typ("flood 10000\r")
		frames, bytes := 0, 0
		for _, m := range h.read() {
			if m.head[0] == 1 {
				frames++
			} else {
				bytes += m.size()
			}
			// Neither waits for the other to come to its end.
			if bytes > 9000 && frames < 5 || frames == 50 && bytes < 3000 {
				t.Fatalf("%d frames, %d bytes on the console", frames, bytes)
			}
		}
		if frames != 50 || bytes < 10000 {
			t.Errorf("%d frames, %d bytes on the console", frames, bytes)
		}
	})
}

// TestBadMessages sends what a host must not.
func TestBadMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _ := ready(t, bluefield.Config{Console: true})
		h.send(to(7, "Linux takes any type for the console"))
		if got := h.console(); got != "Linux takes any type for the console" {
			t.Errorf("console %q", got)
		}
		h.typ("\x03")
		h.console()
		// What is beyond 4096 bytes is taken for headers; zeros are harmless.
		h.send(to(3, strings.Repeat("\x01", 4096)+strings.Repeat("\x00", 800)), to(3, "echo\r"))
		if got := h.console(); got != "echo\r\n\r\n"+bluefield.Prompt {
			t.Errorf("console %q", got)
		}
		// Without a network frames are lost.
		h.send(to(1, "a frame"))
		if st := h.d.TM(); st.Bad != 2 || st.FramesInLost != 1 || st.Skipped != 100 {
			t.Errorf("%+v", st)
		}
		// UEFI loses step from 1536 bytes on.
		h, _ = ready(t, bluefield.Config{Console: true, NICMode: true})
		h.send(to(3, strings.Repeat("\x00", 1536)), to(3, "setup"), to(1, "a frame"), to(9, "nine"), control(0xfd))
		if st := h.d.TM(); st.Skipped != 192 || st.Bad != 2 || st.ConsoleInLost != 5 || st.FramesInLost != 1 || st.Control != 1 {
			t.Errorf("%+v", st)
		}
		if got := h.of(0xfc); len(got) != 1 {
			t.Errorf("UEFI answers %q", got)
		}
	})
}

// TestResetWithTraffic resets a DPU in the midst of everything.
func TestResetWithTraffic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire()
		h, _ := ready(t, bluefield.Config{Console: true, Net: w})
		h.typ("flood 1000000\r")
		w.out <- bytes.Repeat([]byte("f"), 1500)
		w.out <- bytes.Repeat([]byte("f"), 1500)
		h.send(msg{head: [8]byte{1, 1, 0}}) // a header without its payload
		h.d.Reset()
		time.Sleep(time.Second)
		h.console()
		h.typ("echo up\r")
		if got := h.console(); got != "echo up\r\nup\r\n"+bluefield.Prompt {
			t.Errorf("console %q", got)
		}
		w.out <- []byte("up")
		if got := h.of(1); len(got) != 1 || string(got[0].body) != "up" {
			t.Errorf("frames %q", got)
		}
	})
}
