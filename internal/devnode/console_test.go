// SPDX-License-Identifier: Apache-2.0

package devnode

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bluefield-go/bmc-rshim/internal/cuse"
	"github.com/bluefield-go/bmc-rshim/rshim"
)

// TestConsoleABI: numbers and layouts are those of this machine's kernel.
func TestConsoleABI(t *testing.T) {
	for name, c := range map[string][2]uint32{
		"TCGETS": {tcGets, unix.TCGETS}, "TCSETS": {tcSets, unix.TCSETS}, "TCSETSW": {tcSetsW, unix.TCSETSW},
		"TCSETSF": {tcSetsF, unix.TCSETSF}, "TCSBRK": {tcSbrk, unix.TCSBRK}, "TCXONC": {tcXonc, unix.TCXONC},
		"TCFLSH": {tcFlsh, unix.TCFLSH}, "TCSBRKP": {tcSbrkP, unix.TCSBRKP}, "TCGETS2": {tcGets2, unix.TCGETS2},
		"TCSETS2": {tcSets2, unix.TCSETS2}, "TCSETSW2": {tcSetsW2, unix.TCSETSW2}, "TCSETSF2": {tcSetsF2, unix.TCSETSF2},
		"TIOCEXCL": {tiocExcl, unix.TIOCEXCL}, "TIOCNXCL": {tiocNxcl, unix.TIOCNXCL}, "TIOCOUTQ": {tiocOutQ, unix.TIOCOUTQ},
		"TIOCGWINSZ": {tiocGWinsz, unix.TIOCGWINSZ}, "TIOCSWINSZ": {tiocSWinsz, unix.TIOCSWINSZ},
		"TIOCMGET": {tiocMGet, unix.TIOCMGET}, "TIOCMBIS": {tiocMBis, unix.TIOCMBIS}, "TIOCMBIC": {tiocMBic, unix.TIOCMBIC},
		"TIOCMSET": {tiocMSet, unix.TIOCMSET}, "FIONREAD": {tiocInQ, unix.TIOCINQ}, "TIOCSETD": {tiocSetD, unix.TIOCSETD},
		"TIOCGETD": {tiocGetD, unix.TIOCGETD}, "TIOCSBRK": {tiocSBrk, unix.TIOCSBRK}, "TIOCCBRK": {tiocCBrk, unix.TIOCCBRK},
		"EPOLLIN": {pollIn, unix.EPOLLIN | unix.EPOLLRDNORM}, "EPOLLOUT": {pollOut, unix.EPOLLOUT | unix.EPOLLWRNORM},
		"modem": {modemOwn | modemOther,
			unix.TIOCM_DTR | unix.TIOCM_RTS | unix.TIOCM_CTS | unix.TIOCM_CAR | unix.TIOCM_DSR},
		"iflag": {initIflag, unix.INLCR | unix.ICRNL},
		"oflag": {initOflag, unix.OPOST | unix.ONLCR},
		"cflag": {initCflag, unix.B115200 | unix.HUPCL | unix.CLOCAL | unix.CREAD | unix.CS8},
		"lflag": {initLflag, unix.ISIG | unix.ICANON | unix.ECHOE | unix.ECHOK | unix.ECHOCTL | unix.ECHOKE | unix.IEXTEN},
	} {
		if c[0] != c[1] {
			t.Errorf("%s is %#x, want %#x", name, c[0], c[1])
		}
	}
	// The kernel's struct termios2 is unix.Termios, but for the length of cc.
	var st unix.Termios
	if n := unsafe.Sizeof(unix.Winsize{}); n != winsizeSize {
		t.Errorf("struct winsize has %d bytes", n)
	}
	if unsafe.Offsetof(st.Iflag) != offIflag || unsafe.Offsetof(st.Oflag) != offOflag || unsafe.Offsetof(st.Cflag) != offCflag ||
		unsafe.Offsetof(st.Lflag) != offLflag || unsafe.Offsetof(st.Cc) != offCC {
		t.Errorf("offsets of struct termios")
	}
	if in, out := cuse.IOCSize(tcGets2); in != 0 || out != termios2Size {
		t.Errorf("TCGETS2 moves %d, %d", in, out)
	}
}

// ioctl makes a call as package cuse does.
func (f *consoleFile) ioctl(ctx context.Context, cmd uint32, arg uint64, in []byte) ([]byte, error) {
	nin, nout, err := f.IoctlSize(cmd)
	if err != nil {
		return nil, err
	}
	c := cuse.Ioctl{Cmd: cmd, Arg: arg, In: in[:nin], Out: make([]byte, nout)}
	_, err = f.Ioctl(ctx, c)
	return c.Out, err
}

