// SPDX-License-Identifier: Apache-2.0

//go:build !nosim

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
)

func TestPush(t *testing.T) {
	bubble(t, func(r *rig, g reg.Generation) {
		r.cfg.StageScale = 1 // or the installer's lines come too shortly before its reset
		img, cfg, root := testBFB(r.t, g, 300_000), []byte("PASSWORD=x\n"), []byte("a root file system")
		stream := slices.Concat(img, cfg, root)
		code := r.run(r.t.Context(), "push", "-status", "-config", file(r.t, cfg), "-rootfs", file(r.t, root), file(r.t, img))
		r.want(code, exitOK,
			"a good BFB for "+g.String()+", 5 images",
			"INFO[BL2]: DDR POST passed", "INFO[MISC]: Found bf.cfg", "INFO[MISC]: DPU is ready",
			"rshim0 is ready", "Last push    ready, "+size(int64(len(stream))))
		r.arrived(stream)
	})
}

func TestPushStreamed(t *testing.T) {
	bubble(t, func(r *rig, g reg.Generation) {
		img := testBFB(r.t, g, 300_000)
		r.cfg.StageScale = 1
		code := r.run(r.t.Context(), "push", "-q", "-wait", "streamed", file(r.t, img))
		r.want(code, exitOK)
		r.arrived(img)
		if r.stdout.Len() > 0 || r.stderr.Len() > 0 {
			r.t.Errorf("-q, and yet %q, %q", &r.stdout, &r.stderr)
		}
	})
}

// A pipe gives what it has in pieces of any size, slowly.
func TestPushPipe(t *testing.T) {
	bubble(t, func(r *rig, g reg.Generation) {
		img := testBFB(r.t, g, 3<<20)
		pipe, w := io.Pipe()
		go func() {
			for left := img; len(left) > 0; {
				n, err := w.Write(left[:min(len(left), 99_991)])
				if err != nil {
					r.t.Error(err)
					return
				}
				left = left[n:]
				time.Sleep(100 * time.Millisecond)
			}
			w.Close()
		}()
		r.stdin = pipe
		code := r.run(r.t.Context(), "push", "-")
		r.want(code, exitOK, "standard input: starts like a BFB", "sent 3.0 MiB", "rshim0 is ready")
		r.arrived(img)
	})
}

// What is wrong with an image is found before anything is touched, in a file
// wherever it is, in a pipe if it is near the start.
func TestRefused(t *testing.T) {
	damaged := func(img []byte, at int) []byte {
		img = slices.Clone(img)
		img[at] ^= 0x10
		return img
	}
	for name, make := range map[string]func(t *testing.T, g reg.Generation) (img []byte, why string){
		"generation": func(t *testing.T, g reg.Generation) ([]byte, string) {
			return testBFB(t, reg.BlueField2+reg.BlueField3-g, 10_000), "BFB is not for this chip: no boot firmware for " + g.String()
		},
		"truncated": func(t *testing.T, g reg.Generation) ([]byte, string) {
			img := testBFB(t, g, 10_000)
			return img[:len(img)-8], "BFB is truncated"
		},
		"CRC": func(t *testing.T, g reg.Generation) ([]byte, string) {
			return damaged(testBFB(t, g, 10_000), 5000), "CRC mismatch"
		},
		"header": func(t *testing.T, g reg.Generation) ([]byte, string) {
			return damaged(testBFB(t, g, 10_000), 1024), "not a BFB image header"
		},
		"no BFB": func(t *testing.T, g reg.Generation) ([]byte, string) {
			return []byte("#!/bin/sh\necho this is no BFB\n"), "not a BFB image header"
		},
		"nothing": func(t *testing.T, g reg.Generation) ([]byte, string) { return nil, "offset 0" },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig, g reg.Generation) {
				img, why := make(r.t, g)
				r.before = func(fn *usbdev.Function) { fn.DPU().Record(1 << 20) }
				for _, arg := range []string{file(r.t, img), "-"} {
					r.stdin = bytes.NewReader(img)
					code := r.run(r.t.Context(), "push", arg)
					r.want(code, exitRefused, "nothing was touched", why)
					r.untouched()
				}
			})
		})
	}
}

