// SPDX-License-Identifier: Apache-2.0

package bluefield

import (
	"context"
	"encoding/binary"
	"strings"
	"sync"
	"time"
)

// phase is which of the DPU's software has the TMFIFO.
type phase int

// Phases, in the order of a boot.
const (
	phaseNone  phase = iota // nobody reads it
	phaseATF                // nobody reads it, and ATF writes
	phaseUEFI               // UEFI, which has a console and no network
	phaseLinux              // Linux's driver
	phaseShell              // and a shell
)

// software is the DPU's side of the TMFIFO from one reset to the next. The
// DPU's mu guards all of it.
type software struct {
	gone    chan struct{} // closed when its boot is over
	phase   phase
	changed bell // phase, or the console's hold

	rx      receiver
	input   [][]byte // what was typed, by messages
	typed   bell     // there is input
	inTaken bell     // it was taken

	cur     *sending   // has been begun
	urgent  [][]uint64 // goes first, as it is
	console ring8      // of Linux's driver
	conRoom bell
	frame   []byte // the next one for the host
	taken   bell   // it was taken
	netDead bool   // the host read nothing for too long
	netTurn bool   // the network is next, if it has something
	wake    bell   // there is something to send

	atf struct {
		buf   []byte
		plain bool // one character a message
	}
}

// conBuffer is the size of the console's buffer in Linux's driver, in bytes.
const conBuffer = 32 << 10

func newSoftware() *software {
	return &software{gone: make(chan struct{})}
}

// hasSoftware reports whether there is software on the TMFIFO.
func (d *DPU) hasSoftware() bool {
	return (d.cfg.Console || d.cfg.Net != nil) && d.cfg.OnTM == nil && !d.cfg.NoFirmware
}

// endSoftware is the end of a boot for the TMFIFO. The caller holds mu.
func (d *DPU) endSoftware() {
	s := d.tm.soft
	if s.frame != nil {
		d.tm.state.FramesOutLost++
	}
	close(s.gone)
	d.tm.soft = newSoftware()
}

// runTM is the software of one boot at its TMFIFO, until ctx ends.
func (d *DPU) runTM(ctx context.Context) {
	d.mu.Lock()
	s := d.tm.soft
	d.mu.Unlock()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { d.transmit(ctx, s) })
	if !d.hasSoftware() {
		return
	}
	wg.Go(func() { d.receive(ctx, s) })
	if d.cfg.Console {
		wg.Go(func() { d.runShell(ctx, s) })
	}
}

// enterTM hands the TMFIFO to the next software.
func (d *DPU) enterTM(p phase) {
	if !d.hasSoftware() {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.tm.soft
	if s.phase == p {
		return
	}
	if s.phase == phaseATF {
		d.flushATF(s)
	}
	if s.phase < phaseLinux {
		s.rx = receiver{}
	}
	s.phase = p
	switch p {
	case phaseUEFI:
		// It begins with empty messages, for a host that is in the middle of
		// one.
		for range min(syncWords, d.tmRoom(0)) {
			d.putTM(typeNet)
		}
	case phaseLinux:
		s.console.buf = make([]byte, conBuffer)
	}
	s.changed.ring()
	d.tm.inData.ring()
	s.wake.ring()
}

// syncWords is with how many empty messages UEFI begins.
const syncWords = 1536 / 8

// bootConsole writes a line of the boot log on the console, as the software
// does that logs it, which may be the first that is heard of that software.
// With a shell on it, the console is the shell's alone.
func (d *DPU) bootConsole(text string) {
	if !d.hasSoftware() {
		return
	}
	head, _, _ := strings.Cut(text, "]")
	_, module, _ := strings.Cut(head, "[")
	d.mu.Lock()
	p := d.tm.soft.phase
	d.mu.Unlock()
	if p == phaseShell || module == "PSC" { // that is a processor of its own
		return
	}
	switch module {
	case "BL1", "BL2", "BL2R", "BL31":
		p = phaseATF
	case "UEFI":
		p = phaseUEFI
	case "MISC":
		if !d.cfg.NICMode {
			p = phaseLinux
		}
	}
	d.enterTM(p)
	if !d.cfg.Console {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s, line := d.tm.soft, []byte(text+"\r\n")
	switch p {
	case phaseATF:
		d.putATF(s, line)
	case phaseUEFI:
		d.putBoot(s, line)
	case phaseLinux:
		d.putLinux(s, line)
	}
}

// control obeys a control message, and reports whether it was one. The caller
// holds mu.
func (d *DPU) control(s *software, w uint64) bool {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], w)
	if b[0] < typeVLANID || s.phase >= phaseLinux && d.cfg.UpstreamKernel {
		return false
	}
	st := &d.tm.state
	if b[7] != 0 && sum8(b) != 0 {
		st.Bad++
		return true
	}
	st.Control++
	args := b[3:7]
	switch b[0] {
	case typeMACLow:
		copy(st.MAC[:3], args)
	case typeMACHigh:
		copy(st.MAC[3:], args)
	case typePXEID:
		st.PXEID = binary.LittleEndian.Uint32(args)
	case typeVLANID:
		st.VLAN = [2]uint16{binary.BigEndian.Uint16(args), binary.BigEndian.Uint16(args[2:])}
	case typeCtrlReq:
		var pxe, vlan [4]byte
		binary.LittleEndian.PutUint32(pxe[:], st.PXEID)
		binary.BigEndian.PutUint16(vlan[:], st.VLAN[0])
		binary.BigEndian.PutUint16(vlan[2:], st.VLAN[1])
		m := st.MAC
		s.urge([]uint64{
			controlMessage(typeMACLow, [4]byte{m[0], m[1], m[2]}),
			controlMessage(typeMACHigh, [4]byte{m[3], m[4], m[5]}),
			controlMessage(typeVLANID, vlan),
			controlMessage(typePXEID, pxe), // the last one
		})
	}
	return true
}

// netTimeout is how long Linux's driver waits for a host that takes nothing
// before it gives up a frame.
const netTimeout = 2 * time.Second
