// SPDX-License-Identifier: Apache-2.0

package bus_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/bluefield-go/bmc-rshim/dbus/bus"
	"github.com/bluefield-go/bmc-rshim/dbus/wire"
)

// openFDs counts the process's open file descriptors.
func openFDs(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// noLeak waits until there are no more file descriptors than before.
func noLeak(t *testing.T, before int) {
	t.Helper()
	await(t, "end of the leak", func() bool { return openFDs(t) <= before })
}

// A file comes with a call, another goes back with the reply.
func TestFiles(t *testing.T) {
	r := newRig(t, bus.Options{}, bus.Method{Name: "Connect", In: "sh", Out: "hs", Handle: func(_ context.Context, c *bus.Call) ([]any, error) {
		f, err := c.TakeFile(c.Args[1].(wire.FD))
		if err != nil {
			return nil, err
		}
		defer f.Close()
		if _, err := c.TakeFile(c.Args[1].(wire.FD)); errorName(err) != bus.ErrNameInvalidArgs {
			t.Errorf("a file twice: %v", err)
		}
		if _, err := c.TakeFile(7); errorName(err) != bus.ErrNameInvalidArgs {
			t.Errorf("a file that did not come: %v", err)
		}
		text, err := io.ReadAll(f)
		if err != nil {
			return nil, err
		}
		pr, pw, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		defer pr.Close()
		defer pw.Close()
		h, err := c.AttachFile(pr)
		if err != nil {
			return nil, err
		}
		_, err = pw.WriteString("back")
		return []any{h, string(text)}, err
	}}, bus.Method{Name: "Leave", In: "hh", Handle: func(context.Context, *bus.Call) ([]any, error) { return nil, nil }},
		bus.Method{Name: "Fail", In: "h", Out: "h", Handle: func(_ context.Context, c *bus.Call) ([]any, error) {
			if _, err := c.AttachFile(os.Stderr); err != nil {
				return nil, err
			}
			return nil, errBusy
		}})
	c := r.peer()
	image := func() *os.File {
		f, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		defer os.Remove(f.Name())
		if _, err := f.WriteString("image"); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Seek(0, 0); err != nil {
			t.Fatal(err)
		}
		return f
	}
	if err := r.call(c, devPath, "org.freedesktop.DBus.Peer.Ping").Err; err != nil {
		t.Fatal(err)
	}
	before := openFDs(t)
	for range 20 {
		f := image()
		fd := godbus.UnixFD(f.Fd())
		var back godbus.UnixFD
		var text string
		if err := r.call(c, devPath, devIface+".Connect", "x", fd).Store(&back, &text); err != nil || text != "image" {
			t.Fatalf("%q, %v", text, err)
		}
		pipe := os.NewFile(uintptr(back), "pipe")
		if b, err := io.ReadAll(pipe); err != nil || string(b) != "back" {
			t.Fatalf("%q, %v", b, err)
		}
		pipe.Close()
		// Files that nobody takes, for whatever reason.
		for _, tt := range []struct {
			method string
			args   []any
			want   string
		}{
			{devIface + ".Leave", []any{fd, fd}, ""},
			{devIface + ".Leave", []any{fd}, bus.ErrNameInvalidArgs},
			{devIface + ".Fail", []any{fd}, "xyz.openbmc_project.Common.Error.Unavailable"},
			{devIface + ".Nothing", []any{fd, fd, fd}, bus.ErrNameUnknownMethod},
			{"org.freedesktop.DBus.Peer.Ping", []any{fd}, bus.ErrNameInvalidArgs},
		} {
			if err := r.call(c, devPath, tt.method, tt.args...).Err; errorName(err) != tt.want {
				t.Errorf("%s: %v", tt.method, err)
			}
		}
		c.Object(name, devPath).Call(devIface+".Leave", godbus.FlagNoReplyExpected, fd, fd)
		f.Close()
	}
	noLeak(t, before)
}

func TestCaller(t *testing.T) {
	var sender atomic.Value
	r := newRig(t, bus.Options{}, bus.Method{Name: "Who", Out: "u", Handle: func(ctx context.Context, c *bus.Call) ([]any, error) {
		sender.Store(c.Sender)
		uid, err := c.UID(ctx)
		return []any{uid}, err
	}})
	c := r.peer()
	var uid uint32
	if err := r.call(c, devPath, devIface+".Who").Store(&uid); err != nil || int(uid) != os.Geteuid() || sender.Load() != c.Names()[0] {
		t.Errorf("called by %v, user %d, %v", sender.Load(), uid, err)
	}
}

// Calls run beside each other, in bounded numbers; reading goes on all the while.
func TestLimits(t *testing.T) {
	release := make(chan struct{})
	var running atomic.Int32
	r := newRig(t, bus.Options{MaxCalls: 5, MaxCallsPerCaller: 3}, bus.Method{Name: "Wait", Handle: func(ctx context.Context, c *bus.Call) ([]any, error) {
		running.Add(1)
		<-release
		return nil, nil
	}})
	a, b := r.peer(), r.peer()
	var calls []*godbus.Call
	call := func(c *godbus.Conn) {
		calls = append(calls, c.Object(name, devPath).Go(devIface+".Wait", 0, nil))
	}
	for range 4 {
		call(a)
	}
	if err := (<-calls[3].Done).Err; errorName(err) != bus.ErrNameLimitsExceeded {
		t.Errorf("one call too many of a caller: %v", err)
	}
	for range 3 {
		call(b)
	}
	if err := (<-calls[6].Done).Err; errorName(err) != bus.ErrNameLimitsExceeded {
		t.Errorf("one call too many: %v", err)
	}
	await(t, "five calls", func() bool { return running.Load() == 5 })
	if _, err := a.Object(name, devPath).GetProperty(devIface + ".Name"); err != nil {
		t.Errorf("a property meanwhile: %v", err)
	}
	close(release)
	for _, i := range []int{0, 1, 2, 4, 5} {
		if err := (<-calls[i].Done).Err; err != nil {
			t.Error(err)
		}
	}
	await(t, "room", func() bool { return r.call(a, devPath, devIface+".Wait").Err == nil })
}

func TestParallel(t *testing.T) {
	var o atomic.Pointer[bus.Object]
	r := newRig(t, bus.Options{MaxCalls: 1000, MaxCallsPerCaller: 1000}, bus.Method{Name: "Echo", In: "u", Out: "u", Handle: func(_ context.Context, c *bus.Call) ([]any, error) {
		return c.Args, o.Load().Set(devIface, "Progress", byte(c.Args[0].(uint32)))
	}})
	o.Store(r.o)
	var wg sync.WaitGroup
	for i := range 4 {
		c := r.peer()
		for i := range 8 {
			wg.Go(func() {
				for k := range 50 {
					n := uint32(i*1000 + k)
					var got uint32
					if err := r.call(c, devPath, devIface+".Echo", n).Store(&got); err != nil || got != n {
						t.Errorf("%d: %d, %v", n, got, err)
					}
					if _, err := c.Object(name, devPath).GetProperty(devIface + ".Progress"); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Go(func() {
			for range 50 {
				added, err := r.s.Add(wire.ObjectPath(fmt.Sprintf("/p/%d", i)), actInterface())
				if err != nil {
					t.Error(err)
					break
				}
				added.Remove()
				var all map[godbus.ObjectPath]map[string]map[string]godbus.Variant
				if err := r.call(c, "/", "org.freedesktop.DBus.ObjectManager.GetManagedObjects").Store(&all); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// A slow handler, a client that never reads: others are served all the same.
func TestDeafClient(t *testing.T) {
	r := newRig(t, bus.Options{})
	deaf := rawDial(t, r.bus)
	deaf.hello()
	deaf.call(2, "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "AddMatch", "type='signal'")
	for i := range uint32(2000) {
		deaf.call(3+i, name, devPath, "org.freedesktop.DBus.Introspectable", "Introspect")
	}
	c := r.peer()
	began := time.Now()
	for i := range 50 {
		if err := r.o.Set(devIface, "Progress", byte(i)); err != nil {
			t.Fatal(err)
		}
		if v, err := c.Object(name, devPath).GetProperty(devIface + ".Progress"); err != nil || v.Value() != byte(i) {
			t.Fatal(v, err)
		}
	}
	if d := time.Since(began); d > patience/2 {
		t.Errorf("took %v", d)
	}
	if !r.s.Owned() {
		t.Error("the name is lost")
	}
}
