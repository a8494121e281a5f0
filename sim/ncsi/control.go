// SPDX-License-Identifier: Apache-2.0

package simncsi

import (
	"slices"
	"strconv"

	"github.com/bluefield-go/bmc-rshim/ncsi/oem"
)

// State is what a NIC remembers.
type State struct {
	Stored    oem.HostAccess    `json:"stored"` // from the next reboot on
	Active    oem.HostAccess    `json:"active"` // in force
	Runtime   oem.RuntimeAccess `json:"runtime"`
	Untrusted bool              `json:"untrusted"` // it does not trust the BMC
	Counts    Counts            `json:"counts"`
}

// MaxIIDs is how many instance IDs Counts remembers.
const MaxIIDs = 32

// Counts counts the commands that came, also those that a fault swallowed.
type Counts struct {
	Commands int     `json:"commands"` // of all types
	OEM      int     `json:"oem"`
	Sets     int     `json:"sets"`   // OEM commands that set
	Clears   int     `json:"clears"` // Clear Initial State
	IIDs     IIDList `json:"iids"`   // of the last OEM commands, the oldest first
}

// IIDList is a list of numbers, in JSON too.
type IIDList []uint8

// MarshalJSON gives a list of numbers, which []uint8 alone is not.
func (l IIDList) MarshalJSON() ([]byte, error) {
	b := []byte{'['}
	for i, n := range l {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, uint64(n), 10)
	}
	return append(b, ']'), nil
}

// Control reaches behind the NC-SI side of a NIC. The errors are those of a
// Remote's line; a *NIC gives none.
type Control interface {
	// State returns the state.
	State() (State, error)
	// SetState changes the state, but what is counted, and nothing else.
	SetState(State) error
	// Inject arranges for a fault. Of several that apply to a command, the
	// first one injected strikes.
	Inject(Fault) error
	// Clear forgets all faults, and Uninitialise.
	Clear() error
	// Uninitialise puts all channels into the Initial State, and has OEM
	// commands to a package fail with 1/1 until a Clear Initial State comes to
	// one of its channels.
	Uninitialise() error
	// Reboot restarts the DPU: the stored host access comes into force, and
	// run-time access follows it.
	Reboot() error
}

var _ Control = (*NIC)(nil)

// State implements Control.
func (n *NIC) State() (State, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.state
	s.Counts.IIDs = slices.Clone(s.Counts.IIDs)
	return s, nil
}

// SetState implements Control.
func (n *NIC) SetState(s State) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	s.Counts = n.state.Counts
	n.state = s
	return nil
}

// Inject implements Control.
func (n *NIC) Inject(f Fault) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if f.Count == 0 {
		f.Count = 1
	}
	n.faults = append(n.faults, f)
	return nil
}

// Clear implements Control.
func (n *NIC) Clear() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.faults = nil
	for _, p := range n.packages {
		p.needInit = false
	}
	return nil
}

// Uninitialise implements Control.
func (n *NIC) Uninitialise() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.packages {
		p.needInit = true
		for i := range p.channels {
			p.channels[i] = channel{}
		}
	}
	return nil
}

// Reboot implements Control.
func (n *NIC) Reboot() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := &n.state
	s.Active, s.Runtime = s.Stored, oem.RuntimeEnabled
	if s.Active == oem.Locked {
		s.Runtime = oem.RuntimeLocked
	}
	return nil
}
