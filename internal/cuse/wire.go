// SPDX-License-Identifier: Apache-2.0

package cuse

import (
	"structs"
	"unsafe"
)

// The FUSE protocol as far as cuse speaks it, from include/uapi/linux/fuse.h.
// It is in the machine's byte order and has the same layout on 32 and 64 bits:
// each 64-bit field lies at a multiple of 8.

const (
	protoMajor    = 7
	protoMinor    = 38
	protoMinorMin = 21 // the first to send pollIn.Events
)

const (
	opForget      = 2
	opOpen        = 14
	opRead        = 15
	opWrite       = 16
	opRelease     = 18
	opInterrupt   = 36
	opIoctl       = 39
	opPoll        = 40
	opBatchForget = 42
	opCuseInit    = 4096
)

const (
	notifyPoll = 1 // outHeader.Error of a message with Unique 0

	cuseUnrestrictedIoctl = 1 << 0

	fopenDirectIO = 1 << 0

	ioctlUnrestricted = 1 << 1
	ioctlRetry        = 1 << 2
	ioctl32Bit        = 1 << 3
)

type inHeader struct {
	_           structs.HostLayout
	Len         uint32
	Opcode      uint32
	Unique      uint64
	NodeID      uint64
	UID         uint32
	GID         uint32
	PID         uint32
	TotalExtLen uint16
	_           uint16
}

type outHeader struct {
	_      structs.HostLayout
	Len    uint32
	Error  int32
	Unique uint64
}

type initIn struct {
	_     structs.HostLayout
	Major uint32
	Minor uint32
	_     uint32
	Flags uint32
}

type initOut struct {
	_        structs.HostLayout
	Major    uint32
	Minor    uint32
	_        uint32
	Flags    uint32
	MaxRead  uint32
	MaxWrite uint32
	DevMajor uint32
	DevMinor uint32
	_        [10]uint32
}

type openIn struct {
	_         structs.HostLayout
	Flags     uint32
	OpenFlags uint32
}

type openOut struct {
	_         structs.HostLayout
	FH        uint64
	OpenFlags uint32
	_         uint32
}

type releaseIn struct {
	_            structs.HostLayout
	FH           uint64
	Flags        uint32
	ReleaseFlags uint32
	LockOwner    uint64
}

// ioIn is fuse_read_in and fuse_write_in, which are alike; the bytes to write
// follow the latter.
type ioIn struct {
	_         structs.HostLayout
	FH        uint64
	Offset    uint64
	Size      uint32
	IOFlags   uint32
	LockOwner uint64
	Flags     uint32 // of the open file, as they are now
	_         uint32
}

type writeOut struct {
	_    structs.HostLayout
	Size uint32
	_    uint32
}

type interruptIn struct {
	_      structs.HostLayout
	Unique uint64
}

// ioctlIn is followed by InSize bytes.
type ioctlIn struct {
	_       structs.HostLayout
	FH      uint64
	Flags   uint32
	Cmd     uint32
	Arg     uint64
	InSize  uint32
	OutSize uint32
}

// ioctlOut is followed by at most OutSize bytes, or by the iovecs of a retry.
type ioctlOut struct {
	_       structs.HostLayout
	Result  int32
	Flags   uint32
	InIovs  uint32
	OutIovs uint32
}

type ioctlIovec struct {
	_    structs.HostLayout
	Base uint64
	Len  uint64
}

type pollIn struct {
	_      structs.HostLayout
	FH     uint64
	KH     uint64
	Flags  uint32
	Events uint32
}

type pollOut struct {
	_       structs.HostLayout
	REvents uint32
	_       uint32
}

type notifyPollOut struct {
	_  structs.HostLayout
	KH uint64
}

// take decodes the T at the head of b and returns what follows it. T must be
// one of the structs above: flat, and without pointers.
func take[T any](b []byte) (v T, rest []byte, ok bool) {
	n := int(unsafe.Sizeof(v))
	if len(b) < n {
		return v, nil, false
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&v)), n), b) // b may be unaligned
	return v, b[n:], true
}

// put encodes v at the head of b, which must have room, and returns its size.
func put[T any](b []byte, v T) int {
	n := int(unsafe.Sizeof(v))
	return copy(b[:n], unsafe.Slice((*byte)(unsafe.Pointer(&v)), n))
}

const (
	inHeaderSize  = int(unsafe.Sizeof(inHeader{}))
	outHeaderSize = int(unsafe.Sizeof(outHeader{}))
	ioctlOutSize  = int(unsafe.Sizeof(ioctlOut{}))

	maxIoctl = 1<<14 - 1 // bytes; what an ioctl number can say
)
