// SPDX-License-Identifier: Apache-2.0

package bfb

import (
	"fmt"
	"hash/crc32"
	"io"
	"math"
)

// Part is an image to be written.
type Part struct {
	ID      ID
	Version uint8
	Data    io.ReadSeeker // read twice, from its start
}

// Write writes a BFB of the given images, in the given order. The boot
// firmware takes images as they come, so that the order matters to it: psc-bl,
// bl2r, bl2, bl31, bl33, then what UEFI reads. Images with the same id have to
// be in the order of their versions.
func Write(w io.Writer, parts ...Part) error {
	for i, p := range parts {
		h := Header{Major: Major, Minor: Minor, ID: p.ID, Version: p.Version}
		if int(p.ID) >= len(ids) || p.Version > MaxVersion {
			return fmt.Errorf("bfb: no such image: %v", h)
		}
		for _, later := range parts[i+1:] {
			h.Following |= 1 << later.ID
		}
		if i+1 < len(parts) && parts[i+1].ID == p.ID {
			h.NextVersion = parts[i+1].Version
		}
		if err := writeImage(w, h, p.Data); err != nil {
			return fmt.Errorf("bfb: write %v: %w", h, err)
		}
	}
	return nil
}

func writeImage(w io.Writer, h Header, data io.ReadSeeker) error {
	if _, err := data.Seek(0, io.SeekStart); err != nil {
		return err
	}
	sum := crc32.NewIEEE()
	n, err := io.Copy(sum, data)
	if err != nil {
		return err
	}
	if n > math.MaxUint32 {
		return fmt.Errorf("%d bytes are too many", n)
	}
	h.Length = uint32(n)
	pad := make([]byte, h.Padded()-n)
	sum.Write(pad)
	h.CRC = sum.Sum32()

	hdr := h.Encode()
	if _, err := w.Write(hdr[:]); err != nil {
		return err
	}
	if _, err := data.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if _, err := io.CopyN(w, data, n); err != nil {
		return err
	}
	_, err = w.Write(pad)
	return err
}
