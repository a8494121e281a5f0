// SPDX-License-Identifier: Apache-2.0

package ncsitest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/bluefield-go/bmc-rshim/ncsi"
	"github.com/bluefield-go/bmc-rshim/ncsi/oem"
	"github.com/bluefield-go/bmc-rshim/sim/ncsi"
)

func isDeadline(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) && oem.IsTimeout(err)
}

// again reports an error after which a Client asks again.
func again(err error) bool { return oem.IsTimeout(err) || errors.Is(err, ncsi.ErrMalformed) }

func testSilence(t *testing.T, r *run) {
	r.timesOut(t, simncsi.Fault{Kind: simncsi.Silent}, oem.SetHostAccess(oem.Disabled))
	if got := r.state(t); got.Stored != first.Stored {
		t.Errorf("host access is %v", got.Stored)
	}
	r.want(t, oem.GetHostAccess(), done(oem.GetHostAccess(), 0, 0, 0, byte(first.Stored)))
}

// testLost loses a response: what was asked for has been done all the same.
func testLost(t *testing.T, r *run) {
	r.timesOut(t, simncsi.Fault{Kind: simncsi.Lost}, oem.SetHostAccess(oem.Enabled))
	r.want(t, oem.GetHostAccess(), done(oem.GetHostAccess(), 0, 0, 0, byte(oem.Enabled)))
}

func testWrongIID(t *testing.T, r *run) {
	r.timesOut(t, simncsi.Fault{Kind: simncsi.WrongIID}, oem.GetHostAccess())
	r.want(t, oem.GetHostAccess(), done(oem.GetHostAccess(), 0, 0, 0, byte(first.Stored)))
}

// testWrongLength has a header promise more than comes.
func testWrongLength(t *testing.T, r *run) {
	r.inject(t, simncsi.Fault{Kind: simncsi.WrongLength})
	if got, err := r.do(oem.GetHostAccess()); err == nil {
		t.Fatalf("taken for %x", got)
	} else if !again(err) {
		t.Fatalf("%v, which nobody would try again", err)
	}
	r.want(t, oem.GetHostAccess(), done(oem.GetHostAccess(), 0, 0, 0, byte(first.Stored)))
}

// testLate has a response come when nobody waits for it any more, and the next
// command under way.
func testLate(t *testing.T, r *run) {
	for range 3 {
		r.timesOut(t, simncsi.Fault{Kind: simncsi.Slow, Delay: r.Timeout * 3 / 2}, oem.GetHostAccess())
		r.want(t, oem.GetRuntimeAccess(), done(oem.GetRuntimeAccess(), 0, 0, 0, byte(first.Runtime)))
		r.want(t, oem.GetHostAccess(), done(oem.GetHostAccess(), 0, 0, 0, byte(first.Stored)))
	}
}

// testSlowInTime has a response take a good part of the timeout.
func testSlowInTime(t *testing.T, r *run) {
	r.inject(t, simncsi.Fault{Kind: simncsi.Slow, Count: 2, Delay: r.Timeout / 4})
	r.want(t, oem.GetHostAccess(), done(oem.GetHostAccess(), 0, 0, 0, byte(first.Stored)))
	r.want(t, oem.GetRuntimeAccess(), done(oem.GetRuntimeAccess(), 0, 0, 0, byte(first.Runtime)))
}

// testCancelled gives a context that is done: nothing may be sent.
func testCancelled(t *testing.T, r *run) {
	before := r.state(t).Counts.Sets
	ctx, cancel := context.WithCancel(r.ctx)
	cancel()
	if got, err := r.Transport.Do(ctx, r.Channel, ncsi.OEM, oem.SetHostAccess(oem.Disabled)); !errors.Is(err, context.Canceled) {
		t.Errorf("%x, %v", got, err)
	}
	r.want(t, oem.GetHostAccess(), done(oem.GetHostAccess(), 0, 0, 0, byte(first.Stored)))
	if n := r.state(t).Counts.Sets; n != before {
		t.Errorf("the NIC was sent %d commands to set", n-before)
	}
}

// testCancel cancels a command that gets no response, long before its time is
// up.
func testCancel(t *testing.T, r *run) {
	for try := 1; ; try++ {
		r.inject(t, simncsi.Fault{Kind: simncsi.Silent})
		ctx, cancel := context.WithCancel(r.ctx)
		time.AfterFunc(r.Timeout/10, cancel)
		got, err := r.Transport.Do(ctx, r.Channel, ncsi.OEM, oem.GetHostAccess())
		if errors.Is(err, context.Canceled) {
			break
		}
		if !isDeadline(err) || try == 10 { // the machine may stand still, but not each time
			t.Errorf("%x, %v", got, err)
			break
		}
		must(t, r.NIC.Clear())
	}
	r.want(t, oem.GetRuntimeAccess(), done(oem.GetRuntimeAccess(), 0, 0, 0, byte(first.Runtime)))
}

