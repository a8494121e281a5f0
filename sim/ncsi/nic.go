// SPDX-License-Identifier: Apache-2.0

// Package simncsi is a behavioural model of a BlueField's NIC as a BMC sees it
// through NC-SI: packages and channels with as much of DSP0222 as Linux needs
// to bring a channel up, NVIDIA's OEM commands for the host's access to RShim,
// and the ways in which a NIC goes wrong. It has front-ends in memory (Memory),
// for Ethernet frames (Frame, ServePackets, ServeTap) and for MCTP messages
// (Message), and Control reaches into it, from the same process or through a
// serial line (ServeControl, Remote).
//
// A command that takes long keeps those behind it waiting, as it does in
// firmware. Time comes from package time alone, so that a model runs inside a
// testing/synctest bubble.
//
// What no source says is settled like this, and can be had otherwise where
// Config has a field for it: between a Set and the DPU's reboot a Get reads what
// was set; a locked host access can be changed; at a reboot, run-time access
// becomes locked if host access is, and enabled otherwise.
package simncsi

import (
	"bytes"
	"sync"
	"time"

	"github.com/bluefield-go/bmc-rshim/ncsi"
	"github.com/bluefield-go/bmc-rshim/ncsi/oem"
)

// Config says what NIC to model. The zero value has package 0 with one channel,
// trusts the BMC, and has host access Disabled.
type Config struct {
	Packages []int // the numbers it answers to; nil means 0 alone
	Channels int   // of each package; 0 means 1
	MAC      [6]byte
	State    State // to begin with; what is counted is ignored

	// RefuseUntrusted is what an untrusted BMC gets, RefuseRuntime what a
	// command for run-time access gets while host access is disabled. Their
	// zero values are 3/0x7FFF and 2/0.
	RefuseUntrusted, RefuseRuntime ncsi.StatusError

	ReportActive bool // Get reads the host access in force, not what was set
	LockIsFinal  bool // once host access Locked is in force, Set fails
	SetRepeats   bool // the response to Set has the state in it
	NoRuntimeGet bool // older firmware: run-time access cannot be read

	// CacheByIID answers a command that has type and instance ID of the one
	// before with the same response, whatever it asks, as the standard has it.
	CacheByIID bool
}

// NIC is the model. Its methods are safe for concurrent use.
type NIC struct {
	config Config

	mu       sync.Mutex
	state    State
	packages map[int]*pkg
	faults   []Fault
	busy     time.Time // when the last command will have been answered
	last     struct {  // for CacheByIID
		iid      uint8
		typ      ncsi.Type
		response ncsi.Response
	}
}

// New returns a NIC.
func New(c Config) *NIC {
	if c.Packages == nil {
		c.Packages = []int{0}
	}
	c.Channels = max(c.Channels, 1)
	if c.MAC == [6]byte{} {
		c.MAC = [6]byte{0x02, 0x00, 0x5e, 0x10, 0x00, 0x01}
	}
	if c.RefuseUntrusted == (ncsi.StatusError{}) {
		c.RefuseUntrusted = ncsi.StatusError{Code: ncsi.Unsupported, Reason: ncsi.UnknownCommand}
	}
	if c.RefuseRuntime == (ncsi.StatusError{}) {
		c.RefuseRuntime = ncsi.StatusError{Code: ncsi.Unavailable}
	}
	n := &NIC{config: c, packages: make(map[int]*pkg), state: c.State}
	n.state.Counts = Counts{}
	for _, number := range c.Packages {
		n.packages[number] = newPackage(c.Channels)
	}
	return n
}

// Reply is what comes of a packet.
type Reply struct {
	After   time.Duration // how long from now on until the packets are sent
	Packets [][]byte      // an AEN or none, and the response or none
}

// Respond gives the NIC a packet. What is no command, has a wrong checksum or
// is for another package gets no answer.
func (n *NIC) Respond(in []byte) Reply {
	p, _, err := ncsi.Parse(in)
	if err != nil || p.IID == 0 || p.Type&ncsi.ResponseBit != 0 {
		return Reply{}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	pk := n.packages[p.Channel.Package()]
	if pk == nil {
		return Reply{}
	}
	n.count(p)
	f := n.dueFault(p)
	if f.Kind == Silent {
		return Reply{}
	}
	now := time.Now()
	n.busy = later(now, n.busy).Add(f.Delay)
	reply := Reply{After: n.busy.Sub(now)}

	r := n.answer(pk, p, f)
	switch f.Kind {
	case Lost:
		return Reply{}
	case AENFirst:
		reply.Packets = append(reply.Packets, aen(p.Channel.First()))
	}
	reply.Packets = append(reply.Packets, f.spoil(p, r))
	return reply
}

// answer carries a command out, unless it is a repetition or f has it that not.
// The caller holds mu.
func (n *NIC) answer(pk *pkg, p ncsi.Packet, f Fault) ncsi.Response {
	if n.config.CacheByIID && p.IID == n.last.iid && p.Type == n.last.typ {
		return n.last.response
	}
	var r ncsi.Response
	switch {
	case f.Kind == Refuse:
		r = refusal(ncsi.StatusError{Code: f.Code, Reason: f.Reason}, p.Payload, f.Size)
	case p.Type == ncsi.OEM:
		r = n.oem(pk, p.Payload, f.Kind == Ignore)
	default:
		r = n.command(pk, p)
	}
	n.last.iid, n.last.typ, n.last.response = p.IID, p.Type, r
	return r
}

// refusal repeats at most size bytes of the command behind its codes.
func refusal(s ncsi.StatusError, payload []byte, size int) ncsi.Response {
	return ncsi.Response{Code: s.Code, Reason: s.Reason, Data: bytes.Clone(payload[:min(size, len(payload))])}
}

func failed(r ncsi.Reason) ncsi.Response {
	return ncsi.Response{Code: ncsi.Failed, Reason: r}
}

// aen is a notification of the manufacturer, so that nobody acts on it.
func aen(c ncsi.Channel) []byte {
	return encode(ncsi.Packet{Type: ncsi.AEN, Channel: c, Payload: ncsi.Notification{Type: 0x70, Data: make([]byte, 4)}.Append(nil)})
}

// encode is for packets that are short enough by construction.
func encode(p ncsi.Packet) []byte {
	b, err := p.Append(nil)
	if err != nil {
		panic("simncsi: " + err.Error())
	}
	return b
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// count keeps the books. The caller holds mu.
func (n *NIC) count(p ncsi.Packet) {
	c := &n.state.Counts
	c.Commands++
	if p.Type != ncsi.OEM {
		if p.Type == ncsi.ClearInitialState {
			c.Clears++
		}
		return
	}
	c.OEM++
	c.IIDs = append(c.IIDs, p.IID)
	c.IIDs = c.IIDs[max(0, len(c.IIDs)-MaxIIDs):]
	if len(p.Payload) > 5 && oem.Command(p.Payload[5]) == oem.Set {
		c.Sets++
	}
}
