// SPDX-License-Identifier: Apache-2.0

package bfb

import (
	"errors"
	"fmt"
)

// What can be wrong with a BFB. They arrive wrapped in a *FormatError.
var (
	ErrMagic      = errors.New("not a BFB image header")
	ErrVersion    = errors.New("BFB format version not supported")
	ErrTruncated  = errors.New("BFB is truncated")
	ErrCRC        = errors.New("CRC mismatch")
	ErrBitmap     = errors.New("image does not match what the images before it announce")
	ErrGeneration = errors.New("BFB is not for this chip")
)

// FormatError says where a stream is not a good BFB.
type FormatError struct {
	Offset int64  // in bytes from the start of the stream
	Image  string // image concerned, as Header.String has it; may be empty
	Err    error  // wraps one of the sentinels
}

func (e *FormatError) Error() string {
	if e.Image == "" {
		return fmt.Sprintf("bfb: offset %d: %v", e.Offset, e.Err)
	}
	return fmt.Sprintf("bfb: offset %d: image %s: %v", e.Offset, e.Image, e.Err)
}

// Unwrap returns the cause.
func (e *FormatError) Unwrap() error { return e.Err }
