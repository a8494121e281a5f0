// SPDX-License-Identifier: Apache-2.0

package bluefield

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Prompt is what the shell prints when it waits for a command.
const Prompt = "dpu# "

// maxLine is how many characters a line that is typed may have; more are not
// echoed, and lost. It is the limit of Linux's terminals.
const maxLine = 4095

// shellHelp is what the command "help" prints.
const shellHelp = `echo TEXT  print TEXT
flood N    print N bytes in numbered lines of 64, raw
sink N     read N bytes, raw, and print their SHA-256
mirror N   read N bytes, raw, and print each of them
uptime     print the seconds since the reset
reboot     reset the DPU
help       print this
`

// shell is a command line on the console.
type shell struct {
	d     *DPU
	ctx   context.Context
	s     *software
	typed []byte // read, but not looked at yet
}

// runShell is the shell of one boot, from when there is one until ctx ends.
func (d *DPU) runShell(ctx context.Context, s *software) {
	for {
		d.mu.Lock()
		up, changed := s.phase == phaseShell, s.changed.wait()
		d.mu.Unlock()
		if up {
			break
		}
		if !await(ctx, changed, 0) {
			return
		}
	}
	sh := &shell{d: d, ctx: ctx, s: s}
	for sh.raw(Prompt) {
		line, ok := sh.line()
		if !ok || !sh.do(line) {
			return
		}
	}
}

// raw prints text as it is; false when the boot is over.
func (sh *shell) raw(text string) bool { return sh.d.print(sh.ctx, sh.s, []byte(text)) }

// print prints text with the line ends of a terminal.
func (sh *shell) print(text string) bool { return sh.raw(strings.ReplaceAll(text, "\n", "\r\n")) }

// read returns the next bytes that were typed, at most max of them.
func (sh *shell) read(max int) (p []byte, ok bool) {
	if len(sh.typed) == 0 {
		if sh.typed = sh.d.readTyped(sh.ctx, sh.s); sh.typed == nil {
			return nil, false
		}
	}
	p = sh.typed[:min(max, len(sh.typed))]
	sh.typed = sh.typed[len(p):]
	return p, true
}

// line reads a line, and echoes it, as a terminal does.
func (sh *shell) line() (line string, ok bool) {
	var b, echo []byte
	for {
		if len(sh.typed) == 0 && len(echo) > 0 {
			if !sh.raw(string(echo)) {
				return "", false
			}
			echo = echo[:0]
		}
		p, ok := sh.read(1)
		if !ok {
			return "", false
		}
		switch c := p[0]; {
		case c == '\r' || c == '\n':
			return string(b), sh.raw(string(echo) + "\r\n")
		case c == 3: // ^C
			return "", sh.raw(string(echo) + "^C\r\n")
		case c == '\b' || c == 0x7f:
			if len(b) > 0 {
				b = b[:len(b)-1]
				echo = append(echo, "\b \b"...)
			}
		case c >= ' ' && len(b) < maxLine:
			b, echo = append(b, c), append(echo, c)
		}
	}
}

// do carries out a command; false when the boot is over.
func (sh *shell) do(line string) bool {
	name, arg, _ := strings.Cut(strings.Trim(line, " "), " ")
	switch name {
	case "":
		return true
	case "help":
		return sh.print(shellHelp)
	case "echo":
		return sh.print(arg + "\n")
	case "uptime":
		sh.d.mu.Lock()
		up := time.Since(sh.d.resetAt)
		sh.d.mu.Unlock()
		return sh.print(fmt.Sprintf("uptime %d\n", int(up.Seconds())))
	case "reboot":
		sh.d.reboot()
		<-sh.ctx.Done()
		return false
	case "flood", "sink", "mirror":
		n, err := strconv.ParseInt(strings.Trim(arg, " "), 10, 64)
		switch {
		case err != nil || n < 0:
			return sh.print("usage: " + name + " N\n")
		case name == "flood":
			return sh.flood(n)
		case name == "mirror":
			return sh.mirror(n)
		}
		return sh.sink(n)
	}
	return sh.print(name + ": not found\n")
}

// floodFill follows the number in a line of flood.
const floodFill = " abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ01\n"

// FloodText returns the n bytes that "flood N" prints before "flood done\n".
func FloodText(n int) []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < n; i++ {
		floodLine(&b, int64(i))
	}
	return b.Bytes()[:n]
}

func floodLine(b *bytes.Buffer, i int64) { fmt.Fprintf(b, "%08d%s", i%1e8, floodFill) }

func (sh *shell) flood(n int64) bool {
	var b bytes.Buffer
	for i := int64(0); n > 0; {
		b.Reset()
		for range 64 {
			floodLine(&b, i)
			i++
		}
		p := b.Bytes()[:min(n, int64(b.Len()))]
		n -= int64(len(p))
		if !sh.d.print(sh.ctx, sh.s, p) {
			return false
		}
	}
	return sh.raw("flood done\n")
}

func (sh *shell) mirror(n int64) bool {
	for n > 0 {
		p, ok := sh.read(int(min(n, 1<<20)))
		if !ok || !sh.raw(string(p)) {
			return false
		}
		n -= int64(len(p))
	}
	return sh.raw("mirror done\n")
}

func (sh *shell) sink(n int64) bool {
	h := sha256.New()
	for left := n; left > 0; {
		p, ok := sh.read(int(min(left, 1<<20)))
		if !ok {
			return false
		}
		h.Write(p)
		left -= int64(len(p))
	}
	return sh.raw(fmt.Sprintf("sink %d sha256 %x\n", n, h.Sum(nil)))
}
