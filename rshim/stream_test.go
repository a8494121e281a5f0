// SPDX-License-Identifier: Apache-2.0

package rshim_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/rshim/bfb"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
)

// open opens the boot stream.
func open(t *testing.T, r *rig, d *rshim.Device) *rshim.BootStream {
	t.Helper()
	b, err := d.OpenBoot(r.ctx)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// failed checks that the last push is reported as failed, because of want.
func failed(t *testing.T, d *rshim.Device, want error) {
	t.Helper()
	if p := d.Push(); p.Phase != rshim.PushFailed || !errors.Is(p.Err, want) {
		t.Errorf("push is reported as %q, %v; want failed, %v", p.Phase, p.Err, want)
	}
}

// TestStreamLifetime: the calls that a file descriptor shared by several
// processes can lead to.
func TestStreamLifetime(t *testing.T) {
	generations(t, func(t *testing.T, g reg.Generation) {
		t.Run("write after close", func(t *testing.T) {
			bubble(t, bluefield.Config{Generation: g}, usbdev.Options{}, func(r *rig, fn *usbdev.Function, d *rshim.Device) {
				stream := image(t, g, 100_000)
				old := open(t, r, d)
				if _, err := old.Write(r.ctx, stream[:8192]); err != nil {
					t.Fatal(err)
				}
				if err := old.Close(r.ctx); !errors.Is(err, rshim.ErrIncomplete) {
					t.Errorf("Close: %v", err)
				}
				b := open(t, r, d) // of another writer, whom the first must not disturb
				for rest := stream; len(rest) > 0; rest = rest[min(len(rest), 10_000):] {
					if _, err := b.Write(r.ctx, rest[:min(len(rest), 10_000)]); err != nil {
						t.Fatal(err)
					}
					if n, err := old.Write(r.ctx, make([]byte, 64)); n != 0 || !errors.Is(err, os.ErrClosed) {
						t.Errorf("Write after Close: %d, %v", n, err)
					}
					if err := old.Close(r.ctx); !errors.Is(err, os.ErrClosed) {
						t.Errorf("second Close: %v", err)
					}
					if _, err := d.OpenBoot(r.ctx); !errors.Is(err, rshim.ErrBusy) {
						t.Errorf("another OpenBoot: %v", err)
					}
				}
				if err := b.Close(r.ctx); err != nil {
					t.Error(err)
				}
				arrived(t, fn, stream)
			})
		})
		t.Run("close during write", func(t *testing.T) {
			bubble(t, bluefield.Config{Generation: g}, usbdev.Options{}, func(r *rig, fn *usbdev.Function, d *rshim.Device) {
				fn.DPU().PauseDrain(0, time.Hour)
				b := open(t, r, d)
				wrote := make(chan error, 1)
				go func() {
					_, err := b.Write(r.ctx, image(t, g, 500_000))
					wrote <- err
				}()
				time.Sleep(5 * time.Second)
				if _, err := b.Write(r.ctx, []byte{1}); !errors.Is(err, rshim.ErrBusy) {
					t.Errorf("Write during another: %v", err)
				}
				begin := time.Now()
				if err := b.Close(r.ctx); !errors.Is(err, rshim.ErrIncomplete) {
					t.Errorf("Close: %v", err)
				}
				if err := <-wrote; !errors.Is(err, os.ErrClosed) {
					t.Errorf("Write that Close cut short: %v", err)
				}
				if took := time.Since(begin); took > 100*time.Millisecond {
					t.Errorf("Close took %v", took)
				}
				failed(t, d, rshim.ErrIncomplete)
			})
		})
		t.Run("all at once", func(t *testing.T) {
			bubble(t, bluefield.Config{Generation: g, DrainRate: 1 << 20}, usbdev.Options{}, func(r *rig, fn *usbdev.Function, d *rshim.Device) {
				for i := range 10 {
					b := open(t, r, d)
					var wg sync.WaitGroup
					for range 4 {
						wg.Go(func() {
							for {
								if _, err := b.Write(r.ctx, make([]byte, 1001)); errors.Is(err, os.ErrClosed) {
									return
								}
								time.Sleep(time.Millisecond)
							}
						})
					}
					time.Sleep(time.Duration(i) * 200 * time.Millisecond)
					closed := make(chan error, 3)
					for range cap(closed) {
						wg.Go(func() { closed <- b.Close(r.ctx) })
					}
					wg.Wait()
					second := 0
					for range cap(closed) {
						if errors.Is(<-closed, os.ErrClosed) {
							second++
						}
					}
					if second != 2 {
						t.Errorf("%d of 3 Closes came second", second)
					}
				}
			})
		})
		t.Run("without write", func(t *testing.T) {
			bubble(t, bluefield.Config{Generation: g}, usbdev.Options{}, func(r *rig, fn *usbdev.Function, d *rshim.Device) {
				begin := time.Now()
				if err := open(t, r, d).Close(r.ctx); !errors.Is(err, rshim.ErrIncomplete) {
					t.Errorf("Close: %v", err)
				}
				if took := time.Since(begin); took > 100*time.Millisecond {
					t.Errorf("Close took %v", took)
				}
				failed(t, d, rshim.ErrIncomplete)
				time.Sleep(10 * time.Second)
				r.state(d, rshim.Attached)
				bootSource(t, fn, reg.BootEMMC)
			})
		})
	})
}

func bootSource(t *testing.T, fn *usbdev.Function, want reg.BootMode) {
	t.Helper()
	if got := reg.BootMode(fn.DPU().ReadReg(fn.DPU().Map().BootControl, 8)); got != want {
		t.Errorf("boot source is %d, want %d", got, want)
	}
}

// TestBootSourceSetBack: however a push ends, the chip does not wait for
// another one after its next reset.
func TestBootSourceSetBack(t *testing.T) {
	generations(t, func(t *testing.T, g reg.Generation) {
		t.Run("unplugged", func(t *testing.T) {
			bubble(t, bluefield.Config{Generation: g}, usbdev.Options{}, func(r *rig, fn *usbdev.Function, d *rshim.Device) {
				b := open(t, r, d)
				if _, err := b.Write(r.ctx, image(t, g, 300_000)[:200_000]); err != nil {
					t.Fatal(err)
				}
				fn.Unplug()
				time.Sleep(time.Second)
				if err := b.Close(r.ctx); err == nil {
					t.Error("Close: nil")
				}
				bootSource(t, fn, reg.BootRShim)
				fn.Plug()
				time.Sleep(5 * time.Second)
				r.state(d, rshim.Attached)
				bootSource(t, fn, reg.BootEMMC)
			})
		})
		t.Run("interrupted while the chip resets", func(t *testing.T) {
			bubble(t, bluefield.Config{Generation: g, Reset: bluefield.ResetBehaviour{Drop: 5 * time.Second}}, usbdev.Options{}, func(r *rig, fn *usbdev.Function, d *rshim.Device) {
				b := open(t, r, d)
				ctx, cancel := context.WithTimeout(r.ctx, time.Second)
				defer cancel()
				if n, err := b.Write(ctx, image(t, g, 10_000)); n != 0 || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Write: %d, %v", n, err)
				}
				begin := time.Now()
				_ = b.Close(r.ctx)
				if took := time.Since(begin); took > 100*time.Millisecond {
					t.Errorf("Close took %v", took)
				}
				time.Sleep(10 * time.Second)
				r.state(d, rshim.Attached)
				bootSource(t, fn, reg.BootEMMC)
			})
		})
		t.Run("the daemon ends", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, rshim.Options{})
				fn := r.plug("1-1", bluefield.Config{Generation: g}, usbdev.Options{})
				d := r.attached(0)
				b := open(t, r, d)
				if _, err := b.Write(r.ctx, image(t, g, 300_000)[:200_000]); err != nil {
					t.Fatal(err)
				}
				r.stop()
				_ = b.Close(r.ctx)
				bootSource(t, fn, reg.BootEMMC)
				failed(t, d, rshim.ErrIncomplete)
			})
		})
	})
}

