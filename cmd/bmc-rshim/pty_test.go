// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/u-root/u-root/pkg/termios"
	"golang.org/x/sys/unix"
)

// patience is with things that take no time.
const patience = time.Minute

// pty is a pseudo-terminal. What comes out of its master side is collected.
type pty struct {
	t             *testing.T
	master, slave *os.File

	mu    sync.Mutex
	came  bytes.Buffer
	seen  int // bytes of it that were waited for
	more  *sync.Cond
	ended bool
}

func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skip("no pseudo-terminals: ", err)
	}
	t.Cleanup(func() { master.Close() })
	var n int
	err = control(master, func(fd int) (err error) {
		if err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
			return err
		}
		n, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

// newPTY makes a pseudo-terminal whose master side is read all the time.
func newPTY(t *testing.T) *pty {
	t.Helper()
	p := &pty{t: t}
	p.more = sync.NewCond(&p.mu)
	p.master, p.slave = openPTY(t)
	go p.collect()
	return p
}

func (p *pty) collect() {
	b := make([]byte, 4096)
	for {
		n, err := p.master.Read(b)
		p.mu.Lock()
		p.came.Write(b[:n])
		p.ended = err != nil
		p.more.Broadcast()
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// want waits until text has come, behind what was waited for before.
func (p *pty) want(text string) {
	p.t.Helper()
	late := time.AfterFunc(patience, func() {
		p.mu.Lock()
		p.ended = true
		p.more.Broadcast()
		p.mu.Unlock()
	})
	defer late.Stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		got := p.came.Bytes()[p.seen:]
		if i := bytes.Index(got, []byte(text)); i >= 0 {
			p.seen += i + len(text)
			return
		}
		if p.ended {
			p.t.Fatalf("%q came, want %q", got, text)
		}
		p.more.Wait()
	}
}

// all is all that has come.
func (p *pty) all() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.came.String()
}

func (p *pty) write(text string) {
	p.t.Helper()
	p.master.SetWriteDeadline(time.Now().Add(patience))
	if _, err := p.master.WriteString(text); err != nil {
		p.t.Fatal(err)
	}
}

// raw sets the slave side to pass everything as it is.
func (p *pty) raw() {
	p.t.Helper()
	if err := newTerminal(p.slave).raw(); err != nil {
		p.t.Fatal(err)
	}
}

// modes are the settings of the terminal.
func (p *pty) modes() (m termios.Termios) {
	p.t.Helper()
	err := control(p.slave, func(fd int) error {
		t, err := termios.GetTermios(uintptr(fd))
		if err == nil {
			m = *t
		}
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return m
}

func isRaw(m termios.Termios) bool {
	return m.Lflag&(unix.ICANON|unix.ISIG|unix.ECHO|unix.IEXTEN) == 0 &&
		m.Iflag&(unix.ICRNL|unix.IXON) == 0 && m.Oflag&unix.OPOST == 0
}

// A goroutine that panics leaves no raw terminal behind, though the panic goes
// past everybody's deferred calls. A process of its own has to die of it.
func TestTerminalPanic(t *testing.T) {
	p := newPTY(t)
	before := p.modes()
	cmd := child(t, "panic")
	cmd.Stdin = p.slave
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err == nil || !strings.Contains(stderr.String(), "panic: on purpose") {
		t.Fatalf("%v: %s", err, &stderr)
	}
	if !strings.Contains(stderr.String(), "raw: true") {
		t.Errorf("was never raw: %s", &stderr)
	}
	if got := p.modes(); got != before {
		t.Errorf("left as %+v, was %+v", got, before)
	}
}

// A terminal that somebody else has now, as a shell whose job was stopped, is
// not touched.
func TestTerminalBackground(t *testing.T) {
	p := newPTY(t)
	cmd := child(t, "background")
	cmd.Stdin = p.slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "left alone\n" {
		t.Fatalf("%v: %s", err, out)
	}
}
