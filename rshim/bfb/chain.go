// SPDX-License-Identifier: Apache-2.0

package bfb

import (
	"encoding/binary"
	"fmt"
)

// maxImages is one of each id in each version, the most that mlx-mkbfb can
// write. It bounds what a hostile stream can make a reader remember.
const maxImages = 64 * (MaxVersion + 1)

// chain is the sequence of images seen so far. Reader and Follower share it,
// so that they cannot disagree on what a good sequence is.
type chain struct {
	img   Image // the newest
	count int
}

// next takes the header that stands at off and checks it against the headers
// before it. On failure the chain is unchanged.
func (c *chain) next(b []byte, off int64) error {
	img := Image{Offset: off}
	if err := img.Decode(b); err != nil {
		return &FormatError{Offset: off, Err: err}
	}
	if err := c.announced(img.Header); err != nil {
		return &FormatError{off, img.String(), err}
	}
	c.img = img
	c.count++
	return nil
}

func (c *chain) announced(h Header) error {
	if c.count == 0 {
		return nil
	}
	if c.count == maxImages {
		return fmt.Errorf("%w: more than %d images", ErrBitmap, maxImages)
	}
	before, self := c.img.Following, uint64(1)<<h.ID // 0 above id 63
	if before&self == 0 {
		return fmt.Errorf("%w: %v is not in bitmap %#x", ErrBitmap, h.ID, before)
	}
	// The bit of its own id may go or, with more versions to come, stay.
	if h.Following&^self != before&^self {
		return fmt.Errorf("%w: bitmap goes from %#x to %#x", ErrBitmap, before, h.Following)
	}
	return nil
}

// done reports whether the newest image is the last one.
func (c *chain) done() bool { return c.count > 0 && c.img.Last() }

// truncated is the error for a stream that ends at off, where b, less than a
// header, is all there is of the next one.
func (c *chain) truncated(b []byte, off int64) error {
	err := error(ErrTruncated)
	var magic [4]byte
	binary.LittleEndian.PutUint32(magic[:], Magic)
	if n := min(len(b), len(magic)); string(b[:n]) != string(magic[:n]) {
		err = ErrMagic
	}
	return &FormatError{Offset: off, Err: err}
}

// checkCRC compares sum with what the header of the newest image promises.
func (c *chain) checkCRC(sum uint32) error {
	if sum == c.img.CRC {
		return nil
	}
	return &FormatError{c.img.Offset, c.img.String(),
		fmt.Errorf("%w: header says %#08x, data has %#08x", ErrCRC, c.img.CRC, sum)}
}