// TestResetDuringPush: a chip that is reset while it is being pushed to has
// lost what it took; the push fails, also where the chip stays on the bus.
func TestResetDuringPush(t *testing.T) {
	generations(t, func(t *testing.T, g reg.Generation) {
		for name, reset := range map[string]func(r *rig, fn *usbdev.Function, d *rshim.Device) error{
			"SW_RESET":  func(r *rig, fn *usbdev.Function, d *rshim.Device) error { return d.Reset(r.ctx) },
			"by itself": func(r *rig, fn *usbdev.Function, d *rshim.Device) error { fn.DPU().Reset(); return nil },
		} {
			for _, stay := range []bool{false, true} {
				if stay && name == "by itself" {
					continue // nothing shows it
				}
				bubble(t, bluefield.Config{Generation: g, NoFirmware: true, Reset: bluefield.ResetBehaviour{Stay: stay}}, usbdev.Options{}, func(r *rig, fn *usbdev.Function, d *rshim.Device) {
					stream := image(t, g, 300_000)
					b := open(t, r, d)
					if _, err := b.Write(r.ctx, stream[:200_000]); err != nil {
						t.Fatal(err)
					}
					if err := reset(r, fn, d); err != nil {
						t.Fatal(err)
					}
					time.Sleep(10 * time.Second)
					n, err := b.Write(r.ctx, stream[200_000:])
					if err == nil || n == len(stream)-200_000 {
						t.Errorf("%s, stay %v: Write: %d, %v", name, stay, n, err)
					}
					if err := b.Close(r.ctx); err == nil {
						t.Errorf("%s, stay %v: Close: nil", name, stay)
					}
					if p := d.Push(); p.Phase != rshim.PushFailed {
						t.Errorf("%s, stay %v: %+v", name, stay, p)
					}
					if err := push(r.ctx, d, stream); err != nil {
						t.Errorf("%s, stay %v: next push: %v", name, stay, err)
					}
					arrived(t, fn, stream)
				})
			}
		}
	})
}

