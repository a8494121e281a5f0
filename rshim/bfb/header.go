// SPDX-License-Identifier: Apache-2.0

// Package bfb reads, checks, follows and writes BFB files: the boot stream of
// a BlueField. It works on streams of any size in constant memory and trusts
// no length.
//
// A BFB is a chain of images. Each is a 24-byte header, the data, and zero
// bytes up to a multiple of 8. Every header carries a bitmap of the image ids
// that follow; the image whose bitmap is empty is the last. What stands after
// it (bf.cfg and a root file system, as bfb-install appends them) is called
// the tail here: the boot loader leaves it for the operating system to read.
//
// Source of the format: mlx-mkbfb of Mellanox/rshim-user-space 2.8.2.
package bfb

import (
	"encoding/binary"
	"fmt"
)

// HeaderSize is the size of an image header in bytes.
const HeaderSize = 24

// Magic is the first word of every header, "Bf\x02\x13" in the file.
const Magic uint32 = 0x13026642

// The format version this package reads (up to) and writes.
const (
	Major = 1
	Minor = 2
)

// MaxVersion is the highest version that an image can have.
const MaxVersion = 15

// Header is the header of one image.
type Header struct {
	Major       uint8 // of the format, 4 bits
	Minor       uint8 // of the format, 4 bits
	ID          ID
	Version     uint8  // chip the image is for, see VersionOf; 4 bits
	NextVersion uint8  // version of the next image with the same id, or 0; 4 bits
	Length      uint32 // of the data in bytes, without the padding
	CRC         uint32 // zlib's CRC-32 over data and padding
	Following   uint64 // bit n is set while an image with id n still follows
}

// Decode reads a header from the first HeaderSize bytes of b. The error is
// ErrTruncated, ErrMagic or ErrVersion.
func (h *Header) Decode(b []byte) error {
	if len(b) < HeaderSize {
		return ErrTruncated
	}
	w0 := binary.LittleEndian.Uint64(b)
	w1 := binary.LittleEndian.Uint64(b[8:])
	if m := uint32(w0); m != Magic {
		return fmt.Errorf("%w: magic is %#08x", ErrMagic, m)
	}
	*h = Header{
		Major:       uint8(w0 >> 32 & 0xf),
		Minor:       uint8(w0 >> 36 & 0xf),
		NextVersion: uint8(w0 >> 44 & 0xf),
		Version:     uint8(w0 >> 48 & 0xf),
		ID:          ID(w0 >> 56),
		Length:      uint32(w1),
		CRC:         uint32(w1 >> 32),
		Following:   binary.LittleEndian.Uint64(b[16:]),
	}
	if h.Major != Major || h.Minor > Minor {
		return fmt.Errorf("%w: %d.%d", ErrVersion, h.Major, h.Minor)
	}
	if n := (w0 >> 52 & 0xf) * 8; n != HeaderSize {
		return fmt.Errorf("%w: header of %d bytes", ErrVersion, n)
	}
	return nil
}

// Encode returns the header as it stands in a file. Fields of 4 bits are cut
// to size.
func (h Header) Encode() (b [HeaderSize]byte) {
	binary.LittleEndian.PutUint64(b[:], uint64(Magic)|
		uint64(h.Major&0xf)<<32|
		uint64(h.Minor&0xf)<<36|
		uint64(h.NextVersion&0xf)<<44|
		uint64(h.Version&0xf)<<48|
		HeaderSize/8<<52|
		uint64(h.ID)<<56)
	binary.LittleEndian.PutUint64(b[8:], uint64(h.Length)|uint64(h.CRC)<<32)
	binary.LittleEndian.PutUint64(b[16:], h.Following)
	return b
}

// Padded is how many bytes the image takes in the file after its header: the
// data and its padding.
func (h Header) Padded() int64 { return (int64(h.Length) + 7) &^ 7 }

// Last reports whether no image follows this one.
func (h Header) Last() bool { return h.Following == 0 }

// String is the name of the image as mlx-mkbfb writes it: "bl2-v1".
func (h Header) String() string { return fmt.Sprintf("%v-v%d", h.ID, h.Version) }

// Image is an image in a stream.
type Image struct {
	Header
	Offset int64 // of the header, from the start of the stream
}
