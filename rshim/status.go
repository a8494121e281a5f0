// SPDX-License-Identifier: Apache-2.0

package rshim

import "github.com/bluefield-go/bmc-rshim/rshim/reg"

// Status is what is known about a device without asking the chip.
type Status struct {
	Index      int
	Name       string // as in DEV_NAME
	State      State
	Reason     string         // of the state, in words
	Generation reg.Generation // 0 while the device is absent
	Revision   int
	OPN        string // part number, "" if unknown
	Push       PushStatus
}

// Status returns the status of the device.
func (d *Device) Status() Status {
	st := Status{Index: d.index, Push: d.Push()}
	d.mu.Lock()
	defer d.mu.Unlock()
	st.Name, st.State, st.Reason = d.name, d.state, d.reason
	if s := d.sess; s != nil {
		st.Generation, st.Revision, st.OPN = s.gen, s.b.Revision(), s.opn
	}
	return st
}
