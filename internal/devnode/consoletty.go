// SPDX-License-Identifier: Apache-2.0

package devnode

import (
	"context"
	"encoding/binary"
	"sync"
	"syscall"

	"github.com/bluefield-go/bmc-rshim/internal/cuse"
)

// The ioctls of a terminal: include/uapi/asm-generic/ioctls.h, which x86 and
// arm share. Numbers and layouts are the same for 32-bit callers.
const (
	tcGets  = 0x5401
	tcSets  = 0x5402
	tcSetsW = 0x5403
	tcSetsF = 0x5404
	tcSbrk  = 0x5409
	tcXonc  = 0x540a
	tcFlsh  = 0x540b
	tcSbrkP = 0x5425

	tcGets2  = 0x802c542a
	tcSets2  = 0x402c542b
	tcSetsW2 = 0x402c542c
	tcSetsF2 = 0x402c542d

	tiocExcl   = 0x540c
	tiocNxcl   = 0x540d
	tiocOutQ   = 0x5411
	tiocGWinsz = 0x5413
	tiocSWinsz = 0x5414
	tiocMGet   = 0x5415
	tiocMBis   = 0x5416
	tiocMBic   = 0x5417
	tiocMSet   = 0x5418
	tiocInQ    = 0x541b // FIONREAD
	tiocSetD   = 0x5423
	tiocGetD   = 0x5424
	tiocSBrk   = 0x5427
	tiocCBrk   = 0x5428
)

// struct termios2 of asm-generic/termbits.h; struct termios is the same
// without the speeds.
const (
	offIflag  = 0
	offOflag  = 4
	offCflag  = 8
	offLflag  = 12
	offCC     = 17
	offIspeed = 36
	offOspeed = 40

	termiosSize  = 36
	termios2Size = 44
)

const (
	winsizeSize = 8
	intSize     = 4
)

// What the C daemon begins with.
const (
	initIflag = 0o100 | 0o400                                    // INLCR ICRNL
	initOflag = 0o1 | 0o4                                        // OPOST ONLCR
	initCflag = 0o10002 | 0o60 | 0o200 | 0o2000 | 0o4000         // B115200 CS8 CREAD HUPCL CLOCAL
	initLflag = 1 | 2 | 0o20 | 0o40 | 0o1000 | 0o4000 | 0o100000 // ISIG ICANON ECHOE ECHOK ECHOCTL ECHOKE IEXTEN
	initCC    = "\x03\x1c\x7f\x15\x04\x00\x01\x00\x11\x13\x1a\x00\x12\x0f\x17\x16\x00"
)

// Modem lines. The other end is always there; what a program does with its own
// two has no effect.
const (
	modemOwn   = 0x002 | 0x004         // TIOCM_DTR, TIOCM_RTS
	modemOther = 0x020 | 0x040 | 0x100 // TIOCM_CTS, TIOCM_CAR, TIOCM_DSR
)

// tty is what programs have set on a console, all openers of it the same.
type tty struct {
	mu      sync.Mutex
	termios [termios2Size]byte
	winsize [winsizeSize]byte
	modem   uint32
}

func newTTY() *tty {
	t := &tty{modem: modemOwn}
	for off, v := range map[int]uint32{offIflag: initIflag, offOflag: initOflag, offCflag: initCflag, offLflag: initLflag} {
		binary.NativeEndian.PutUint32(t.termios[off:], v)
	}
	copy(t.termios[offCC:], initCC)
	t.setSpeeds()
	return t
}

// setTermios stores a struct termios or termios2.
func (t *tty) setTermios(p []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	copy(t.termios[:], p)
	t.setSpeeds()
}

// speeds are what the bits of CBAUD say, 0 to 15 and, with CBAUDEX, 1 to 15.
var speeds = [2][16]uint32{
	{0, 50, 75, 110, 134, 150, 200, 300, 600, 1200, 1800, 2400, 4800, 9600, 19200, 38400},
	{0, 57600, 115200, 230400, 460800, 500000, 576000, 921600, 1000000, 1152000, 1500000, 2000000, 2500000, 3000000,
		3500000, 4000000},
}

