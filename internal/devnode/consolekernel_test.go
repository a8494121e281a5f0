// SPDX-License-Identifier: Apache-2.0

package devnode

import (
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bluefield-go/bmc-rshim/internal/vmtest/guest"
	"github.com/bluefield-go/bmc-rshim/rshim"
)

const consolePath = "/dev/rshim0/console"

// serveConsole has the nodes of an attached device there, with a kernel below
// and a DPU behind them, until detach.
func serveConsole(t *testing.T) (b *dpu, d *rshim.Device, detach func()) {
	t.Helper()
	guest.Require(t)
	b, d = newDPU(), rshim.New(0, rshim.Options{})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, d, Options{}) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(time.Minute):
			t.Error("Run does not end")
		}
	})
	detach = serveDPU(t, d, b)
	for range 1000 {
		if _, err := os.Stat(consolePath); err == nil {
			return b, d, detach
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("no node")
	return nil, nil, nil
}

// startOpen starts a program that has opened the console.
func startOpen(t *testing.T, flags int) *program {
	t.Helper()
	p := startProgram(t)
	p.want("open", "open %s %d", consolePath, flags)
	return p
}

// TestKernelConsoleIoctls: what the kernel and package cuse make of them. Each
// moves as many bytes as it should, and no more.
func TestKernelConsoleIoctls(t *testing.T) {
	b, _, _ := serveConsole(t)
	p := startOpen(t, unix.O_RDWR)
	const termios = "40010000" + "05000000" + "b21c0000" + "338a0000" + // INIT of the C daemon
		"00" + "031c7f150400010011131a00120f17160000" + "00"
	zero := func(n int) string { return hex.EncodeToString(make([]byte, n)) }
	p.want(termios+zero(12), "data %#x %s", unix.TCGETS, zero(48))
	p.want(termios+"00c20100"+"00c20100"+zero(4), "data %#x %s", uint32(unix.TCGETS2), zero(48))
	changed := "01020304" + termios[8:]
	p.want(changed, "data %#x %s", unix.TCSETS, changed)
	p.want(changed, "data %#x %s", unix.TCGETS, zero(36))
	p.want(termios+"00c20100"+"00c20100", "data %#x %s", unix.TCSETSF2, termios+"00c20100"+"00c20100")
	p.want(termios, "data %#x %s", unix.TCGETS, zero(36))
	p.want(zero(8)+"ff", "data %#x %sff", unix.TIOCGWINSZ, zero(8))
	p.want("1800500000000000", "data %#x 1800500000000000", unix.TIOCSWINSZ)
	p.want("1800500000000000", "data %#x %s", unix.TIOCGWINSZ, zero(8))
	p.want("00000000ff", "data %#x ffffffffff", unix.TIOCGETD)
	p.want("66010000", "data %#x ffffffff", unix.TIOCMGET)
	p.want("02000000", "data %#x 02000000", unix.TIOCMBIC)
	p.want("64010000ff", "data %#x ffffffffff", unix.TIOCMGET)
	b.say("hello")
	p.want("0x1", "poll %#x 20000", unix.POLLIN)
	p.want("05000000", "data %#x ffffffff", unix.TIOCINQ)
	p.want("00000000", "data %#x ffffffff", unix.TIOCOUTQ)
	p.want("0", "ioctl %#x %d", unix.TCFLSH, unix.TCIFLUSH)
	p.want("00000000", "data %#x ffffffff", unix.TIOCINQ)
	p.want("0", "ioctl %#x 0", ConsoleReplay)
	p.want("05000000", "data %#x ffffffff", unix.TIOCINQ)
	p.want(`"hello"`, "read 100")
	p.want("0", "ioctl %#x 1", unix.TCSBRK)
	p.want("0", "ioctl %#x 0", unix.TCSBRK)
	p.want("0", "ioctl %#x %d", unix.TCXONC, unix.TCOON)
	p.want("EINVAL", "ioctl %#x %d", unix.TCXONC, unix.TCOOFF)
	p.want("0", "ioctl %#x 0", unix.TIOCEXCL)
	p.want("EFAULT", "ioctl %#x 8", unix.TCGETS)
	for _, cmd := range []uint32{unix.TIOCGSERIAL, unix.TIOCSCTTY, unix.TIOCGPGRP, unix.TIOCGPTN, iocRead, 0x5200} {
		p.want("ENOTTY", "data %#x %s", cmd, zero(64))
	}
	// Settings are the node's, and TIOCEXCL keeps nobody out.
	other := startOpen(t, unix.O_RDONLY)
	other.want("1800500000000000", "data %#x %s", unix.TIOCGWINSZ, zero(8))
}

// TestKernelConsoleReads: a read that has nothing to read waits, without end, and
// a signal ends it at once.
func TestKernelConsoleReads(t *testing.T) {
	b, _, _ := serveConsole(t)
	p, other := startOpen(t, unix.O_RDWR), startOpen(t, unix.O_RDONLY)
	p.start("read 100")
	other.start("read 100")
	p.blocks(2500 * time.Millisecond) // the C daemon's give up after a second
	b.say("hello")
	for _, p := range []*program{p, other} {
		if got := p.result(); got != `"hello"` {
			t.Errorf("read: %s", got)
		}
	}
	for range 3 {
		p.start("read 100")
		p.blocks(100 * time.Millisecond)
		start := time.Now()
		if got := p.interrupt(); got != "EINTR" {
			t.Errorf("interrupted: %s", got)
		}
		if d := time.Since(start); d > 10*time.Second {
			t.Errorf("interrupted after %v", d)
		}
	}
	p.start("read 100")
	p.blocks(100 * time.Millisecond)
	b.say("again")
	if got := p.result(); got != `"again"` {
		t.Errorf("after signals: %s", got)
	}
	other.want(`"again"`, "read 100")
	// What there is ends a read, however large, also at the end of a piece.
	text := make([]byte, 128<<10)
	for i := range text {
		text[i] = 'x'
	}
	b.say(string(text))
	for range 1000 {
		if p.call("data %#x ffffffff", unix.TIOCINQ) == "00000200" {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	p.want("131072", "read 1000000")
	p.want("0x0", "poll %#x 0", unix.POLLIN)
	// A program killed while it reads is gone at once.
	p.start("read 100")
	p.blocks(100 * time.Millisecond)
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, ok := <-p.out; ok {
		t.Error("killed program goes on")
	}
}

// TestKernelConsolePoll: O_NONBLOCK, and waking up from poll and select.
func TestKernelConsolePoll(t *testing.T) {
	b, _, _ := serveConsole(t)
	p := startOpen(t, unix.O_RDWR|unix.O_NONBLOCK)
	p.want("EAGAIN", "read 100")
	p.want("0x4", "poll %#x 20000", unix.POLLIN|unix.POLLOUT)
	for range 3 { // each sleep wants its own wake-up
		for _, call := range []struct{ call, want string }{
			{fmt.Sprintf("poll %#x 60000", unix.POLLIN), "0x1"}, {"select 60000", "1"},
		} {
			p.start("%s", call.call)
			p.blocks(50 * time.Millisecond)
			b.say("x")
			if got := p.result(); got != call.want {
				t.Errorf("%s: %s", call.call, got)
			}
			p.want(`"x"`, "read 100")
			p.want("EAGAIN", "read 100")
		}
	}
	release := b.hold()
	total := 0
	for got := ""; got != "EAGAIN"; { // the session takes one batch
		var n int
		got = p.call("write 100000 a")
		fmt.Sscan(got, &n)
		total += n
	}
	if total < 16<<10 || total > 20<<10 {
		t.Errorf("nonblocking writes of %d bytes", total)
	}
	p.want("0x0", "poll %#x 100", unix.POLLIN|unix.POLLOUT)
	p.start("poll %#x 60000", unix.POLLOUT)
	p.blocks(50 * time.Millisecond)
	release()
	if got := p.result(); got != "0x4" {
		t.Errorf("poll for room: %s", got)
	}
	b.takeTyped(t, total)
	p.want("0x0", "poll %#x 100", unix.POLLIN)
	// A shared description may become nonblocking later.
	q := startOpen(t, unix.O_RDWR)
	q.want("nonblock", "nonblock")
	q.want("EAGAIN", "read 100")
}

// TestKernelConsoleWrites: a write waits until all is queued, and comes in one
// piece; one that is interrupted says how far it got.
func TestKernelConsoleWrites(t *testing.T) {
	b, d, _ := serveConsole(t)
	first, second := startOpen(t, unix.O_WRONLY), startOpen(t, unix.O_WRONLY)
	probe := d.Console().OpenInput()
	defer probe.Close()
	full := func() bool { return probe.Queued() == 16<<10 }
	release := b.hold()
	const size = 128 << 10
	first.start("write %d a", size)
	until(t, "queue to be full", full)
	second.start("write %d b", size)
	second.blocks(100 * time.Millisecond)
	first.blocks(0)
	release()
	for _, p := range []*program{first, second} {
		if got := p.result(); got != fmt.Sprint(size) {
			t.Errorf("write: %s", got)
		}
	}
	first.want("0", "ioctl %#x 1", unix.TCSBRK)
	for i, c := range b.takeTyped(t, 2*size) {
		if want := "ab"[i/size]; byte(c) != want {
			t.Fatalf("typed byte %d is %c", i, c)
		}
	}

	release = b.hold()
	first.start("write %d c", size)
	until(t, "queue to be full", full)
	second.start("write %d d", size)
	if got := second.interrupt(); got != "EINTR" {
		t.Errorf("interrupted in its turn: %s", got)
	}
	var n int
	if got := first.interrupt(); got == "EINTR" {
		t.Error("bytes were written, but are not told")
	} else if _, err := fmt.Sscan(got, &n); err != nil || n < 16<<10 || n > 20<<10 {
		t.Errorf("interrupted write: %s", got)
	}
	first.want("closed", "close")
	release()
	b.takeTyped(t, n)
	if st := d.Console().Stats(); st.Dropped != 0 || st.Openers != 2 || st.Input != int64(2*size+n) {
		t.Errorf("%+v", st)
	}
}
