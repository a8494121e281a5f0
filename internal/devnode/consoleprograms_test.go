// SPDX-License-Identifier: Apache-2.0

package devnode

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluefield-go/bmc-rshim/internal/vmtest/guest"
)

// sh runs a script and returns what it prints.
func sh(t *testing.T, format string, args ...any) string {
	t.Helper()
	script := strings.ReplaceAll(fmt.Sprintf(format, args...), "CONSOLE", consolePath)
	cmd := exec.Command("timeout", "60", "sh", "-c", script)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v", script, err)
	}
	return string(out)
}

// transcript is what a program has printed so far.
type transcript struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *transcript) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *transcript) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// until waits for f.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	for range 6000 {
		if f() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("waited too long: %s", what)
}

// TestKernelConsoleShell: what scripts do.
func TestKernelConsoleShell(t *testing.T) {
	b, d, _ := serveConsole(t)
	out := sh(t, "stty -F CONSOLE raw -echo 9600 && stty -F CONSOLE -a")
	for _, want := range []string{"speed 9600 baud;", " -icrnl ", " -opost ", " -icanon ", " -echo ", " cs8 "} {
		if !strings.Contains(strings.ReplaceAll(out, "\n", " "), want) {
			t.Errorf("stty -a without %q: %s", want, out)
		}
	}
	saved := sh(t, "stty -F CONSOLE -g")
	if out := sh(t, "stty -F CONSOLE sane cols 100 rows 40 && stty -F CONSOLE %s && stty -F CONSOLE -g", strings.TrimSpace(saved)); out != saved {
		t.Errorf("stty -g: %s, want %s", out, saved)
	}
	if out := sh(t, "stty size < CONSOLE; test -t 0 < CONSOLE && echo terminal"); out != "40 100\nterminal\n" {
		t.Errorf("size: %q", out)
	}
	sh(t, "echo hello > CONSOLE; printf 'there\\n' >> CONSOLE")
	if got := b.takeTyped(t, 12); got != "hello\nthere\n" {
		t.Errorf("typed %q", got)
	}
	if guest.Lane() == "uml" { // busybox's dd has no such flag
		if out := sh(t, "dd if=CONSOLE iflag=nonblock bs=100 2>&1 || true"); !strings.Contains(out, "Resource temporarily unavailable") {
			t.Errorf("dd iflag=nonblock: %s", out)
		}
	}
	b.setEcho(true)
	if out := sh(t, "exec 3<>CONSOLE; echo marco >&3; read -r line <&3; echo got $line"); out != "got marco\n" {
		t.Errorf("conversation: %q", out)
	}
	if out := sh(t, "exec 3<>CONSOLE; echo polo >&3; dd bs=5 count=1 <&3 2>/dev/null"); out != "polo\n" {
		t.Errorf("dd: %q", out)
	}
	if out := sh(t, "timeout 1 cat CONSOLE 2>/dev/null; test $? -gt 100 && echo still reading"); !strings.HasSuffix(out, "still reading\n") {
		t.Errorf("cat: %q", out)
	}
	until(t, "closed", func() bool { return d.Console().Stats().Openers == 0 })
}

