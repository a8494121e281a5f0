// SPDX-License-Identifier: Apache-2.0

package rshim

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/bluefield-go/bmc-rshim/rshim/tmfifo"
)

const (
	tmRead = 4096 // bytes of a TMRead

	// tmGap is how long the rest of a message may take to come. Linux gives up
	// one after 2 s, and fills it up.
	tmGap = 3 * time.Second
)

// tmfifo runs the TMFIFO for as long as the device is ours.
func (s *session) tmfifo(ctx context.Context, resync bool) {
	m := s.d.mux
	defer m.setUp(false) // which attaching has set
	for told := ""; m.rest(ctx); resync = true {
		err := m.run(ctx, s.b, resync)
		if errors.Is(err, errHushed) {
			continue
		}
		if ctx.Err() != nil || s.left(ctx, err) {
			return
		}
		m.count(func(st *TMFIFOStats) { st.Errors++ })
		if err.Error() != told {
			told = err.Error()
			s.d.log.Warn("the TMFIFO has failed", "op", "tmfifo", "err", err)
		}
		sleep(ctx, probePause)
	}
}

// mux carries console, network and control messages over the TMFIFO of the
// Backend that is served.
type mux struct {
	d       *Device
	console *Console
	net     *Net
	peer    *peer
	dec     tmfifo.Decoder // receive's; it keeps its counters

	mu    sync.Mutex
	stats TMFIFOStats
	quiet time.Time               // no run begins before
	stop  context.CancelCauseFunc // of the run; nil while there is none
	ended chan struct{}           // closed when it has ended
}

var errHushed = errors.New("the chip is about to be reset")

// run carries messages until ctx ends, hush is called or the Backend fails.
// With resync, the TMFIFO may have been in use before.
func (m *mux) run(ctx context.Context, b Backend, resync bool) (err error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	ended := make(chan struct{})
	m.mu.Lock()
	if time.Now().Before(m.quiet) {
		m.mu.Unlock()
		return errHushed
	}
	m.stop, m.ended = stop, ended
	m.stats.Starts++
	if resync {
		m.stats.Resyncs++
	}
	m.mu.Unlock()
	m.setUp(true)
	b.TMStart()
	g, running := errgroup.WithContext(ctx)
	g.Go(func() error { return m.receive(running, b) })
	g.Go(func() error { return m.send(running, b, resync) })
	err = g.Wait()
	b.TMStop()
	m.setUp(false)
	m.mu.Lock()
	m.stop = nil
	m.mu.Unlock()
	close(ended)
	if context.Cause(ctx) == errHushed {
		return errHushed
	}
	return err
}

// hush ends the run, so that nothing touches the chip, which is about to be
// reset, and lets none begin for a while.
func (m *mux) hush(ctx context.Context, d time.Duration) {
	m.mu.Lock()
	m.quiet = time.Now().Add(d)
	stop, ended := m.stop, m.ended
	m.mu.Unlock()
	if stop == nil {
		return
	}
	stop(errHushed)
	select {
	case <-ended:
	case <-ctx.Done():
	}
}

// rest waits until a run may begin; false when ctx ended first.
func (m *mux) rest(ctx context.Context) bool {
	m.mu.Lock()
	wait := time.Until(m.quiet)
	m.mu.Unlock()
	return ctx.Err() == nil && (wait <= 0 || sleep(ctx, wait))
}

// setUp tells network and control messages whether there is, or is about to be,
// somebody to talk to.
func (m *mux) setUp(up bool) {
	m.net.setUp(up)
	m.peer.setUp(up)
}

func (m *mux) count(f func(*TMFIFOStats)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(&m.stats)
}

// receive takes apart what comes from the DPU.
func (m *mux) receive(ctx context.Context, b Backend) error {
	m.dec.Reset()
	buf := make([]byte, tmRead)
	for {
		begin := time.Now()
		n, err := b.TMRead(ctx, buf)
		if err != nil {
			return err
		}
		if time.Since(begin) > tmGap {
			m.dec.Reset()
		}
		m.dec.Decode(buf[:n], func(msg tmfifo.Message) { m.deliver(ctx, msg) })
		counts := m.dec.Counts()
		m.count(func(st *TMFIFOStats) { st.Decoded = counts })
	}
}

func (m *mux) deliver(ctx context.Context, msg tmfifo.Message) {
	switch {
	case msg.Type == tmfifo.Net:
		m.net.deliver(msg.Payload)
	case msg.Type == tmfifo.Console:
		m.count(func(st *TMFIFOStats) { st.ConsoleFromDPU.pass(len(msg.Payload)) })
		m.console.deliver(ctx, msg.Payload)
	case msg.Type.Control():
		m.count(func(st *TMFIFOStats) { st.ControlFromDPU.pass(0) })
		m.peer.deliver(msg)
	}
}
