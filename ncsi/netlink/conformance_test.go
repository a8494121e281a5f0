// SPDX-License-Identifier: Apache-2.0

package netlink

import (
	"testing"
	"time"

	"github.com/bluefield-go/bmc-rshim/ncsi"
	"github.com/bluefield-go/bmc-rshim/ncsi/ncsitest"
	"github.com/bluefield-go/bmc-rshim/sim/ncsi"
)

// TestConformance runs the suite against the fake kernel; e2e/guest runs it
// against a real one.
func TestConformance(t *testing.T) {
	ncsitest.RunVirtual(t, func(t *testing.T) *ncsitest.Rig {
		model := simncsi.New(simncsi.Config{})
		k := machine(func(p ncsi.Packet) ([]byte, time.Duration) {
			command, err := p.Append(nil)
			if err != nil {
				t.Error(err)
				return nil, 0
			}
			reply := model.Respond(command)
			if len(reply.Packets) == 0 {
				return nil, 0
			}
			// AENs end in the kernel; frames are padded.
			response := reply.Packets[len(reply.Packets)-1]
			return append(response, make([]byte, max(0, 46-len(response)))...), reply.After
		})
		k.tail = []byte{1, 2, 3, 4}
		return &ncsitest.Rig{Transport: k.transport(Options{}), NIC: model, Channel: 0x1f, Timeout: kernelTimeout}
	})
}
