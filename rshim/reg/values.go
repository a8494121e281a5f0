// SPDX-License-Identifier: Apache-2.0

package reg

// Magic values of scratchpad 1, by which drivers on the host and on the BMC
// agree on who owns the RShim.
const (
	Keepalive        uint64 = 0x5089836482     // the owner is alive
	OwnershipRequest uint64 = 0x4F53505F524551 // "OSP_REQ"
	OwnershipAck     uint64 = 0x4F53505F41434B // "OSP_ACK"
	Locked           uint64 = 0x4B434F4C00000000

	ownershipClaim uint64 = 0x4F535043 << 32 // "OSPC", and a number
)

// OwnershipClaim is what a driver that checks for an owner writes to scratchpad 1
// to tell itself apart from another one like it. The C daemon, which writes 0,
// takes no notice of it.
func OwnershipClaim(number uint32) uint64 { return ownershipClaim | uint64(number) }

// IsOwnershipClaim reports whether v is an OwnershipClaim.
func IsOwnershipClaim(v uint64) bool { return v&^0xffffffff == ownershipClaim }

// ResetControl.
const (
	ResetKey     uint64 = 0xca710001 // in the low 32 bits: reset the chip
	ResetKeyMask uint64 = 0xffffffff
	ResetDisable uint64 = 1 << 32 // platform code holds resets back
	ResetPending uint64 = 1 << 33 // write 1 to clear
)

// BootMode is what the chip boots from, the low bits of BootControl.
type BootMode uint8

// Boot modes.
const (
	BootRShim      BootMode = 0 // the boot stream pushed over RShim
	BootEMMC       BootMode = 1
	BootEMMCSwap   BootMode = 2 // eMMC, with its boot partitions swapped first
	BootEMMCLegacy BootMode = 3

	BootModeMask uint64 = 3
)

// Masks of counts and indexes.
const (
	TmFIFOCountMask uint64 = 0x1ff
	LogIndexMask    uint64 = 0x7f
)

// Sizes in 8-byte words.
const (
	TmFIFODepth = 256
	LogWords    = 128
)

// UptimeHz is the rate at which BlueField-3 counts Uptime.
const UptimeHz = 200_000_000

// Breadcrumb1NICModeInstall tells the DPU's installer that the card is in NIC
// mode; Breadcrumb1UEFIDebug asks UEFI for its debug output.
const (
	Breadcrumb1UEFIDebug      uint64 = 1 << 30
	Breadcrumb1NICModeInstall uint64 = 1 << 32
)

// MemAccCtl.
const (
	MemAccAddrMask  uint64 = 0xff_ffff_ffff
	MemAccWrite     uint64 = 1 << 48
	MemAccSizeShift        = 52
	MemAccSend      uint64 = 1 << 63
	MemAccSize4     uint64 = 2
	MemAccSize8     uint64 = 3
)

// The part number (OPN) is 16 characters, four to a 32-bit word, first
// character in the most significant byte.
const (
	OPNSize              = 16
	OPNMemBF2     uint64 = 0x2800000 + 0xfd8 // through MemAcc, 4 bytes at a time
	OPNOffsetBF3  uint16 = 0x9bdc            // in ChanYU, 4 bytes at a time
	opnWordsCount        = OPNSize / 4
)

// Bad reports whether v is what a read returns while the RShim behind a
// register is in reset or not accessible, rather than a value.
func Bad(v uint64) bool {
	switch v {
	case 0xbad00acce55, 0xbadacce55, ^uint64(0):
		return true
	}
	return false
}

// BootFIFOWords takes the number of words in the boot FIFO out of a read of
// BootFIFOCount. It reports false when the value cannot be a count: a bad read
// or more words than the FIFO holds.
func (m *Map) BootFIFOWords(v uint64) (words int, ok bool) {
	if Bad(v) || v > uint64(m.BootFIFODepth) {
		return 0, false
	}
	return int(v), true
}

// TmFIFOWords takes the number of words in a TMFIFO out of a read of its
// status. It reports false when the value cannot be a count: a bad read, or
// more words than the FIFO holds.
func TmFIFOWords(v uint64) (words int, ok bool) {
	if n := v & TmFIFOCountMask; !Bad(v) && n <= TmFIFODepth {
		return int(n), true
	}
	return 0, false
}

// BFMode is the mode the card runs in, bits 5:4 of scratchpad 2 (BlueField-3).
type BFMode uint8

// BFModeOf takes the mode out of a read of Scratchpad2; a bad read is Unknown.
func BFModeOf(sp2 uint64) BFMode {
	if Bad(sp2) {
		return 0
	}
	return BFMode(sp2 >> 4 & 3)
}

func (m BFMode) String() string {
	return [...]string{"Unknown", "DPU mode", "NIC mode", "Reserved"}[m&3]
}

// DebugCommand is scratchpad 3's [62:59]: while it is not zero, scratchpad 1
// carries debug data and must not be written with Keepalive.
func DebugCommand(sp3 uint64) uint8 { return uint8(sp3 >> 59 & 0xf) }

// OPN turns the four words of the part number into text; it ends at the first
// byte that is not printable ASCII.
func OPN(words [opnWordsCount]uint32) string {
	var b []byte
	for _, w := range words {
		for shift := 24; shift >= 0; shift -= 8 {
			c := byte(w >> shift)
			if c < 0x21 || c > 0x7e {
				return string(b)
			}
			b = append(b, c)
		}
	}
	return string(b)
}

// OPNWords is the inverse of OPN; what is past 16 characters is cut off.
func OPNWords(s string) (words [opnWordsCount]uint32) {
	for i := range min(len(s), OPNSize) {
		words[i/4] |= uint32(s[i]) << (24 - 8*(i%4))
	}
	return words
}
