// SPDX-License-Identifier: Apache-2.0

package rshim_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/rshim/bootlog"
	bfbpush "github.com/bluefield-go/bmc-rshim/rshim/push"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
)

// TestCancelStream: cancelling cuts a stream off, whatever its writer does, and
// the device can be pushed to again.
func TestCancelStream(t *testing.T) {
	for name, c := range map[string]struct{ writing, waiting bool }{
		"in the reset":   {true, false},
		"in a stall":     {true, true},
		"between writes": {false, true},
	} {
		t.Run(name, func(t *testing.T) {
			verdictBy(t, bluefield.Config{}, rshim.Options{}, func(r *verdictRig) {
				stream := image(r.t, r.g, 300_000)
				b, err := r.d.OpenBoot(r.ctx)
				if err != nil {
					r.t.Fatal(err)
				}
				r.dpu.PauseDrain(100_000, time.Hour)
				wrote := make(chan error, 1)
				if c.writing {
					go func() { _, err := b.Write(r.ctx, stream); wrote <- err }()
				} else if _, err := b.Write(r.ctx, stream[:50_000]); err != nil {
					r.t.Fatal(err)
				}
				if c.waiting {
					time.Sleep(30 * time.Second)
				}
				for _, id := range []int64{0, -1, b.ID() + 1} {
					if err := r.d.CancelPush(r.ctx, id); !errors.Is(err, rshim.ErrNoPush) {
						r.t.Errorf("push %d: %v", id, err)
					}
				}
				began := time.Now()
				if err := r.d.CancelPush(r.ctx, b.ID()); err != nil {
					r.t.Error(err)
				}
				if took := time.Since(began); took > time.Second {
					r.t.Errorf("cancelling took %v", took)
				}
				r.ended(r.d.Push(), rshim.OutcomeCancelled)
				if c.writing {
					if err := <-wrote; !errors.Is(err, rshim.ErrCancelled) {
						r.t.Errorf("the write: %v", err)
					}
				}
				if _, err := b.Write(r.ctx, stream); !errors.Is(err, rshim.ErrCancelled) {
					r.t.Errorf("a later write: %v", err)
				}
				r.state(r.d, rshim.Attached)
				bootSource(r.t, r.fn, reg.BootEMMC)
				let, stop := context.WithCancel(r.ctx)
				go func() {
					for let.Err() == nil {
						r.dpu.HoldDrain(false)
						time.Sleep(100 * time.Millisecond)
					}
				}()
				r.mustPush() // while the other writer still has it open
				stop()
				if err := b.Close(r.ctx); !errors.Is(err, rshim.ErrCancelled) {
					r.t.Errorf("Close: %v", err)
				}
				r.outcome(rshim.OutcomeReady)
				p, ok := r.d.PushByID(b.ID())
				if !ok {
					r.t.Fatal("the push is not known any more")
				}
				r.ended(p, rshim.OutcomeCancelled)
			})
		})
	}
}

// TestPushNumbers: a push that begins ends the one before, which is still known
// for a while. Numbers go on, also when the device was gone for good.
func TestPushNumbers(t *testing.T) {
	verdictBy(t, bluefield.Config{}, rshim.Options{}, func(r *verdictRig) {
		for id := int64(1); id <= 10; id++ {
			r.mustPush()
			if p := r.d.Push(); p.ID != id {
				r.t.Fatalf("push %d is %+v", id, p)
			}
			if p, ok := r.d.PushByID(id - 1); ok {
				r.ended(p, rshim.OutcomeStreamed)
				if !errors.Is(p.Err, rshim.ErrGivenUp) {
					r.t.Errorf("push %d: error %v", id-1, p.Err)
				}
			}
		}
		for id := int64(0); id <= 11; id++ {
			p, ok := r.d.PushByID(id)
			if want := id > 2 && id < 11; ok != want || ok && p.ID != id {
				r.t.Errorf("push %d: %v, %+v", id, ok, p)
			}
		}
		r.outcome(rshim.OutcomeReady)
		r.fn.Unplug()
		time.Sleep(time.Minute)
		r.fn.Plug()
		old := r.d
		if r.d = r.attached(0); r.d == old {
			r.t.Fatal("it is the same device")
		}
		if st := r.d.Status(); st.Push.ID != 0 || st.Counters.Pushes != 10 {
			r.t.Errorf("%+v", st)
		}
		r.mustPush()
		if p := r.outcome(rshim.OutcomeReady); p.ID != 11 {
			r.t.Errorf("%+v", p)
		}
	})
}

