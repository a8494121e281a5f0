// SPDX-License-Identifier: Apache-2.0

package push

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/bfb"
)

const (
	pieceSize = 128 << 10 // the most that one request to a device file carries
	// firstPiece fits into the chip's boot FIFO, so that it is taken as soon
	// as the chip is back from its reset, even by one that then takes no more.
	firstPiece = 512

	defaultPatience = 30 * time.Minute
)

// Sender sends an image to a boot stream, once.
type Sender struct {
	Image *Image
	// Config and RootFS are bf.cfg and a root file system, or nil. They follow
	// the image as they are, in this order and with nothing in between, as
	// bfb-install sends them.
	Config, RootFS Source
	// NoFormat sends what shows to be no good BFB all the same.
	NoFormat bool
	Patience time.Duration // with an input that gives nothing; 0 means 30 min
	// Progress, if any, is told after every write. It must not wait.
	Progress func(Progress)
}

// Progress is how far an image has been sent.
type Progress struct {
	Bytes int64     // that the boot stream has accepted
	Image string    // of the BFB, to which the last of them belongs; "" after the last one
	Begun time.Time // when the first were accepted: the chip is back from its reset
}

// badError is what is wrong with an image of which a part has been sent.
type badError struct{ err error }

func (e *badError) Error() string { return "the image turned out to be bad: " + e.err.Error() }
func (e *badError) Unwrap() error { return e.err }

// Send opens the boot stream, sends the image and closes it. Its error is that
// of the stream, or of the input: a *bfb.FormatError or ErrDigest if something
// is wrong with the image, in which case its end has not been sent, and
// os.ErrDeadlineExceeded if the input has given nothing for too long.
//
// A digest that Check could not check is computed on the way. The end of the
// image, 512 bytes of its BFB and all that comes after it, is held back until it
// is known to be right.
func (s *Sender) Send(ctx context.Context, open func(ctx context.Context) (Stream, error)) error {
	to, err := open(ctx)
	if err != nil {
		return err
	}
	inner, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	err, ours := s.copy(inner, to, &wg)
	cancel()
	wg.Wait()
	if a, ok := to.(aborter); ok && ours {
		_ = a.Abort(ctx, err)
	} else if cerr := to.Close(ctx); err == nil {
		err = cerr
	}
	return err
}

// copy sends everything. ours means that the error is none of the stream's.
func (s *Sender) copy(ctx context.Context, to Stream, wg *sync.WaitGroup) (err error, ours bool) {
	pieces, free := make(chan piece), make(chan []byte, 2)
	free <- make([]byte, pieceSize)
	free <- make([]byte, pieceSize)
	wg.Go(func() { readPieces(ctx, s.source(), pieces, free) })

	patience := cmp.Or(s.Patience, defaultPatience)
	follow := bfb.Follower{SkipCRC: s.Image.proven || s.NoFormat}
	hungry := time.NewTimer(patience)
	defer hungry.Stop()
	var done Progress
	for {
		hungry.Reset(patience)
		var p piece
		select {
		case p = <-pieces:
		case <-hungry.C:
			return fmt.Errorf("the input gave nothing for %v: %w", patience, os.ErrDeadlineExceeded), true
		case <-ctx.Done():
			return ctx.Err(), true
		}
		if p.err != nil && p.err != io.EOF {
			return p.err, true
		}
		_, _ = follow.Write(p.data)
		bad := follow.Err()
		if p.err == io.EOF {
			bad = follow.Finish()
		}
		if bad != nil && !s.NoFormat {
			return &badError{bad}, true
		}
		if p.err == io.EOF {
			return nil, false
		}
		n, err := to.Write(ctx, p.data)
		done.Bytes, done.Image = done.Bytes+int64(n), ""
		if i, ok := follow.Image(); ok {
			done.Image = i.String()
		}
		if done.Begun.IsZero() && err == nil {
			done.Begun = time.Now()
		}
		if s.Progress != nil {
			s.Progress(done)
		}
		if err != nil {
			return err, ctx.Err() != nil
		}
		free <- p.data[:pieceSize]
	}
}

// source is all that is to be sent.
func (s *Sender) source() Source {
	all := chain{s.Image.src, s.Config, s.RootFS}
	if s.Image.digest.wanted() {
		all[0] = newGate(s.Image.src, s.Image.digest)
	}
	return &all
}

// chain is one source after the other, of which some may be nil.
type chain [3]Source

func (c *chain) Read(ctx context.Context, p []byte) (int, error) {
	for i, src := range c {
		if src == nil {
			continue
		}
		n, err := src.Read(ctx, p)
		if err == io.EOF {
			c[i] = nil
		}
		if err != io.EOF || n > 0 {
			return n, noEOF(err)
		}
	}
	return 0, io.EOF
}

func noEOF(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}

// piece is a part of the stream, or why there are no more.
type piece struct {
	data []byte
	err  error
}

// readPieces reads while the piece before is on its way. It passes on what
// comes: the DPU takes a pause of half a second for the end of the stream.
func readPieces(ctx context.Context, src Source, pieces chan<- piece, free <-chan []byte) {
	for size := firstPiece; ; size = pieceSize {
		var p piece
		select {
		case p.data = <-free:
		case <-ctx.Done():
			return
		}
		n, err := io.ReadAtLeast(bound{ctx, src}, p.data[:size], 1)
		p.data, p.err = p.data[:n], err
		select {
		case pieces <- p:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}
