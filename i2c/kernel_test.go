// SPDX-License-Identifier: Apache-2.0

package i2c_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bluefield-go/bmc-rshim/i2c"
	"github.com/bluefield-go/bmc-rshim/internal/vmtest/guest"
	"github.com/bluefield-go/bmc-rshim/mctp"
	"github.com/bluefield-go/bmc-rshim/mctp/mctptest"
	"github.com/bluefield-go/bmc-rshim/ncsi"
	"github.com/bluefield-go/bmc-rshim/ncsi/ncsitest"
	"github.com/bluefield-go/bmc-rshim/sim/ncsi"
	"github.com/bluefield-go/bmc-rshim/sim/ncsi/smbus"
)

const (
	nicAddr = 0x32
	bmcEID  = mctp.EID(0x08)
	nicEID  = mctp.EID(0x1d)

	// timeout is for tests in which it runs out.
	timeout = 200 * time.Millisecond
	// patience is for what happens at once.
	patience = 30 * time.Second
)

// queues has the kernel listen for the BMC on one bus and for the NIC on the
// other one, and returns their numbers.
func queues(t testing.TB) (bmc, nic int) {
	t.Helper()
	guest.Require(t)
	bmc, nic = mctptest.JoinedAdapters(t)
	mctptest.NewI2CDevice(t, mctptest.I2CQueue, bmc, i2c.DefaultOwn)
	mctptest.NewI2CDevice(t, mctptest.I2CQueue, nic, nicAddr)
	return bmc, nic
}

// serve puts a NIC on a bus until the test's end.
func serve(t testing.TB, bus int, answer func([]byte) []byte) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := smbus.Serve(ctx, i2c.Options{Bus: bus, Own: nicAddr, EID: nicEID}, answer); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
}

func open(t testing.TB, o i2c.Options) *i2c.Transport {
	t.Helper()
	tr, err := i2c.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tr.Close() })
	return tr
}

func TestKernelTransport(t *testing.T) {
	for name, o := range map[string]i2c.Options{
		"EIDs":     {EID: bmcEID, PeerEID: nicEID},
		"NullEIDs": {},
	} {
		t.Run(name, func(t *testing.T) {
			ncsitest.Run(t, func(t *testing.T) *ncsitest.Rig {
				ours, theirs := queues(t)
				model := simncsi.New(simncsi.Config{})
				serve(t, theirs, model.Message)
				o.Bus, o.Addr, o.Timeout = ours, nicAddr, timeout
				return &ncsitest.Rig{Transport: open(t, o), NIC: model, Timeout: timeout, HidesAEN: true}
			})
		})
	}
}

// The NIC takes the kernel's own address on another bus for an endpoint, and
// answers its control messages.
func TestKernelControl(t *testing.T) {
	ours, theirs := queues(t)
	serve(t, theirs, func(body []byte) []byte { return append(bytes.Clone(body), "done"...) })
	bus, err := i2c.OpenBus("", ours)
	if err != nil {
		t.Fatal(err)
	}
	defer bus.Close()
	q, err := i2c.OpenQueue("", ours, i2c.DefaultOwn)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	h := mctp.Header{Src: bmcEID, SOM: true, EOM: true, TO: true, Tag: 3}
	for _, tt := range []struct{ request, want string }{
		{"\x00\x8a\x02", "\x00\x0a\x02\x00\x1d\x02\x00"},
		{"\x02hello ", "\x02hello done"},
	} {
		request, err := i2c.Frame{Dest: nicAddr, Src: i2c.DefaultOwn, Packet: mctp.Packet{Header: h, Payload: []byte(tt.request)}}.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := bus.Write(ctx, nicAddr, request[1:]); err != nil {
			t.Fatal(err)
		}
		f := next(ctx, t, q)
		want := mctp.Header{Dest: bmcEID, Src: nicEID, SOM: true, EOM: true, Seq: f.Packet.Seq, Tag: 3}
		if string(f.Packet.Payload) != tt.want || f.Src != nicAddr || f.Packet.Header != want {
			t.Errorf("%q is answered with %+v", tt.request, f)
		}
	}
}

