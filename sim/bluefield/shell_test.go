// SPDX-License-Identifier: Apache-2.0

package bluefield_test

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
)

func TestShell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, boot := ready(t, bluefield.Config{Console: true})
		if !strings.HasSuffix(boot, "\r\n"+bluefield.Prompt) {
			t.Errorf("after its boot it says %q", boot)
		}
		time.Sleep(1500 * time.Millisecond)
		for _, c := range []struct{ typed, want string }{
			{"\r", "\r\n"},
			{"echo a  b\n", "echo a  b\r\na  b\r\n"},
			{"echo\r", "echo\r\n\r\n"},
			{" echo \xe4\x00\t\x1b[A\r", " echo \xe4[A\r\n\xe4[A\r\n"},
			{"\x7fecxx\x7f\bho 1\r", "ecxx\b \b\b \bho 1\r\n1\r\n"},
			{"nonsense\x03", "nonsense^C\r\n"},
			{"uptime\r", "uptime\r\nuptime 1\r\n"},
			{"dance now\r", "dance now\r\ndance: not found\r\n"},
			{"flood\r", "flood\r\nusage: flood N\r\n"},
			{"sink -1\r", "sink -1\r\nusage: sink N\r\n"},
			{"sink 5\ra\r\n\x03bWELL", "sink 5\r\nsink 5 sha256 " + fmt.Sprintf("%x", sha256.Sum256([]byte("a\r\n\x03b"))) + "\n" + bluefield.Prompt + "WELL"},
			{"\x03", "^C\r\n"},
			{"mirror 5\ra\r\n\x03bWELL", "mirror 5\r\na\r\n\x03bmirror done\n" + bluefield.Prompt + "WELL"},
			{"\x03", "^C\r\n"},
			{"flood 0\r", "flood 0\r\nflood done\n"},
			{"flood 70\r", "flood 70\r\n00000000 abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ01\n000000flood done\n"},
		} {
			h.typ(c.typed)
			want := c.want
			if !strings.HasSuffix(want, "WELL") {
				want += bluefield.Prompt
			}
			if got := h.console(); got != want {
				t.Errorf("%q: %q, want %q", c.typed, got, want)
			}
		}
		// One character a message, as somebody types.
		for _, c := range "help\r" {
			h.typ(string(c))
		}
		got := h.console()
		if !strings.HasPrefix(got, "help\r\necho TEXT ") || strings.Count(got, "\r\n") != 8 || strings.Count(got, "\n") != 8 {
			t.Errorf("help says %q", got)
		}
		h.typ("echo " + strings.Repeat("x", 2000))
		h.typ(strings.Repeat("y", 2090) + "zz\r")
		if got := h.console(); !strings.HasSuffix(got, "yyyyy\r\n"+bluefield.Prompt) {
			t.Errorf("a line that is too long ends as %q", got[len(got)-50:])
		}
	})
}

func TestFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _ := ready(t, bluefield.Config{Console: true})
		const n = 1 << 20
		lost := h.d.TM().ConsoleOutLost // while it booted
		h.typ(fmt.Sprintf("flood %d\recho typed ahead\r", n))
		time.Sleep(24 * time.Hour) // nobody reads
		lines := bluefield.FloodText(n)
		want := fmt.Sprintf("flood %d\r\n%sflood done\n", n, lines) +
			bluefield.Prompt + "echo typed ahead\r\ntyped ahead\r\n" + bluefield.Prompt
		if got := h.console(); got != want {
			t.Errorf("got %d bytes, want %d", len(got), len(want))
		}
		for i := 0; i < n; i += 64 {
			if line := lines[i : i+64]; line[63] != '\n' || string(line[:9]) != fmt.Sprintf("%08d ", i/64) {
				t.Fatalf("line %d is %q", i/64, line)
			}
		}
		if st := h.d.TM(); st.ConsoleOutLost != lost {
			t.Errorf("%+v", st)
		}
	})
}

func TestSink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _ := ready(t, bluefield.Config{Console: true})
		r := rand.New(rand.NewPCG(1, 2))
		p := make([]byte, 1<<20)
		for i := range p {
			p[i] = byte(r.Uint32())
		}
		h.typ(fmt.Sprintf("sink %d\n", len(p)))
		for rest := p; len(rest) > 0; {
			n := min(len(rest), 1+r.IntN(2000))
			h.typ(string(rest[:n]))
			rest = rest[n:]
		}
		want := fmt.Sprintf("sink %d\r\nsink %d sha256 %x\n", len(p), len(p), sha256.Sum256(p)) + bluefield.Prompt
		if got := h.console(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestRebootFromTheShell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, boot := ready(t, bluefield.Config{Console: true})
		b := watch(h.d)
		h.typ("reboot\recho this comes to nothing\r")
		if got := h.console(); got != "reboot\r\n" {
			t.Errorf("says %q", got)
		}
		time.Sleep(time.Second)
		if left, back := b.times(); left < 0 || back < 0 {
			t.Error("was no reset")
		}
		if got := h.console(); got != boot {
			t.Errorf("boots with %q, and before with %q", got, boot)
		}
	})
}

func TestHeldConsole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire()
		h, _ := ready(t, bluefield.Config{Console: true, Net: w})
		h.d.HoldConsole(true)
		for range 1024 {
			h.typ("x")
		}
		h.typ("lost")
		h.send(to(1, "the network goes on"))
		if got := string(<-w.in); got != "the network goes on" {
			t.Errorf("frame %q", got)
		}
		if got := h.console(); got != "" {
			t.Errorf("a shell that is held says %q", got)
		}
		h.d.HoldConsole(false)
		if got := h.console(); got != strings.Repeat("x", 1024) {
			t.Errorf("then it says %q", got)
		}
		if st := h.d.TM(); st.ConsoleIn != 1024 || st.ConsoleInLost != 4 {
			t.Errorf("%+v", st)
		}
	})
}

// TestSlowShell is a shell whose output nobody reads, so that it does not read
// either: what is typed waits.
func TestSlowShell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _ := ready(t, bluefield.Config{Console: true})
		h.typ("flood 100000\r")
		typed := 0
		for h.send(to(3, "y")) {
			typed++
		}
		if st := h.d.TM(); typed < 1024 || st.ConsoleInLost != 0 {
			t.Errorf("%d typed, %+v", typed, st)
		}
		got := h.console()
		if !strings.HasSuffix(got, bluefield.Prompt+strings.Repeat("y", typed)) {
			t.Errorf("%d typed, echoed %q", typed, got[max(0, len(got)-100):])
		}
	})
}
