// SPDX-License-Identifier: Apache-2.0

// Package push gets a boot image from a file or a pipe into a boot stream. An
// Image is checked as far as it can be before anything is touched; a Sender
// sends it, and what comes after it, and checks the rest on its way. What reads
// the input, and what computes a digest, come from the caller.
package push

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
)

// Source is what bytes come from. Read waits for the first of them, and ends
// with ctx; internal/fdread has one for pipes. io.EOF is the end.
type Source interface {
	Read(ctx context.Context, p []byte) (int, error)
}

// Stream is a boot stream, such as a *rshim.BootStream. It may have an Abort as
// well, which is Close for a stream that is given up, with the reason.
type Stream interface {
	Write(ctx context.Context, p []byte) (int, error)
	Close(ctx context.Context) error
}

type aborter interface {
	Abort(ctx context.Context, reason error) error
}

// FromReader makes a Source of what never waits for long, such as a file.
func FromReader(r io.Reader) Source { return plain{r} }

type plain struct{ r io.Reader }

func (p plain) Read(ctx context.Context, b []byte) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	return p.r.Read(b)
}

// bound is a Source for those that know no contexts.
type bound struct {
	ctx context.Context
	src Source
}

func (b bound) Read(p []byte) (int, error) { return b.src.Read(b.ctx, p) }

// ErrDigest means that an image is not the one that was meant.
var ErrDigest = errors.New("the digest is wrong")

// RefusedError is why an image is not pushed. Nothing was touched.
type RefusedError struct {
	Name string // of the image
	Err  error  // ErrDigest, or a *bfb.FormatError
}

func (e *RefusedError) Error() string {
	return e.Name + " refused, nothing was touched: " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *RefusedError) Unwrap() error { return e.Err }

// Digest is what an image has to be: Sum is what Hash gives for all of it. The
// zero value is any image.
type Digest struct {
	Hash hash.Hash // must be new
	Sum  []byte
}

func (d Digest) wanted() bool { return d.Hash != nil }

// check compares once the hash has seen all of the image.
func (d Digest) check() error {
	if got := d.Hash.Sum(nil); !bytes.Equal(got, d.Sum) {
		return fmt.Errorf("%w: it is %x, and was to be %x", ErrDigest, got, d.Sum)
	}
	return nil
}
