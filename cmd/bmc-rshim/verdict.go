// SPDX-License-Identifier: Apache-2.0

package main

import (
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/bootlog"
)

// see takes a line of the boot log.
func (p *push) see(line string) {
	if e, ok := bootlog.ParseLine(line); ok {
		p.watch.See(e, time.Now())
	}
}

// doing says what the DPU is doing, as far as it told.
func doing(w *bootlog.Watch) string {
	last := `; its last line: "` + w.Last() + `"`
	switch {
	case w.Last() == "":
		return "its boot log is empty"
	case w.Stage() == bootlog.StageUnknown:
		return last[len("; "):]
	}
	return "it was in the stage: " + w.Stage().String() + last
}
