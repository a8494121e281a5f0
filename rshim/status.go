// SPDX-License-Identifier: Apache-2.0

package rshim

import (
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/bootlog"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

// Status is what is known about a device without asking the chip.
type Status struct {
	Index  int
	Name   string // as in DEV_NAME
	State  State
	Reason string // of the state, in words
	Owner  Owner  // of the RShim
	Drop   bool   // it is to be left alone: DROP_MODE, or its Set does not serve
	// BootResetSkip means that the next boot stream is to begin without a reset
	// (BOOT_RESET_SKIP of misc).
	BootResetSkip bool
	Generation    reg.Generation // 0 while the device is absent
	Revision      int
	OPN           string        // part number, "" if unknown
	Attached      time.Time     // since when it is ours; zero: it is not
	Reset         time.Time     // when the chip was seen to come from a reset, last; zero: never
	Stage         bootlog.Stage // of the boot, as far as the DPU has told
	Push          PushStatus    // the last one
	Counters      Counters
}

// Owner says whose the RShim is, as far as is known.
type Owner uint8

// Owners of an RShim.
const (
	OwnerUnknown Owner = iota // the device is absent, being checked, or not looked at
	OwnerNone                 // the chip keeps everybody out
	OwnerBMC                  // we
	OwnerOther                // another backend: usually the host's driver
)

func (o Owner) String() string {
	words := [...]string{"unknown", "none", "BMC", "other"}
	if int(o) >= len(words) {
		o = OwnerUnknown
	}
	return words[o]
}

// Counters count what has happened to a device since it was first seen.
type Counters struct {
	Attaches  int64 // the RShim became ours
	Pushes    int64 // boot streams opened
	PushBytes int64 // that the chip has taken of them
	Resets    int64 // of the chip, by us
	Forced    int64 // the RShim was taken over from another backend
	Granted   int64 // it was handed over to one
	LogLines  int64 // of the boot log
}

// Status returns the status of the device.
func (d *Device) Status() Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	st := Status{
		Index: d.index, Name: d.name, State: d.state, Reason: d.reason, Owner: ownerIn(d.state), Drop: d.leftAlone(), BootResetSkip: d.set.bootResetSkip,
		Attached: d.since, Reset: d.resetAt, Stage: d.watch.Stage(), Push: d.lastPush(), Counters: d.counts,
	}
	if s := d.sess; s != nil {
		st.Generation, st.Revision, st.OPN = s.gen, s.b.Revision(), s.opn
	}
	return st
}

// ownerIn is the owner of a device that is in a state.
func ownerIn(s State) Owner {
	switch s {
	case Attached, Rebooting:
		return OwnerBMC
	case Contended, Requesting, Granting:
		return OwnerOther
	case Locked:
		return OwnerNone
	}
	return OwnerUnknown
}

// leftAlone reports whether the device is to be left alone. The lock is held.
func (d *Device) leftAlone() bool { return d.drop || d.off }
