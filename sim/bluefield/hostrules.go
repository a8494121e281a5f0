// SPDX-License-Identifier: Apache-2.0

package bluefield

import (
	"encoding/binary"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/rshim/tmfifo"
)

// The C daemon's times. It counts ticks of 1 ms in the same thread that does
// the work, and does not catch up with ticks that passed while it worked: the
// two periods are of time at rest. A keepalive is due when more than 300 ticks
// have passed, and for the first time at the second of such moments.
const (
	firstKeepalive  = 303 * time.Millisecond
	keepalivePeriod = 301 * time.Millisecond
	lookPeriod      = 100 * time.Millisecond

	readyTries = 10 // for FABRIC_DIM
	readyWait  = 100 * time.Millisecond
	checkPolls = 100
	checkWait  = 10 * time.Millisecond

	handshakeTries = 10 // of OSP_REQ, and of OSP_ACK
	handshakeWait  = 100 * time.Millisecond
	grantWait      = time.Second

	syncPoll = 10 * time.Millisecond // of a FIFO that the C daemon reads without a pause
)

const (
	// sp6PCIe is scratchpad 6's bit that says that the host's driver is there.
	sp6PCIe uint64 = 1 << 63
	// fifoReserve is how many words of the FIFO to the DPU are never used.
	fifoReserve = 3
)

// read, write and sleep do nothing once the driver has died, so that what
// calls them simply runs to its end.

func (h *Host) read(a reg.Addr) uint64 {
	h.latency()
	defer h.latency()
	if h.ctx.Err() != nil {
		return 0
	}
	return h.d.ReadReg(a, 8)
}

func (h *Host) write(a reg.Addr, v uint64) {
	h.latency()
	defer h.latency()
	if h.ctx.Err() == nil {
		h.d.WriteReg(a, 8, v)
	}
}

// latency passes half of what an access takes.
func (h *Host) latency() {
	if h.o.Latency != nil {
		sleep(h.ctx, h.o.Latency()/2)
	}
}

func (h *Host) sleep(d time.Duration) { sleep(h.ctx, h.stretched(d)) }

func (h *Host) stretched(d time.Duration) time.Duration {
	if h.o.Stretch != nil {
		return h.o.Stretch(d)
	}
	return d
}

func (h *Host) dieAt(s HostStep) {
	if h.o.DieAt == s {
		h.die()
	}
}

// begin comes up to where the driver serves its device. It reports whether it
// does so.
func (h *Host) begin() bool {
	switch {
	case h.o.Attached:
		h.write(h.d.m.Scratchpad1, reg.Keepalive)
		h.set(HostAttached)
		return true
	case h.o.Drop:
		// There is an access check, but drop mode keeps its accesses from the
		// chip and makes it read 0 all the time.
		h.set(HostDropped)
		h.sleep(readyTries*readyWait + checkPolls*checkWait)
		return true
	case h.accessCheck():
		h.set(HostAttached)
		return true
	case h.o.Force:
		h.set(HostDropped)
		return true
	}
	h.set(HostUnattached)
	return false
}

// accessCheck is how a driver finds out whether the RShim has an owner, and
// takes it if it has none. Neither a FABRIC_DIM that stays 0 nor a bad value in
// the middle of the polls stops it, and that KEEPALIVE has arrived is not
// checked.
func (h *Host) accessCheck() bool {
	m := h.d.m
	h.set(HostChecking)
	var v uint64
	for range readyTries {
		if v = h.read(m.FabricDim); v != 0 && !reg.Bad(v) {
			break
		}
		h.sleep(readyWait)
	}
	if reg.Bad(v) {
		return false
	}
	h.write(m.Scratchpad1, 0)
	for i := range checkPolls {
		h.sleep(checkWait)
		if v = h.read(m.Scratchpad1); v == reg.Keepalive {
			return false
		}
		if i == checkPolls/2 {
			h.dieAt(HostDieInCheck)
		}
	}
	h.write(m.Scratchpad1, reg.Keepalive)
	h.dieAt(HostDieAfterCheck)
	return !reg.Bad(v) && !reg.Bad(h.read(m.Scratchpad1))
}

// serve is the daemon's only thread. All that takes time happens in it, and
// holds the rest up: there is no keepalive while it grants the ownership.
func (h *Host) serve() {
	keepalive, look := firstKeepalive, lookPeriod // still to pass
	for h.ctx.Err() == nil {
		wait := min(keepalive, look)
		begin, timer := time.Now(), time.NewTimer(h.stretched(wait))
		select {
		case <-h.ctx.Done():
		case <-h.wake:
			wait = min(wait, time.Since(begin))
			if h.obey() {
				return
			}
		case <-timer.C:
		}
		timer.Stop()
		if keepalive -= wait; keepalive <= 0 {
			keepalive = keepalivePeriod
			h.keepalive()
		}
		if look -= wait; look <= 0 {
			look = lookPeriod
			h.look()
		}
	}
}