// untouched checks that the DPU was not told to do anything.
func (r *rig) untouched() {
	r.t.Helper()
	m := r.fn.DPU().Map()
	acc := r.fn.DPU().Recorded()
	if len(acc) == 0 {
		r.t.Error("no register access was recorded, so that this proves nothing")
	}
	for _, a := range acc {
		switch a.Addr {
		case m.BootControl, m.ResetControl, m.WatchdogControl, m.BootFIFOData, m.SWInt, m.Breadcrumb0, m.Breadcrumb1:
			if a.Write {
				r.t.Errorf("%v was written", a.Addr)
			}
		}
	}
	if n, _ := r.fn.BootSum(); n > 0 {
		r.t.Errorf("%d bytes came into the boot FIFO", n)
	}
}

// What only shows later in a pipe ends the push.
func TestPushBadLater(t *testing.T) {
	bubble(t, func(r *rig, g reg.Generation) {
		good := testBFB(r.t, g, 3<<20)
		for name, c := range map[string]struct {
			img []byte
			why string
		}{
			"CRC":       {slices.Concat(good[:2<<20], []byte{^good[2<<20]}, good[2<<20+1:]), "CRC mismatch"},
			"truncated": {good[:2<<20], "BFB is truncated"},
			"read":      {nil, "the disk is on fire"},
		} {
			r.stdin = bytes.NewReader(c.img)
			if name == "read" {
				r.stdin = io.MultiReader(bytes.NewReader(good[:2<<20]), iotest.ErrReader(errFire))
			}
			code := r.run(r.t.Context(), "push", "-")
			r.want(code, exitFailed, "the push failed after", c.why)
		}
	})
}

var errFire = errors.New("the disk is on fire")

// -no-check leaves it to the DPU to find out.
func TestPushNoCheck(t *testing.T) {
	bubble(t, func(r *rig, g reg.Generation) {
		img := testBFB(r.t, g, 300_000)
		img[2000] ^= 1
		code := r.run(r.t.Context(), "push", "-no-check", file(r.t, img))
		r.want(code, exitDPU, "the DPU reported an error: ERR[BL2]: image CRC error")

		began := time.Now()
		code = r.run(r.t.Context(), "push", "-no-check", file(r.t, bytes.Repeat([]byte("no BFB "), 10_000)))
		r.want(code, exitDPU, "PANIC(BL1): PC = 0x4001d3c8")
		if took := time.Since(began); took > 10*time.Second {
			r.t.Errorf("a panic took %v to be reported", took)
		}

		// A BFB for another chip boots where nothing but the version is wrong.
		other := testBFB(r.t, reg.BlueField2+reg.BlueField3-g, 10_000)
		code = r.run(r.t.Context(), "push", "-no-check", "-", file(r.t, other))
		r.want(code, exitUsage)
		code = r.run(r.t.Context(), "push", "-no-check", file(r.t, other))
		r.want(code, exitOK)
		r.arrived(other)
	})
}

// Errors of the boot end a push when it does not go on, and are not forgotten
// when it does.
func TestPushDPUError(t *testing.T) {
	for name, c := range map[string]struct {
		after, line string
		code        int
		texts       []string
		within      time.Duration
	}{
		"early":    {"DDR freq", "ERR[BL2]: DDR init fail on MSS0", exitDPU, []string{"ERR[BL2]: DDR init fail on MSS0"}, time.Minute},
		"install":  {"Installing OS", "INFO[MISC]: CRITICAL ERROR: no disk", exitDPU, []string{"CRITICAL ERROR: no disk"}, 20 * time.Second},
		"silent":   {"Installing OS", "INFO[MISC]: hm", exitTimeout, []string{"was not ready 2m0s after", "installing", "INFO[MISC]: hm"}, 3 * time.Minute},
		"false":    {"Installation finished", "INFO[MISC]: Rebooting BMC...", exitTimeout, []string{"Rebooting BMC"}, 3 * time.Minute},
		"linux up": {"Linux up", "INFO[MISC]: hm", exitTimeout, []string{"starting services"}, 3 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig, g reg.Generation) {
				if name == "early" && g == reg.BlueField3 {
					c.after = "VDDQ"
				}
				r.cfg.FailAfter, r.cfg.FailLine = c.after, c.line
				began := time.Now()
				code := r.run(r.t.Context(), "push", "-timeout", "2m", file(r.t, testBFB(r.t, g, 2<<20)))
				r.want(code, c.code, c.texts...)
				if took := time.Since(began); took > c.within {
					r.t.Errorf("took %v", took)
				}
			})
		})
	}
}

// An error that the boot got over is told all the same.
func TestPushReadyWithErrors(t *testing.T) {
	bubble(t, func(r *rig, g reg.Generation) {
		r.cfg.StageScale = 1
		r.before = func(fn *usbdev.Function) {
			time.AfterFunc(9*time.Second, func() { fn.DPU().Log(context.Background(), "ERR[UEFI]: no boot option") })
		}
		code := r.run(r.t.Context(), "push", "-json", file(r.t, testBFB(r.t, g, 1<<20)))
		r.want(code, exitDPU, "the DPU is up, but reported an error: ERR[UEFI]: no boot option", `"ready":true`)
	})
}

