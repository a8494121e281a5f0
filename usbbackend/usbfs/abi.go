// SPDX-License-Identifier: Apache-2.0

package usbfs

import "unsafe"

// The structures and ioctl numbers of <linux/usbdevice_fs.h>, which
// golang.org/x/sys/unix does not have. Sizes differ between 32- and 64-bit
// kernels, so the numbers are computed from them.

// urb is struct usbdevfs_urb without its flexible array of isochronous
// packets.
type urb struct {
	typ             uint8
	endpoint        uint8
	status          int32 // 0 or a negative errno
	flags           uint32
	buffer          unsafe.Pointer
	bufferLength    int32
	actualLength    int32
	startFrame      int32
	numberOfPackets int32
	errorCount      int32
	signr           uint32
	userContext     unsafe.Pointer
}

// Types of an urb.
const (
	urbInterrupt = 1
	urbControl   = 2
	urbBulk      = 3
)

// bulkContinuation marks a bulk urb as part of the transfer that the urb
// before it belongs to: when one of them fails, the kernel unlinks those
// behind it before any of them is sent, and refuses more with EREMOTEIO until
// an urb without the flag comes.
const bulkContinuation = 0x04

// disconnectClaim is struct usbdevfs_disconnect_claim.
type disconnectClaim struct {
	iface  uint32
	flags  uint32
	driver [256]byte
}

// claimExceptDriver makes ioctlDisconnectClaim spare the driver it names.
const claimExceptDriver = 0x02

const (
	ioctlResetEP         = ior | unsafe.Sizeof(uint32(0))<<16 | 3
	ioctlSubmitURB       = ior | unsafe.Sizeof(urb{})<<16 | 10
	ioctlDiscardURB      = ion | 11
	ioctlReapURBNDelay   = iow | unsafe.Sizeof(uintptr(0))<<16 | 13
	ioctlClaimInterface  = ior | unsafe.Sizeof(uint32(0))<<16 | 15
	ioctlReset           = ion | 20
	ioctlDisconnectClaim = ior | unsafe.Sizeof(disconnectClaim{})<<16 | 27
)

// The direction bits of <asm-generic/ioctl.h>, which x86, Arm and RISC-V use,
// with the magic number of usbfs. MIPS, PowerPC and SPARC have others.
const (
	ion uintptr = 'U' << 8
	iow         = 1<<30 | ion
	ior         = 2<<30 | ion
)
