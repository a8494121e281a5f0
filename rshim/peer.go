// SPDX-License-Identifier: Apache-2.0

package rshim

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/tmfifo"
)

// peerPatience is how long misc waits for the DPU's answer, or for a setting
// to be on its way. Source: rshim_fuse.c.
const peerPatience = time.Second

// peerBatch is how many settings are sent at once.
const peerBatch = 8

// peer exchanges control messages with the DPU's software. UEFI and NVIDIA's
// drivers answer them, Linux itself does not.
type peer struct {
	queued chan struct{} // filled when there is something to send

	mu       sync.Mutex
	up       bool // the TMFIFO is running
	ask      bool // a request is to be sent
	settings []*setting
	asked    time.Time     // when the request was made that has no answer yet
	heard    tmfifo.Peer   // since then
	last     tmfifo.Peer   // the last whole answer
	answered chan struct{} // closed with the next whole answer
}

// setting is something that the DPU is to be told.
type setting struct {
	messages []tmfifo.Message
	sent     chan error // holds one
}

func newPeer() *peer {
	return &peer{queued: make(chan struct{}, 1), answered: make(chan struct{})}
}

// setUp tells whether there is somebody who exchanges the messages, or about to
// be. When there is nobody any more, what was said is forgotten.
func (p *peer) setUp(up bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.up = up; up {
		return
	}
	p.ask, p.asked = false, time.Time{}
	p.heard, p.last = tmfifo.Peer{}, tmfifo.Peer{}
	p.answer()
}

// answer wakes who waits for one. The caller holds mu.
func (p *peer) answer() {
	close(p.answered)
	p.answered = make(chan struct{})
}

// request asks the DPU to tell about itself, unless it has been asked already
// and there is still time for its answer. The channel is closed with the
// answer; it is nil when there is nobody to ask.
func (p *peer) request() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.up {
		return nil
	}
	if time.Since(p.asked) >= peerPatience {
		p.asked, p.heard, p.ask = time.Now(), tmfifo.Peer{}, true
		signal(p.queued)
	}
	return p.answered
}

// wait waits until ctx ends for an answer, and returns it; what did not come is
// zero.
func (p *peer) wait(ctx context.Context, answered <-chan struct{}) tmfifo.Peer {
	select {
	case <-answered:
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-answered:
		return p.last
	default:
		return p.heard
	}
}

// deliver takes a control message in.
func (p *peer) deliver(m tmfifo.Message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.heard.Take(m) {
		p.last, p.asked = p.heard, time.Time{}
		p.answer()
	}
}

// next appends what is to be sent to dst, and returns how many messages that
// is and the settings among them.
func (p *peer) next(dst []byte) (_ []byte, n int, _ []*setting) {
	p.mu.Lock()
	defer p.mu.Unlock()
	settings := p.settings[:min(len(p.settings), peerBatch)]
	p.settings = p.settings[len(settings):]
	if len(p.settings) > 0 {
		signal(p.queued)
	}
	for _, s := range settings {
		for _, m := range s.messages {
			dst = tmfifo.Append(dst, m)
			n++
		}
	}
	if p.ask {
		p.ask = false
		dst = tmfifo.Append(dst, tmfifo.NewRequest())
		n++
	}
	return dst, n, settings
}

// askPeer asks the DPU to tell about itself. The function returns the answer,
// within a second of the question; what did not come is zero. During a push,
// when there may be just a boot ROM to ask, it returns the last answer since
// the chip's reset, without waiting for another.
func (d *Device) askPeer(ctx context.Context) func() tmfifo.Peer {
	p := d.mux.peer
	answered := p.request()
	d.mu.Lock()
	pushing := d.boot != nil
	d.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, peerPatience)
	if answered == nil || pushing {
		cancel()
	}
	return func() tmfifo.Peer {
		defer cancel()
		if pushing {
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.last
		}
		return p.wait(ctx, answered)
	}
}

// tell sends settings to the DPU. There is no acknowledgement: nil means that
// they are on their way.
func (d *Device) tell(ctx context.Context, m ...tmfifo.Message) error {
	if _, err := d.owner(ctx); err != nil {
		return err
	}
	p := d.mux.peer
	s := &setting{m, make(chan error, 1)}
	p.mu.Lock()
	p.settings = append(p.settings, s)
	p.mu.Unlock()
	signal(p.queued)
	t := time.NewTimer(peerPatience)
	defer t.Stop()
	var err error
	select {
	case err := <-s.sent:
		if err != nil {
			err = fmt.Errorf("%w: %w", ErrNotReady, err)
		}
		return err
	case <-t.C:
		err = fmt.Errorf("the DPU does not read its TMFIFO: %w", os.ErrDeadlineExceeded)
	case <-ctx.Done():
		err = ctx.Err()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.settings = slices.DeleteFunc(p.settings, func(o *setting) bool { return o == s })
	return err
}
