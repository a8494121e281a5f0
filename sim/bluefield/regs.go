// SPDX-License-Identifier: Apache-2.0

package bluefield

import (
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

// BadRegister is what a register reads as while the chip is in reset.
const BadRegister uint64 = 0xbad00acce55

// fabricDim is FABRIC_DIM. The low byte is the documented one of BlueField-1
// and -2; no public source has BlueField-3's, ours is the same.
const fabricDim = 0x22

// scratchpads is how many registers stand behind each other from Scratchpad1.
const scratchpads = 6

// Access is one register access from outside.
type Access struct {
	Write bool
	Addr  reg.Addr
	Size  int // bytes, 4 or 8
	Value uint64
}

// ReadReg reads a register as a host does, with all side effects. Of a
// register's 8 bytes, size 4 gives the low ones. Unknown registers read 0.
func (d *DPU) ReadReg(a reg.Addr, size int) uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, bad := d.badRead(a)
	if !bad {
		v = d.read(a)
	}
	if size <= 4 {
		v &= 1<<32 - 1
	}
	d.record(Access{false, a, size, v})
	return v
}

// WriteReg writes a register as a host does. Unknown registers swallow it, and
// so do all while the chip is in reset.
func (d *DPU) WriteReg(a reg.Addr, size int, v uint64) {
	d.mu.Lock()
	if size <= 4 {
		v &= 1<<32 - 1
	}
	d.record(Access{true, a, size, v})
	d.write(a, v)
	d.mu.Unlock()
	if d.cfg.OnWrite != nil {
		d.cfg.OnWrite(a, v)
	}
}

// read carries out a read. The caller holds mu.
func (d *DPU) read(a reg.Addr) uint64 {
	m := d.m
	if d.notReady {
		if d.reset.ReadZero {
			return 0
		}
		return BadRegister
	}
	switch a {
	case m.FabricDim:
		return fabricDim
	case m.BootFIFOCount:
		return uint64(d.boot.fifo.words())
	case m.Semaphore0:
		v := d.sem
		d.sem = 1
		return v
	case m.ScratchBufCtl:
		return uint64(d.ringIdx)
	case m.ScratchBufDat:
		v := d.ring[d.ringIdx]
		d.ringIdx = (d.ringIdx + 1) & int(reg.LogIndexMask)
		return v
	case m.TmHostToTileSts:
		return uint64(len(d.tm.in))
	case m.TmTileToHostSts:
		return uint64(len(d.tm.out))
	case m.TmTileToHost:
		return d.popTM()
	case m.Uptime:
		return cycles(d.resetAt)
	case m.UptimePOR:
		return cycles(d.powerAt)
	case m.MemAccRspCnt:
		return d.memRsp
	case m.ResetControl:
		if d.resetting {
			return reg.ResetPending | reg.ResetDisable | d.plain[a]
		}
	}
	if a.Channel == reg.ChanYU && d.cfg.Generation == reg.BlueField3 {
		if i := int(a.Offset) - int(reg.OPNOffsetBF3); i >= 0 && i < reg.OPNSize {
			return uint64(d.mem[d.opnAddr(i/4)])
		}
	}
	return d.plain[a]
}

// write carries out a write. The caller holds mu.
func (d *DPU) write(a reg.Addr, v uint64) {
	m := d.m
	if d.notReady {
		return
	}
	switch a {
	case m.BootFIFOData:
		d.bootWord(v)
	case m.BootControl:
		d.plain[a] = v & reg.BootModeMask
	case m.ResetControl:
		if v&reg.ResetKeyMask == reg.ResetKey {
			d.askReset()
		}
	case m.Semaphore0:
		if d.sem = v; v == 0 {
			d.semFree.ring()
		}
	case m.ScratchBufCtl:
		d.ringIdx = int(v & reg.LogIndexMask)
	case m.ScratchBufDat:
		d.ring[d.ringIdx] = v
		d.ringIdx = (d.ringIdx + 1) & int(reg.LogIndexMask)
	case m.TmHostToTile:
		d.pushTM(v)
	case m.MemAccCtl:
		d.memAccess(v)
	case m.SWInt:
		d.plain[a] = v
		d.kick.ring()
	case m.Breadcrumb0, m.Breadcrumb1, m.WatchdogControl, m.MasterPrivLevel, m.MemAccData:
		d.plain[a] = v
	default:
		sp := int(a.Offset) - int(m.Scratchpad1.Offset)
		if a.Channel == m.Scratchpad1.Channel && sp >= 0 && sp < 8*scratchpads && sp%8 == 0 {
			d.plain[a] = v
		}
		if a.Channel == reg.ChanYU && d.cfg.Generation == reg.BlueField3 {
			if i := int(a.Offset) - int(reg.OPNOffsetBF3); i >= 0 && i < reg.OPNSize {
				d.mem[d.opnAddr(i/4)] = uint32(v)
			}
		}
	}
}

// memAccess carries out an indirect access. Without the privilege level it
// answers like an inaccessible register. The caller holds mu.
func (d *DPU) memAccess(ctl uint64) {
	if ctl&reg.MemAccSend == 0 {
		return
	}
	addr, dat := ctl&reg.MemAccAddrMask, d.m.MemAccData
	wide := ctl>>reg.MemAccSizeShift&7 == reg.MemAccSize8
	switch {
	case d.plain[d.m.MasterPrivLevel]>>d.m.MemAccLevelBit&1 == 0:
		d.plain[dat] = BadRegister
	case ctl&reg.MemAccWrite != 0:
		// Only what exists can be written, which also bounds the map.
		if _, ok := d.mem[addr]; ok {
			d.mem[addr] = uint32(d.plain[dat])
		}
		if _, ok := d.mem[addr+4]; ok && wide {
			d.mem[addr+4] = uint32(d.plain[dat] >> 32)
		}
	default:
		d.plain[dat] = uint64(d.mem[addr])
		if wide {
			d.plain[dat] |= uint64(d.mem[addr+4]) << 32
		}
	}
	d.memRsp++
}

// opnAddr is where word i of the part number stands: real for BlueField-2, a
// private place for the others, which have it elsewhere or not at all.
func (d *DPU) opnAddr(i int) uint64 {
	base := reg.OPNMemBF2
	if d.cfg.Generation != reg.BlueField2 {
		base |= 1 << 63
	}
	return base + uint64(4*i)
}

func cycles(since time.Time) uint64 {
	return uint64(time.Since(since)) / uint64(time.Second/reg.UptimeHz)
}