// next waits for a frame.
func next(ctx context.Context, t testing.TB, q *i2c.Queue) i2c.Frame {
	t.Helper()
	buf := make([]byte, 200)
	for {
		n, err := q.Next(buf)
		if err != nil {
			t.Fatal(err)
		}
		if n > 0 {
			f, err := i2c.ParseFrame(buf[:n])
			if err != nil {
				t.Fatal(err)
			}
			return f
		}
		if err := q.Wait(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

// Next takes one message at a time, whatever its size and the buffer's, and
// Wait neither misses one nor sees one twice.
func TestKernelQueue(t *testing.T) {
	ours, theirs := queues(t)
	bus, err := i2c.OpenBus("", theirs)
	if err != nil {
		t.Fatal(err)
	}
	defer bus.Close()
	q, err := i2c.OpenQueue("", ours, i2c.DefaultOwn)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	if _, err := i2c.OpenQueue("", ours, i2c.DefaultOwn); !errors.Is(err, i2c.ErrInUse) {
		t.Errorf("opened twice: %v", err)
	}
	write := func(data ...byte) {
		t.Helper()
		if err := bus.Write(t.Context(), i2c.DefaultOwn, data); err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, 4096)
	want := func(data ...byte) {
		t.Helper()
		n, err := q.Next(buf)
		if err != nil || !bytes.Equal(buf[:n], data) {
			t.Fatalf("%x, %v, want %x", buf[:n], err, data)
		}
	}
	want()
	write(1, 2, 3)
	write(4)
	want(0x20, 1, 2, 3)
	want(0x20, 4)
	want()

	write(make([]byte, 80)...)
	if _, err := q.Next(buf[:40]); !errors.Is(err, unix.EOVERFLOW) {
		t.Errorf("a small buffer: %v", err)
	}
	want(append([]byte{0x20}, make([]byte, 80)...)...)

	for i := range byte(40) {
		write(i)
	}
	for i := range byte(32) {
		want(0x20, 8+i) // the oldest ones are gone
	}
	want()

	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	if err := q.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nothing there: %v", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	go func() {
		for i := range byte(200) {
			time.Sleep(time.Duration(i%4) * 100 * time.Microsecond)
			if err := bus.Write(ctx, i2c.DefaultOwn, []byte{i}); err != nil {
				t.Error(err)
			}
		}
	}()
	for i := byte(0); i < 200; {
		n, err := q.Next(buf)
		switch {
		case err != nil:
			t.Fatal(err)
		case n == 2 && buf[1] >= i: // unless the queue was full
			i = buf[1] + 1
		case n != 0:
			t.Fatalf("%x after %d", buf[:n], i)
		default:
			if err := q.Wait(ctx); err != nil {
				t.Fatalf("after %d: %v", i, err)
			}
		}
	}
}

func TestKernelOpenErrors(t *testing.T) {
	ours, theirs := queues(t)
	for name, tt := range map[string]struct {
		o    i2c.Options
		want error
	}{
		"no bus":   {i2c.Options{Bus: 9, Addr: nicAddr}, i2c.ErrNoBus},
		"no queue": {i2c.Options{Bus: ours, Addr: nicAddr, Own: 0x20}, i2c.ErrNoQueue},
	} {
		if _, err := i2c.Open(tt.o); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	mctptest.NewI2CDevice(t, mctptest.I2CLink, theirs, 0x20)
	_, err := i2c.Open(i2c.Options{Bus: theirs, Addr: nicAddr, Own: 0x20})
	if !errors.Is(err, i2c.ErrNoQueue) || !bytes.Contains([]byte(err.Error()), []byte(`"mctp-i2c-interface"`)) {
		t.Errorf("the kernel's MCTP has the address: %v", err)
	}

	tr := open(t, i2c.Options{Bus: ours, Addr: 0x44, Timeout: patience})
	if _, err := tr.Do(t.Context(), 0, ncsi.OEM, nil); !errors.Is(err, i2c.ErrNoAck) || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("nobody there: %v", err)
	}
}
