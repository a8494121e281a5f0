// SPDX-License-Identifier: Apache-2.0

package rshim_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/rshim/bootlog"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
)

// verdictRig is a rig with a DPU that takes its time to boot, so that nothing of
// its log is lost in a reset.
type verdictRig struct {
	*rig
	g   reg.Generation
	fn  *usbdev.Function
	dpu *bluefield.DPU
	d   *rshim.Device
}

// verdictBy runs f with a DPU of each generation, attached and ready.
func verdictBy(t *testing.T, cfg bluefield.Config, o rshim.Options, f func(r *verdictRig)) {
	t.Helper()
	generations(t, func(t *testing.T, g reg.Generation) {
		synctest.Test(t, func(t *testing.T) {
			cfg.Generation, cfg.StageScale = g, 1
			r := &verdictRig{rig: newRig(t, o), g: g}
			r.fn = r.plug("1-1", cfg, usbdev.Options{Latency: 125 * time.Microsecond})
			r.dpu, r.d = r.fn.DPU(), r.attached(0)
			time.Sleep(20 * time.Second) // for what it has booted
			f(r)
		})
	})
}

// push pushes a good image.
func (r *verdictRig) push() error { return push(r.ctx, r.d, image(r.t, r.g, 300_000)) }

// mustPush does so, and leaves the DPU booting.
func (r *verdictRig) mustPush() {
	r.t.Helper()
	if err := r.push(); err != nil {
		r.t.Fatalf("push: %v", err)
	}
	if p := r.d.Push(); p.Outcome != rshim.OutcomePending || p.Phase != rshim.PushDone || !p.Ended.IsZero() {
		r.t.Fatalf("it has just been streamed, and is %+v", p)
	}
}

// outcome waits for the last push to end, and checks how it has.
func (r *verdictRig) outcome(want rshim.Outcome) rshim.PushStatus {
	r.t.Helper()
	late := time.After(2 * time.Hour)
	for {
		changed := r.d.Changed()
		p := r.d.Push()
		if p.Outcome.Final() {
			r.ended(p, want)
			return p
		}
		select {
		case <-changed:
		case <-late:
			r.t.Fatalf("no outcome: %+v", p)
		}
	}
}

func (r *verdictRig) ended(p rshim.PushStatus, want rshim.Outcome) {
	r.t.Helper()
	if p.Outcome != want {
		r.t.Errorf("outcome %v, want %v: %+v", p.Outcome, want, p)
	}
	if p.Ended.IsZero() || p.Ended.After(time.Now()) || p.ID == 0 {
		r.t.Errorf("%+v", p)
	}
	if good := want == rshim.OutcomeReady; good != (p.Err == nil) && want != rshim.OutcomeStreamed {
		r.t.Errorf("outcome %v with error %v", want, p.Err)
	}
}

func TestOutcomeReady(t *testing.T) {
	for name, cfg := range map[string]bluefield.Config{"DPU mode": {}, "NIC mode": {NICMode: true}} {
		t.Run(name, func(t *testing.T) {
			verdictBy(t, cfg, rshim.Options{}, func(r *verdictRig) {
				if st := r.d.Status(); st.Stage != bootlog.StageReady || st.Push.Outcome != rshim.OutcomeNone {
					r.t.Errorf("before: %v, %+v", st.Stage, st.Push)
				}
				r.mustPush()
				p := r.outcome(rshim.OutcomeReady)
				last := "INFO[MISC]: DPU is ready"
				if cfg.NICMode {
					last = "INFO[MISC]: In Enhanced NIC mode"
				}
				if p.Stage != bootlog.StageReady || !p.Ready || p.Line != last || p.ID != 1 {
					r.t.Errorf("%+v", p)
				}
				if r.dpu.Stage() != bluefield.StageReady {
					r.t.Errorf("the DPU is %v", r.dpu.Stage())
				}
				st := r.d.Status()
				c := st.Counters
				if st.Stage != bootlog.StageReady || c.Pushes != 1 || c.Resets != 1 || c.PushBytes != p.Bytes || c.Attaches < 2 || c.LogLines < 40 {
					r.t.Errorf("%+v", st)
				}
				// The installed system's boot is a reset of the chip's own.
				if !st.Reset.After(p.Started) || st.Reset.After(p.Ended) || st.Attached.Before(st.Reset) {
					r.t.Errorf("reset at %v, attached at %v, push from %v to %v", st.Reset, st.Attached, p.Started, p.Ended)
				}
			})
		})
	}
}

