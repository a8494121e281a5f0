// SPDX-License-Identifier: Apache-2.0

package simncsi

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/bluefield-go/bmc-rshim/ncsi"
)

// Kind is a kind of Fault.
type Kind string

// Kinds of faults. Where the checksum is not the fault, it is right.
const (
	Slow              Kind = "slow"               // nothing but Fault.Delay
	Silent            Kind = "silent"             // the command gets lost, and nothing is done
	Lost              Kind = "lost"               // the command is carried out, its response gets lost
	BadChecksum       Kind = "bad checksum"       //
	ZeroChecksum      Kind = "zero checksum"      //
	NoChecksum        Kind = "no checksum"        // the packet ends before it
	WrongIID          Kind = "wrong IID"          //
	WrongLength       Kind = "wrong length"       // the header's length goes beyond the end
	Short             Kind = "short"              // a payload of Size bytes; 0 means its codes alone
	WrongManufacturer Kind = "wrong manufacturer" //
	WrongParameter    Kind = "wrong parameter"    // another OEM parameter is repeated
	UnknownState      Kind = "unknown state"      // a state that does not exist
	Tail              Kind = "tail"               // bytes behind the checksum
	AENFirst          Kind = "AEN first"          // an AEN comes before the response
	Refuse            Kind = "refuse"             // Code and Reason; Size bytes of the command are repeated
	Ignore            Kind = "ignore"             // an OEM command to set is answered and not done
)

// Fault is something that goes wrong with commands.
type Fault struct {
	Kind  Kind          `json:"kind"`
	Count int           `json:"count,omitempty"` // how many commands it strikes; 0 means 1
	All   bool          `json:"all,omitempty"`   // it strikes any command, not only OEM's
	Delay time.Duration `json:"delay,omitempty"` // the response is that late, with any Kind

	Code   ncsi.Code   `json:"code,omitempty"`
	Reason ncsi.Reason `json:"reason,omitempty"`
	Size   int         `json:"size,omitempty"`
}

// Unsupported is what a NIC does that does not know NVIDIA's OEM commands, for
// count of them.
func Unsupported(count int) Fault {
	return Fault{Kind: Refuse, Count: count, Code: ncsi.Unsupported, Reason: ncsi.UnknownCommand}
}

// dueFault takes the fault that is meant for p. The caller holds mu.
func (n *NIC) dueFault(p ncsi.Packet) Fault {
	i := slices.IndexFunc(n.faults, func(f Fault) bool { return f.All || p.Type == ncsi.OEM })
	if i < 0 {
		return Fault{}
	}
	f := n.faults[i]
	if n.faults[i].Count--; n.faults[i].Count <= 0 {
		n.faults = slices.Delete(n.faults, i, i+1)
	}
	return f
}

// spoil encodes the response to a command with the fault in it.
func (f Fault) spoil(command ncsi.Packet, r ncsi.Response) []byte {
	p := ncsi.Packet{
		MC: command.MC, IID: command.IID, Type: command.Type.Response(), Channel: command.Channel,
		Payload: r.Append(nil),
	}
	// The codes of a response take 4 bytes, the manufacturer 4; then come
	// revision, command and parameter, and at 12 the word with the state.
	switch {
	case f.Kind == WrongIID:
		p.IID = uint8((int(p.IID)+127)%255 + 1)
	case f.Kind == Short:
		p.Payload = p.Payload[:min(max(f.Size, 4), len(p.Payload))]
	case f.Kind == WrongManufacturer && len(p.Payload) >= 8:
		binary.BigEndian.PutUint32(p.Payload[4:], 0x113d)
	case f.Kind == WrongParameter && len(p.Payload) > 10:
		p.Payload[10] ^= 0x40
	case f.Kind == UnknownState && len(p.Payload) >= 16:
		p.Payload[15] = 7
	}
	b := encode(p)
	sum := b[len(b)-ncsi.ChecksumSize:]
	switch f.Kind {
	case BadChecksum:
		sum[3] ^= 0x55
	case ZeroChecksum:
		clear(sum)
	case NoChecksum:
		b = b[:len(b)-ncsi.ChecksumSize]
	case WrongLength:
		binary.BigEndian.PutUint16(b[6:], uint16(len(p.Payload)+64))
	case Tail:
		b = append(b, 0xde, 0xad, 0xbe, 0xef, 0x01)
	}
	return b
}

// check reports what is wrong with a fault that came from outside.
func (f Fault) check() error {
	known := []Kind{Slow, Silent, Lost, BadChecksum, ZeroChecksum, NoChecksum, WrongIID, WrongLength, Short,
		WrongManufacturer, WrongParameter, UnknownState, Tail, AENFirst, Refuse, Ignore}
	if !slices.Contains(known, f.Kind) {
		return fmt.Errorf("fault %q is not known", f.Kind)
	}
	if f.Count < 0 || f.Size < 0 || f.Delay < 0 {
		return fmt.Errorf("fault %q: negative count, size or delay", f.Kind)
	}
	return nil
}
