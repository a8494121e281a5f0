// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

const (
	reopenPause = 250 * time.Millisecond
	// endPatience is with what is under way when a session ends.
	endPatience = time.Second / 2
	// maxTyped is how many bytes wait for a DPU that takes none. Beyond, no
	// more is read, not even escapes.
	maxTyped = 64 << 10
)

// Why a session ends that goes well.
var (
	errLeft   = errors.New("left by an escape")
	errSilent = errors.New("the input has ended, and the DPU is silent")
)

// session is an operator's, or a script's, use of a console. What has no remark
// belongs to the goroutine of run.
type session struct {
	o      consoleOptions
	source consoleSource
	name   string // of the device

	end            context.CancelCauseFunc // everybody's
	stdin          io.Reader               // nil: none
	stdout, stderr io.Writer
	term           *terminal   // that stdin is; nil: it is none
	screen         bool        // stderr is a terminal
	midLine        atomic.Bool // the output stands within a line
	log            io.Writer   // the link's; nil: none
	logFailed      bool        // the link's

	keys  escapes
	typed []sending // not given to a link yet
	size  int       // bytes of it
	lost  int       // bytes that were typed while there was no link
	leave bool      // when all this is sent
}

// run runs a session with an open console until ctx ends.
func (s *session) run(ctx context.Context, f *os.File) {
	l := s.connect(ctx, f)
	input := s.read(ctx)
	var reopened <-chan *os.File
	silence := time.NewTimer(s.o.linger)
	silence.Stop()
	drained := false
	taken := func() { // by the DPU, all that was to be sent
		if s.leave {
			s.end(errLeft)
		}
		drained = true
		silence.Reset(s.o.linger)
	}
	for {
		from, to, next := input, l.input, sending{}
		if s.leave || s.size >= maxTyped || l.f == nil && s.term == nil {
			from = nil
		}
		if len(s.typed) > 0 {
			next = s.typed[0]
		} else {
			to = nil
		}
		select {
		case p, ok := <-from:
			if ok {
				s.take(p, l.f != nil)
			} else {
				input = nil
				s.send(sending{data: s.keys.last(), drain: true})
			}
		case to <- next:
			s.typed, s.size = s.typed[1:], s.size-len(next.data)
		case <-l.drained:
			taken()
		case <-l.heard:
			if drained {
				silence.Reset(s.o.linger)
			}
		case <-silence.C:
			s.end(errSilent)
		case <-l.done:
			if ctx.Err() != nil {
				continue
			}
			if len(l.drained) > 0 {
				taken()
			}
			silence.Stop()
			s.gone(l)
			l, reopened = new(link), s.reopen(ctx)
		case f := <-reopened:
			s.back()
			l, reopened = s.connect(ctx, f), nil
			if drained { // the answer may still be to come
				silence.Reset(s.o.linger)
			}
		case <-ctx.Done():
			if l.f != nil {
				timer := time.NewTimer(endPatience)
				defer timer.Stop()
				select {
				case <-l.done:
				case <-timer.C:
				}
			}
			return
		}
	}
}

// read reads stdin. The channel is closed at its end, which a terminal's is
// not: that one has been hung up.
func (s *session) read(ctx context.Context) <-chan []byte {
	if s.stdin == nil {
		return nil
	}
	input := make(chan []byte)
	s.term.guard(func() {
		for {
			p := make([]byte, 8<<10)
			n, err := s.stdin.Read(p)
			if n > 0 {
				select {
				case input <- p[:n]:
				case <-ctx.Done():
					return
				}
			}
			switch {
			case err == nil:
			case s.term != nil:
				s.end(fmt.Errorf("the terminal is gone: %w", err))
				return
			case err == io.EOF:
				close(input)
				return
			default:
				s.end(fmt.Errorf("input: %w", err))
				return
			}
		}
	})
	return input
}

// take takes what was typed.
func (s *session) take(p []byte, linked bool) {
	for len(p) > 0 {
		data, escape, rest := s.keys.next(p)
		p = rest
		if linked {
			s.send(sending{data: data, brk: escape == escapeBreak})
		} else {
			s.lost += len(data)
		}
		switch escape {
		case escapeEnd:
			if !linked {
				s.end(errLeft)
				return
			}
			s.leave = true
			s.send(sending{drain: true})
			if s.term != nil { // an operator does not wait for a DPU
				time.AfterFunc(endPatience, func() { s.end(errLeft) })
			}
			return
		case escapeHelp:
			s.say("%s", s.keys.help())
		}
	}
}

func (s *session) send(x sending) {
	if len(x.data) == 0 && !x.brk && !x.drain {
		return
	}
	s.typed, s.size = append(s.typed, x), s.size+len(x.data)
}

// gone is called when a link has ended by itself.
func (s *session) gone(l *link) {
	if s.o.once {
		s.end(exitWith(exitDevice, "the console of %s has gone: %w", s.name, l.err))
		return
	}
	s.note("the console of %s has gone, waiting for it: %v", s.name, l.err)
	if s.term == nil {
		s.typed, s.size = append([]sending{l.unsent}, s.typed...), s.size+len(l.unsent.data)
		return
	}
	// An operator would be surprised if keys had an effect minutes later.
	s.lost = s.size + len(l.unsent.data)
	s.typed, s.size = nil, 0
}

// back is called when the console is there again.
func (s *session) back() {
	if s.lost > 0 {
		s.note("the console of %s is back; what was typed meanwhile, %d bytes, is dropped", s.name, s.lost)
	} else {
		s.note("the console of %s is back", s.name)
	}
	s.lost = 0
}

// reopen waits for the console. It begins with what the DPU has printed since a
// new daemon has been there.
func (s *session) reopen(ctx context.Context) <-chan *os.File {
	reopened := make(chan *os.File)
	s.term.guard(func() {
		for {
			t := time.NewTimer(reopenPause)
			select {
			case <-t.C:
			case <-ctx.Done():
				t.Stop()
				return
			}
			f, _, err := s.source.openConsole(ctx, true)
			if err != nil {
				continue
			}
			select {
			case reopened <- f:
			case <-ctx.Done():
				f.Close()
			}
			return
		}
	})
	return reopened
}

// note tells what -q does not want to know.
func (s *session) note(format string, args ...any) {
	if !s.o.quiet {
		s.say(format, args...)
	}
}

// say prints a message on lines of its own.
func (s *session) say(format string, args ...any) {
	s.tell(fmt.Sprintf("bmc-rshim: "+format+"\n", args...))
}

// tell prints whole lines, where a terminal is at the beginning of one.
func (s *session) tell(lines string) {
	if s.screen && s.midLine.Swap(false) {
		lines = "\n" + lines
	}
	if s.screen && s.term.isRaw() {
		lines = strings.ReplaceAll(lines, "\n", "\r\n")
	}
	_, _ = io.WriteString(s.stderr, lines)
}