// TestOutcomeStages: what is shown while the DPU boots is where it is.
func TestOutcomeStages(t *testing.T) {
	verdictBy(t, bluefield.Config{DrainRate: 100_000}, rshim.Options{}, func(r *verdictRig) {
		var seen []string
		done := make(chan error, 1)
		go func() { done <- r.push() }()
		for p := r.d.Push(); !p.Outcome.Final(); p = r.d.Push() {
			if s := p.Stage.String(); p.ID == 1 && (seen == nil || seen[len(seen)-1] != s) {
				seen = append(seen, s)
			}
			time.Sleep(10 * time.Millisecond)
		}
		if err := <-done; err != nil {
			r.t.Error(err)
		}
		r.outcome(rshim.OutcomeReady)
		for _, want := range []string{"unknown", "boot ROM", "BL2", "UEFI", "starting an operating system", "installing", "rebooting", "BL2", "starting services"} {
			at := -1
			for i, s := range seen {
				if s == want {
					at = i
					break
				}
			}
			if at < 0 {
				r.t.Fatalf("%q is missing, or too early, in %q", want, seen)
			}
			seen = seen[at:]
		}
	})
}

// TestOutcomeOfLine: a boot in which a line is followed by nothing. Class H: what
// people have taken for the end of an installation is not.
func TestOutcomeOfLine(t *testing.T) {
	const limit = 40 * time.Minute // longer than any patience with errors
	for name, c := range map[string]struct {
		after, line string
		want        rshim.Outcome
		stage       bootlog.Stage
		within      time.Duration
	}{
		"error of the firmware":   {"INFO[BL2]: start", "ERR[BL2]: DDR init fail on MSS0", rshim.OutcomeDPUError, bootlog.StageBL2, time.Minute},
		"assertion":               {"INFO[BL31]: start", "ASSERT[BL31]: plat.c:12", rshim.OutcomeDPUError, bootlog.StageBL31, 20 * time.Second},
		"error of UEFI":           {"eMMC probed", "ERR[UEFI]: no variables", rshim.OutcomeDPUError, bootlog.StageUEFI, 6 * time.Minute},
		"installer gives up":      {"Installing OS", "INFO[MISC]: CRITICAL ERROR: no disk", rshim.OutcomeDPUError, bootlog.StageInstalling, 20 * time.Second},
		"error of the installer":  {"Installing OS", "ERR[MISC]: mkfs", rshim.OutcomeDPUError, bootlog.StageInstalling, 6 * time.Minute},
		"installer hangs":         {"Installing OS", "INFO[MISC]: hm", rshim.OutcomeTimeout, bootlog.StageInstalling, 41 * time.Minute},
		"rebooting BMC":           {"Installing OS", "INFO[MISC]: Rebooting BMC...", rshim.OutcomeTimeout, bootlog.StageInstalling, 41 * time.Minute},
		"finished":                {"Updating NIC", "INFO[MISC]: finished", rshim.OutcomeTimeout, bootlog.StageInstalling, 41 * time.Minute},
		"installation completed":  {"Changing the", "INFO[MISC]: Ubuntu installation completed", rshim.OutcomeTimeout, bootlog.StageInstalling, 41 * time.Minute},
		"installation finished":   {"Updating NIC", "INFO[MISC]: Installation finished. Rebooting...", rshim.OutcomeTimeout, bootlog.StageRebooting, 41 * time.Minute},
		"rebooting":               {"Updating NIC", "INFO[MISC]: Rebooting...", rshim.OutcomeTimeout, bootlog.StageRebooting, 41 * time.Minute},
		"waits for the DPU":       {"Updating NIC", "INFO[MISC]: waiting until DPU is ready", rshim.OutcomeTimeout, bootlog.StageInstalling, 41 * time.Minute},
		"upgrade nobody asked of": {"Updating NIC", "INFO[MISC]: Runtime upgrade finished", rshim.OutcomeTimeout, bootlog.StageInstalling, 41 * time.Minute},
		"Linux up":                {"Linux up", "INFO[MISC]: hm", rshim.OutcomeTimeout, bootlog.StageServices, 41 * time.Minute},
		"warning":                 {"Linux up", "WARN[MISC]: DPU is ready", rshim.OutcomeTimeout, bootlog.StageServices, 41 * time.Minute},
		"ready, then stuck":       {"Linux up", "INFO[MISC]: DPU is ready", rshim.OutcomeReady, bootlog.StageReady, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := bluefield.Config{StageScale: 1, FailAfter: c.after, FailLine: c.line}
				r := &verdictRig{rig: newRig(t, rshim.Options{ReadyTimeout: limit}), g: reg.BlueField3}
				r.fn = r.plug("1-1", cfg, usbdev.Options{})
				r.d = r.attached(0)
				err := push(r.ctx, r.d, image(t, r.g, 100_000))
				p := r.outcome(c.want)
				if p.Stage != c.stage || p.Line != c.line || p.Ended.Sub(p.Started) > c.within {
					t.Errorf("at %v after %v, line %q", p.Stage, p.Ended.Sub(p.Started), p.Line)
				}
				switch {
				case c.want == rshim.OutcomeDPUError:
					if !errors.Is(p.Err, rshim.ErrDPU) || !strings.Contains(p.Err.Error(), c.line) {
						t.Errorf("error %v", p.Err)
					}
					// The writer is told, if it is still there and has not waited
					// for too long.
					if err != nil && !errors.Is(err, rshim.ErrDPU) && !errors.Is(err, os.ErrDeadlineExceeded) {
						t.Errorf("push: %v", err)
					}
				case err != nil:
					t.Errorf("push: %v", err)
				case c.want == rshim.OutcomeTimeout && !errors.Is(p.Err, os.ErrDeadlineExceeded):
					t.Errorf("error %v", p.Err)
				}
			})
		})
	}
}

