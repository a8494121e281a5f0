// SPDX-License-Identifier: Apache-2.0

package devnode

import (
	"bytes"
	"context"
	"strings"

	"github.com/bluefield-go/bmc-rshim/rshim"
)

// Ioctls of our own of /dev/rshimN/rshim, for what misc, whose lines other
// programs take apart, has no room for.
const (
	// iocForce asks the owner for the RShim. What ioctl returns is the
	// rshim.ForceResult.
	iocForce = 0x5211 // _IO('R', 17)
	// iocState gives the state and its reason, each ended by a NUL.
	iocState     = 0x81005212 // _IOR('R', 18, 256 bytes)
	iocStateSize = 256
)

func (f regFile) force(ctx context.Context) (int32, error) {
	r, err := f.d.Force(ctx)
	return int32(r), forceErrno(err)
}

// state fills in iocState's answer. Reasons are cut off where it ends.
func (f regFile) state(out []byte) {
	state, reason := f.d.State()
	text := state.String() + "\x00" + strings.ReplaceAll(reason, "\x00", " ")
	copy(out[:len(out)-1], text)
}

// parseState is the inverse of state.
func parseState(b []byte) (state, reason string) {
	s, r, _ := bytes.Cut(b, []byte{0})
	r, _, _ = bytes.Cut(r, []byte{0})
	return string(s), string(r)
}

// State returns the state of the device, and why it is in it, in words. A daemon
// other than ours does not know.
func (r *Registers) State() (state, reason string, err error) {
	var b [iocStateSize]byte
	if _, err := r.call("state", iocState, &b[0]); err != nil {
		return "", "", err
	}
	state, reason = parseState(b[:])
	return state, reason, nil
}

// Force has the daemon ask the owner for the RShim, and waits for the outcome,
// for up to 10 s.
func (r *Registers) Force() (rshim.ForceResult, error) {
	n, err := r.call("force", iocForce, nil)
	return rshim.ForceResult(n), err
}