// TestPushLimit: a push's own limit goes before the device's.
func TestPushLimit(t *testing.T) {
	verdictBy(t, bluefield.Config{}, rshim.Options{ReadyTimeout: time.Hour}, func(r *verdictRig) {
		b, err := r.d.OpenPush(r.ctx, rshim.PushOptions{Limit: 3 * time.Second})
		if err != nil {
			r.t.Fatal(err)
		}
		_, err = b.Write(r.ctx, image(r.t, r.g, 100_000))
		if err = errors.Join(err, b.Close(r.ctx)); err != nil {
			r.t.Error(err)
		}
		closed := time.Now()
		if p := r.outcome(rshim.OutcomeTimeout); p.Ended.Sub(closed) != 3*time.Second {
			r.t.Errorf("after %v: %+v", p.Ended.Sub(closed), p)
		}
	})
}

// TestOutcomeUpgrade: an upgrade without a reset ends with its own line, not with
// what the running system has said before, or says meanwhile.
func TestOutcomeUpgrade(t *testing.T) {
	verdictBy(t, bluefield.Config{}, rshim.Options{}, func(r *verdictRig) {
		if err := r.d.WriteMisc(r.ctx, "BOOT_RESET_SKIP 1"); err != nil {
			r.t.Fatal(err)
		}
		r.dpu.Log(context.Background(), "INFO[MISC]: Runtime upgrade finished") // the one before
		b, err := r.d.OpenBoot(r.ctx)
		if err != nil {
			r.t.Fatal(err)
		}
		r.dpu.Log(context.Background(), "INFO[MISC]: DPU is ready")
		time.Sleep(5 * time.Second)
		m := r.dpu.Map()
		for _, w := range []struct {
			a reg.Addr
			v uint64
		}{{m.Scratchpad2, 1 << 2}, {m.SWInt, 1 << 2}} {
			if err := r.d.WriteReg(r.ctx, w.a, 8, w.v); err != nil {
				r.t.Fatal(err)
			}
		}
		_, err = b.Write(r.ctx, image(r.t, r.g, 100_000))
		if err = errors.Join(err, b.Close(r.ctx)); err != nil {
			r.t.Error(err)
		}
		if p := r.d.Push(); p.Outcome != rshim.OutcomePending || p.Stage != bootlog.StageReady || p.Ready {
			r.t.Errorf("before it has been done: %+v", p)
		}
		if p := r.outcome(rshim.OutcomeReady); p.Line != "INFO[MISC]: Runtime upgrade finished" {
			r.t.Errorf("%+v", p)
		}
	})
}

// TestSender: what package push sends arrives and boots, from a file and from a
// pipe; what turns out not to be what was meant boots nothing, and the push says
// why.
func TestSender(t *testing.T) {
	verdictBy(t, bluefield.Config{}, rshim.Options{}, func(r *verdictRig) {
		img, cfg := image(r.t, r.g, 2<<20), []byte("PASSWORD=x\n")
		name := filepath.Join(r.t.TempDir(), "x.bfb")
		if err := os.WriteFile(name, img, 0o600); err != nil {
			r.t.Fatal(err)
		}
		f, err := os.Open(name)
		if err != nil {
			r.t.Fatal(err)
		}
		defer f.Close()
		whole, err := bfbpush.OpenFile(f, name)
		if err != nil {
			r.t.Fatal(err)
		}
		pipe := func() *bfbpush.Image { return bfbpush.NewPipe(bfbpush.FromReader(bytes.NewReader(img)), "-") }
		right, wrong := sha256.Sum256(img), sha256.Sum256(cfg)
		for _, c := range []struct {
			img  *bfbpush.Image
			sum  []byte
			want rshim.Outcome
		}{{whole, right[:], rshim.OutcomeReady}, {pipe(), right[:], rshim.OutcomeReady}, {pipe(), wrong[:], rshim.OutcomeFailed}} {
			o := bfbpush.CheckOptions{Generation: r.g, Digest: bfbpush.Digest{Hash: sha256.New(), Sum: c.sum}}
			if _, err := c.img.Check(r.ctx, o); err != nil {
				r.t.Fatal(err)
			}
			s := bfbpush.Sender{Image: c.img, Config: bfbpush.FromReader(bytes.NewReader(cfg))}
			err := s.Send(r.ctx, func(ctx context.Context) (bfbpush.Stream, error) {
				return r.d.OpenPush(ctx, rshim.PushOptions{Total: int64(len(img) + len(cfg))})
			})
			if good := c.want == rshim.OutcomeReady; good != (err == nil) || !good && !errors.Is(err, bfbpush.ErrDigest) {
				r.t.Errorf("%s: %v", c.img.Name(), err)
			}
			if c.want == rshim.OutcomeReady {
				arrived(r.t, r.fn, append(img[:len(img):len(img)], cfg...))
			}
			p := r.outcome(c.want)
			if c.want == rshim.OutcomeFailed && (!errors.Is(p.Err, bfbpush.ErrDigest) || p.Missing == 0) {
				r.t.Errorf("%+v", p)
			}
			if p.Total != int64(len(img)+len(cfg)) {
				r.t.Errorf("%+v", p)
			}
		}
		bootSource(r.t, r.fn, reg.BootEMMC)
	})
}
