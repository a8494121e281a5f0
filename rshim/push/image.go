// SPDX-License-Identifier: Apache-2.0

package push

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"github.com/bluefield-go/bmc-rshim/rshim/bfb"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

// peekSize is how much of a pipe is looked at before anything is touched. The
// boot firmware, by which a BFB for another chip is known, begins a BFB.
const peekSize = 1 << 20

// Image is what shall be pushed.
type Image struct {
	name   string
	src    Source
	file   *os.File // src, if it can be read twice
	start  int64    // offset of the image in file
	length int64    // in bytes; -1 if not known before its end
	digest Digest   // to be checked while the image is sent
	proven bool     // all of it has been found good
	read   atomic.Int64
}

// OpenFile makes an image of what a regular file has from its offset on. The file
// stays the caller's to close.
func OpenFile(f *os.File, name string) (*Image, error) {
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	start, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, err
	}
	return &Image{name: name, src: FromReader(f), file: f, start: start, length: max(0, info.Size()-start)}, nil
}

// NewPipe makes an image of what can be read once.
func NewPipe(src Source, name string) *Image { return &Image{name: name, src: src, length: -1} }

// Name is the image's name for people.
func (img *Image) Name() string { return img.name }

// Length is how many bytes it has; -1 if that is not known before its end.
func (img *Image) Length() int64 { return img.length }

// Whole reports whether Check looks at all of the image, not at its start alone.
func (img *Image) Whole() bool { return img.file != nil }

// Checked is how many bytes Check has read so far. It may be called at any time.
func (img *Image) Checked() int64 { return img.read.Load() }

// CheckOptions say what is expected of an image.
type CheckOptions struct {
	Generation reg.Generation // that has to be able to boot from it; 0: any
	NoFormat   bool           // it need not be a BFB
	Digest     Digest
}

// Check checks the image, once, before it is sent: a file as a whole, a pipe as
// far as it can be looked into, which is 1 MiB. The Summary is of that, and nil
// with NoFormat. What is wrong with the image is a *RefusedError. The rest of a
// pipe, and its digest, are the Sender's to check.
func (img *Image) Check(ctx context.Context, o CheckOptions) (*bfb.Summary, error) {
	var sum *bfb.Summary
	var err error
	if img.file != nil {
		sum, err = img.checkFile(ctx, o)
	} else {
		sum, err = img.checkPipe(ctx, o)
	}
	var bad *bfb.FormatError
	if errors.As(err, &bad) || errors.Is(err, ErrDigest) {
		err = &RefusedError{img.name, err}
	}
	return sum, err
}

func (img *Image) checkFile(ctx context.Context, o CheckOptions) (sum *bfb.Summary, err error) {
	if o.NoFormat && !o.Digest.wanted() {
		return nil, nil
	}
	var r io.Reader = counted{bound{ctx, img.src}, &img.read}
	if o.Digest.wanted() {
		r = io.TeeReader(r, o.Digest.Hash)
	}
	if !o.NoFormat {
		sum, err = bfb.Check(r, o.Generation)
	}
	var bad *bfb.FormatError
	if o.Digest.wanted() && (err == nil || errors.As(err, &bad)) {
		// A wrong digest says more than what is wrong in consequence.
		if _, rerr := io.Copy(io.Discard, r); rerr != nil {
			err = rerr
		} else if derr := o.Digest.check(); derr != nil {
			err = derr
		}
	}
	if _, serr := img.file.Seek(img.start, io.SeekStart); err == nil {
		err = serr
	}
	img.proven = err == nil && !o.NoFormat
	return sum, err
}

func (img *Image) checkPipe(ctx context.Context, o CheckOptions) (sum *bfb.Summary, err error) {
	img.digest = o.Digest
	if o.NoFormat {
		return nil, nil
	}
	head := make([]byte, peekSize)
	n, err := io.ReadFull(counted{bound{ctx, img.src}, &img.read}, head)
	head = head[:n]
	img.src = &peeked{head, img.src}
	switch {
	case err == io.EOF || err == io.ErrUnexpectedEOF: // this is all of it
		sum, err = bfb.Check(bytes.NewReader(head), o.Generation)
		if o.Digest.wanted() {
			_, _ = o.Digest.Hash.Write(head)
			if derr := o.Digest.check(); derr != nil {
				err = derr
			}
			img.digest = Digest{}
		}
	case err == nil:
		sum, err = checkHead(head, o.Generation)
	}
	return sum, err
}

// peeked is a Source that has been looked into.
type peeked struct {
	head []byte // not read again yet
	src  Source
}

func (s *peeked) Read(ctx context.Context, p []byte) (int, error) {
	if len(s.head) == 0 {
		s.head = nil
		return s.src.Read(ctx, p)
	}
	n := copy(p, s.head)
	s.head = s.head[n:]
	return n, nil
}

// counted counts what is read.
type counted struct {
	r io.Reader
	n *atomic.Int64
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// checkHead checks the start of a BFB.
func checkHead(head []byte, g reg.Generation) (*bfb.Summary, error) {
	sum := new(bfb.Summary)
	r := bfb.NewReader(bytes.NewReader(head))
	for {
		i, err := r.Next()
		if errors.Is(err, bfb.ErrTruncated) || err == io.EOF {
			return sum, nil // of the head alone
		}
		if err != nil {
			return sum, err
		}
		sum.Images = append(sum.Images, bfb.ImageCheck{Image: i})
		// Whether it fits is known when all versions of the boot firmware
		// have been seen: the last one does not announce itself again.
		boot := i.ID == bfb.IDBL2 || i.ID == bfb.IDBL2R && i.Following>>bfb.IDBL2&1 == 0
		if g != 0 && boot && i.Following>>i.ID&1 == 0 {
			if err := sum.Fits(g); err != nil {
				return sum, err
			}
		}
	}
}