// TestOutcomeBadImage: the boot ROM and BL2 say what is wrong with a stream, and
// the writer is told at once, long before BOOT_TIMEOUT.
func TestOutcomeBadImage(t *testing.T) {
	verdictBy(t, bluefield.Config{}, rshim.Options{}, func(r *verdictRig) {
		bad := image(r.t, r.g, 300_000)
		bad[2000] ^= 1
		for what, c := range map[string]struct {
			stream []byte
			line   string
			limit  time.Duration
		}{
			"CRC":    {bad, "ERR[BL2]: image CRC error", time.Minute},
			"no BFB": {bytes.Repeat([]byte("no BFB "), 10_000), "PANIC(BL1): PC = 0x4001d3c8", 15 * time.Second},
		} {
			began := time.Now()
			err := push(r.ctx, r.d, c.stream)
			if took := time.Since(began); !errors.Is(err, rshim.ErrDPU) || took > c.limit {
				r.t.Errorf("%s: %v after %v", what, err, took)
			}
			if p := r.outcome(rshim.OutcomeDPUError); p.Line != c.line || p.Phase != rshim.PushFailed {
				r.t.Errorf("%s: %+v", what, p)
			}
			bootSource(r.t, r.fn, reg.BootEMMC)
		}
	})
}

// TestOutcomeUpWithError: an error that the DPU got over is not forgotten.
func TestOutcomeUpWithError(t *testing.T) {
	verdictBy(t, bluefield.Config{}, rshim.Options{}, func(r *verdictRig) {
		r.mustPush()
		r.dpu.Log(context.Background(), "ERR[UEFI]: no boot option")
		if p := r.outcome(rshim.OutcomeDPUError); !p.Ready || p.Stage != bootlog.StageReady || p.Line != "ERR[UEFI]: no boot option" {
			r.t.Errorf("%+v", p)
		}
	})
}

