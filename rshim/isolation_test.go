// SPDX-License-Identifier: Apache-2.0

package rshim_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

// R19: pushes to several devices at once, one of which hangs altogether, one
// with its boot FIFO alone, one that is unplugged, and one whose host wants the
// RShim all the time: each of the others takes as long as if it were alone.
func TestR19Isolation(t *testing.T) {
	generations(t, func(t *testing.T, g reg.Generation) {
		alone := pushTogether(t, g, 1, nil)[0]
		for _, n := range []int{4, 8} {
			t.Run(fmt.Sprint(n), func(t *testing.T) {
				trouble := map[int]string{0: "control hangs", 1: "bulk hangs", 2: "host forces"}
				if n == 8 {
					trouble[5] = "is unplugged"
				}
				for i, took := range pushTogether(t, g, n, trouble) {
					if trouble[i] != "" && trouble[i] != "host forces" {
						continue
					}
					if took > alone*105/100 {
						t.Errorf("rshim%d (%s): the push took %v, alone %v", i, trouble[i], took, alone)
					}
				}
			})
		}
	})
}

// pushTogether pushes to n devices at the same time. It returns how long each
// push took that is not one that must fail.
func pushTogether(t *testing.T, g reg.Generation, n int, trouble map[int]string) []time.Duration {
	took := make([]time.Duration, n)
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, rshim.Options{BootTimeout: 20 * time.Second, USBTimeout: 10 * time.Second})
		var fns []*usbdev.Function
		var asked atomic.Int64
		for i := range n {
			o := usbdev.Options{Latency: time.Millisecond, LinkRate: 400_000}
			cfg := bluefield.Config{Generation: g, OnWrite: func(_ reg.Addr, v uint64) {
				if v == reg.OwnershipRequest {
					asked.Add(1)
				}
			}}
			fns = append(fns, r.plug(usb.Location(fmt.Sprintf("1-%d", i+1)), cfg, o))
		}
		for i := range n {
			r.attached(i)
		}
		ctx, cancel := context.WithCancel(r.ctx)
		var hosts, pushes sync.WaitGroup
		defer hosts.Wait()
		defer cancel()
		stream := image(t, g, 1<<20)
		for i, fn := range fns {
			d := r.device(i)
			upset := func() {
				switch trouble[i] {
				case "control hangs":
					fn.SetNAK(0, true)
				case "bulk hangs":
					fn.SetNAK(1, true)
				case "is unplugged":
					fn.Unplug()
				case "host forces":
					h := bluefield.NewHost(fn.DPU(), bluefield.HostOptions{Drop: true})
					hosts.Go(func() { _ = h.Run(ctx) })
					hosts.Go(func() {
						for ctx.Err() == nil {
							_ = h.ForceCmd()
							time.Sleep(200 * time.Millisecond)
						}
					})
				}
			}
			pushes.Go(func() {
				begin := time.Now()
				b, err := d.OpenBoot(r.ctx)
				if err != nil {
					t.Errorf("rshim%d: %v", i, err)
					return
				}
				at := 64 << 10
				if _, err := b.Write(r.ctx, stream[:at]); err != nil {
					t.Errorf("rshim%d: %v", i, err)
				}
				upset()
				for err == nil && at < len(stream) {
					k := min(len(stream)-at, 128<<10)
					_, err = b.Write(r.ctx, stream[at:][:k])
					at += k
				}
				took[i] = time.Since(begin)
				err = errors.Join(err, b.Close(r.ctx))
				switch trouble[i] {
				case "", "host forces":
					if err != nil {
						t.Errorf("rshim%d (%s): %v", i, trouble[i], err)
					}
					arrived(t, fn, stream)
				case "is unplugged":
					if !errors.Is(err, rshim.ErrGone) {
						t.Errorf("rshim%d, unplugged: %v", i, err)
					}
				default:
					if err == nil && trouble[i] == "control hangs" {
						// The chip, which has all of it, has left the bus before
						// that was in vain: the boot source can wait.
						arrived(t, fn, stream)
						return
					}
					if !errors.Is(err, os.ErrDeadlineExceeded) {
						t.Errorf("rshim%d (%s): %v", i, trouble[i], err)
					}
				}
			})
		}
		pushes.Wait()
		if n > 1 && asked.Load() == 0 {
			t.Error("no host has asked for its RShim")
		}
	})
	return took
}
