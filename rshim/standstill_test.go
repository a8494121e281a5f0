// SPDX-License-Identifier: Apache-2.0

package rshim_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
)

// standstill is a Backend on a machine that stands still for some seconds, with
// all that runs on it, when a register is accessed.
type standstill struct {
	rshim.Backend
	at func(a reg.Addr, write bool) time.Duration
}

func (s standstill) ReadReg(ctx context.Context, a reg.Addr, size int) (uint64, error) {
	time.Sleep(s.at(a, false))
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	return s.Backend.ReadReg(ctx, a, size)
}

func (s standstill) WriteReg(ctx context.Context, a reg.Addr, size int, v uint64) error {
	time.Sleep(s.at(a, true))
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.Backend.WriteReg(ctx, a, size, v)
}

// TestStandstill: what a machine that stands still for 3 s does not spoil: the
// part number, which is read when it is attached, and a push that has arrived.
func TestStandstill(t *testing.T) {
	generations(t, func(t *testing.T, g reg.Generation) {
		synctest.Test(t, func(t *testing.T) {
			const opn = "MBF2H332A-AENOT"
			m := reg.For(g)
			opnAt := reg.Addr{Channel: reg.ChanYU, Offset: reg.OPNOffsetBF3 + 4}
			if g == reg.BlueField2 {
				opnAt = m.MemAccData
			}
			var opnReads, sourceWrites atomic.Int32
			var closing atomic.Bool
			r := newRig(t, rshim.Options{})
			r.wrap = func(b rshim.Backend) rshim.Backend {
				return standstill{b, func(a reg.Addr, write bool) time.Duration {
					if a == opnAt && !write && opnReads.Add(1) == 1 ||
						a == m.BootControl && write && closing.Load() && sourceWrites.Add(1) == 1 {
						return 3 * time.Second
					}
					return 0
				}}
			}
			fn := r.plug("1-1", bluefield.Config{Generation: g, OPN: opn, StageScale: 1}, usbdev.Options{})
			d := r.attached(0)
			time.Sleep(10 * time.Second)
			if got := d.Status().OPN; got != opn || opnReads.Load() < 2 {
				t.Errorf("part number %q after %d reads", got, opnReads.Load())
			}

			stream := image(t, g, 300_000)
			b, err := d.OpenBoot(r.ctx)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := b.Write(r.ctx, stream); err != nil {
				t.Fatal(err)
			}
			closing.Store(true)
			if err := b.Close(r.ctx); err != nil || sourceWrites.Load() == 0 {
				t.Errorf("Close: %v, %d writes", err, sourceWrites.Load())
			}
			bootSource(t, fn, reg.BootEMMC)
			if n, _ := fn.BootSum(); n != int64(len(stream)+7)&^7 {
				t.Errorf("%d bytes of %d have arrived", n, len(stream))
			}
		})
	})
}

// hung is a Backend of a chip that lets writes of its boot source hang once it
// is told to, until it is closed.
type hung struct {
	rshim.Backend
	hang *atomic.Bool
	over context.Context
	end  context.CancelFunc
}

func (h hung) WriteReg(ctx context.Context, a reg.Addr, size int, v uint64) error {
	if !h.hang.Load() || a != reg.For(h.Generation()).BootControl {
		return h.Backend.WriteReg(ctx, a, size, v)
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-h.over.Done():
		return rshim.ErrGone
	}
}

func (h hung) Close() error {
	h.end()
	return h.Backend.Close()
}

// TestHungEnd: a daemon that ends does not wait for the boot source for as long
// as one that goes on.
func TestHungEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var closing atomic.Bool
		closed := make(chan struct{})
		r := newRig(t, rshim.Options{})
		r.wrap = func(b rshim.Backend) rshim.Backend {
			over, end := context.WithCancel(context.Background())
			return hung{b, &closing, over, end}
		}
		r.plug("1-1", bluefield.Config{StageScale: 1}, usbdev.Options{})
		d := r.attached(0)
		b, err := d.OpenBoot(r.ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Write(r.ctx, image(t, reg.BlueField3, 100_000)); err != nil {
			t.Fatal(err)
		}
		closing.Store(true)
		go func() {
			_ = b.Close(r.ctx)
			close(closed)
		}()
		time.Sleep(100 * time.Millisecond)
		select {
		case <-closed:
			t.Error("nothing hangs")
		default:
		}
		began := time.Now()
		r.stop()
		<-closed
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %v", took)
		}
	})
}
