// SPDX-License-Identifier: Apache-2.0

package usbbackend

import (
	"context"
	"fmt"
	"math"
	"time"
)

const (
	tmPoll     = time.Second // longest time between reads of the level of a FIFO that stays full: some DPUs never read
	tmPatience = time.Second // with an OUT transfer, before it is called back and sent again
)

// tmOut is the direction towards the DPU. The pipeline belongs to TMWrite and
// TMIdle while they run, and between them to a goroutine of its own, which
// sees to the transfers under way: whoever takes it out of turn.
type tmOut struct {
	turn chan *pipeline // holds it
	kick chan struct{}  // there is something under way; holds one
	stop context.CancelFunc
	done chan struct{} // closed when the goroutine has ended
}

func (o *tmOut) start(d *Device) {
	o.end()
	p := &pipeline{
		d: d, log: d.log, name: "tmfifo", ep: d.tmOutEP, size: tmDepth,
		stall: math.MaxInt64, patience: tmPatience, endless: true,
	}
	p.credits = credits{asked: -1, slow: tmPoll, depth: tmDepth, least: tmDepth / 2}
	p.credits.start(d, d.tmOutLevel)
	ctx, stop := context.WithCancel(d.open)
	*o = tmOut{turn: make(chan *pipeline, 1), kick: make(chan struct{}, 1), stop: stop, done: make(chan struct{})}
	o.turn <- p
	go o.attend(ctx)
}

func (o *tmOut) end() {
	if o.turn == nil {
		return
	}
	o.stop()
	<-o.done
	p := <-o.turn
	p.cancel()
	p.credits.end()
	*o = tmOut{}
}

// TMWrite sends p, whole words and at most 2048 bytes: it waits until the
// FIFO is known to have room for all of them, and hands them to the bus. nil
// means that they are on their way, in order and exactly once; a transfer that
// fails is repaired and goes on where it stopped. With an error nothing of p
// was sent, but when the device is gone or closed, which alone are errors
// besides that of ctx. TMWrite and TMIdle are for one goroutine.
func (d *Device) TMWrite(ctx context.Context, p []byte) error {
	if len(p)%8 != 0 || len(p) > tmDepth {
		return fmt.Errorf("write %d bytes to the TMFIFO: %w", len(p), errTMLength)
	}
	return d.tmOut.do(ctx, func(q *pipeline) error {
		size := int64(len(p))
		q.credits.least = max(size, tmDepth/2)
		err := q.advance(ctx, func() bool {
			return len(q.queue) < segmentCount && q.credits.allow(q.queued+size)
		})
		q.credits.least = tmDepth / 2
		if err != nil || size == 0 {
			return err
		}
		q.add(p)
		if err = q.submit(); lost(err) {
			return err
		}
		return nil // else it is tried again
	})
}

// TMIdle waits until the FIFO has taken all that was written.
func (d *Device) TMIdle(ctx context.Context) error {
	return d.tmOut.do(ctx, func(q *pipeline) error {
		return q.advance(ctx, func() bool { return len(q.queue) == 0 })
	})
}

// do runs f with the pipeline.
func (o *tmOut) do(ctx context.Context, f func(*pipeline) error) error {
	if o.turn == nil {
		return errTMStopped
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case q := <-o.turn:
		defer func() {
			o.turn <- q
			select {
			case o.kick <- struct{}{}:
			default:
			}
		}()
		q.moved = time.Now()
		q.credits.pause = 0 // the FIFO may have been full long ago
		if err := q.grants(); err != nil {
			return err
		}
		return f(q)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// grants takes in the fill levels that have arrived.
func (p *pipeline) grants() error {
	for {
		select {
		case l := <-p.credits.answers:
			if _, err := p.credits.grant(l); err != nil {
				return err
			}
		default:
			return nil
		}
	}
}

// attend carries on with what is under way while nobody writes. It sets no
// timer when there is nothing.
func (o *tmOut) attend(ctx context.Context) {
	defer close(o.done)
	for hangs := false; ; {
		var p *pipeline
		select {
		case p = <-o.turn:
		case <-ctx.Done():
			return
		}
		if hangs {
			p.cancel() // finds out how much was taken
		}
		err := p.reap(ctx)
		if err == nil {
			err = p.submit()
		}
		head := p.head()
		if p.queued > 0 {
			p.credits.poll(p.taken, p.sent) // for the next write
		}
		o.turn <- p
		if lost(err) {
			return // the next write will see it, too
		}
		hangs = o.rest(ctx, head, head != nil || err != nil)
	}
}

// rest waits until there is something to attend to, and reports whether that is
// because of the time gone by, which is of interest only if limited.
func (o *tmOut) rest(ctx context.Context, head <-chan struct{}, limited bool) bool {
	var expired <-chan time.Time
	if limited {
		timer := time.NewTimer(tmPatience)
		defer timer.Stop()
		expired = timer.C
	}
	select {
	case <-head:
	case <-o.kick:
	case <-ctx.Done():
	case <-expired:
		return true
	}
	return false
}