// TestConsoleTermios: what is set is read back, in both forms, with speeds as
// the kernel would have them.
func TestConsoleTermios(t *testing.T) {
	withConsole(t, func(ctx context.Context, b *dpu, d consoleDevice, f *consoleFile) {
		get := func(cmd uint32) []byte {
			t.Helper()
			p, err := f.ioctl(ctx, cmd, 0, nil)
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		speeds := func() [2]uint32 {
			p := get(tcGets2)
			return [2]uint32{binary.NativeEndian.Uint32(p[offIspeed:]), binary.NativeEndian.Uint32(p[offOspeed:])}
		}
		if p := get(tcGets); len(p) != 36 || p[offCC+unix.VINTR] != 3 || p[offCC+unix.VMIN] != 1 || p[offCC+unix.VTIME] != 0 {
			t.Errorf("initial termios %x", p)
		}
		if got := speeds(); got != [2]uint32{115200, 115200} {
			t.Errorf("initial speeds %d", got)
		}
		for _, c := range []struct {
			cmd   uint32
			cflag uint32
			want  [2]uint32
		}{
			{tcSets, unix.B9600 | unix.CS7, [2]uint32{9600, 9600}},
			{tcSetsW, unix.B4000000, [2]uint32{4000000, 4000000}},
			{tcSetsF, unix.B50, [2]uint32{50, 50}},
			{tcSets2, unix.B57600, [2]uint32{57600, 57600}},
			{tcSetsW2, unix.BOTHER, [2]uint32{12345, 12345}},
			{tcSetsF2, unix.BOTHER | unix.B1200<<16, [2]uint32{1200, 12345}},
			{tcSets2, unix.B1152000 | unix.BOTHER<<16, [2]uint32{54321, 1152000}},
			{tcSets, unix.B0, [2]uint32{0, 0}},
		} {
			p := bytes.Repeat([]byte{0xa5}, termios2Size)
			binary.NativeEndian.PutUint32(p[offCflag:], c.cflag)
			binary.NativeEndian.PutUint32(p[offIspeed:], 54321)
			binary.NativeEndian.PutUint32(p[offOspeed:], 12345)
			if _, err := f.ioctl(ctx, c.cmd, 0, p); err != nil {
				t.Fatal(err)
			}
			if got := get(tcGets); !bytes.Equal(got, p[:termiosSize]) {
				t.Errorf("%#x: got %x", c.cmd, got)
			}
			if got := get(tcGets2); !bytes.Equal(got[:termiosSize], p[:termiosSize]) {
				t.Errorf("%#x: got %x", c.cmd, got)
			}
			if got := speeds(); got != c.want {
				t.Errorf("%#x with cflag %#o: speeds %d, want %d", c.cmd, c.cflag, got, c.want)
			}
		}
		// Settings belong to the node.
		other, _ := d.Open(ctx, 0)
		defer other.Release(ctx)
		if p, err := other.(*consoleFile).ioctl(ctx, tcGets, 0, nil); err != nil || !bytes.Equal(p, get(tcGets)) {
			t.Errorf("another opener: %x, %v", p, err)
		}
	})
}

// TestConsoleIoctls: the others.
func TestConsoleIoctls(t *testing.T) {
	withConsole(t, func(ctx context.Context, b *dpu, d consoleDevice, f *consoleFile) {
		number := func(cmd uint32) uint32 {
			t.Helper()
			p, err := f.ioctl(ctx, cmd, 0, nil)
			if err != nil || len(p) != 4 {
				t.Fatalf("%#x: %x, %v", cmd, p, err)
			}
			return binary.NativeEndian.Uint32(p)
		}
		for _, c := range []struct {
			cmd  uint32
			arg  uint64
			in   uint32
			want error
		}{
			{cmd: tcXonc, arg: unix.TCOON}, {cmd: tcXonc, arg: unix.TCION},
			{cmd: tcXonc, arg: unix.TCOOFF, want: syscall.EINVAL}, {cmd: tcXonc, arg: unix.TCIOFF, want: syscall.EINVAL},
			{cmd: tcFlsh, arg: unix.TCIFLUSH}, {cmd: tcFlsh, arg: unix.TCOFLUSH}, {cmd: tcFlsh, arg: unix.TCIOFLUSH},
			{cmd: tcFlsh, arg: 3, want: syscall.EINVAL}, {cmd: tcFlsh, arg: 1<<32 - 1, want: syscall.EINVAL},
			{cmd: tcSbrk}, {cmd: tcSbrk, arg: 1}, {cmd: tcSbrkP, arg: 5}, {cmd: tiocSBrk}, {cmd: tiocCBrk},
			{cmd: tiocExcl}, {cmd: tiocNxcl}, {cmd: tiocSetD, in: 0}, {cmd: tiocSetD, in: 1, want: syscall.EINVAL},
			{cmd: tiocMBic, in: ^uint32(0)}, {cmd: tiocMBis, in: unix.TIOCM_RTS}, {cmd: ConsoleReplay},
			{cmd: unix.TIOCGSERIAL, want: syscall.ENOTTY}, {cmd: unix.TIOCSCTTY, want: syscall.ENOTTY},
			{cmd: unix.TIOCGPGRP, want: syscall.ENOTTY}, {cmd: unix.TIOCGSID, want: syscall.ENOTTY},
			{cmd: unix.TIOCSTI, want: syscall.ENOTTY}, {cmd: iocRead, want: syscall.ENOTTY}, {cmd: 0, want: syscall.ENOTTY},
		} {
			if _, err := f.ioctl(ctx, c.cmd, c.arg, binary.NativeEndian.AppendUint32(nil, c.in)); err != c.want {
				t.Errorf("%#x %d: %v, want %v", c.cmd, c.arg, err, c.want)
			}
		}
		if n := number(tiocGetD); n != 0 {
			t.Errorf("discipline %d", n)
		}
		if n := number(tiocMGet); n != unix.TIOCM_RTS|unix.TIOCM_CTS|unix.TIOCM_CAR|unix.TIOCM_DSR {
			t.Errorf("modem lines %#x", n)
		}
		if _, err := f.ioctl(ctx, tiocSWinsz, 0, []byte("12345678")); err != nil {
			t.Fatal(err)
		}
		if p, err := f.ioctl(ctx, tiocGWinsz, 0, nil); err != nil || string(p) != "12345678" {
			t.Errorf("window size %q, %v", p, err)
		}

		b.say("hello\n")
		synctest.Wait()
		if n := number(tiocInQ); n != 6 {
			t.Errorf("%d to read", n)
		}
		for _, drop := range []func(){
			func() { _, _ = f.ioctl(ctx, tcFlsh, unix.TCIFLUSH, nil) },
			func() { _, _ = f.ioctl(ctx, tcSetsF, 0, make([]byte, termiosSize)) },
		} {
			drop()
			if n := number(tiocInQ); n != 0 {
				t.Errorf("%d to read after a flush", n)
			}
			if _, err := f.ioctl(ctx, ConsoleReplay, 0, nil); err != nil || number(tiocInQ) != 6 {
				t.Errorf("replay: %v, %d to read", err, number(tiocInQ))
			}
		}
	})
}

// TestConsoleDrain: tcdrain waits until the DPU has been sent everything, but
// not for ever, and other ways of setting a terminal do not wait at all.
func TestConsoleDrain(t *testing.T) {
	withConsole(t, func(ctx context.Context, b *dpu, d consoleDevice, f *consoleFile) {
		release := b.hold()
		text := strings.Repeat("x", 12000)
		if n, err := f.Write(ctx, []byte(text), 0); n != len(text) || err != nil {
			t.Fatal(n, err)
		}
		start := time.Now()
		if _, err := f.ioctl(ctx, tcSetsW, 0, make([]byte, termiosSize)); err != nil || time.Since(start) != 0 {
			t.Errorf("TCSETSW: %v after %v", err, time.Since(start))
		}
		if _, err := f.ioctl(ctx, tcSbrk, 1, nil); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != drainLimit {
			t.Errorf("tcdrain: %v after %v", err, time.Since(start))
		}
		if p, _ := f.ioctl(ctx, tiocOutQ, 0, nil); binary.NativeEndian.Uint32(p) < 8000 {
			t.Errorf("queued: %x", p)
		}
		time.AfterFunc(time.Second, release)
		start = time.Now()
		if _, err := f.ioctl(ctx, tcSbrk, 1, nil); err != nil || time.Since(start) != time.Second {
			t.Errorf("tcdrain: %v after %v", err, time.Since(start))
		}
		if got := b.takeTyped(t, len(text)); got != text {
			t.Error("typed something else")
		}
	})
}

// TestConsoleReadWrite: what waits and what does not.
func TestConsoleReadWrite(t *testing.T) {
	withConsole(t, func(ctx context.Context, b *dpu, d consoleDevice, f *consoleFile) {
		nonblocking := cuse.WithNonblocking(ctx)
		p := make([]byte, 100)
		if n, err := f.Read(nonblocking, p, 0); n != 0 || err != syscall.EAGAIN {
			t.Errorf("nothing to read: %d, %v", n, err)
		}
		if n, err := f.Read(ctx, p, 4096); n != 0 || err != io.EOF {
			t.Errorf("a later piece of a read with nothing there: %d, %v", n, err)
		}
		time.AfterFunc(time.Minute, func() { b.say("hello") })
		start := time.Now()
		if n, err := f.Read(ctx, p, 0); string(p[:n]) != "hello" || err != nil || time.Since(start) != time.Minute {
			t.Errorf("read: %q, %v after %v", p[:n], err, time.Since(start))
		}
		b.say("there")
		synctest.Wait()
		if n, err := f.Read(nonblocking, p[:2], 0); string(p[:n]) != "th" || err != nil {
			t.Errorf("read: %q, %v", p[:n], err)
		}
		if n, err := f.Read(ctx, p, 2); string(p[:n]) != "ere" || err != nil {
			t.Errorf("a later piece of a read: %q, %v", p[:n], err)
		}

		wakes := 0
		poll := func() uint32 { return f.Poll(pollIn|pollOut|unix.POLLPRI, func() { wakes++ }) }
		if r := poll(); r != pollOut {
			t.Errorf("idle: %#x", r)
		}
		if r := f.Poll(unix.POLLIN, func() {}); r != 0 {
			t.Errorf("asked for POLLIN: %#x", r)
		}
		release := b.hold()
		big := make([]byte, 100000)
		total, err := 0, error(nil)
		for err == nil {
			var n int
			n, err = f.Write(nonblocking, big, 0)
			total += n
			synctest.Wait() // the session takes one batch
		}
		if err != syscall.EAGAIN || total < 16<<10 || total > 20<<10 {
			t.Errorf("nonblocking write: %d in all, %v", total, err)
		}
		if r := poll(); r != 0 {
			t.Errorf("queue is full: %#x", r)
		}
		release()
		synctest.Wait()
		if r := poll(); r != pollOut || wakes != 1 {
			t.Errorf("queue is empty: %#x, %d wake-ups", r, wakes)
		}
		b.takeTyped(t, total)
		if n, err := f.Write(ctx, big, 0); n != len(big) || err != nil {
			t.Errorf("write: %d, %v", n, err)
		}
		b.takeTyped(t, len(big))
	})
}

// TestConsoleWithoutDPU: the console is there before the DPU is and after it has
// gone. What is typed meanwhile reaches the next, and output is kept.
func TestConsoleWithoutDPU(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := rshim.New(0, rshim.Options{})
		dev := consoleDevice{d.Console(), newTTY(), slog.New(slog.DiscardHandler)}
		f, err := dev.Open(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Release(t.Context())
		for _, text := range []string{"first", "second"} {
			if n, err := f.Write(t.Context(), []byte(text), 0); n != len(text) || err != nil {
				t.Fatal(n, err)
			}
			b := newDPU()
			detach := serveDPU(t, d, b)
			if got := b.takeTyped(t, len(text)); got != text {
				t.Errorf("%q was typed, want %q", got, text)
			}
			b.say(text + "\n")
			synctest.Wait()
			detach()
		}
		p := make([]byte, 100)
		if n, err := f.Read(t.Context(), p, 0); string(p[:n]) != "first\nsecond\n" || err != nil {
			t.Errorf("%q, %v", p[:n], err)
		}
	})
}

// TestConsoleLost: what a reader lost is logged.
func TestConsoleLost(t *testing.T) {
	withConsole(t, func(ctx context.Context, b *dpu, d consoleDevice, _ *consoleFile) {
		var log bytes.Buffer
		d.log = slog.New(slog.NewTextHandler(&log, nil))
		quick, _ := d.Open(ctx, 0)
		slow, _ := d.Open(ctx, 0)
		text := strings.Repeat("0123456789abcdef", 20<<10)
		go b.say(text)
		for p, n := make([]byte, 128<<10), 0; n < len(text); {
			k, err := quick.Read(ctx, p, 0)
			if n += k; err != nil {
				t.Fatal(err)
			}
		}
		quick.Release(ctx)
		if log.Len() > 0 {
			t.Errorf("log is %s", &log)
		}
		slow.Release(ctx)
		if want := fmt.Sprint("bytes=", len(text)-(256<<10)); !strings.Contains(log.String(), want) {
			t.Errorf("log is %q, want %s", &log, want)
		}
	})
}
