// SPDX-License-Identifier: Apache-2.0

package bootlog

import (
	"strings"
	"time"
)

// How long a boot may stand still after an entry that tells of an error until
// it counts as failed.
const (
	fatalPatience    = 2 * time.Second  // after a crash: for its registers
	firmwarePatience = 30 * time.Second // after an error of the boot firmware
	// softwarePatience is for UEFI, the installer and Linux, which get over
	// errors, and say nothing for minutes while they write a disk.
	softwarePatience = 5 * time.Minute
)

// Watch makes up its mind about a boot from the entries of its log. It decides
// by whole messages, since parts of them occur in others: the installer's
// "Installation finished. Rebooting..." and "Rebooting BMC..." are not the end
// of it, and "Linux up" comes before what the DPU is for has started.
//
// The zero value is ready for a boot of which nothing is known. It reads no
// clock: time comes in with each call, and Over says when it wants to be asked
// again.
type Watch struct {
	// Upgrade means that the DPU is upgraded while it runs, without a reset.
	// "Runtime upgrade finished" is then the end; that it is ready counts only
	// once it has booted since.
	Upgrade bool

	stage    Stage
	booted   bool // firmware has run
	last     string
	ready    bool
	err      string
	fatal    bool
	over     time.Time
	patience time.Duration
}

// Begin begins anew with a boot that is at a stage.
func (w *Watch) Begin(s Stage) { *w = Watch{Upgrade: w.Upgrade, stage: s} }

// See takes the next entry of the log, at the time it was read.
func (w *Watch) See(e Entry, now time.Time) {
	w.stage = w.stage.after(e)
	w.booted = w.booted || w.stage == StageROM || w.stage == StageBL2
	w.last, _, _ = strings.Cut(strings.TrimSpace(e.String()), "\n")
	switch {
	case w.fatal:
	case e.fatal():
		w.err, w.fatal, w.over = w.last, true, now.Add(fatalPatience)
	case e.Level == Err:
		if w.err == "" {
			w.err = w.last
		}
		w.patience = softwarePatience
		if e.Module != MISC && e.Module != UEFI {
			w.patience = firmwarePatience
		}
		w.over = now.Add(w.patience)
	case e.Level == Info && w.isEnd(e.Text):
		w.ready, w.over = true, time.Time{}
	default:
		w.over = time.Time{} // it goes on
	}
}

func (w *Watch) isEnd(text string) bool {
	if w.Upgrade && !w.booted {
		return text == "Runtime upgrade finished"
	}
	return isReady(text)
}

// Moved takes note that the boot stream has moved on.
func (w *Watch) Moved(now time.Time) {
	if !w.fatal && !w.over.IsZero() {
		w.over = now.Add(w.patience)
	}
}

// Stage is how far the DPU has come.
func (w *Watch) Stage() Stage { return w.stage }

// Last is the last line, without spaces around it; "" if there was none. Of a
// crash, it is the first.
func (w *Watch) Last() string { return w.last }

// Ready reports whether the DPU has said that it is up.
func (w *Watch) Ready() bool { return w.ready }

// Error is the first line that told of an error, or the first that told of a
// crash if there was one, and whether it was one; "" if there was none. The DPU
// may have got over an error that is not fatal.
func (w *Watch) Error() (line string, fatal bool) { return w.err, w.fatal }

// Over is when the boot has failed, unless something happens before; zero: it
// goes on, or has come to a good end.
func (w *Watch) Over() time.Time { return w.over }

// fatal reports whether nothing good can come after the entry.
func (e Entry) fatal() bool {
	return e.Type != Message || e.Level == Assert || strings.Contains(e.Text, "CRITICAL ERROR")
}