// A chip that takes nothing any more fails the push after BOOT_TIMEOUT.
func TestPushStall(t *testing.T) {
	bubble(t, func(r *rig, g reg.Generation) {
		r.before = func(fn *usbdev.Function) { fn.DPU().PauseDrain(100_000, time.Hour) }
		began := time.Now()
		code := r.run(r.t.Context(), "push", file(r.t, testBFB(r.t, g, 1<<20)))
		r.want(code, exitTimeout, "the push failed after")
		if took := time.Since(began); took < 300*time.Second || took > 360*time.Second {
			r.t.Errorf("took %v, with a BOOT_TIMEOUT of 300 s", took)
		}
	})
}

// An input that stops giving anything does not keep the push for ever.
func TestPushInputStalls(t *testing.T) {
	bubble(t, func(r *rig, g reg.Generation) {
		pipe, w := io.Pipe()
		defer w.Close()
		go func() { _, _ = w.Write(testBFB(r.t, g, 3<<20)[:2<<20]) }()
		r.stdin = pipe
		code := r.run(r.t.Context(), "push", "-timeout", "5m", "-")
		r.want(code, exitTimeout, "the input gave nothing for 5m0s")

		silent, w2 := io.Pipe()
		defer w2.Close()
		r.stdin = silent
		code = r.run(r.t.Context(), "push", "-timeout", "5m", "-")
		r.want(code, exitTimeout, "standard input could not be checked within 5m0s, nothing was touched")
	})
}

// An interrupted push ends at once and says how far it came.
func TestPushInterrupted(t *testing.T) {
	for name, c := range map[string]struct {
		after time.Duration
		text  string
	}{
		"attaching": {500 * time.Millisecond, "interrupted before anything was touched"},
		"resetting": {1100 * time.Millisecond, "interrupted while the DPU was being reset"},
		"streaming": {20 * time.Second, "KiB of 1.0 MiB; the DPU waits for the rest"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig, g reg.Generation) {
				r.before = func(fn *usbdev.Function) { fn.DPU().PauseDrain(500_000, time.Hour) }
				ctx, cancel := context.WithTimeout(r.t.Context(), c.after)
				defer cancel()
				ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
				time.AfterFunc(c.after, stop)
				began := time.Now()
				code := r.run(ctx, "push", file(r.t, testBFB(r.t, g, 1<<20)))
				r.want(code, exitInterrupted, c.text)
				if late := time.Since(began) - c.after; late > time.Second {
					r.t.Errorf("ended %v after the interrupt", late)
				}
			})
		})
	}
}

// A DPU that somebody else owns is not pushed to.
// TestPushContended: the RShim of a host is left alone, unless it is to be taken.
func TestPushContended(t *testing.T) {
	bubble(t, func(r *rig, g reg.Generation) {
		img := testBFB(r.t, g, 1<<20)
		r.host(bluefield.HostOptions{})
		code := r.run(r.t.Context(), "push", file(r.t, img))
		r.want(code, exitDevice, "rshim0 is contended", "nothing was touched; -force takes")
		code = r.run(r.t.Context(), "push", "-force", file(r.t, img))
		r.want(code, exitOK, "rshim0 is contended", "its owner has handed it over", "DPU is ready")
		r.arrived(img)
		r.host(bluefield.HostOptions{Deaf: true})
		code = r.run(r.t.Context(), "push", "-force", file(r.t, img))
		r.want(code, exitTimeout, "does not answer")
		if n, _ := r.fn.BootSum(); n != 0 {
			r.t.Errorf("%d bytes were sent to a chip that is not ours", n)
		}
	})
}