// TestResetAfterLastByte: nothing is reported as done that a chip which resets
// between the last Write and Close has not taken.
func TestResetAfterLastByte(t *testing.T) {
	generations(t, func(t *testing.T, g reg.Generation) {
		bubble(t, bluefield.Config{Generation: g, NoFirmware: true}, usbdev.Options{}, func(r *rig, fn *usbdev.Function, d *rshim.Device) {
			b := open(t, r, d)
			if _, err := b.Write(r.ctx, make([]byte, 1003)); err != nil { // no BFB; 3 bytes wait for Close
				t.Fatal(err)
			}
			fn.DPU().Reset()
			time.Sleep(10 * time.Second)
			if err := b.Close(r.ctx); !errors.Is(err, rshim.ErrGone) {
				t.Errorf("Close: %v", err)
			}
			failed(t, d, rshim.ErrGone)
		})
	})
}

// TestTail: the last bytes, which do not fill a word, wait for room like all
// others, for as long as BOOT_TIMEOUT and no longer.
func TestTail(t *testing.T) {
	generations(t, func(t *testing.T, g reg.Generation) {
		for tail := range 8 {
			for _, pause := range []time.Duration{0, 20 * time.Second, time.Hour} {
				bubble(t, bluefield.Config{Generation: g, NoFirmware: true}, usbdev.Options{}, func(r *rig, fn *usbdev.Function, d *rshim.Device) {
					if err := d.WriteMisc(r.ctx, "BOOT_TIMEOUT 30"); err != nil {
						t.Fatal(err)
					}
					depth := 8 * reg.For(g).BootFIFODepth
					stream := make([]byte, depth+tail)
					for i := range stream {
						stream[i] = byte(i) | 1
					}
					b := open(t, r, d)
					for at := range len(stream) { // byte by byte, to have all remainders
						if at == 1 && pause > 0 { // the chip is back by now
							fn.DPU().PauseDrain(0, pause)
						}
						if n, err := b.Write(r.ctx, stream[at:][:1]); n != 1 || err != nil {
							t.Fatalf("byte %d: %d, %v", at, n, err)
						}
					}
					begin := time.Now()
					err := b.Close(r.ctx)
					took := time.Since(begin)
					if tail > 0 && pause > 30*time.Second {
						if !errors.Is(err, os.ErrDeadlineExceeded) || took < 30*time.Second || took > 31*time.Second {
							t.Errorf("tail of %d: Close: %v after %v", tail, err, took)
						}
						failed(t, d, os.ErrDeadlineExceeded)
						return
					}
					if err != nil {
						t.Errorf("tail of %d, pause %v: Close: %v", tail, pause, err)
					}
					arrived(t, fn, stream)
				})
			}
		}
	})
}

