// SPDX-License-Identifier: Apache-2.0

package guest_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	vmguest "github.com/bluefield-go/bmc-rshim/internal/vmtest/guest"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
)

var generation = map[string]reg.Generation{"bf2": reg.BlueField2, "bf3": reg.BlueField3}

const consoleNode = "/dev/rshim0/console"

// console is an open console.
type console struct {
	r    *rig
	f    *os.File
	done chan struct{} // closed when reading has ended

	mu  sync.Mutex
	out bytes.Buffer // what the DPU has printed since
	err error
}

// openConsole opens the console and reads it until the end of the test.
func (r *rig) openConsole() *console {
	r.t.Helper()
	f, err := os.OpenFile(consoleNode, os.O_RDWR, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	c := &console{r: r, f: f, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		buf := make([]byte, 64<<10)
		for {
			n, err := f.Read(buf)
			c.mu.Lock()
			c.out.Write(buf[:n])
			c.err = err
			c.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	r.t.Cleanup(func() {
		f.Close()
		<-c.done
		if err := c.failure(); err != nil && !errors.Is(err, os.ErrClosed) {
			r.t.Errorf("console: %v", err)
		}
	})
	return c
}

func (c *console) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// text returns what has been printed from an offset on.
func (c *console) text(from int) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.out.Bytes()[from:])
}

func (c *console) length() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.Len()
}

// await waits for output that contains text, after an offset.
func (c *console) await(from int, text string) {
	c.r.t.Helper()
	c.r.until(fmt.Sprintf("%q on the console", text), func() bool {
		if err := c.failure(); err != nil {
			c.r.t.Fatalf("console: %v", err)
		}
		return strings.Contains(c.text(from), text)
	})
}

// typed types text.
func (c *console) typed(text string) {
	c.r.t.Helper()
	if _, err := c.f.WriteString(text); err != nil {
		c.r.t.Fatal(err)
	}
}

// shell waits for the DPU's shell to obey.
func (c *console) shell() {
	c.r.t.Helper()
	c.r.until("the DPU's shell", func() bool {
		from := c.length()
		c.typed("echo shell-up\r")
		time.Sleep(300 * time.Millisecond)
		return strings.Contains(c.text(from), "\r\nshell-up\r\n")
	})
}

// TestConsole uses one console, opened once, through everything that happens to
// a DPU.
func TestConsole(t *testing.T) {
	for _, gen := range generations {
		t.Run(gen, func(t *testing.T) {
			r := newRig(t, "-generation", gen)
			r.stage("ready")
			a, b := r.openConsole(), r.openConsole()
			for _, what := range []struct {
				name string
				do   func()
			}{
				{"at first", func() {}},
				{"after a reset", r.swReset},
				{"after replugging", func() {
					r.control("unplug 0")
					r.until("the DPU to be gone", func() bool { return onBus(t) == 0 })
					r.control("plug 0")
				}},
				{"after a push", func() {
					r.mustRun("bmc-rshim push -q -wait streamed " + small(t))
				}},
			} {
				what.do()
				r.until("rshim0 to be attached", func() bool { return strings.Contains(misc(), "DEV_INFO ") })
				r.stage("ready")
				a.shell()
				// What one types, both see.
				from := b.length()
				a.typed("echo " + what.name + "\r")
				a.await(0, "\r\n"+what.name+"\r\n")
				b.await(from, "\r\n"+what.name+"\r\n")
			}
			// A shell's redirect, and who comes late and wants to see the past.
			out := r.mustRun("printf 'echo redirected\\r' > " + consoleNode + "; bmc-rshim console -q -replay -linger 5s < /dev/null")
			a.await(0, "\r\nredirected\r\n")
			if !strings.Contains(out, "after replugging") {
				t.Errorf("-replay shows %d bytes: %.500q", len(out), out)
			}
		})
	}
}

// TestConsoleR13 types 10 MB while as much is printed, a push runs to the
// running system, and pings are answered; nothing may be lost or reordered.
func TestConsoleR13(t *testing.T) {
	umlOnly(t)
	const size = 10 << 20
	for _, gen := range generations {
		t.Run(gen, func(t *testing.T) {
			r := newRig(t, "-generation", gen, "-net", "echo")
			r.stage("ready")
			r.addressed()
			c, second := r.openConsole(), r.openConsole()
			c.shell()
			r.until("the network", func() bool { _, code := sh(t, "ping -c 1 -W 1 "+dpuIP); return code == 0 })

			// A push that leaves the DPU running: its system is told to read.
			r.mustRun("echo BOOT_RESET_SKIP 1 > /dev/rshim0/misc")
			regs := reg.For(generation[gen])
			r.control("write 0 %d %#x 4", regs.Scratchpad2.Channel, regs.Scratchpad2.Offset)
			r.control("write 0 %d %#x 4", regs.SWInt.Channel, regs.SWInt.Offset)

			typed := random(size)
			from, second0 := c.length(), second.length()
			c.typed(fmt.Sprintf("mirror %d\r", size))
			c.await(from, "\n")
			from += strings.Index(c.text(from), "\n") + 1
			before := r.lost() // in the boot, before anybody listened
			push := start(t, "sh", "-c", "cat "+image+" > /dev/rshim0/boot")
			ping := start(t, "ping", "-i", "0.2", dpuIP)
			begin := time.Now()
			go func() { _, _ = c.f.Write(typed) }()
			for end := time.Now().Add(10 * time.Minute); !strings.Contains(tail(c, from, size), "mirror done"); time.Sleep(100 * time.Millisecond) {
				if time.Now().After(end) || c.failure() != nil {
					t.Fatalf("%d of %d bytes have come back: %v\n%s", c.length()-from, size, c.failure(), r.control("state 0"))
				}
			}
			took := time.Since(begin)
			vmguest.Metric(t, "console_both_ways_"+gen, 2*size/1e6/took.Seconds(), "MB/s")

			for name, got := range map[string]string{"first": c.text(from), "second": second.text(second0)} {
				i := strings.Index(got, string(typed[:64]))
				if i < 0 || len(got) < i+size || got[i:i+size] != string(typed) {
					t.Errorf("%s reader: what was printed is not what was typed (found at %d of %d)", name, i, len(got))
				}
			}
			<-push.done
			if push.err != nil {
				t.Errorf("push: %v", push.err)
			}
			r.arrived(image)
			_ = ping.cmd.Process.Signal(os.Interrupt)
			<-ping.done
			// The signal may come while an answer is under way.
			out := ping.output()
			sent := pingSent.FindStringSubmatch(out)
			if answers, gap := answered(out); sent == nil || gap || number(t, sent[1])-answers > 2 {
				t.Errorf("pings: %d answers, with a gap: %t\n%s", answers, gap, out[max(0, len(out)-300):])
			}
			if after := r.lost(); after != before {
				t.Errorf("the DPU lost something: %s, before: %s", after, before)
			}
		})
	}
}

