// SPDX-License-Identifier: Apache-2.0

package push

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"slices"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/bfb"
)

// stream is a boot stream that takes everything, or what it is told to.
type stream struct {
	got     []byte
	limit   int // bytes until Write fails; 0: none
	hangs   bool
	pause   time.Duration // of each Write
	closed  int
	aborted error
}

var errChip = errors.New("the chip is gone")

func (s *stream) Write(ctx context.Context, p []byte) (int, error) {
	time.Sleep(s.pause)
	if s.hangs {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	if s.limit > 0 && len(s.got)+len(p) > s.limit {
		n := s.limit - len(s.got)
		s.got = append(s.got, p[:n]...)
		return n, errChip
	}
	s.got = append(s.got, p...)
	return len(p), nil
}

func (s *stream) Close(context.Context) error { s.closed++; return nil }

// open opens it.
func (s *stream) open(context.Context) (Stream, error) { return s, nil }

// abortable is a stream that wants to know why it is given up.
type abortable struct{ stream }

func (s *abortable) Abort(_ context.Context, reason error) error { s.aborted = reason; return nil }

func (s *abortable) open(context.Context) (Stream, error) { return s, nil }

// slow gives bytes in pieces, with a pause before each, and ends with a context.
type slow struct {
	p     []byte
	piece int
	pause time.Duration
	end   error // nil: it never ends
}

func (s *slow) Read(ctx context.Context, p []byte) (int, error) {
	if len(s.p) == 0 && s.end == nil {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	select {
	case <-time.After(s.pause):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	if len(s.p) == 0 {
		return 0, s.end
	}
	n := copy(p[:min(len(p), s.piece)], s.p)
	s.p = s.p[n:]
	return n, nil
}

// TestSend: image, configuration and root file system arrive in this order, and
// progress is told truthfully.
func TestSend(t *testing.T) {
	img, cfg, root := good(t, 3<<20), []byte("PASSWORD=x\n"), bytes.Repeat([]byte("root"), 100_000)
	for kind, make := range kinds {
		for name, sum := range map[string]Digest{"": {}, " with digest": digestOf(img)} {
			t.Run(kind+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					i := make(t, img)
					if _, err := i.Check(t.Context(), CheckOptions{Digest: sum}); err != nil {
						t.Fatal(err)
					}
					to := &abortable{stream{pause: time.Second}}
					began := time.Now()
					var last Progress
					images := map[string]bool{}
					err := (&Sender{
						Image: i, Config: FromReader(bytes.NewReader(cfg)), RootFS: FromReader(iotest.DataErrReader(bytes.NewReader(root))),
						Progress: func(p Progress) {
							if p.Bytes <= last.Bytes || p.Bytes != int64(len(to.got)) || !p.Begun.Equal(began.Add(time.Second)) {
								t.Errorf("%+v after %+v, at %v", p, last, time.Now())
							}
							last = p
							images[p.Image] = true
						},
					}).Send(t.Context(), to.open)
					if want := slices.Concat(img, cfg, root); err != nil || !bytes.Equal(to.got, want) || last.Bytes != int64(len(want)) {
						t.Errorf("%v; %d bytes of %d, the last progress %+v", err, len(to.got), len(want), last)
					}
					if to.closed != 1 || to.aborted != nil {
						t.Errorf("closed %d times, %v", to.closed, to.aborted)
					}
					if !images[""] || len(images) < 3 {
						t.Errorf("images %v", images)
					}
				})
			})
		}
	}
}

// TestSendFirst: the first piece fits into a boot FIFO.
func TestSendFirst(t *testing.T) {
	to := &stream{limit: firstPiece}
	err := (&Sender{Image: asFile(t, good(t, 1<<20))}).Send(t.Context(), to.open)
	if !errors.Is(err, errChip) || len(to.got) != firstPiece {
		t.Errorf("%d bytes, %v", len(to.got), err)
	}
}

