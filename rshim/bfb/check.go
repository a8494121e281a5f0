// SPDX-License-Identifier: Apache-2.0

package bfb

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

// ImageCheck is what Check found out about one image.
type ImageCheck struct {
	Image
	CRCOK bool // false also when the stream ends in the middle of it
}

// Summary is what a BFB consists of.
type Summary struct {
	Images []ImageCheck
	Length int64 // of the BFB in bytes, without the tail; up to the error if there is one
	Tail   int64 // bytes after the last image
}

// Check reads r to its end and checks all of it: headers, lengths, the order
// of images, CRCs and, unless g is 0, that a chip of generation g can boot
// from it. It needs constant memory.
//
// The error is the first that was found: a *FormatError, or an error of r. The
// Summary tells as much as could be read and is never nil. A wrong CRC or
// generation does not end the reading.
func Check(r io.Reader, g reg.Generation) (*Summary, error) {
	s := new(Summary)
	br := NewReader(r)
	var first error
	for {
		img, err := br.Next()
		if err == io.EOF {
			break
		}
		if err == nil {
			s.Images = append(s.Images, ImageCheck{Image: img})
			err = br.skip()
			s.Images[len(s.Images)-1].CRCOK = err == nil
		}
		if first == nil {
			first = err
		}
		if err != nil && !errors.Is(err, ErrCRC) {
			s.Length = br.off
			return s, first
		}
	}
	s.Length = br.off
	n, err := io.Copy(io.Discard, br.Tail())
	s.Tail = n
	if first == nil {
		first = err
	}
	if first == nil && g != 0 {
		first = s.Fits(g)
	}
	return s, first
}

// Fits returns a *FormatError with ErrGeneration when a chip of generation g
// cannot boot from the images.
//
// Of several images with the same id, the one with the highest version that is
// not above the chip's own is used (so mlx-mkbfb and mlxbf-bootctl, where they
// filter). Most images of an older chip serve a newer one as well, but not the
// boot firmware: there, it must be the chip's own or one of version 0, which
// is not marked for any chip. A BFB without boot firmware, such as one for an
// upgrade at run time, fits every chip.
func (s *Summary) Fits(g reg.Generation) error {
	id := IDBL2
	if !s.has(id) {
		id = IDBL2R
	}
	own, used, at := int(VersionOf(g)), -1, int64(0)
	for _, img := range s.Images {
		if img.ID == id {
			at = img.Offset
			if v := int(img.Version); v <= own {
				used = max(used, v)
			}
		}
	}
	if !s.has(id) || used == 0 || used == own {
		return nil
	}
	return &FormatError{at, id.String(), fmt.Errorf("%w: no boot firmware for %v", ErrGeneration, g)}
}

func (s *Summary) has(id ID) bool {
	return slices.ContainsFunc(s.Images, func(img ImageCheck) bool { return img.ID == id })
}
