// SPDX-License-Identifier: Apache-2.0

package bfb

import (
	"hash/crc32"
	"io"
)

// Reader reads the images of a BFB one after the other, like archive/tar. It
// never reads past what it was asked for: when Next has returned io.EOF, the
// source stands at the tail.
type Reader struct {
	src  io.Reader
	off  int64 // bytes taken from src
	c    chain
	data int64 // bytes of the current image's data still to come
	pad  int64 // and of its padding
	sum  uint32
	open bool  // the current image's CRC has not been checked yet
	bad  error // what that check gave
	err  error // why nothing more can be read
	buf  []byte
}

// NewReader returns a Reader of the BFB that src starts with.
func NewReader(src io.Reader) *Reader { return &Reader{src: src} }

// Next moves on to the next image. What is left of the current one is read
// and checked first; its ErrCRC is returned if Read has not done so already,
// and a further Next goes on behind it. All other errors are final.
//
// Next returns io.EOF after the last image. Errors are a *FormatError or those
// of the source.
func (r *Reader) Next() (Image, error) {
	if err := r.skip(); err != nil {
		return Image{}, err
	}
	if r.c.done() {
		return Image{}, io.EOF
	}
	var hdr [HeaderSize]byte
	at := r.off
	n, err := io.ReadFull(r.src, hdr[:])
	r.off += int64(n)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = r.c.truncated(hdr[:n], at)
	}
	if err == nil {
		err = r.c.next(hdr[:], at)
	}
	if err != nil {
		r.err = err
		return Image{}, err
	}
	img := r.c.img
	r.data = int64(img.Length)
	r.pad = img.Padded() - r.data
	r.sum, r.bad, r.open = 0, nil, true
	return img, nil
}

// Read reads data of the current image, without the padding. At its end it
// returns io.EOF if the CRC is right, and otherwise a *FormatError with ErrCRC.
func (r *Reader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if r.data == 0 {
		return 0, r.finish()
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := r.take(p[:min(int64(len(p)), r.data)])
	r.data -= int64(n)
	return n, err
}

// Tail returns what stands after the last image, of any length. It is nil
// until Next has returned io.EOF.
func (r *Reader) Tail() io.Reader {
	if !r.c.done() || r.open || r.err != nil {
		return nil
	}
	return r.src
}

// take reads some bytes of the current image.
func (r *Reader) take(p []byte) (int, error) {
	n, err := r.src.Read(p)
	r.off += int64(n)
	r.sum = crc32.Update(r.sum, crc32.IEEETable, p[:n])
	if err != nil && n == len(p) {
		err = nil // it comes again when more is asked for
	}
	if err == io.EOF {
		err = &FormatError{r.off, r.c.img.String(), ErrTruncated}
	}
	r.err = err
	return n, err
}

// finish reads the padding and checks the CRC, once for each image. It
// returns io.EOF if all is well.
func (r *Reader) finish() error {
	if r.open {
		var pad [8]byte
		for r.pad > 0 {
			n, err := r.take(pad[:r.pad])
			r.pad -= int64(n)
			if err != nil {
				return err
			}
		}
		r.open = false
		r.bad = r.c.checkCRC(r.sum)
	}
	if r.bad != nil {
		return r.bad
	}
	return io.EOF
}

// skip reads the rest of the current image, if it has not been read yet.
func (r *Reader) skip() error {
	if r.err != nil || !r.open {
		return r.err
	}
	if r.buf == nil {
		r.buf = make([]byte, 32<<10)
	}
	for {
		if _, err := r.Read(r.buf); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}