// TestSendWrongDigest: a pipe that is not what it should be never arrives as a
// whole: without its end no DPU runs what it got. The reason is told.
func TestSendWrongDigest(t *testing.T) {
	img := good(t, 3<<20)
	tail := bytes.Repeat([]byte("t"), 100_000)
	for name, c := range map[string]struct {
		sent     []byte
		sum      Digest
		noFormat bool
		lacks    int // bytes of the BFB, at least
	}{
		"another image":         {img, digestOf(tail), false, heldBack},
		"damaged":               {damaged(img, len(img)-5000), digestOf(img), true, heldBack},
		"with a tail":           {slices.Concat(img, tail), digestOf(img), false, heldBack},
		"with a damaged tail":   {slices.Concat(img, damaged(tail, 99_999)), digestOf(slices.Concat(img, tail)), false, heldBack},
		"cut off":               {img[:2<<20], digestOf(img), true, len(img) - 2<<20 + heldBack},
		"no BFB":                {bytes.Repeat([]byte("no BFB"), 500_000), digestOf(img), true, 0},
		"shorter than the hold": {[]byte("short"), digestOf(img), true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			i := asPipe(t, c.sent)
			if _, err := i.Check(t.Context(), CheckOptions{NoFormat: c.noFormat, Digest: c.sum}); err != nil {
				t.Fatal(err)
			}
			to := new(abortable)
			err := (&Sender{Image: i, NoFormat: c.noFormat, Config: FromReader(bytes.NewReader(tail))}).Send(t.Context(), to.open)
			if !errors.Is(err, ErrDigest) || !errors.Is(to.aborted, ErrDigest) || to.closed != 0 {
				t.Errorf("%v, aborted for %v, closed %d times", err, to.aborted, to.closed)
			}
			if !bytes.HasPrefix(c.sent, to.got) || len(to.got) > max(0, len(c.sent)-heldBack) || c.lacks > 0 && len(to.got) > len(img)-c.lacks {
				t.Errorf("%d bytes of %d have arrived", len(to.got), len(c.sent))
			}
			var f bfb.Follower
			_, _ = f.Write(to.got)
			if f.Complete() {
				t.Error("the DPU has a whole BFB")
			}
		})
	}
}

// TestSendLongTail: what cannot be held back is not sent on trust.
func TestSendLongTail(t *testing.T) {
	sent := append(good(t, 2<<20), make([]byte, 1<<20)...)
	i := asPipe(t, sent)
	if _, err := i.Check(t.Context(), CheckOptions{Digest: digestOf(sent)}); err != nil {
		t.Fatal(err)
	}
	to := new(abortable)
	if err := (&Sender{Image: i}).Send(t.Context(), to.open); err != errTail || to.aborted != errTail {
		t.Errorf("%v, %v", err, to.aborted)
	}
	var f bfb.Follower
	if _, _ = f.Write(to.got); f.Complete() {
		t.Error("the DPU has a whole BFB")
	}
}

// TestSendBadLater: what only shows on the way ends the push, unless it is to be
// sent whatever it is.
func TestSendBadLater(t *testing.T) {
	img := good(t, 3<<20)
	errFire := errors.New("the disk is on fire")
	for name, c := range map[string]struct {
		src  io.Reader
		want error
	}{
		"CRC":       {bytes.NewReader(damaged(img, 2<<20)), bfb.ErrCRC},
		"truncated": {bytes.NewReader(img[:2<<20]), bfb.ErrTruncated},
		"read":      {io.MultiReader(bytes.NewReader(img[:2<<20]), iotest.ErrReader(errFire)), errFire},
	} {
		t.Run(name, func(t *testing.T) {
			i := NewPipe(FromReader(c.src), "-")
			if _, err := i.Check(t.Context(), CheckOptions{}); err != nil {
				t.Fatal(err)
			}
			to := new(abortable)
			if err := (&Sender{Image: i}).Send(t.Context(), to.open); !errors.Is(err, c.want) || !errors.Is(to.aborted, c.want) {
				t.Errorf("%v, aborted for %v", err, to.aborted)
			}
			if len(to.got) >= len(img) {
				t.Errorf("%d bytes have arrived", len(to.got))
			}
		})
	}
	bad := damaged(img, 2<<20)
	to := new(stream)
	if err := (&Sender{Image: asPipe(t, bad), NoFormat: true}).Send(t.Context(), to.open); err != nil || !bytes.Equal(to.got, bad) {
		t.Errorf("with NoFormat: %v, %d bytes", err, len(to.got))
	}
}

