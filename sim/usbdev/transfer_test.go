// SPDX-License-Identifier: Apache-2.0

package usbdev_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

// arrived checks that exactly p has come into the boot FIFO.
func arrived(t *testing.T, f *usbdev.Function, p []byte) {
	t.Helper()
	if n, sum := f.BootSum(); n != int64(len(p)) || sum != sha256.Sum256(p) {
		t.Errorf("%d bytes arrived, want %d; or other bytes", n, len(p))
	}
}

func TestBulkOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, f := setup(t, usbdev.Options{})
		p := pattern(100_003)
		a, b, c := submit(t, d, 1, p[:40_000]), submit(t, d, 1, nil), submit(t, d, 1, p[40_000:])
		want(t, a, 40_000, nil)
		want(t, b, 0, nil)
		want(t, c, 60_003, nil)
		arrived(t, f, p)
	})
}

func TestNAKAndCancelKeepPrefix(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, f := setup(t, usbdev.Options{})
		f.DPU().HoldDrain(true) // 8192 bytes fit
		p := pattern(30_000)
		a := submit(t, d, 1, p[:5_000])
		b := submit(t, d, 1, p[5_000:20_000])
		c := submit(t, d, 1, p[20_000:])
		if isDone(b) {
			t.Fatal("done though the FIFO is full")
		}
		b.Cancel()
		n, err := b.Result()
		if !errors.Is(err, usb.ErrCancelled) || n != 3072 {
			t.Errorf("result %d, %v; want the six packets that fit", n, err)
		}
		want(t, a, 5_000, nil)
		want(t, c, 0, usb.ErrCancelled)
		f.DPU().HoldDrain(false)
		want(t, submit(t, d, 1, p[8_072:]), 30_000-8_072, nil)
		arrived(t, f, p)
		a.Cancel() // an ended transfer
		want(t, a, 5_000, nil)
	})
}

func TestStallKeepsPrefix(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, f := setup(t, usbdev.Options{Latency: 5 * time.Millisecond})
		f.Inject(usbdev.Fault{Endpoint: 1, Nth: 2, After: 700, Kind: usbdev.Stall})
		p := pattern(4_000)
		var xs []usb.Transfer
		for i := range 4 {
			xs = append(xs, submit(t, d, 1, p[1000*i:1000*i+1000]))
		}
		want(t, xs[0], 1000, nil)
		want(t, xs[1], 700, usb.ErrStall)
		want(t, xs[2], 0, usb.ErrCancelled)
		want(t, xs[3], 0, usb.ErrCancelled)
		want(t, submit(t, d, 1, p), 0, usb.ErrStall) // still halted
		if err := d.ClearHalt(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		want(t, submit(t, d, 1, p[1700:]), 2300, nil)
		arrived(t, f, p)
	})
}

func TestProtocolErrorAndUnplug(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, f := setup(t, usbdev.Options{Latency: time.Millisecond})
		p := pattern(5_000)
		f.Inject(usbdev.Fault{Endpoint: 1, After: 512, Kind: usbdev.Protocol})
		a, b := submit(t, d, 1, p[:1000]), submit(t, d, 1, p[1000:])
		want(t, a, 512, usb.ErrProtocol)
		want(t, b, 0, usb.ErrCancelled)
		f.Inject(usbdev.Fault{Endpoint: 1, Nth: 2, After: 1024, Kind: usbdev.Unplug})
		a, b = submit(t, d, 1, p[512:1000]), submit(t, d, 1, p[1000:])
		c := submit(t, d, 0x82, make([]byte, 8))
		want(t, a, 488, nil)
		want(t, b, 1024, usb.ErrNoDevice)
		want(t, c, 0, usb.ErrNoDevice)
		<-d.Gone()
		arrived(t, f, p[:2024])
	})
}

func TestControlFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, f := setup(t, usbdev.Options{})
		dim := f.DPU().Map().FabricDim
		get := func() error { _, err := readReg(t.Context(), d, reg.BlueField3, dim); return err }
		f.StallNext(0)
		if err := get(); !errors.Is(err, usb.ErrStall) {
			t.Errorf("%v, want a stall", err)
		}
		if err := get(); err != nil {
			t.Errorf("the next one: %v", err)
		}
		f.Inject(usbdev.Fault{Nth: 2, Kind: usbdev.Protocol})
		f.Inject(usbdev.Fault{Nth: 4, Kind: usbdev.NAK, For: 30 * time.Second})
		begun := time.Now()
		got := []error{get(), get(), get(), get()}
		if got[0] != nil || !errors.Is(got[1], usb.ErrProtocol) || got[2] != nil || got[3] != nil || time.Since(begun) != 30*time.Second {
			t.Errorf("%v after %v", got, time.Since(begun))
		}
		if _, err := d.Control(t.Context(), usb.Setup{RequestType: 0xc1, Request: 9}, make([]byte, 8)); !errors.Is(err, usb.ErrStall) {
			t.Errorf("unknown request: %v", err)
		}
	})
}