// lost is what of the TMFIFO's traffic the DPU counts as lost or damaged.
func (r *rig) lost() string {
	r.t.Helper()
	var counts []string
	for f := range strings.FieldsSeq(r.control("state 0")) {
		if strings.Contains(f, "-lost=") || strings.HasPrefix(f, "bad=") || strings.HasPrefix(f, "tm-overflow=") {
			counts = append(counts, f)
		}
	}
	return strings.Join(counts, " ")
}

// tail is the last of the output, if at least n bytes have come since from.
func tail(c *console, from, n int) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.out.Bytes()[from:]
	if len(b) < n {
		return ""
	}
	return string(b[max(0, len(b)-64):])
}

// random returns bytes as they may be typed and printed, with no line that
// looks like the next.
func random(n int) []byte {
	rnd := rand.New(rand.NewPCG(1, uint64(n)))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(' ' + rnd.IntN(95))
	}
	return b
}

// TestConsoleFlood lets the DPU print as fast as it can into a program that
// reads.
func TestConsoleFlood(t *testing.T) {
	for _, gen := range generations {
		t.Run(gen, func(t *testing.T) {
			r := newRig(t, "-generation", gen)
			r.stage("ready")
			c := r.openConsole()
			c.shell()
			size := 1 << 20
			if vmguest.Lane() != "uml" {
				size /= 4
			}
			from := c.length()
			begin := time.Now()
			c.typed(fmt.Sprintf("flood %d\r", size))
			c.await(from, "flood done")
			vmguest.Metric(t, "console_flood_"+gen, float64(size)/1e6/time.Since(begin).Seconds(), "MB/s")
			if !strings.Contains(c.text(from), string(bluefield.FloodText(size))+"flood done") {
				t.Errorf("%d bytes came, which are not what was printed", c.length()-from)
			}
		})
	}
}

// TestTerminalPrograms uses the console as people do, through the programs that
// they have, each on a terminal of its own.
func TestTerminalPrograms(t *testing.T) {
	umlOnly(t)
	r := newRig(t)
	r.stage("ready")
	r.openConsole().shell()
	dir := t.TempDir()
	t.Setenv("SCREENDIR", dir)
	t.Setenv("TERM", "xterm")
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, p := range []struct{ name, command, leave string }{
		{"picocom", "picocom --noreset --quiet " + consoleNode, "\x01\x18"},                  // C-a C-x
		{"screen", "screen -S rshim " + consoleNode, "\x01ky"},                               // C-a k, yes
		{"bmc-rshim", "bmc-rshim console", "\r~."},                                           //
		{"stty and cat", "stty raw -echo < " + consoleNode + "; cat " + consoleNode, "\x03"}, // ^C
	} {
		t.Run(p.name, func(t *testing.T) {
			if name := strings.Fields(p.command)[0]; name != "stty" {
				if _, err := exec.LookPath(name); err != nil {
					t.Fatal(err)
				}
			}
			r := r.in(t)
			log := filepath.Join(t.TempDir(), "typescript")
			word := strings.Fields(p.name)[0]
			keys, typed, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer typed.Close()
			cmd := exec.Command("script", "-q", "-e", "-f", "-c", p.command, log)
			cmd.Stdin = keys
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			keys.Close()
			done := make(chan error, 1)
			go func() { done <- cmd.Wait() }()
			shows := func(text string) func() bool {
				return func() bool { b, _ := os.ReadFile(log); return bytes.Contains(b, []byte(text)) }
			}
			// The echo of what is typed has "echo " before it.
			answer := func() bool { return shows("\rfrom-"+word)() || shows("\nfrom-"+word)() }
			if p.name == "stty and cat" { // which does not type
				r.until("cat to show what it reads", func() bool {
					sh(t, "printf 'echo from-"+word+"\\r' > "+consoleNode)
					time.Sleep(300 * time.Millisecond)
					return answer()
				})
			} else {
				r.until("the DPU's prompt", func() bool {
					_, _ = typed.WriteString("\r")
					time.Sleep(300 * time.Millisecond)
					return shows(bluefield.Prompt)()
				})
				_, _ = typed.WriteString("echo from-" + word + "\r")
			}
			r.until("the DPU's answer", answer)
			_, _ = typed.WriteString(p.leave)
			select {
			case <-done:
			case <-time.After(patience):
				b, _ := os.ReadFile(log)
				t.Errorf("%s does not end: %q", p.name, b)
				_ = cmd.Process.Kill()
				<-done
			}
		})
	}
}