// TestOutcomeStreamFails: the stream's own end decides, with the reason.
func TestOutcomeStreamFails(t *testing.T) {
	errInput := errors.New("the input is on fire")
	for name, c := range map[string]struct {
		do     func(r *verdictRig, b *rshim.BootStream) error
		want   rshim.Outcome
		reason error
		within time.Duration
	}{
		"writer stops": {func(r *verdictRig, b *rshim.BootStream) error {
			_, err := b.Write(r.ctx, image(r.t, r.g, 300_000)[:200_000])
			return errors.Join(err, b.Close(r.ctx))
		}, rshim.OutcomeFailed, rshim.ErrIncomplete, 10 * time.Second},
		"writer gives up": {func(r *verdictRig, b *rshim.BootStream) error {
			_, err := b.Write(r.ctx, image(r.t, r.g, 300_000)[:200_000])
			return errors.Join(err, b.Abort(r.ctx, errInput))
		}, rshim.OutcomeFailed, errInput, 10 * time.Second},
		"nothing": {func(r *verdictRig, b *rshim.BootStream) error {
			return b.Close(r.ctx)
		}, rshim.OutcomeFailed, rshim.ErrIncomplete, 10 * time.Second},
		"chip stalls": {func(r *verdictRig, b *rshim.BootStream) error {
			r.dpu.PauseDrain(100_000, time.Hour)
			_, err := b.Write(r.ctx, image(r.t, r.g, 300_000))
			return errors.Join(err, b.Close(r.ctx))
		}, rshim.OutcomeTimeout, os.ErrDeadlineExceeded, 310 * time.Second},
		"chip stalls after an error": {func(r *verdictRig, b *rshim.BootStream) error {
			r.dpu.PauseDrain(100_000, time.Hour)
			time.AfterFunc(20*time.Second, func() { r.dpu.Log(context.Background(), "ERR[UEFI]: no variables") })
			_, err := b.Write(r.ctx, image(r.t, r.g, 300_000))
			return errors.Join(err, b.Close(r.ctx))
		}, rshim.OutcomeDPUError, os.ErrDeadlineExceeded, 310 * time.Second},
		"chip goes": {func(r *verdictRig, b *rshim.BootStream) error {
			r.dpu.PauseDrain(100_000, time.Hour)
			time.AfterFunc(20*time.Second, r.fn.Unplug)
			_, err := b.Write(r.ctx, image(r.t, r.g, 300_000))
			return errors.Join(err, b.Close(r.ctx))
		}, rshim.OutcomeDeviceLost, rshim.ErrGone, 30 * time.Second},
		"chip does not come back": {func(r *verdictRig, b *rshim.BootStream) error {
			_, err := b.Write(r.ctx, image(r.t, r.g, 300_000))
			return errors.Join(err, b.Close(r.ctx))
		}, rshim.OutcomeDeviceLost, os.ErrDeadlineExceeded, 70 * time.Second},
		"chip is reset": {func(r *verdictRig, b *rshim.BootStream) error {
			_, err := b.Write(r.ctx, image(r.t, r.g, 300_000)[:200_000])
			if err := r.d.Reset(r.ctx); err != nil {
				r.t.Error(err)
			}
			_, werr := b.Write(r.ctx, image(r.t, r.g, 300_000)[200_000:])
			return errors.Join(err, werr, b.Close(r.ctx))
		}, rshim.OutcomeFailed, nil, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			verdictBy(t, bluefield.Config{}, rshim.Options{}, func(r *verdictRig) {
				if name == "chip does not come back" {
					r.dpu.SetReset(bluefield.ResetBehaviour{Never: true})
				}
				began := time.Now()
				b, err := r.d.OpenPush(r.ctx, rshim.PushOptions{Total: 300_000})
				if err != nil {
					r.t.Fatal(err)
				}
				if err := c.do(r, b); err == nil {
					r.t.Error("the stream has not failed")
				}
				p := r.outcome(c.want)
				if took := p.Ended.Sub(began); took > c.within {
					r.t.Errorf("it took %v to say so", took)
				}
				if !errors.Is(p.Err, c.reason) && c.reason != nil || p.Phase != rshim.PushFailed || p.Total != 300_000 || p.ID != b.ID() {
					r.t.Errorf("%+v", p)
				}
			})
		})
	}
}