// TestKernelConsoleFlood: much in both directions at once, to two readers, with
// nothing lost, nor out of order. The DPU keeps half a ring ahead of the slower
// reader at most, lest a slow machine make it lose.
func TestKernelConsoleFlood(t *testing.T) {
	b, d, _ := serveConsole(t)
	size := 10 << 20
	if guest.Lane() == "ast2600" {
		size = 1 << 20
	}
	var text bytes.Buffer
	for i := 0; text.Len() < size; i++ {
		fmt.Fprintf(&text, "%08d %s\n", i, strings.Repeat("abcdefghij", 5))
	}
	text.Truncate(size)
	want := sha256.Sum256(text.Bytes())
	file := filepath.Join(t.TempDir(), "typed")
	if err := os.WriteFile(file, text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	var jobs sync.WaitGroup
	var progress [2]atomic.Int64
	for i := range progress {
		cat := exec.Command("cat", consolePath)
		out, err := cat.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cat.Start(); err != nil {
			t.Fatal(err)
		}
		jobs.Go(func() {
			h, p := sha256.New(), make([]byte, 64<<10)
			for progress[i].Load() < int64(size) {
				n, err := out.Read(p)
				if err != nil {
					t.Errorf("reader %d: %v after %d bytes", i, err, progress[i].Load())
					progress[i].Store(int64(size))
				}
				h.Write(p[:n])
				progress[i].Add(int64(n))
			}
			if [32]byte(h.Sum(nil)) != want {
				t.Errorf("reader %d got something else", i)
			}
			_ = cat.Process.Kill()
			_ = cat.Wait()
		})
	}
	until(t, "opened", func() bool { return d.Console().Stats().Openers == 2 })
	start := time.Now()
	jobs.Go(func() {
		if out, err := exec.Command("sh", "-c", "cat "+file+" > "+consolePath).CombinedOutput(); err != nil {
			t.Errorf("typing: %v, %s", err, out)
		}
	})
	jobs.Go(func() {
		for said := 0; text.Len() > 0; {
			p := text.Next(32 << 10)
			b.say(string(p))
			said += len(p)
			for min(progress[0].Load(), progress[1].Load()) < int64(said-128<<10) {
				time.Sleep(time.Millisecond)
			}
		}
	})
	if got := b.takeTyped(t, size); sha256.Sum256([]byte(got)) != want {
		t.Errorf("something else was typed")
	}
	jobs.Wait()
	guest.Metric(t, "console/flood", float64(size)/(1<<20)/time.Since(start).Seconds(), "MiB/s")
	if st := d.Console().Stats(); st.Lost != 0 || st.Dropped != 0 {
		t.Errorf("%+v", st)
	}
}

// TestKernelConsoleTerminals: the programs that people have. Each is typed into,
// shows what the DPU says, goes on with a DPU that comes back, and can be left.
func TestKernelConsoleTerminals(t *testing.T) {
	guest.Require(t)
	if guest.Lane() != "uml" {
		t.Skip("needs programs of the host, which only User-Mode Linux sees")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), "TERM=vt100", "SCREENDIR="+dir, "HOME="+dir)
	for _, p := range []struct {
		name, command, leave string
	}{
		{"picocom", "picocom -b 115200 CONSOLE", "\x01\x18"},
		{"screen", "screen -S test CONSOLE 115200", "\x01\\y"},
		{"minicom", "minicom -D CONSOLE", "\x01x\r"},
		{"cat", "stty -icanon -echo; trap : INT; cat CONSOLE & cat > CONSOLE; kill $!", "\x03"},
	} {
		t.Run(p.name, func(t *testing.T) {
			if _, err := exec.LookPath(p.name); err != nil {
				t.Skip(err)
			}
			b, d, detach := serveConsole(t)
			b.setEcho(true)
			cmd := exec.Command("script", "-qfec", strings.ReplaceAll(p.command, "CONSOLE", consolePath), "/dev/null")
			cmd.Env = env
			var screen transcript
			cmd.Stdout, cmd.Stderr = &screen, &screen
			keys, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- cmd.Wait() }()
			defer func() { _ = cmd.Process.Kill() }()
			until(t, "opened", func() bool { return d.Console().Stats().Openers > 0 })
			for i := range 3 {
				if i == 2 {
					detach()
					b = newDPU()
					b.setEcho(true)
					serveDPU(t, d, b)
				}
				// What it does first may flush what is said meanwhile.
				until(t, "prompt", func() bool {
					b.say(fmt.Sprintf("prompt%d\r\n", i))
					time.Sleep(100 * time.Millisecond)
					return strings.Contains(screen.String(), fmt.Sprintf("prompt%d", i))
				})
				word := fmt.Sprintf("word%d", i)
				if _, err := io.WriteString(keys, word); err != nil {
					t.Fatal(err)
				}
				until(t, "echo", func() bool { return strings.Contains(screen.String(), word) })
				if got := b.takeTyped(t, len(word)); got != word {
					t.Errorf("%q was typed", got)
				}
			}
			if st := d.Console().Stats(); st.Lost != 0 || st.Dropped != 0 {
				t.Errorf("%+v", st)
			}
			for _, c := range p.leave {
				if _, err := fmt.Fprintf(keys, "%c", c); err != nil {
					t.Fatal(err)
				}
				time.Sleep(300 * time.Millisecond)
			}
			select {
			case err := <-done:
				if err != nil {
					t.Errorf("left with %v: %q", err, &screen)
				}
			case <-time.After(time.Minute):
				t.Errorf("cannot be left: %q", &screen)
			}
			keys.Close()
			until(t, "closed", func() bool { return d.Console().Stats().Openers == 0 })
		})
	}
}
