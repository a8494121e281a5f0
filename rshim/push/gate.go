// SPDX-License-Identifier: Apache-2.0

package push

import (
	"context"
	"errors"
	"io"

	"github.com/bluefield-go/bmc-rshim/rshim/bfb"
)

const (
	// heldBack is what the DPU does not get of a BFB before its digest is known.
	// Without its end, no image of it is run.
	heldBack = 512
	// maxTail is how much may come after a BFB whose digest is still to be
	// checked: it has to wait, too.
	maxTail = 256 << 10
)

var errTail = errors.New("what comes after the BFB is too long to be held back until the digest is known: send it from a file, or by itself")

// gate is the source of an image whose digest is not known to be right. It keeps
// the image's end to itself until it is.
type gate struct {
	src    Source
	digest Digest
	follow bfb.Follower
	buf    []byte // read, not passed on
	passed int64  // bytes passed on
	end    error  // of src, or of the image: nothing more is read
}

func newGate(src Source, d Digest) *gate {
	return &gate{src: src, digest: d, follow: bfb.Follower{SkipCRC: true}, buf: make([]byte, 0, pieceSize+heldBack+maxTail)}
}

// Read passes on what may be passed on.
func (g *gate) Read(ctx context.Context, p []byte) (int, error) {
	for {
		if n := copy(p, g.buf[:g.free()]); n > 0 {
			g.buf = g.buf[:copy(g.buf, g.buf[n:])]
			g.passed += int64(n)
			return n, nil
		}
		if g.end != nil {
			return 0, g.end
		}
		if err := g.fill(ctx); err != nil {
			return 0, err
		}
	}
}

// fill reads more. Its error is that of a Read that can be tried again.
func (g *gate) fill(ctx context.Context) error {
	if g.follow.Tail() > maxTail {
		g.end = errTail
		return nil
	}
	n, err := g.src.Read(ctx, g.buf[len(g.buf):min(cap(g.buf), len(g.buf)+pieceSize)])
	more := g.buf[len(g.buf) : len(g.buf)+n]
	g.buf = g.buf[:len(g.buf)+n]
	_, _ = g.digest.Hash.Write(more)
	_, _ = g.follow.Write(more)
	switch err {
	case nil:
	case io.EOF:
		if g.end = g.digest.check(); g.end == nil {
			g.end = io.EOF
		}
	default:
		return err
	}
	return nil
}

// free is how many bytes may be passed on.
func (g *gate) free() int {
	switch g.end {
	case io.EOF:
		return len(g.buf)
	case nil:
		bfbEnd := g.follow.Offset() - g.follow.Tail()
		return int(max(0, bfbEnd-heldBack-g.passed))
	}
	return 0
}
