// SPDX-License-Identifier: Apache-2.0

// Package reg is the register map of the RShim block of BlueField-1, -2 and
// -3: where each register stands, what its bits mean, how a register is
// addressed in a USB control transfer, and which values mean "nobody is
// there". It does no I/O.
//
// BlueField-1 and -2 share one map. Sources: rshim_regs.h and rshim_usb.c of
// Mellanox/rshim-user-space 2.8.2, and ATF's rsh.h for the semantics.
package reg

import "fmt"

// Generation is the generation of a BlueField: 1, 2 or 3.
type Generation int

// The generations with an RShim.
const (
	BlueField1 Generation = 1 + iota
	BlueField2
	BlueField3
)

func (g Generation) String() string { return fmt.Sprintf("BlueField-%d", int(g)) }

// Channel selects a unit behind the RShim. Values above 0xf are, on
// BlueField-3 alone, the upper 16 bits of a linear CR-space address.
type Channel uint16

// Channels of the RShim's MMIO address space.
const (
	ChanBoot     Channel = 0x0
	ChanRShim    Channel = 0x1
	ChanUART0    Channel = 0x2
	ChanUART1    Channel = 0x3
	ChanDiagUART Channel = 0x4
	ChanYU       Channel = 0x5
	ChanOOB      Channel = 0x6
	ChanGIC      Channel = 0x7
	ChanMCHCore  Channel = 0x8
	ChanTimer    Channel = 0x9
	ChanUSB      Channel = 0xa
	ChanGPIO     Channel = 0xb
	ChanMMC      Channel = 0xc
	ChanTimerExt Channel = 0xd
	ChanWDOG0    Channel = 0xe
	ChanWDOG1    Channel = 0xf
)

// Addr is the address of one register: a channel and a byte offset in it.
type Addr struct {
	Channel Channel
	Offset  uint16
}

func (a Addr) String() string { return fmt.Sprintf("%#x:%#x", uint16(a.Channel), a.Offset) }

// Linear splits a 32-bit address as the ioctls of /dev/rshimN/rshim take it:
// channel in the upper 16 bits, offset in the lower.
func Linear(a uint32) Addr { return Addr{Channel(a >> 16), uint16(a)} }

// Map is where one generation keeps its registers. Every register is 8 bytes
// wide; all but WatchdogControl and OPN are in ChanRShim.
type Map struct {
	FabricDim       Addr // readable and sane once the RShim answers
	BootFIFOData    Addr // one 8-byte word of the boot stream
	BootFIFOCount   Addr // words in the boot FIFO, see BootFIFOWords
	BootControl     Addr // boot mode, see BootModeMask
	ResetControl    Addr // see ResetKey
	Breadcrumb0     Addr
	Breadcrumb1     Addr
	Scratchpad1     Addr // ownership: Keepalive, OwnershipRequest, OwnershipAck
	Scratchpad2     Addr // see BFMode
	Scratchpad3     Addr // see DebugCommand
	Scratchpad6     Addr // NIC reset handshake
	Semaphore0      Addr // a read that returns 0 takes it; write 0 to release
	ScratchBufCtl   Addr // index of the boot-log buffer, see LogIndexMask
	ScratchBufDat   Addr // word at that index; each access moves the index on
	TmHostToTile    Addr // TMFIFO, towards the DPU
	TmHostToTileSts Addr // words in it
	TmTileToHost    Addr // TMFIFO, from the DPU
	TmTileToHostSts Addr // words in it
	Uptime          Addr // cycles since the last reset, see UptimeHz
	UptimePOR       Addr // cycles since power-on
	SWInt           Addr
	MemAccCtl       Addr // indirect access to the chip's address space
	MemAccRspCnt    Addr
	MemAccData      Addr
	MasterPrivLevel Addr
	WatchdogControl Addr // WDOG1 WCS; 0 stops the watchdog

	MemAccLevelBit uint // bit of MasterPrivLevel that allows MemAcc
	BootFIFODepth  int  // words of 8 bytes
}

func rsh(off uint16) Addr { return Addr{ChanRShim, off} }

// common holds what all generations have in the same place.
var common = Map{
	FabricDim:       rsh(0x110),
	BootControl:     rsh(0x528),
	ResetControl:    rsh(0x500),
	Breadcrumb0:     rsh(0x510),
	Breadcrumb1:     rsh(0x518),
	ScratchBufCtl:   rsh(0x600),
	ScratchBufDat:   rsh(0x610),
	Uptime:          rsh(0x630),
	UptimePOR:       rsh(0x638),
	SWInt:           rsh(0x318),
	WatchdogControl: Addr{ChanWDOG1, 0},
}

var maps = func() (m [BlueField3 + 1]Map) {
	b := common
	b.BootFIFOData, b.BootFIFOCount, b.BootFIFODepth = rsh(0x408), rsh(0x488), 512
	b.Scratchpad1, b.Scratchpad2, b.Scratchpad3, b.Scratchpad6 = rsh(0xc20), rsh(0xc28), rsh(0xc30), rsh(0xc48)
	b.Semaphore0 = rsh(0x28)
	b.TmHostToTile, b.TmHostToTileSts = rsh(0xa20), rsh(0xa28)
	b.TmTileToHost, b.TmTileToHostSts = rsh(0xa40), rsh(0xa48)
	b.MemAccCtl, b.MemAccRspCnt, b.MemAccData = rsh(0x8f0), rsh(0x8f8), rsh(0x900)
	b.MasterPrivLevel, b.MemAccLevelBit = rsh(0x550), 48
	m[BlueField1], m[BlueField2] = b, b

	b = common
	b.BootFIFOData, b.BootFIFOCount, b.BootFIFODepth = rsh(0x2000), rsh(0x1000), 1024
	b.Scratchpad1, b.Scratchpad2, b.Scratchpad3, b.Scratchpad6 = rsh(0xc40), rsh(0xc48), rsh(0xc50), rsh(0xc68)
	b.Semaphore0 = rsh(0xf10)
	b.TmHostToTile, b.TmHostToTileSts = rsh(0x4000), rsh(0x6000)
	b.TmTileToHost, b.TmTileToHostSts = rsh(0x5000), rsh(0x6100)
	b.MemAccCtl, b.MemAccRspCnt, b.MemAccData = rsh(0x808), rsh(0x810), rsh(0x828)
	b.MasterPrivLevel, b.MemAccLevelBit = rsh(0x820), 0
	m[BlueField3] = b
	return m
}()

// For returns the map of a generation. It panics on a generation that does
// not exist: callers get theirs from GenerationOf.
func For(g Generation) *Map {
	if g < BlueField1 || g > BlueField3 {
		panic(fmt.Sprintf("reg: no such generation: %d", int(g)))
	}
	return &maps[g]
}