// obey does what was asked for. It reports whether this is the end.
func (h *Host) obey() (stopped bool) {
	h.mu.Lock()
	drop, stop := h.drop, h.stop
	h.drop = nil
	h.mu.Unlock()
	switch dropped := h.State() == HostDropped; {
	case stop:
		h.set(HostOff)
		if !dropped {
			h.release()
		}
	case drop == nil || *drop == dropped:
	case *drop:
		h.enterDrop()
	default:
		h.leaveDrop()
	}
	return stop
}

// keepalive is what the driver does every 300 ms.
func (h *Host) keepalive() {
	m := h.d.m
	if h.State() == HostDropped {
		return
	}
	h.checkLocked()
	if h.State() == HostDropped {
		return
	}
	if v := h.read(m.Scratchpad6); !reg.Bad(v) && v&sp6PCIe == 0 {
		h.write(m.Scratchpad6, v|sp6PCIe)
	}
	if reg.DebugCommand(h.read(m.Scratchpad3)) == 0 {
		h.write(m.Scratchpad1, reg.Keepalive)
		h.dieAt(HostDieAttached)
	}
}

// look is what the driver does every 100 ms.
func (h *Host) look() {
	h.mu.Lock()
	dropped, deaf, force := h.state == HostDropped, h.deaf, h.force
	h.force = false // an owner has no use for it
	h.mu.Unlock()
	if dropped {
		if force {
			h.request()
		}
		return
	}
	if deaf {
		return
	}
	if h.checkLocked(); h.State() == HostDropped {
		return
	}
	if h.read(h.d.m.Scratchpad1) == reg.OwnershipRequest {
		h.grant()
	}
}

// checkLocked finds out about the secure NIC mode. When it ends, somebody else
// may have the RShim.
func (h *Host) checkLocked() {
	v := h.read(h.d.m.Scratchpad1)
	locked := h.State() == HostLocked
	switch {
	case reg.Bad(v) || locked == (v == reg.Locked):
	case !locked:
		h.set(HostLocked)
	case h.accessCheck():
		h.set(HostAttached)
	default:
		h.enterDrop()
	}
}

// request is FORCE: it asks the owner ten times, within a second, and gives
// up. OSP_REQ stays in scratchpad 1 then.
func (h *Host) request() {
	sp1 := h.d.m.Scratchpad1
	h.set(HostRequesting)
	for range handshakeTries {
		h.write(sp1, reg.OwnershipRequest)
		h.dieAt(HostDieAfterRequest)
		h.sleep(handshakeWait)
		if h.read(sp1) == reg.OwnershipAck {
			h.dieAt(HostDieAfterAck)
			h.leaveDrop()
			return
		}
	}
	h.set(HostDropped)
}

// grant gives the RShim to whom asked for it. Who that is, and whether it is
// still there, is not known.
func (h *Host) grant() {
	h.dieAt(HostDieBeforeAck)
	h.set(HostGranting)
	for range handshakeTries {
		h.write(h.d.m.Scratchpad1, reg.OwnershipAck)
		h.dieAt(HostDieInAck)
		h.sleep(handshakeWait)
	}
	h.dieAt(HostDieAfterAcks)
	h.sleep(grantWait)
	h.enterDrop()
}

func (h *Host) enterDrop() {
	h.set(HostDropped)
	h.release()
}

// release clears what tells the firmware that a driver is there. It writes
// blindly: whoever has written KEEPALIVE meanwhile loses it until his next one.
func (h *Host) release() {
	h.write(h.d.m.Scratchpad1, 0)
	h.write(h.d.m.Scratchpad6, 0)
}

func (h *Host) leaveDrop() {
	h.syncTM()
	if h.accessCheck() {
		h.set(HostAttached)
	} else {
		h.set(HostDropped)
	}
}

// syncTM fills the FIFO to the DPU with empty messages and reads the one from
// it until nothing came for more than a second of the clock on the wall, which
// is 1 to 2 s. A DPU that does not stop sending keeps it here for ever.
func (h *Host) syncTM() {
	m := h.d.m
	v := h.read(m.TmHostToTileSts)
	free := reg.TmFIFODepth - fifoReserve - int(v&reg.TmFIFOCountMask)
	if reg.Bad(v) || free < 0 {
		h.sleep(syncPoll)
		return
	}
	empty := binary.LittleEndian.Uint64(tmfifo.Append(nil, tmfifo.Message{Type: tmfifo.Net}))
	for range free {
		h.write(m.TmHostToTile, empty)
	}
	for quiet := time.Now().Unix(); time.Now().Unix()-quiet <= 1 && h.ctx.Err() == nil; {
		v := h.read(m.TmTileToHostSts)
		if reg.Bad(v) {
			return
		}
		for range v & reg.TmFIFOCountMask {
			h.read(m.TmTileToHost)
			quiet = time.Now().Unix()
		}
		h.sleep(syncPoll)
	}
}