// TestLyingHeaders: what a stream's headers announce decides when Write
// returns, and never what is reported.
func TestLyingHeaders(t *testing.T) {
	// header makes a header that claims what it likes.
	header := func(length uint32, id bfb.ID, following uint64) []byte {
		b := binary.LittleEndian.AppendUint64(nil, uint64(bfb.Magic)|1<<32|3<<52|uint64(id)<<56)
		b = binary.LittleEndian.AppendUint64(b, uint64(length))
		return binary.LittleEndian.AppendUint64(b, following)
	}
	filler := bytes.Repeat([]byte{0xa5}, 60_000)
	empty := header(0, bfb.IDImage, 0)
	for name, tc := range map[string]struct {
		stream     []byte
		incomplete bool
	}{
		"more than comes":        {append(header(1<<31, bfb.IDImage, 0), filler...), true},
		"an image that is not":   {append(header(8, bfb.IDBL2, 1<<bfb.IDImage), filler[:8]...), true},
		"half a header":          {empty[:12], true},
		"less than comes":        {append(header(8, bfb.IDImage, 0), filler...), false},
		"zero length":            {append(bytes.Clone(empty), filler...), false},
		"zero length, alone":     {empty, false},
		"a bad header behind":    {append(header(8, bfb.IDBL2, 1<<bfb.IDImage), filler...), false},
		"no BFB":                 {filler, false},
		"no BFB, a few bytes":    {filler[:5], false},
		"the magic and no more":  {empty[:4], true},
		"less than a magic":      {empty[:3], false},
		"ends with the BFB":      {append(header(60_000, bfb.IDImage, 0), filler...), false},
		"ends 8 before the end":  {append(header(60_000, bfb.IDImage, 0), filler[:59_992]...), true},
		"ends 1 before the end":  {append(header(60_000, bfb.IDImage, 0), filler[:59_999]...), true},
		"tail of 1 after an end": {append(header(59_992, bfb.IDImage, 0), filler[:59_993]...), false},
	} {
		t.Run(name, func(t *testing.T) {
			generations(t, func(t *testing.T, g reg.Generation) {
				for _, size := range []int{1000, 4099, 128 << 10} {
					// The link is slow, so that much is in flight.
					bubble(t, bluefield.Config{Generation: g, NoFirmware: true, DrainRate: 100_000}, usbdev.Options{Latency: 5 * time.Millisecond}, func(r *rig, fn *usbdev.Function, d *rshim.Device) {
						b := open(t, r, d)
						for rest := tc.stream; len(rest) > 0; {
							n, err := b.Write(r.ctx, rest[:min(len(rest), size)])
							if err != nil {
								t.Fatal(err)
							}
							rest = rest[n:]
						}
						// What Write has said of a complete stream must be true by now:
						// all but the bytes that do not fill a word has been taken.
						if n, _ := fn.BootSum(); !tc.incomplete && n < int64(len(tc.stream)&^7) {
							t.Errorf("in writes of %d: %d of %d bytes had arrived when Write returned", size, n, len(tc.stream))
						}
						err := b.Close(r.ctx)
						if tc.incomplete {
							if !errors.Is(err, rshim.ErrIncomplete) {
								t.Errorf("in writes of %d: Close: %v", size, err)
							}
							failed(t, d, rshim.ErrIncomplete)
							return
						}
						if err != nil || d.Push().Phase != rshim.PushDone {
							t.Errorf("in writes of %d: Close: %v, push %+v", size, err, d.Push())
						}
						arrived(t, fn, tc.stream)
					})
				}
			})
		})
	}
}

// TestSlowDrain: a chip that reads, however slowly, is not given up, and one
// that reads a little and then nothing is, BOOT_TIMEOUT later.
func TestSlowDrain(t *testing.T) {
	generations(t, func(t *testing.T, g reg.Generation) {
		bubble(t, bluefield.Config{Generation: g, NoFirmware: true, DrainRate: 700}, usbdev.Options{}, func(r *rig, fn *usbdev.Function, d *rshim.Device) {
			if err := d.WriteMisc(r.ctx, "BOOT_TIMEOUT 3"); err != nil {
				t.Fatal(err)
			}
			stream := image(t, g, 100_000)
			if err := push(r.ctx, d, stream); err != nil {
				t.Fatal(err)
			}
			arrived(t, fn, stream)
		})
		bubble(t, bluefield.Config{Generation: g, NoFirmware: true}, usbdev.Options{}, func(r *rig, fn *usbdev.Function, d *rshim.Device) {
			const limit = 20 * time.Second
			if err := d.WriteMisc(r.ctx, "BOOT_TIMEOUT 20"); err != nil {
				t.Fatal(err)
			}
			depth := int64(8 * reg.For(g).BootFIFODepth)
			b := open(t, r, d)
			if _, err := b.Write(r.ctx, make([]byte, 8)); err != nil { // the chip is back by now
				t.Fatal(err)
			}
			fn.DPU().PauseDrain(0, 10*time.Second)
			fn.DPU().PauseDrain(520, 10*time.Second) // some words, and then
			fn.DPU().PauseDrain(1040, time.Hour)
			begin := time.Now()
			n, err := b.Write(r.ctx, make([]byte, 4*depth))
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("Write: %d, %v", n, err)
			}
			// What a NAKing chip has taken of a transfer is seen only now and then.
			slack := map[reg.Generation]time.Duration{reg.BlueField2: limit / 8, reg.BlueField3: 50 * time.Millisecond}[g]
			if late := time.Since(begin) - 20*time.Second - limit; late < 0 || late > slack {
				t.Errorf("failed %v after it should", late)
			}
			_ = b.Close(r.ctx)
		})
	})
}
