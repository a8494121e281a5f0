// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"time"
)

// What a line of the boot log means for the boot as a whole.
type meaning int

const (
	plain   meaning = iota
	ready           // the DPU is up
	failure         // an error that the boot may get over
	fatal           // one that it cannot
)

// meaningOf tells what a line means. It takes whole messages by their level
// and text, as parts of them occur in others: the installer's "Installation
// finished. Rebooting..." and "Rebooting BMC..." are not the end, and "Linux
// up" comes before what the DPU is for has started.
func meaningOf(line string) meaning {
	line = strings.TrimSpace(line)
	if strings.HasPrefix(line, "PANIC(") || strings.HasPrefix(line, "Exception(") {
		return fatal
	}
	level, text := split(line)
	switch {
	case strings.HasPrefix(level, "ASSERT["), level != "" && strings.Contains(text, "CRITICAL ERROR"):
		return fatal
	case strings.HasPrefix(level, "ERR["):
		return failure
	case strings.HasPrefix(level, "INFO["):
		switch strings.TrimRight(text, ".") {
		case "DPU is ready", "In Enhanced NIC mode":
			return ready
		}
	}
	return plain
}

// split splits a message into "INFO[BL2" and its text; the former is empty if
// the line is not a message.
func split(line string) (head, text string) {
	head, text, ok := strings.Cut(strings.TrimSpace(line), "]: ")
	if !ok {
		return "", head
	}
	return head, strings.TrimSpace(text)
}

// stages are what the DPU is doing when a line contains a text; the last that
// fits counts, and a line that none fits changes nothing.
var stages = []struct{ contains, stage string }{
	{"[PSC]: ", "running its boot firmware"},
	{"[BL1]: ", "running its boot firmware"},
	{"[BL2]: ", "running its boot firmware"},
	{"[BL31]: ", "running its boot firmware"},
	{"[UEFI]: ", "running UEFI"},
	{"exit Boot Service", "starting an operating system"},
	{"Found bf.cfg", "installing"},
	{"installation started", "installing"},
	{"Installing ", "installing"},
	{"Installation finished", "rebooting into what was installed"},
	{"Linux up", "starting its services"},
}

// bootWatch makes up its mind about a boot from the boot log.
type bootWatch struct {
	stage string // what the DPU is doing, as far as it told
	last  string // line
	ready bool
	error string    // the first bad line, or the first fatal one if there is one
	fatal bool      // error is fatal
	over  time.Time // the boot has failed if nothing happens until then; zero: it goes on
}

const (
	// errorPatience is how long after an error line the boot log and the
	// boot stream may stand still until the boot has failed.
	errorPatience = 30 * time.Second
	// fatalPatience is what is waited for the registers after a crash.
	fatalPatience = 2 * time.Second
)

// see takes a line of the boot log.
func (w *bootWatch) see(line string, now time.Time) {
	line = strings.TrimSpace(line)
	w.last = line
	for _, s := range stages {
		if strings.Contains(line, s.contains) {
			w.stage = s.stage
		}
	}
	switch m := meaningOf(line); {
	case w.fatal:
	case m == fatal:
		w.error, w.fatal, w.over = line, true, now.Add(fatalPatience)
	case m == failure:
		if w.error == "" {
			w.error = line
		}
		w.over = now.Add(errorPatience)
	case m == ready:
		w.ready, w.over = true, time.Time{}
	default:
		w.over = time.Time{} // it goes on
	}
}

// moved takes note that the boot stream has moved on.
func (w *bootWatch) moved(now time.Time) {
	if !w.fatal && !w.over.IsZero() {
		w.over = now.Add(errorPatience)
	}
}

// doing says what the DPU is doing.
func (w *bootWatch) doing() string {
	switch {
	case w.last == "":
		return "its boot log is empty"
	case w.stage == "":
		return `its last line: "` + w.last + `"`
	}
	return "it was " + w.stage + `; its last line: "` + w.last + `"`
}
