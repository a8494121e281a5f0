// SPDX-License-Identifier: Apache-2.0

package ncsi

import "sync/atomic"

// IIDs gives out instance IDs: 1 to 255 and round again, never 0, which is for
// AENs. The zero value begins with 1. It is safe for concurrent use.
type IIDs struct{ n atomic.Uint32 }

// NewIIDs returns IIDs whose first is after last, the one that was used most
// recently or a random number. A NIC takes a command with the instance ID of
// the one before for a repetition, so that a program which always begins with 1
// can get the answer to what its last run asked.
func NewIIDs(last uint8) *IIDs {
	var i IIDs
	i.n.Store(uint32(last))
	return &i
}

// Next returns the next instance ID.
func (i *IIDs) Next() uint8 {
	for {
		n := i.n.Load()
		next := n%255 + 1
		if i.n.CompareAndSwap(n, next) {
			return uint8(next)
		}
	}
}
