// SPDX-License-Identifier: Apache-2.0

package afmctp_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluefield-go/bmc-rshim/i2c"
	"github.com/bluefield-go/bmc-rshim/internal/vmtest/guest"
	"github.com/bluefield-go/bmc-rshim/mctp"
	"github.com/bluefield-go/bmc-rshim/mctp/afmctp"
	"github.com/bluefield-go/bmc-rshim/mctp/mctptest"
	"github.com/bluefield-go/bmc-rshim/mctp/ncsimctp"
	"github.com/bluefield-go/bmc-rshim/ncsi"
	"github.com/bluefield-go/bmc-rshim/ncsi/ncsitest"
	"github.com/bluefield-go/bmc-rshim/sim/ncsi"
	"github.com/bluefield-go/bmc-rshim/sim/ncsi/smbus"
)

const bmcAddr, nicAddr = 0x10, 0x32

// bus makes the kernel an MCTP endpoint on one I2C bus, and puts a NIC with
// another address on it, which sits at the other end in user space. It returns
// the bus's number.
func bus(t testing.TB, answer func([]byte) []byte) int {
	t.Helper()
	guest.Require(t)
	ours, theirs := mctptest.JoinedAdapters(t)
	mctptest.NewI2CDevice(t, mctptest.I2CLink, ours, bmcAddr)
	mctptest.Link{
		Name: fmt.Sprint("mctpi2c", ours), Network: 1, MTU: minimal, Own: bmc, Peers: map[mctp.EID][]byte{nic: {nicAddr}},
	}.SetUp(t)
	mctptest.NewI2CDevice(t, mctptest.I2CQueue, theirs, nicAddr)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := smbus.Serve(ctx, i2c.Options{Bus: theirs, Own: nicAddr, EID: nic}, answer); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return ours
}

func TestKernelI2C(t *testing.T) {
	ncsitest.Run(t, func(t *testing.T) *ncsitest.Rig {
		model := simncsi.New(simncsi.Config{})
		bus(t, model.Message)
		return &ncsitest.Rig{
			Transport: afmctp.New(afmctp.Options{Network: 1, Peer: nic, Timeout: timeout}),
			NIC:       model, Timeout: timeout, HidesAEN: true,
		}
	})
}

// writeRaw writes to the NIC past MCTP, as any program may, and returns how long
// that took.
func writeRaw(t *testing.T, n int) time.Duration {
	t.Helper()
	b, err := i2c.OpenBus("", n)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	began := time.Now()
	if err := b.Write(t.Context(), nicAddr, []byte("no MCTP")); err != nil {
		t.Error(err)
	}
	return time.Since(began)
}

// keyLifetime is how long the kernel waits for a response (MCTP_KEY_LIFETIME),
// with the bus locked.
const keyLifetime = 6 * time.Second

// rounds is how often the bus is locked in a test. One figure alone says little
// on a machine that may stand still for seconds.
const rounds = 5

// A command without a response locks the bus no longer than its timeout, or as
// long as somebody waits for it; what is no response does not keep it locked.
func TestKernelI2CBusLock(t *testing.T) {
	asked := make(chan struct{}, 100)
	var wrong atomic.Bool
	n := bus(t, func(body []byte) []byte {
		asked <- struct{}{}
		if !wrong.Load() {
			return nil
		}
		command, _, err := ncsi.Parse(body[1:])
		if err != nil {
			t.Error(err)
		}
		r, err := ncsi.Packet{IID: command.IID + 1, Type: command.Type.Response(), Payload: []byte("wrong")}.Append(body[:1:1])
		if err != nil {
			t.Error(err)
		}
		return r
	})
	for _, c := range []struct {
		name   string
		open   func(afmctp.Options) *ncsimctp.Transport
		cancel bool // in the middle of a long timeout
		wrong  bool
	}{
		{name: "Reserved", open: afmctp.New},
		{name: "Plain", open: afmctp.NewPlain},
		{name: "Reserved-Cancelled", open: afmctp.New, cancel: true},
		{name: "Plain-Cancelled", open: afmctp.NewPlain, cancel: true},
		{name: "Reserved-Wrong", open: afmctp.New, wrong: true},
		{name: "Plain-Wrong", open: afmctp.NewPlain, wrong: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			wrong.Store(c.wrong)
			o, want := afmctp.Options{Peer: nic, Timeout: timeout}, os.ErrDeadlineExceeded
			if c.cancel {
				o.Timeout, want = patience, context.Canceled
			}
			tr := c.open(o)
			var took, slack []time.Duration
			for range rounds {
				// How late a timer is tells how long the machine stood still.
				ctx, cancel := context.WithCancel(t.Context())
				due := time.Now().Add(timeout)
				late := make(chan time.Duration, 1)
				time.AfterFunc(timeout, func() {
					if c.cancel {
						cancel()
					}
					late <- time.Since(due)
				})
				done := make(chan error, 1)
				go func() {
					_, err := tr.Do(ctx, 0, ncsi.OEM, nil)
					done <- err
				}()
				<-asked // and so the bus is locked
				took = append(took, writeRaw(t, n))
				slack = append(slack, <-late)
				if err := <-done; !errors.Is(err, want) {
					t.Error(err)
				}
				cancel()
			}
			t.Logf("the bus was locked for %v; timers of %v were late by %v", took, timeout, slack)
			if longest := slices.Max(took); longest >= keyLifetime+slices.Max(slack) {
				t.Errorf("locked for %v, as if the socket had been left open", longest)
			}
			slices.Sort(took)
			slices.Sort(slack)
			median := took[rounds/2]
			if most := 2*timeout + slack[rounds-1]; median > most {
				t.Errorf("locked for %v (median), want %v at most", median, most)
			}
			guest.Metric(t, "i2c-bus-locked-"+c.name, median.Seconds(), "s")
		})
	}
}

// This is what the test above would see if sockets were left open.
func TestKernelI2CBusLockLeftOpen(t *testing.T) {
	asked := make(chan struct{}, 100)
	n := bus(t, func([]byte) []byte { asked <- struct{}{}; return nil })
	command, err := ncsi.Packet{IID: 1, Type: ncsi.OEM}.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now() // of the lock, at the earliest
	afmctp.LeaveOpen(t, afmctp.Options{Peer: nic}, command)
	<-asked
	writeRaw(t, n)
	if took := time.Since(began); took < keyLifetime/2 {
		t.Errorf("the bus was locked for %v alone: what TestKernelI2CBusLock proves is worth nothing", took)
	} else {
		guest.Metric(t, "i2c-bus-locked-left-open", took.Seconds(), "s")
	}
}
