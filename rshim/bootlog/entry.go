// SPDX-License-Identifier: Apache-2.0

// Package bootlog decodes the boot log that the DPU keeps in the RShim's
// scratch buffer, a ring of 128 words of 64 bits: messages, panics and
// exceptions of its firmware. It does no I/O.
//
// What stands in the ring was written by the DPU and is trusted in nothing:
// no length leads past the given words, no format string reaches a general
// formatter, and the text that comes out is valid UTF-8, bounded in length and
// free of anything a terminal would act on.
//
// Sources: rshim_log.c of Mellanox/rshim-user-space 2.8.2 for the layout and
// the way entries are printed.
package bootlog

import "strconv"

// Type is the type of an entry. Entries of other types are skipped.
type Type uint8

// Types of entries.
const (
	Panic     Type = 1
	Exception Type = 2
	Message   Type = 4
)

// Module is the part of the DPU's firmware that wrote an entry.
type Module uint8

// Modules. MISC also stands for all that are not known.
const (
	MISC Module = iota
	BL1
	BL2
	BL2R
	BL31
	UEFI
	PSC
)

var modules = [...]string{"MISC", "BL1", "BL2", "BL2R", "BL31", "UEFI", "PSC"}

func (m Module) String() string {
	if int(m) >= len(modules) {
		m = MISC
	}
	return modules[m]
}

// Level is the severity of a message.
type Level uint8

// Levels. Info also stands for all that are not known.
const (
	Info Level = iota
	Warn
	Err
	Assert
)

var levels = [...]string{"INFO", "WARN", "ERR", "ASSERT"}

func (l Level) String() string {
	if int(l) >= len(levels) {
		l = Info
	}
	return levels[l]
}

// Entry is one entry of the log.
type Entry struct {
	Type      Type
	Module    Module
	Level     Level      // of a message
	Text      string     // of a message; at most MaxText bytes, printable
	Code      uint32     // of a panic its PC, of an exception its syndrome (ESR)
	Registers []Register // of a panic or exception
}

// Decode decodes entries from the words of the ring, oldest first, beginning
// with a header. It stops before an entry that is not there as a whole, and
// returns how many words it has used.
//
// A header without content that claims to be a message, and entries of unknown
// types, are skipped.
func Decode(words []uint64) (entries []Entry, consumed int) {
	for consumed < len(words) {
		h := header(words[consumed])
		end := consumed + 1 + h.length()
		if end > len(words) {
			break
		}
		if e, ok := decode(h, words[consumed+1:end]); ok {
			entries = append(entries, e)
		}
		consumed = end
	}
	return entries, consumed
}

func decode(h header, body []uint64) (Entry, bool) {
	e := Entry{Type: h.typ(), Module: h.module()}
	switch e.Type {
	case Message:
		e.Level = h.level()
		e.Text = messageText(h, body)
		return e, len(body) > 0
	case Panic, Exception:
		e.Code = uint32(h)
		for ; len(body) >= 2; body = body[2:] {
			e.Registers = append(e.Registers, Register{encodingOf(body[0]), body[1]})
		}
		return e, true
	}
	return e, false
}

// Append appends the entry to b as the C daemon prints it in "misc": a line
// for a message (" INFO[BL2]: text\n"), and for a panic or exception a line
// with the code and one for each register.
func (e Entry) Append(b []byte) []byte {
	switch e.Type {
	case Message:
		b = append(b, ' ')
		b = append(b, e.Level.String()...)
		b = append(b, '[')
		b = append(b, e.Module.String()...)
		b = append(b, "]: "...)
		b = append(b, e.Text...)
	case Panic:
		b = appendCrash(b, " PANIC(", e.Module, "): PC = 0x", e.Code)
	case Exception:
		b = appendCrash(b, " Exception(", e.Module, "): syndrome = 0x", e.Code)
		// The exception class, see ESR_ELx.EC in the Arm ARM.
		switch e.Code >> 26 {
		case 0x24, 0x25:
			b = append(b, "(Data Abort)"...)
		case 0x2f:
			b = append(b, "(SError)"...)
		}
	}
	b = append(b, '\n')
	for _, r := range e.Registers {
		b = append(b, "   "...)
		name := r.Name()
		b = append(b, name...)
		for n := len(name); n < 16; n++ {
			b = append(b, ' ')
		}
		b = append(b, "0x"...)
		b = strconv.AppendUint(b, r.Value, 16)
		b = append(b, '\n')
	}
	return b
}

func appendCrash(b []byte, what string, m Module, code string, v uint32) []byte {
	b = append(b, what...)
	b = append(b, m.String()...)
	b = append(b, code...)
	return strconv.AppendUint(b, uint64(v), 16)
}

// String is the entry as Append writes it, with the newline.
func (e Entry) String() string { return string(e.Append(nil)) }
