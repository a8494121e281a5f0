// SPDX-License-Identifier: Apache-2.0

package bluefield

import (
	"encoding/binary"
	"math/rand/v2"
)

// TMState is how the DPU's side of the TMFIFO stands. It counts from New on.
type TMState struct {
	ConsoleIn, ConsoleOut         int64 // bytes read from, and put into the FIFO
	ConsoleInLost, ConsoleOutLost int64 // bytes that nobody wanted, that found no room
	FramesIn, FramesOut           int64 // network frames, likewise
	FramesInLost, FramesOutLost   int64
	Control                       int64 // control messages that were obeyed
	Skipped                       int64 // messages without type or payload, as fill the FIFO
	Bad                           int64 // messages that a host must not send

	// What the control messages tell, and set. It survives resets.
	MAC   [6]byte
	PXEID uint32 // as the C daemon's misc shows it, which is little endian on its way
	VLAN  [2]uint16
}

// TM returns how the DPU's side of the TMFIFO stands.
func (d *DPU) TM() TMState {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.tm.state
}

// HoldConsole keeps the shell from reading what is typed, and lets it go on.
// The driver takes 1024 messages meanwhile, and loses those that follow.
func (d *DPU) HoldConsole(on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tm.consoleHold = on
	d.tm.soft.changed.ring()
}

// InjectTM has words sent to the host as they are, between two messages of the
// DPU's software, as soon as there is room.
func (d *DPU) InjectTM(words []uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tm.soft.urge(words)
}

// NoiseTM has so many words of garbage sent to the host, other ones each time:
// any words, zeros, and headers of any length.
func (d *DPU) NoiseTM(words int) {
	d.mu.Lock()
	d.tm.seed++
	r := rand.New(rand.NewPCG(d.tm.seed, 0))
	d.mu.Unlock()
	noise := make([]uint64, words)
	for i := range noise {
		w := r.Uint64()
		switch r.IntN(4) {
		case 0:
			w = 0
		case 1:
			w = w&^0xff | typeNet
		case 2:
			w = w&^0xff | typeConsole
		}
		noise[i] = w
	}
	d.InjectTM(noise)
}

// HalfTM has half of a message with a frame of 512 bytes sent to the host: its
// end, as when a previous owner of the RShim has read its beginning, or its
// beginning, the rest of which never comes.
func (d *DPU) HalfTM(end bool) {
	frame := make([]byte, 512)
	for i := range frame {
		frame[i] = "half a message; "[i%16]
	}
	words := message(typeNet, frame, 0)
	if end {
		words = words[len(words)/2:]
	} else {
		words = words[:len(words)/2]
	}
	d.InjectTM(words)
}

// Message types of the TMFIFO. Those above typeConsole are control messages,
// which have no payload, but arguments in their header.
const (
	typeNet     = 1
	typeConsole = 3
	typeVLANID  = 0xfb
	typePXEID   = 0xfc
	typeCtrlReq = 0xfd
	typeMACLow  = 0xfe
	typeMACHigh = 0xff
)

// message returns a message as the software of a DPU sends it: without a
// checksum, or with garbage in the five bytes after type and length.
func message(typ byte, payload []byte, garbage uint64) []uint64 {
	words := make([]uint64, 1, 2+len(payload)/8)
	n := len(payload)
	words[0] = uint64(typ) | uint64(n>>8)<<8 | uint64(n&0xff)<<16 | garbage<<24
	var last [8]byte
	for ; len(payload) >= 8; payload = payload[8:] {
		words = append(words, binary.LittleEndian.Uint64(payload))
	}
	if len(payload) > 0 {
		copy(last[:], payload)
		words = append(words, binary.LittleEndian.Uint64(last[:]))
	}
	return words
}

// controlMessage returns a control message with its checksum.
func controlMessage(typ byte, args [4]byte) uint64 {
	b := [8]byte{typ, 0, 0, args[0], args[1], args[2], args[3]}
	b[7] = -sum8(b)
	return binary.LittleEndian.Uint64(b[:])
}

func sum8(b [8]byte) (s byte) {
	for _, x := range b {
		s += x
	}
	return s
}