// Latencies of transfers in flight overlap; data share the link.
func TestLatencyAndLinkRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, f := setup(t, usbdev.Options{Latency: 10 * time.Millisecond, LinkRate: 1_000_000})
		begun := time.Now()
		p := pattern(500_000)
		var xs []usb.Transfer
		for i := 0; i < len(p); i += 10_000 {
			xs = append(xs, submit(t, d, 1, p[i:i+10_000]))
		}
		want(t, xs[0], 10_000, nil)
		if took := time.Since(begun); took.Round(time.Microsecond) != 20*time.Millisecond {
			t.Errorf("first transfer took %v, want 10 ms on the link and 10 ms latency", took)
		}
		go func() { // a competitor, for half of the time
			usb.Do(t.Context(), d, 2, p[:200_000])
		}()
		want(t, xs[len(xs)-1], 10_000, nil)
		if took := time.Since(begun); took < 700*time.Millisecond || took > 720*time.Millisecond {
			t.Errorf("took %v, want 0.7 s and the latency", took)
		}
		begun = time.Now()
		if _, err := readReg(t.Context(), d, reg.BlueField3, f.DPU().Map().FabricDim); err != nil || time.Since(begun) < 10*time.Millisecond {
			t.Errorf("register read: %v after %v", err, time.Since(begun))
		}
		begun = time.Now()
		f.SetLatency(time.Minute)
		x := submit(t, d, 1, p[:8])
		time.Sleep(time.Second)
		x.Cancel() // all has been sent: nothing is left to cancel
		want(t, x, 8, nil)
		if time.Since(begun) != time.Second {
			t.Error("Cancel waited for the latency")
		}
	})
}

func TestTMFIFOEndpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []uint64
		b, f := plug(t, bluefield.Config{OnTM: func(w []uint64) { got = append(got, w...) }}, usbdev.Options{})
		d, _ := open(t, b)
		bulk, intr := submit(t, d, 0x81, make([]byte, 2048)), submit(t, d, 0x82, make([]byte, 8))
		if isDone(bulk) || isDone(intr) {
			t.Fatal("done with nothing to read")
		}
		bulk.Cancel()
		want(t, bulk, 0, usb.ErrCancelled)
		if err := f.DPU().SendTM(t.Context(), []uint64{1, 2, 3}); err != nil {
			t.Fatal(err)
		}
		want(t, intr, 8, nil)
		// It goes on telling, at its interval, while there is something.
		cnt := make([]byte, 8)
		begun := time.Now()
		want(t, submit(t, d, 0x82, cnt), 8, nil)
		if cnt[0] != 3 || time.Since(begun) != time.Millisecond {
			t.Errorf("count % x after %v", cnt, time.Since(begun))
		}
		buf := make([]byte, 2048)
		want(t, submit(t, d, 0x81, buf), 24, nil)
		if buf[0] != 1 || buf[8] != 2 || buf[16] != 3 {
			t.Errorf("read % x", buf[:24])
		}
		want(t, submit(t, d, 0x02, append(pattern(8), pattern(8)...)), 16, nil)
		synctest.Wait()
		if len(got) != 2 || got[0] != got[1] {
			t.Errorf("the DPU got %x", got)
		}
		f.DPU().HoldTM(true)
		x := submit(t, d, 0x02, make([]byte, 2048+64))
		if isDone(x) {
			t.Error("more words taken than fit")
		}
		x.Cancel()
		want(t, x, 2048, usb.ErrCancelled)
	})
}

func TestEmptyBulkInOnBlueField2(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := plug(t, bluefield.Config{Generation: reg.BlueField2}, usbdev.Options{})
		d, _ := open(t, b)
		want(t, submit(t, d, 0x81, make([]byte, 2048)), 0, nil)
	})
}

func TestQueueIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, f := setup(t, usbdev.Options{})
		_, _, in, intr := f.Endpoints()
		p := pattern(1536)
		f.QueueIn(in, p)
		f.QueueIn(in, p[:100])
		buf := make([]byte, 2048)
		want(t, submit(t, d, in, buf[:512]), 512, nil)
		want(t, submit(t, d, in, buf[512:]), 1024, nil)
		if !bytes.Equal(buf[:1536], p) {
			t.Error("other bytes")
		}
		want(t, submit(t, d, in, buf), 100, nil)
		f.QueueIn(in, p[:512])
		want(t, submit(t, d, in, buf[:100]), 0, usb.ErrOverflow)
		f.QueueIn(intr, p[:8])
		want(t, submit(t, d, intr, buf[:8]), 8, nil)
		f.SetNAK(in, true)
		f.QueueIn(in, p[:1])
		x := submit(t, d, in, buf)
		if isDone(x) {
			t.Error("done during NAK")
		}
		f.SetNAK(in, false)
		want(t, x, 1, nil)
	})
}

// Cancels, faults and submits at random, from two sides at once: what arrives
// is always what was counted.
func TestPrefixUnderRace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, f := setup(t, usbdev.Options{LinkRate: 40_000_000, Latency: 200 * time.Microsecond})
		p := pattern(2_000_000)
		var sent int
		for round := 0; sent < len(p); round++ {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(round*37%5000)*time.Microsecond)
			if round%3 == 0 {
				f.Inject(usbdev.Fault{Endpoint: 1, Nth: 1 + round%4, After: round * 811 % 16384, Kind: usbdev.Kind(round % 2)})
			}
			var xs []usb.Transfer
			for at := sent; at < len(p) && len(xs) < 6; at += 16384 {
				xs = append(xs, submit(t, d, 1, p[at:min(at+16384, len(p))]))
			}
			go func() {
				<-ctx.Done()
				xs[round%len(xs)].Cancel()
			}()
			stopped := false
			for _, x := range xs {
				n, err := x.Result()
				if stopped && n != 0 {
					t.Fatalf("round %d: %d bytes sent behind a failure", round, n)
				}
				sent += n
				stopped = stopped || err != nil
			}
			cancel()
			if err := d.ClearHalt(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
		}
		arrived(t, f, p)
	})
}