// TestSendEnds: whatever hangs, a push ends with its context, and an input that
// pauses is waited for, but not for ever.
func TestSendEnds(t *testing.T) {
	img := good(t, 2<<20)
	for name, c := range map[string]struct {
		src    *slow
		hangs  bool
		cancel time.Duration // 0: not
		want   error
		within time.Duration
	}{
		"slow input":      {&slow{img, 99_991, 9 * time.Minute, io.EOF}, false, 0, nil, 5 * time.Hour},
		"input stops":     {&slow{img[:1<<20], 64 << 10, 0, nil}, false, 0, os.ErrDeadlineExceeded, 10 * time.Minute},
		"input waits":     {&slow{img[:1<<20], 64 << 10, 0, nil}, false, time.Minute, context.Canceled, time.Minute},
		"stream waits":    {&slow{img, 64 << 10, 0, io.EOF}, true, time.Minute, context.Canceled, time.Minute},
		"before anything": {&slow{img, 64 << 10, time.Hour, io.EOF}, false, time.Second, context.Canceled, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if c.cancel > 0 {
					time.AfterFunc(c.cancel, cancel)
				}
				to := &abortable{stream{hangs: c.hangs}}
				began := time.Now()
				err := (&Sender{Image: NewPipe(c.src, "-"), NoFormat: true, Patience: 10 * time.Minute}).Send(ctx, to.open)
				if took := time.Since(began); !errors.Is(err, c.want) || took > c.within {
					t.Errorf("%v after %v", err, took)
				}
				if c.want != nil != (to.aborted != nil) || to.closed == 0 != (c.want != nil) {
					t.Errorf("closed %d times, aborted for %v", to.closed, to.aborted)
				}
			})
		})
	}
	errOpen := errors.New("busy")
	if err := (&Sender{Image: asPipe(t, img)}).Send(t.Context(), func(context.Context) (Stream, error) { return nil, errOpen }); err != errOpen {
		t.Errorf("a stream that cannot be opened: %v", err)
	}
}

// inPieces gives bytes in pieces.
type inPieces struct {
	p     []byte
	piece int
}

func (r *inPieces) Read(p []byte) (int, error) {
	if len(r.p) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), r.piece)], r.p)
	r.p = r.p[n:]
	return n, nil
}

// FuzzGate: whatever comes in whatever pieces, with the right digest all of it
// arrives, with a wrong one never the end of it.
func FuzzGate(f *testing.F) {
	img := good(f, 5000)
	f.Add(img, uint16(100), true)
	f.Add(slices.Concat(img, make([]byte, 2000)), uint16(513), false)
	f.Add([]byte("no BFB"), uint16(1), false)
	f.Fuzz(func(t *testing.T, p []byte, piece uint16, right bool) {
		sum := sha256.Sum256(p)
		if !right {
			sum[0] ^= 1
		}
		g := newGate(FromReader(&inPieces{p, 1 + int(piece)}), Digest{sha256.New(), sum[:]})
		got, err := io.ReadAll(bound{t.Context(), g})
		if right && (err != nil || !bytes.Equal(got, p)) {
			t.Fatalf("%d bytes of %d, %v", len(got), len(p), err)
		}
		if !right && (!errors.Is(err, ErrDigest) || !bytes.HasPrefix(p, got) || len(got) > max(0, len(p)-heldBack)) {
			t.Fatalf("%d bytes of %d, %v", len(got), len(p), err)
		}
	})
}
