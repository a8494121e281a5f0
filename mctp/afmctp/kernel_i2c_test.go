// SPDX-License-Identifier: Apache-2.0

package afmctp_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/bluefield-go/bmc-rshim/i2c"
	"github.com/bluefield-go/bmc-rshim/internal/vmtest/guest"
	"github.com/bluefield-go/bmc-rshim/mctp"
	"github.com/bluefield-go/bmc-rshim/mctp/afmctp"
	"github.com/bluefield-go/bmc-rshim/mctp/mctptest"
	"github.com/bluefield-go/bmc-rshim/ncsi"
	"github.com/bluefield-go/bmc-rshim/ncsi/ncsitest"
	"github.com/bluefield-go/bmc-rshim/ncsi/oem"
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

// An unanswered command locks the bus no longer than its timeout.
func TestKernelI2CBusLock(t *testing.T) {
	asked := make(chan struct{}, 100)
	n := bus(t, func([]byte) []byte { asked <- struct{}{}; return nil })
	for name, tr := range map[string]oem.Transport{
		"Reserved": afmctp.New(afmctp.Options{Peer: nic, Timeout: timeout}),
		"Plain":    afmctp.NewPlain(afmctp.Options{Peer: nic, Timeout: timeout}),
	} {
		t.Run(name, func(t *testing.T) {
			// It must be so once: the machine may stand still for seconds.
			var took time.Duration
			for range 5 {
				done := make(chan error, 1)
				go func() {
					_, err := tr.Do(t.Context(), 0, ncsi.OEM, nil)
					done <- err
				}()
				<-asked // and so the bus is locked
				began := time.Now()
				writeRaw(t, n)
				took = time.Since(began)
				if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error(err)
				}
				if took < keyLifetime/2 {
					guest.Metric(t, "i2c-bus-locked-"+name, took.Seconds(), "s")
					return
				}
			}
			t.Errorf("the bus was locked for %v, with a timeout of %v", took, timeout)
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
	afmctp.LeaveOpen(t, afmctp.Options{Peer: nic}, command)
	<-asked
	if took := writeRaw(t, n); took < keyLifetime/2 {
		t.Errorf("the bus was locked for %v alone: what TestKernelI2CBusLock proves is worth nothing", took)
	} else {
		guest.Metric(t, "i2c-bus-locked-left-open", took.Seconds(), "s")
	}
}
