// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/bfb"
)

// What the boot stream is written in.
const (
	pieceSize = 128 << 10 // the most that one request to a device file carries
	// firstPiece fits into the chip's boot FIFO, so that it is taken as soon
	// as the chip is back from its reset, even by one that then takes no more.
	firstPiece = 512
)

// sender sends a stream to a boot stream. Its zero value does not look at what
// it sends.
type sender struct {
	check    bool          // end with an error when the stream shows to be no good BFB
	skipCRC  bool          // of what has been checked
	patience time.Duration // with an input that gives nothing
	begun    chan struct{} // closed when the chip is back from its reset and takes bytes

	mu    sync.Mutex
	bytes int64
	image string
	since time.Time // begun was closed
}

// sent returns how many bytes the boot stream has taken, what image the last
// one belonged to, and since when bytes are taken.
func (s *sender) sent() (bytes int64, image string, since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes, s.image, s.since
}

// run opens the boot stream, sends src and closes it.
func (s *sender) run(ctx context.Context, t target, src io.Reader) error {
	b, err := t.openBoot(ctx)
	if err != nil {
		return err
	}
	err = s.copy(ctx, b, src)
	if cerr := b.Close(ctx); err == nil {
		err = cerr
	}
	return err
}

func (s *sender) copy(ctx context.Context, b bootStream, src io.Reader) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pieces, free := make(chan piece), make(chan []byte, 2)
	free <- make([]byte, pieceSize)
	free <- make([]byte, pieceSize)
	go readPieces(ctx, src, pieces, free)

	follow := bfb.Follower{SkipCRC: s.skipCRC}
	hungry := time.NewTimer(s.patience)
	defer hungry.Stop()
	for first := true; ; first = false {
		hungry.Reset(s.patience)
		var p piece
		select {
		case p = <-pieces:
		case <-hungry.C:
			return fmt.Errorf("the input gave nothing for %v: %w", s.patience, os.ErrDeadlineExceeded)
		case <-ctx.Done():
			return ctx.Err()
		}
		if p.err != nil && p.err != io.EOF {
			return p.err
		}
		_, _ = follow.Write(p.data)
		err := follow.Err()
		if p.err == io.EOF {
			err = follow.Finish()
		}
		if s.check && err != nil {
			return fmt.Errorf("the image turned out to be bad: %w", err)
		}
		if p.err == io.EOF {
			return nil
		}
		n, err := b.Write(ctx, p.data)
		s.mu.Lock()
		s.bytes += int64(n)
		s.image = ""
		if i, ok := follow.Image(); ok {
			s.image = i.String()
		}
		if first && err == nil {
			s.since = time.Now()
			close(s.begun)
		}
		s.mu.Unlock()
		if err != nil {
			return err
		}
		free <- p.data[:pieceSize]
	}
}

// piece is a part of the stream, or why there are no more.
type piece struct {
	data []byte
	err  error
}

// readPieces reads while the piece before is on its way. It passes on what
// comes: the DPU takes a pause of half a second for the end of the stream.
func readPieces(ctx context.Context, src io.Reader, pieces chan<- piece, free <-chan []byte) {
	for size := firstPiece; ; size = pieceSize {
		var p piece
		select {
		case p.data = <-free:
		case <-ctx.Done():
			return
		}
		n, err := io.ReadAtLeast(src, p.data[:size], 1)
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
