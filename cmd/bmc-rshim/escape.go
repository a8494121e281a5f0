// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
)

// What may follow the escape character at the beginning of a line, besides
// itself.
const (
	escapeEnd   = '.'
	escapeBreak = 'B'
	escapeHelp  = '?'
)

// escapes finds in what an operator types what is meant for this program, by
// the rules of ssh(1).
type escapes struct {
	char    byte // 0: there are none
	pending bool // it was typed at the beginning of a line
	midLine bool
}

// parseEscape parses the value of -escape.
func parseEscape(s string) (escapes, error) {
	c := byte(0)
	switch {
	case s == "none":
		return escapes{}, nil
	case len(s) == 1:
		c = s[0]
	case len(s) == 2 && s[0] == '^' && s[1] > '?' && s[1] <= '~':
		c = s[1] & 0x1f
	}
	if c == 0 || c > '~' || strings.IndexByte("\r\n.B?", c) >= 0 {
		return escapes{}, fmt.Errorf("-escape is a character, ^ and a letter, or none, not %q", s)
	}
	return escapes{char: c}, nil
}

// next takes from p, which was typed, up to the first escape: what is to be
// sent before it, which escape it is, and what remains. There is no escape in
// all of p if it is 0.
func (e *escapes) next(p []byte) (send []byte, escape byte, rest []byte) {
	if e.char == 0 {
		return p, 0, nil
	}
	for i, b := range p {
		if e.pending {
			e.pending = false
			switch b {
			case escapeEnd, escapeBreak, escapeHelp:
				return send, b, p[i+1:] // still at the beginning of a line
			case e.char:
			default:
				send = append(send, e.char)
			}
		} else if b == e.char && !e.midLine {
			e.pending = true
			continue
		}
		send = append(send, b)
		e.midLine = b != '\r' && b != '\n'
	}
	return send, 0, nil
}

// last is what remains to be sent when nothing more will be typed.
func (e *escapes) last() []byte {
	if !e.pending {
		return nil
	}
	e.pending = false
	return []byte{e.char}
}

// String is the escape character for people.
func (e *escapes) String() string {
	if e.char < ' ' {
		return "^" + string(rune(e.char|'@'))
	}
	return string(rune(e.char))
}

// help lists the escapes.
func (e *escapes) help() string {
	return strings.ReplaceAll(`escapes, at the beginning of a line:
  ~.  end
  ~B  send a break, if the console can
  ~?  list the escapes
  ~~  send the escape character itself`, "~", e.String())
}
