// SPDX-License-Identifier: Apache-2.0

package usbbackend

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

const (
	minPoll  = 100 * time.Microsecond // between reads of a fill level that stays
	maxReads = 8                      // under way at once: a round trip's worth of small transfers
)

// levels reads a FIFO's fill level while its owner does something else.
type levels struct {
	read    func(context.Context) (int64, error) // in bytes
	reads   int                                  // under way
	answers chan level
	ctx     context.Context // of the reads
	stop    context.CancelFunc
}

// level is a read of the fill level.
type level struct {
	asked int64 // where the stream was when it was issued
	bytes int64
	err   error
}

var errLevel = errors.New("not a fill level")

func (l *levels) start(d *Device, read func(context.Context) (int64, error)) {
	*l = levels{read: read, answers: make(chan level, maxReads)}
	l.ctx, l.stop = context.WithCancel(d.open)
}

// end calls back the reads that are under way.
func (l *levels) end() {
	if l.stop != nil {
		l.stop()
	}
}

// ask issues a read, after a pause; the caller sees to it that there are no
// more than maxReads. Who receives from answers counts reads down.
func (l *levels) ask(at int64, pause time.Duration) {
	l.reads++
	// The goroutine may outlive the stream, and so has its own of everything.
	ctx, read, answers := l.ctx, l.read, l.answers
	go func() {
		var n int64
		err := sleep(ctx, pause)
		if err == nil {
			n, err = read(ctx)
		}
		answers <- level{at, n, err}
	}()
}

// level reads how many bytes are in the FIFO whose count of words is at a.
func (d *Device) level(ctx context.Context, a reg.Addr, words func(uint64) (int, bool)) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	v, err := d.ReadReg(ctx, a, 8)
	if err != nil {
		return 0, err
	}
	n, ok := words(v)
	if !ok {
		return 0, fmt.Errorf("count %#x: %w", v, errLevel)
	}
	return int64(n) * 8, nil
}

func (d *Device) bootLevel(ctx context.Context) (int64, error) {
	return d.level(ctx, d.regs.BootFIFOCount, d.regs.BootFIFOWords)
}

// tmOutLevel and tmInLevel are what is in the TMFIFO towards the DPU and from
// it.
func (d *Device) tmOutLevel(ctx context.Context) (int64, error) {
	return d.level(ctx, d.regs.TmHostToTileSts, reg.TmFIFOWords)
}

func (d *Device) tmInLevel(ctx context.Context) (int64, error) {
	return d.level(ctx, d.regs.TmTileToHostSts, reg.TmFIFOWords)
}
