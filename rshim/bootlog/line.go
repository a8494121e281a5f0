// SPDX-License-Identifier: Apache-2.0

package bootlog

import (
	"strconv"
	"strings"
)

// ParseLine takes a line as Append writes it, for who has nothing but that: a
// message, or the first line of a panic or exception. It is false for anything
// else, such as a crash's registers.
func ParseLine(line string) (e Entry, ok bool) {
	line = strings.TrimSpace(line)
	head, rest, ok := strings.Cut(line, ": ")
	if !ok || strings.Contains(line, "\n") {
		return e, false
	}
	for _, crash := range []struct {
		begin, code string
		typ         Type
	}{{"PANIC(", "PC = 0x", Panic}, {"Exception(", "syndrome = 0x", Exception}} {
		name, is := strings.CutPrefix(head, crash.begin)
		code, has := strings.CutPrefix(rest, crash.code)
		if !is || !has || !strings.HasSuffix(name, ")") {
			continue
		}
		code, _, _ = strings.Cut(code, "(")
		v, err := strconv.ParseUint(code, 16, 32)
		m, known := moduleOf(strings.TrimSuffix(name, ")"))
		return Entry{Type: crash.typ, Module: m, Code: uint32(v)}, known && err == nil
	}
	level, module, ok := strings.Cut(head, "[")
	if !ok || !strings.HasSuffix(module, "]") {
		return e, false
	}
	m, known := moduleOf(strings.TrimSuffix(module, "]"))
	for l, name := range levels {
		if name == level {
			return Entry{Type: Message, Module: m, Level: Level(l), Text: rest}, known
		}
	}
	return e, false
}

func moduleOf(name string) (Module, bool) {
	for m, known := range modules {
		if known == name {
			return Module(m), true
		}
	}
	return MISC, false
}