func TestPushJSON(t *testing.T) {
	bubble(t, func(r *rig, g reg.Generation) {
		r.cfg.StageScale, r.cfg.DrainRate = 1, 1<<20
		img := testBFB(r.t, g, 4<<20)
		code := r.run(r.t.Context(), "push", "-json", "-status", file(r.t, img))
		r.want(code, exitOK)
		count := make(map[string]int)
		var last map[string]any
		for line := range strings.Lines(r.stdout.String()) {
			last = nil
			if err := json.Unmarshal([]byte(line), &last); err != nil {
				r.t.Fatalf("%q: %v", line, err)
			}
			event, _ := last["event"].(string)
			for _, key := range map[string][]string{
				"progress": {"phase", "bytes", "rate"}, "log": {"line"}, "note": {"text"}, "status": {"device", "state"},
				"result": {"outcome", "exit_code", "device", "bytes", "ready", "stream_seconds", "elapsed_seconds"},
			}[event] {
				if _, ok := last[key]; !ok {
					r.t.Errorf("no %s in %s", key, line)
				}
			}
			count[event]++
		}
		if count["progress"] < 4 || count["log"] < 20 || count["note"] < 2 || count["status"] != 1 || count["result"] != 1 || len(count) != 5 {
			r.t.Errorf("events: %v", count)
		}
		if last["event"] != "result" || last["outcome"] != "ready" || last["exit_code"] != 0. || last["bytes"] != float64(len(img)) {
			r.t.Errorf("the last event is %v", last)
		}
	})
}

// TestPushSHA256: an image that is another one is not pushed, and never as a
// whole if that shows late.
func TestPushSHA256(t *testing.T) {
	bubble(t, func(r *rig, g reg.Generation) {
		img := testBFB(r.t, g, 3<<20)
		right, wrong := fmt.Sprintf("%X", sha256.Sum256(img)), strings.Repeat("5a", sha256.Size)
		r.before = func(fn *usbdev.Function) { fn.DPU().Record(1 << 20) }
		for _, more := range [][]string{nil, {"-no-check"}} {
			args := func(sum, name string) []string {
				return slices.Concat([]string{"push"}, more, []string{"-sha256", sum, name})
			}
			name := file(r.t, img)
			r.want(r.run(r.t.Context(), args(wrong, name)...), exitRefused, name+" refused, nothing was touched: the digest is wrong")
			if out := r.stderr.String(); strings.Contains(out, "no-check") {
				r.t.Errorf("-no-check does not help: %s", out)
			}
			r.untouched()
			r.want(r.run(r.t.Context(), args(right, name)...), exitOK)
			r.arrived(img)

			r.stdin = bytes.NewReader(img)
			r.want(r.run(r.t.Context(), args(wrong, "-")...), exitFailed, "the push failed after", "the digest is wrong")
			if n, _ := r.fn.BootSum(); n == 0 || n >= int64(len(img)) {
				r.t.Errorf("%d bytes of %d arrived", n, len(img))
			}
			r.stdin = bytes.NewReader(img)
			r.want(r.run(r.t.Context(), args(right, "-")...), exitOK)
			r.arrived(img)
		}
	})
}

// TestPushRealPipe: standard input and a FIFO are read as what they are.
func TestPushRealPipe(t *testing.T) {
	bubble(t, func(r *rig, g reg.Generation) {
		img := testBFB(r.t, g, 10_000) // which a pipe holds: one that waits stops the bubble's time
		pr, pw, err := os.Pipe()
		if err != nil {
			r.t.Fatal(err)
		}
		defer pr.Close()
		go func() {
			_, _ = pw.Write(img)
			pw.Close()
		}()
		r.stdin = pr
		r.want(r.run(r.t.Context(), "push", "-wait", "streamed", "-"), exitOK, "standard input: starts like a BFB")
		r.arrived(img)

		fifo := filepath.Join(r.t.TempDir(), "fifo")
		if err := syscall.Mkfifo(fifo, 0o600); err != nil {
			r.t.Fatal(err)
		}
		go func() {
			if err := os.WriteFile(fifo, img, 0); err != nil {
				r.t.Error(err)
			}
		}()
		r.want(r.run(r.t.Context(), "push", "-wait", "streamed", fifo), exitOK, fifo+": starts like a BFB")
		r.arrived(img)
	})
}

// TestPushSilentPipe: a pipe that gives nothing does not keep an interrupt from
// ending the push, nor does a FIFO that nobody writes. Time is real here.
func TestPushSilentPipe(t *testing.T) {
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pr.Close()
	defer pw.Close()
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"-", fifo} {
		r := &rig{t: t, cfg: bluefield.Config{Generation: reg.BlueField3}, stdin: pr}
		ctx, cancel := context.WithTimeoutCause(t.Context(), 2*time.Second, context.Canceled)
		began := time.Now()
		r.want(r.run(ctx, "push", name), exitInterrupted, "interrupted before anything was touched")
		if took := time.Since(began); took > busPatience {
			t.Errorf("ended after %v", took)
		}
		cancel()
	}
	// For the open that was left behind.
	if f, err := os.OpenFile(fifo, os.O_RDWR, 0); err == nil {
		f.Close()
	}
}