// testDeadline gives a context with less time than the transport takes.
func testDeadline(t *testing.T, r *run) {
	r.inject(t, simncsi.Fault{Kind: simncsi.Silent})
	ctx, cancel := context.WithTimeout(r.ctx, r.Timeout/10)
	defer cancel()
	began := time.Now()
	got, err := r.Transport.Do(ctx, r.Channel, ncsi.OEM, oem.GetHostAccess())
	if err == nil || !oem.IsTimeout(err) {
		t.Errorf("%x, %v", got, err)
	}
	if took := time.Since(began); took > r.Timeout+slack {
		t.Errorf("took %v", took)
	}
	r.want(t, oem.GetRuntimeAccess(), done(oem.GetRuntimeAccess(), 0, 0, 0, byte(first.Runtime)))
}

// testParallel has several commands under way: everybody gets his own response.
func testParallel(t *testing.T, r *run) { parallel(t, r, 8, 10) }

// testParallelSlow is testParallel with a NIC that takes its time.
func testParallelSlow(t *testing.T, r *run) {
	r.inject(t, simncsi.Fault{Kind: simncsi.Slow, Count: 8, Delay: r.Timeout / 50})
	parallel(t, r, 4, 2)
}

func parallel(t *testing.T, r *run, callers, rounds int) {
	var wg sync.WaitGroup
	for caller := range callers {
		command := oem.Request(0x70+oem.Command(caller), 0x55, []byte{byte(caller)})
		want := response(ncsi.Unsupported, ncsi.UnknownCommand, command[:8]...)
		wg.Go(func() {
			answers := 0
			for end := time.Now().Add(slack); answers < rounds; {
				got, err := r.do(command)
				switch {
				case err != nil && (!oem.IsTimeout(err) || time.Now().After(end)):
					t.Errorf("caller %d: %v", caller, err)
					return
				case err == nil && !bytes.Equal(got, want):
					t.Errorf("caller %d: got %x, want %x", caller, got, want)
					return
				case err == nil:
					answers++
				}
			}
		})
	}
	wg.Wait()
}

// testRepeat repeats a command with its instance ID.
func testRepeat(t *testing.T, r *run) {
	d, ok := r.Transport.(oem.Direct)
	if !ok {
		t.Skip("the instance IDs are not ours")
	}
	seen := make(map[uint8]bool)
	for range 300 {
		iid := d.NextIID()
		if iid == 0 {
			t.Fatal("instance ID 0 is for AENs")
		}
		seen[iid] = true
	}
	if len(seen) != 255 {
		t.Errorf("300 instance IDs with %d different ones", len(seen))
	}
	var iid uint8
	err := r.attempts(t, func() error {
		r.inject(t, simncsi.Fault{Kind: simncsi.Lost})
		iid = d.NextIID()
		if got, err := d.DoIID(r.ctx, iid, r.Channel, ncsi.OEM, oem.GetHostAccess()); !isDeadline(err) {
			t.Fatalf("%x, %v", got, err)
		}
		got, err := d.DoIID(r.ctx, iid, r.Channel, ncsi.OEM, oem.GetHostAccess())
		if err != nil {
			return err
		}
		if want := done(oem.GetHostAccess(), 0, 0, 0, byte(first.Stored)); !bytes.Equal(got, want) {
			t.Errorf("got %x", got)
		}
		if got, err = r.do(oem.GetRuntimeAccess()); err != nil {
			return err
		}
		if want := done(oem.GetRuntimeAccess(), 0, 0, 0, byte(first.Runtime)); !bytes.Equal(got, want) {
			t.Errorf("got %x", got)
		}
		return nil
	})
	must(t, err)
	ids := r.state(t).Counts.IIDs
	if n := len(ids); n < 3 || ids[n-3] != iid || ids[n-2] != iid || ids[n-1] == iid {
		t.Errorf("the NIC saw %v; %d was repeated", ids, iid)
	}
}

// testLeaks sends commands that are answered, that are not, and that are
// cancelled, and looks for goroutines and files that stay.
func testLeaks(t *testing.T, r *run) {
	some := func() {
		r.want(t, oem.GetHostAccess(), done(oem.GetHostAccess(), 0, 0, 0, byte(first.Stored)))
		for range 3 {
			r.inject(t, simncsi.Fault{Kind: simncsi.Silent})
			ctx, cancel := context.WithTimeout(r.ctx, r.Timeout/20)
			r.Transport.Do(ctx, r.Channel, ncsi.OEM, oem.GetHostAccess())
			cancel()
			must(t, r.NIC.Clear())
		}
	}
	some()
	goroutines, files := runtime.NumGoroutine(), openFiles()
	for range 5 {
		some()
	}
	for end := time.Now().Add(slack); ; time.Sleep(10 * time.Millisecond) {
		g, f := runtime.NumGoroutine(), openFiles()
		if g <= goroutines && f <= files {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d goroutines and %d files, after %d and %d", g, f, goroutines, files)
		}
	}
}

// openFiles counts this process's file descriptors, or is 0 where it cannot.
func openFiles() int {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(fds)
}
