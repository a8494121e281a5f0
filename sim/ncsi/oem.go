// SPDX-License-Identifier: Apache-2.0

package simncsi

import (
	"encoding/binary"

	"github.com/bluefield-go/bmc-rshim/ncsi"
	"github.com/bluefield-go/bmc-rshim/ncsi/oem"
)

// getMAC is the manufacturer's command by which Linux asks for the MAC address
// that the BMC is to use, and its parameter.
const (
	getMAC      oem.Command   = 0x00
	getMACParam oem.Parameter = 0x1b
)

// oem carries an OEM command out. With ignore, what sets is answered and not
// done. The caller holds mu.
func (n *NIC) oem(pk *pkg, payload []byte, ignore bool) ncsi.Response {
	const header = 8
	if len(payload) < 4 || binary.BigEndian.Uint32(payload) != oem.Manufacturer {
		return refusal(ncsi.StatusError{Code: ncsi.Unsupported, Reason: ncsi.UnknownCommand}, payload, 4)
	}
	if len(payload) < header {
		return refusal(ncsi.StatusError{Code: ncsi.Failed, Reason: ncsi.InvalidLength}, payload, 4)
	}
	command, param, data := oem.Command(payload[5]), oem.Parameter(payload[6]), payload[header:]
	no := func(c ncsi.Code, r ncsi.Reason) ncsi.Response {
		return refusal(ncsi.StatusError{Code: c, Reason: r}, payload, header)
	}
	yes := func(state ...byte) ncsi.Response {
		return ncsi.Response{Data: append(payload[:header:header], state...)}
	}
	s := &n.state
	if pk.needInit {
		return no(ncsi.Failed, ncsi.InitRequired)
	}
	if command == getMAC && param == getMACParam {
		mac := append(make([]byte, 4), n.config.MAC[:]...)
		return yes(append(mac, 0, 0)...)
	}
	access := param == oem.ParamHostAccess || param == oem.ParamRuntimeAccess
	switch {
	case !access, command != oem.Get && command != oem.Set,
		n.config.NoRuntimeGet && command == oem.Get && param == oem.ParamRuntimeAccess:
		return no(ncsi.Unsupported, ncsi.UnknownCommand)
	case s.Untrusted:
		return refusal(n.config.RefuseUntrusted, payload, 4)
	case param == oem.ParamRuntimeAccess && s.Active == oem.Disabled:
		return refusal(n.config.RefuseRuntime, payload, header)
	}
	if command == oem.Get {
		state := uint8(s.Runtime)
		if param == oem.ParamHostAccess {
			state = uint8(s.Stored)
			if n.config.ReportActive {
				state = uint8(s.Active)
			}
		}
		return yes(0, 0, 0, state)
	}
	if len(data) < 4 {
		return no(ncsi.Failed, ncsi.InvalidLength)
	}
	state, highest := data[3], uint8(oem.RuntimeLocked)
	if param == oem.ParamHostAccess {
		highest = uint8(oem.Locked)
	}
	final := n.config.LockIsFinal && param == oem.ParamHostAccess && s.Active == oem.Locked
	if data[0]|data[1]|data[2] != 0 || state > highest || final {
		return no(ncsi.Failed, ncsi.InvalidParameter)
	}
	switch {
	case ignore:
	case param == oem.ParamHostAccess:
		s.Stored = oem.HostAccess(state)
	default:
		s.Runtime = oem.RuntimeAccess(state)
	}
	if n.config.SetRepeats {
		return yes(0, 0, 0, state)
	}
	return yes()
}
