// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/bfb"
	corepush "github.com/bluefield-go/bmc-rshim/rshim/push"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

// alone pushes without the daemon's help.
func (p *push) alone(ctx context.Context, st status) error {
	img, done, err := p.img.read()
	if err != nil {
		return err
	}
	defer done()
	if err := p.inspect(ctx, img, st); err != nil {
		return err
	}
	p.sent.begun = make(chan struct{})
	s := &corepush.Sender{Image: img, NoFormat: p.o.noCheck, Patience: p.o.timeout, Progress: p.sent.take}
	for src, f := range map[*corepush.Source]*os.File{&s.Config: p.configFile, &s.RootFS: p.rootfsFile} {
		if f != nil {
			*src = corepush.FromReader(f)
		}
	}
	return p.drive(ctx, s)
}

// inspect checks the image before anything is touched.
func (p *push) inspect(ctx context.Context, img *corepush.Image, st status) error {
	o := corepush.CheckOptions{NoFormat: p.o.noCheck, Digest: digestOf(p.o.sha256)}
	if !o.NoFormat {
		var err error
		if o.Generation, err = generation(st.Generation); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, p.o.timeout)
	defer cancel()
	type checked struct {
		sum *bfb.Summary
		err error
	}
	done := make(chan checked, 1)
	go func() {
		sum, err := img.Check(ctx, o)
		done <- checked{sum, err}
	}()
	tick, since := time.NewTicker(p.out.every()), time.Now()
	defer tick.Stop()
	for {
		select {
		case c := <-done:
			if errors.Is(c.err, context.DeadlineExceeded) {
				return exitWith(exitTimeout, "%s could not be checked within %v, nothing was touched", img.Name(), p.o.timeout)
			}
			var bad *corepush.RefusedError
			if errors.As(c.err, &bad) {
				return refusal(bad)
			}
			if c.err == nil && !o.NoFormat {
				p.noteCheck(img, c.sum, o.Generation)
			}
			return c.err
		case now := <-tick.C:
			n := img.Checked()
			p.out.progress(progress{Phase: "checking", Bytes: n, Total: max(img.Length(), 0), Rate: p.meter.rate(since, n, now)})
		}
	}
}

func (p *push) noteCheck(img *corepush.Image, sum *bfb.Summary, g reg.Generation) {
	if !img.Whole() {
		p.out.note(fmt.Sprintf("%s: starts like a BFB for %v, the rest is checked on its way", img.Name(), g))
		return
	}
	p.out.note(fmt.Sprintf("%s: a good BFB for %v, %d images, %s", img.Name(), g, len(sum.Images), size(sum.Length+sum.Tail)))
}

// generation is the inverse of reg.Generation's String.
func generation(name string) (reg.Generation, error) {
	for g := reg.BlueField1; g <= reg.BlueField3; g++ {
		if name == g.String() {
			return g, nil
		}
	}
	return 0, fmt.Errorf("the device is a %q, which is unknown", name)
}

// sent is how far the stream has come, for any goroutine.
type sent struct {
	begun chan struct{} // closed when the chip is back from its reset and takes bytes

	mu  sync.Mutex
	now corepush.Progress
}

func (s *sent) take(now corepush.Progress) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now.Begun.IsZero() && !now.Begun.IsZero() {
		close(s.begun)
	}
	s.now = now
}

func (s *sent) get() corepush.Progress {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}
