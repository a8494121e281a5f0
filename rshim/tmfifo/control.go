// SPDX-License-Identifier: Apache-2.0

package tmfifo

import "encoding/binary"

// Peer is what the DPU's side says about itself in answer to a request.
type Peer struct {
	MAC   [6]byte
	PXEID uint32    // as misc shows it
	VLAN  [2]uint16 // 0 = none
}

// Take remembers what a control message says. It reports whether this was the
// last one of an answer: the DPU sends the PXE id after all else.
func (p *Peer) Take(m Message) (last bool) {
	switch m.Type {
	case MACLow:
		copy(p.MAC[:3], m.Args[:3])
	case MACHigh:
		copy(p.MAC[3:], m.Args[:3])
	case VLANID:
		p.VLAN[0] = binary.BigEndian.Uint16(m.Args[0:])
		p.VLAN[1] = binary.BigEndian.Uint16(m.Args[2:])
	case PXEID:
		p.PXEID = binary.LittleEndian.Uint32(m.Args[:])
		return true
	}
	return false
}

// NewRequest asks the other side for its MAC address, VLAN and PXE ids.
func NewRequest() Message { return Message{Type: CtrlReq} }

// NewMAC returns the two messages that set a MAC address, to be sent in turn.
func NewMAC(mac [6]byte) [2]Message {
	return [2]Message{
		{Type: MACLow, Args: [4]byte{mac[0], mac[1], mac[2]}},
		{Type: MACHigh, Args: [4]byte{mac[3], mac[4], mac[5]}},
	}
}

// NewPXEID sets the id by which PXE servers know the DPU. It travels little
// endian: the C daemon's header calls it network order, but the daemon swaps
// it twice on its way to misc.
func NewPXEID(id uint32) Message {
	m := Message{Type: PXEID}
	binary.LittleEndian.PutUint32(m.Args[:], id)
	return m
}

// NewVLANs sets the VLAN ids of the DPU's interface; 0 is none.
func NewVLANs(ids [2]uint16) Message {
	m := Message{Type: VLANID}
	binary.BigEndian.PutUint16(m.Args[0:], ids[0])
	binary.BigEndian.PutUint16(m.Args[2:], ids[1])
	return m
}
