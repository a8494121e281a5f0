// SPDX-License-Identifier: Apache-2.0

package bfb

import (
	"encoding/binary"
	"hash/crc32"
	"math/bits"
)

// Follower looks at a stream that passes by, in pieces of any size, and knows
// how far into a BFB it is. Its zero value is ready for the start of a stream.
// It needs constant memory, and Write allocates nothing while all is well.
//
// A stream that is no BFB is none of its business: it counts the bytes, and Err
// tells. A Follower must not be used by several goroutines at once.
type Follower struct {
	// SkipCRC leaves the CRCs unchecked, which saves most of the work.
	SkipCRC bool

	c      chain
	hdr    [HeaderSize]byte
	have   int   // bytes in hdr
	left   int64 // bytes of the current image's data and padding still to come
	sum    uint32
	off    int64
	length int64 // of the BFB, once complete
	state  state
	err    error
}

type state uint8

const (
	inHeader state = iota
	inImage
	inTail
	lost // not a BFB, or not any more
)

// Write takes the next piece of the stream. It always returns len(p), nil.
func (f *Follower) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := len(rest)
		switch f.state {
		case inHeader:
			n = copy(f.hdr[f.have:], rest)
			f.have += n
		case inImage:
			n = int(min(int64(n), f.left))
			f.left -= int64(n)
			if !f.SkipCRC {
				f.sum = crc32.Update(f.sum, crc32.IEEETable, rest[:n])
			}
		}
		f.off += int64(n)
		rest = rest[n:]
		if f.state == inHeader && f.have == HeaderSize {
			f.start()
		}
		if f.state == inImage && f.left == 0 {
			f.finish()
		}
	}
	return len(p), nil
}

// start begins the image whose header is complete.
func (f *Follower) start() {
	if err := f.c.next(f.hdr[:], f.off-HeaderSize); err != nil {
		f.state = lost
		if f.err == nil {
			f.err = err
		}
		return
	}
	f.state, f.left, f.sum = inImage, f.c.img.Padded(), 0
}

// finish ends the current image.
func (f *Follower) finish() {
	if !f.SkipCRC && f.err == nil {
		f.err = f.c.checkCRC(f.sum)
	}
	f.state, f.have = inHeader, 0
	if f.c.done() {
		f.state, f.length = inTail, f.off
	}
}

// Offset is how many bytes have passed.
func (f *Follower) Offset() int64 { return f.off }

// Recognised reports whether the stream is a BFB as far as it has come: it
// starts with a header's magic, and every header was where and what it had to
// be. A wrong CRC does not change it; see Err.
func (f *Follower) Recognised() bool {
	if f.state == lost {
		return false
	}
	return f.c.count > 0 || f.have >= 4 && binary.LittleEndian.Uint32(f.hdr[:]) == Magic
}

// Complete reports whether the last image has passed. What comes then is the
// tail.
func (f *Follower) Complete() bool { return f.state == inTail }

// Tail is how many bytes have passed after the last image.
func (f *Follower) Tail() int64 {
	if !f.Complete() {
		return 0
	}
	return f.off - f.length
}

// Remaining is how many bytes must still come, as far as is known now, before
// the last image has passed: the rest of the current header or image, and a
// header for every id that has been announced. It is 0 only when the BFB is
// complete or the stream is not recognised.
func (f *Follower) Remaining() int64 {
	if !f.Recognised() || f.Complete() {
		return 0
	}
	ahead := int64(bits.OnesCount64(f.c.img.Following)) * HeaderSize
	if f.state == inImage {
		return f.left + ahead
	}
	if f.c.count == 0 {
		ahead = HeaderSize
	}
	return ahead - int64(f.have)
}

// Image returns the image that is passing. It is false before the first header
// and after the last image; between images it is the one that has just passed.
func (f *Follower) Image() (Image, bool) {
	return f.c.img, f.c.count > 0 && !f.Complete()
}

// Err is the first thing found wrong, a *FormatError, or nil.
func (f *Follower) Err() error { return f.err }

// Finish says what is wrong with the stream if it ends here: Err, or a
// *FormatError with ErrTruncated, or ErrMagic if it ended too early to tell.
func (f *Follower) Finish() error {
	switch {
	case f.err != nil:
		return f.err
	case f.state == inHeader:
		return f.c.truncated(f.hdr[:f.have], f.off-int64(f.have))
	case f.state == inImage:
		return &FormatError{f.off, f.c.img.String(), ErrTruncated}
	}
	return nil
}
