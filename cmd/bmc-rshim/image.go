// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
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

// image is what shall be pushed.
type image struct {
	name   string
	src    io.Reader
	opened io.Closer // what has to be closed, or nil
	file   *os.File  // src, if it can be read twice
	start  int64     // offset of the image in file
	length int64     // in bytes; -1 if not known before its end
	read   atomic.Int64
}

// openImage opens a file, or standard input for "-".
func openImage(ctx context.Context, name string, stdin io.Reader) (*image, error) {
	img := &image{name: name, src: stdin, length: -1}
	if name != "-" {
		// Opening a FIFO waits for its writer.
		f, err := blocking(ctx, func() (*os.File, error) { return os.Open(name) })
		if err != nil {
			return nil, err
		}
		img.src, img.opened = f, f
	}
	f, ok := img.src.(*os.File)
	if !ok {
		return img, nil
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case info.IsDir():
		err = fmt.Errorf("%s is a directory", name)
	case info.Mode().IsRegular():
		if img.start, err = f.Seek(0, io.SeekCurrent); err == nil {
			img.file, img.length = f, info.Size()-img.start
		}
	}
	if err != nil {
		img.close()
		return nil, err
	}
	return img, nil
}

func (img *image) close() {
	if img.opened != nil {
		_ = img.opened.Close()
	}
}

// title is the image's name for people.
func (img *image) title() string {
	if img.name == "-" {
		return "standard input"
	}
	return img.name
}

// inspect checks the image for a chip: a file as a whole, a pipe as far as it
// can be looked into. Afterwards, the image is at its start again.
func (img *image) inspect(ctx context.Context, g reg.Generation) (*bfb.Summary, error) {
	var sum *bfb.Summary
	var err error
	if img.file != nil {
		sum, err = bfb.Check(reader(func(p []byte) (int, error) {
			if err := ctx.Err(); err != nil {
				return 0, err
			}
			n, err := img.file.Read(p)
			img.read.Add(int64(n))
			return n, err
		}), g)
		if _, serr := img.file.Seek(img.start, io.SeekStart); err == nil {
			err = serr
		}
	} else {
		r := bufio.NewReaderSize(img.src, peekSize)
		var head []byte
		head, err = blocking(ctx, func() ([]byte, error) { return r.Peek(peekSize) })
		switch {
		case errors.Is(err, io.EOF): // this is all of it
			sum, err = bfb.Check(bytes.NewReader(head), g)
		case err == nil:
			sum, err = checkHead(head, g)
		}
		img.src = r
	}
	var bad *bfb.FormatError
	if errors.As(err, &bad) {
		err = exitWith(exitRefused, "%s refused, nothing was touched: %w (-no-check pushes it all the same)", img.title(), err)
	}
	return sum, err
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
		if boot && i.Following>>i.ID&1 == 0 {
			if err := sum.Fits(g); err != nil {
				return sum, err
			}
		}
	}
}

type reader func(p []byte) (int, error)

func (r reader) Read(p []byte) (int, error) { return r(p) }