// setSpeeds makes the speeds those of the flags, as the kernel does, unless
// the flags say that the speeds stand for themselves.
func (t *tty) setSpeeds() {
	const mask, other = 0o10017, 0o10000 // CBAUD, BOTHER
	set := func(off int, bits uint32) {
		if bits &= mask; bits != other {
			binary.NativeEndian.PutUint32(t.termios[off:], speeds[bits>>12][bits&0xf])
		}
	}
	cflag := binary.NativeEndian.Uint32(t.termios[offCflag:])
	set(offOspeed, cflag)
	if in := cflag >> 16; in&mask != 0 { // CIBAUD
		set(offIspeed, in)
	} else { // as fast as out
		copy(t.termios[offIspeed:offOspeed], t.termios[offOspeed:])
	}
}

func (f *consoleFile) IoctlSize(cmd uint32) (in, out int, err error) {
	switch cmd {
	case tcGets:
		return 0, termiosSize, nil
	case tcSets, tcSetsW, tcSetsF:
		return termiosSize, 0, nil
	case tcGets2, tcSets2, tcSetsW2, tcSetsF2:
		in, out = cuse.IOCSize(cmd)
		return in, out, nil
	case tiocGWinsz:
		return 0, winsizeSize, nil
	case tiocSWinsz:
		return winsizeSize, 0, nil
	case tiocOutQ, tiocInQ, tiocGetD, tiocMGet:
		return 0, intSize, nil
	case tiocSetD, tiocMSet, tiocMBis, tiocMBic:
		return intSize, 0, nil
	case tcSbrk, tcSbrkP, tcXonc, tcFlsh, tiocExcl, tiocNxcl, tiocSBrk, tiocCBrk, ConsoleReplay:
		return 0, 0, nil
	}
	return 0, 0, syscall.ENOTTY
}

func (f *consoleFile) Ioctl(ctx context.Context, c cuse.Ioctl) (int32, error) {
	switch c.Cmd {
	case tcSetsF, tcSetsF2:
		f.cc.DiscardOutput()
		fallthrough
	case tcSets, tcSetsW, tcSets2, tcSetsW2:
		// Input that has not been sent is not waited for: what it is sent as
		// does not depend on the settings.
		f.tty.setTermios(c.In)
	case tcSbrk, tcSbrkP:
		// tcdrain, or a break, which comes after what was written. The TMFIFO
		// has none: nothing happens, as with a kernel driver that has none.
		return 0, f.drain(ctx)
	case tcFlsh:
		return 0, f.flush(uint32(c.Arg))
	case tcXonc:
		if arg := uint32(c.Arg); arg != 1 && arg != 3 { // TCOON, TCION: nothing ever is off
			return 0, syscall.EINVAL
		}
	case tiocInQ:
		binary.NativeEndian.PutUint32(c.Out, uint32(f.cc.Buffered()))
	case tiocOutQ:
		binary.NativeEndian.PutUint32(c.Out, uint32(f.cc.Queued()))
	case tiocSetD:
		if binary.NativeEndian.Uint32(c.In) != 0 { // N_TTY, as tiocGetD says
			return 0, syscall.EINVAL
		}
	case ConsoleReplay:
		f.cc.Replay()
	default:
		f.tty.ioctl(c)
	}
	return 0, nil
}

// flush is tcflush: its input is the DPU's output.
func (f *consoleFile) flush(queue uint32) error {
	const in, out, both = 0, 1, 2
	if queue > both {
		return syscall.EINVAL
	}
	if queue != out {
		f.cc.DiscardOutput()
	}
	if queue != in {
		f.cc.DiscardInput()
	}
	return nil
}

// ioctl serves those that only ask for and change settings.
func (t *tty) ioctl(c cuse.Ioctl) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch c.Cmd {
	case tcGets, tcGets2:
		copy(c.Out, t.termios[:])
	case tiocGWinsz:
		copy(c.Out, t.winsize[:])
	case tiocSWinsz:
		copy(t.winsize[:], c.In)
	case tiocMGet:
		binary.NativeEndian.PutUint32(c.Out, t.modem|modemOther)
	case tiocMSet:
		t.modem = binary.NativeEndian.Uint32(c.In) & modemOwn
	case tiocMBis:
		t.modem |= binary.NativeEndian.Uint32(c.In) & modemOwn
	case tiocMBic:
		t.modem &^= binary.NativeEndian.Uint32(c.In)
	}
}