// TestOutcomeBooting: what may become of a push whose stream the DPU has.
func TestOutcomeBooting(t *testing.T) {
	for name, c := range map[string]struct {
		do     func(r *verdictRig)
		want   rshim.Outcome
		reason error
		within time.Duration // of what was done
	}{
		"cancelled": {func(r *verdictRig) {
			if err := r.d.CancelPush(r.ctx, 1); err != nil {
				r.t.Error(err)
			}
		}, rshim.OutcomeCancelled, rshim.ErrCancelled, 0},
		"dropped": {func(r *verdictRig) {
			if err := r.d.SetDrop(r.ctx, true); err != nil {
				r.t.Error(err)
			}
		}, rshim.OutcomeStreamed, rshim.ErrGivenUp, time.Second},
		"not served any more": {func(r *verdictRig) {
			if err := r.set.Serve(r.ctx, false); err != nil {
				r.t.Error(err)
			}
		}, rshim.OutcomeStreamed, rshim.ErrGivenUp, time.Second},
		"handed over": {func(r *verdictRig) {
			r.dpu.WriteReg(r.dpu.Map().Scratchpad1, 8, reg.OwnershipRequest)
		}, rshim.OutcomeStreamed, rshim.ErrGivenUp, 2 * time.Second},
		"reset": {func(r *verdictRig) {
			if err := r.d.Reset(r.ctx); err != nil {
				r.t.Error(err)
			}
		}, rshim.OutcomeFailed, nil, time.Second},
		"unplugged": {func(r *verdictRig) { r.fn.Unplug() }, rshim.OutcomeDeviceLost, rshim.ErrGone, 61 * time.Second},
		"unplugged for a while": {func(r *verdictRig) {
			r.fn.Unplug()
			time.Sleep(30 * time.Second)
			r.fn.Plug()
		}, rshim.OutcomeReady, nil, 40 * time.Second},
		"the daemon ends": {func(r *verdictRig) { r.stop() }, rshim.OutcomeStreamed, rshim.ErrGivenUp, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			verdictBy(t, bluefield.Config{}, rshim.Options{}, func(r *verdictRig) {
				r.mustPush()
				time.Sleep(2 * time.Second)
				began := time.Now()
				c.do(r)
				p := r.outcome(c.want)
				if took := p.Ended.Sub(began); took > c.within {
					r.t.Errorf("it took %v to say so", took)
				}
				if c.reason != nil && !errors.Is(p.Err, c.reason) || p.Phase != rshim.PushDone {
					r.t.Errorf("%+v", p)
				}
				time.Sleep(time.Hour)
				if later := r.d.Push(); later != p {
					r.t.Errorf("%+v has become %+v", p, later)
				}
				if err := r.d.CancelPush(r.ctx, 1); !errors.Is(err, rshim.ErrNoPush) {
					r.t.Errorf("cancelled afterwards: %v", err)
				}
			})
		})
	}
}
