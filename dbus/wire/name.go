// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"strings"
	"unicode/utf8"
)

// Rules of section "Valid Names" and "Valid Object Paths" of the specification.

// Valid reports whether the path is one.
func (p ObjectPath) Valid() bool {
	if p == "/" {
		return true
	}
	if !strings.HasPrefix(string(p), "/") {
		return false
	}
	for e := range strings.SplitSeq(string(p[1:]), "/") {
		if !element(e, false, true) {
			return false
		}
	}
	return true
}

// Parent returns the path that p is below of; "/" is its own.
func (p ObjectPath) Parent() ObjectPath {
	if i := strings.LastIndexByte(string(p), '/'); i > 0 {
		return p[:i]
	}
	return "/"
}

// Below reports whether p is a descendant of q.
func (p ObjectPath) Below(q ObjectPath) bool {
	if q == "/" {
		return p != "/" && p != ""
	}
	return len(p) > len(q) && p[:len(q)] == q && p[len(q)] == '/'
}

// ValidInterface reports whether s may be the name of an interface or an error.
func ValidInterface(s string) bool { return dotted(s, false, false) }

// ValidMember reports whether s may be the name of a method, signal or property.
func ValidMember(s string) bool { return len(s) <= maxName && element(s, false, false) }

// ValidBusName reports whether s may be a unique or well-known name of a connection.
func ValidBusName(s string) bool {
	if rest, ok := strings.CutPrefix(s, ":"); ok {
		return len(s) <= maxName && dotted(rest, true, true)
	}
	return dotted(s, true, false)
}

// dotted reports whether s is of two or more elements with dots between.
func dotted(s string, dash, digit bool) bool {
	if len(s) > maxName || !strings.Contains(s, ".") {
		return false
	}
	for e := range strings.SplitSeq(s, ".") {
		if !element(e, dash, digit) {
			return false
		}
	}
	return true
}

// element reports whether s is of letters, digits and underscores, with dashes
// too if dash is set, and with a digit in front only if digit is set.
func element(s string, dash, digit bool) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '_':
		case c >= '0' && c <= '9':
			if i == 0 && !digit {
				return false
			}
		case c == '-' && dash:
		default:
			return false
		}
	}
	return s != ""
}

// ValidString reports whether s may be sent: UTF-8 without NUL.
func ValidString(s string) bool {
	return strings.IndexByte(s, 0) < 0 && utf8.ValidString(s)
}
