// SPDX-License-Identifier: Apache-2.0

package usbbackend

import (
	"encoding/binary"
	"errors"
	"os"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

// What tmIn makes of that which the device says, and of failures.

// heard takes in what the interrupt endpoint said: the number of words there
// are, if it can be believed.
func (in *tmIn) heard(b []byte, err error) error {
	if err != nil {
		return in.fault(in.d.tmIntrEP, err)
	}
	in.told = true
	if !in.counts() {
		in.flow = true
		return nil
	}
	var w [8]byte
	copy(w[:], b)
	n := binary.LittleEndian.Uint64(w[:])
	if limit := in.intrAt + int64(n)*8; n > reg.TmFIFODepth || limit <= in.posted() {
		// It makes no sense, or says nothing new, which may be because it was
		// posted long ago.
		in.look = !in.strict
	} else {
		in.limit, in.asked = limit, in.got
		in.much = !in.strict && n*8 >= tmMuch
	}
	return nil
}

// came accounts for a bulk transfer of m bytes.
func (in *tmIn) came(b inbound, m int, err error) error {
	in.got += int64(m)
	if m > 0 {
		in.faults, in.told = 0, false
	}
	switch {
	case b.recalled && !lost(err):
		return nil
	case err != nil:
		return in.fault(in.d.tmInEP, err)
	case !in.counts():
		in.flow, in.much = m > 0, m >= tmMuch
		if m == 0 && len(in.bulk) == 0 {
			in.vain()
		}
	case m < b.size:
		// Either it was not that much, or it comes in pieces.
		in.limit, in.look = in.posted(), !in.strict
		if m == 0 {
			in.vain()
		}
	}
	return nil
}

// answered takes in a fill level.
func (in *tmIn) answered(l level) error {
	in.levels.reads--
	in.looking = false
	if lost(l.err) {
		return l.err
	}
	if l.err != nil {
		in.much = false // back to the interrupt
		in.vain()
		return nil
	}
	in.limit = max(in.limit, l.asked+l.bytes)
	if l.asked == in.asked {
		in.much = !in.strict && l.bytes >= tmMuch
	}
	if l.bytes == 0 && len(in.bulk) == 0 {
		in.vain()
	}
	return nil
}

// vain makes up for an interrupt after which nothing was there. A stale one is
// no harm, but it must not come to be a busy loop.
func (in *tmIn) vain() {
	if in.told {
		in.told = false
		in.faults++
		in.until = time.Now().Add(backOff(in.faults))
	}
}

// fault decides how to go on after a transfer failed.
func (in *tmIn) fault(ep uint8, err error) error {
	if lost(err) {
		return err
	}
	in.faults++
	in.d.log.Debug("transfer failed", "op", "tmfifo", "endpoint", ep, "bytes", in.got, "err", err, "faults", in.faults)
	if errors.Is(err, usb.ErrStall) || in.faults > 1 {
		in.halted = ep
	}
	in.until = time.Now().Add(backOff(in.faults))
	in.recall()
	in.again()
	return nil
}

// again has the FIFO looked at unasked: whoever would tell may have done so.
func (in *tmIn) again() {
	in.much, in.flow, in.limit = false, true, in.got
	in.look = in.counts() && !in.strict
}

// hangs gives up bulk transfers that the device does not answer: the interrupt
// is to tell when it is worth trying again. A BlueField-3 of which more was
// asked than it has to give is from then on asked only for what the interrupt
// tells of, should it be that which makes words available.
func (in *tmIn) hangs() error {
	err := in.fault(in.d.tmInEP, os.ErrDeadlineExceeded)
	in.flow, in.look, in.strict = false, false, in.counts()
	return err
}
