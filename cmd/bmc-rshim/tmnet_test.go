// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/internal/tap"
)

func TestNetAddress(t *testing.T) {
	for args, want := range map[string]any{
		"":                                                    map[int][]netip.Prefix(nil),
		"-net-address 192.168.100.1/30":                       map[int][]netip.Prefix{0: {netip.MustParsePrefix("192.168.100.1/30")}},
		"-net-address 63=10.0.0.0/31":                         map[int][]netip.Prefix{63: {netip.MustParsePrefix("10.0.0.0/31")}},
		"-net-address 10.0.0.1/32":                            map[int][]netip.Prefix{0: {netip.MustParsePrefix("10.0.0.1/32")}},
		"-net-address 0=fe80::1/64 -no-net":                   map[int][]netip.Prefix{0: {netip.MustParsePrefix("fe80::1/64")}},
		"-net-address x":                                      "an address is like",
		"-net-address 192.168.100.1":                          "an address is like",
		"-net-address 192.168.100.1/33":                       "an address is like",
		"-net-address fe80::1%lo/64":                          "an address is like",
		"-net-address =192.168.100.1/30":                      "no number of a device",
		"-net-address 64=192.168.100.1/30":                    "no number of a device",
		"-net-address 192.168.100.0/30":                       "is a network",
		"-net-address fd00::/64":                              "is a network",
		"-net-address 0.0.0.0/0":                              "is no address for an interface",
		"-net-address 224.0.0.1/4":                            "is no address for an interface",
		"-net-address 127.0.0.1/8":                            "is no address for an interface",
		"-net-address ::ffff:192.0.2.1/120":                   "is no address for an interface",
		"-net-address ff02::1/64":                             "is no address for an interface",
		"-net-address 1=10.0.0.1/8 -net-address 1=10.0.0.2/8": "tmfifo_net1 has an IPv4 address already",
		"-net-address 10.0.0.1/8 -net-address fd00::1/64 -net-address fd00::2/64 -net-address 1=10.1.0.1/30": map[int][]netip.Prefix{
			0: {netip.MustParsePrefix("10.0.0.1/8"), netip.MustParsePrefix("fd00::1/64"), netip.MustParsePrefix("fd00::2/64")},
			1: {netip.MustParsePrefix("10.1.0.1/30")},
		},
	} {
		var o netOptions
		fs := flag.NewFlagSet("", flag.ContinueOnError)
		fs.SetOutput(io.Discard)
		o.register(fs)
		err := fs.Parse(strings.Fields(args))
		if text, bad := want.(string); bad {
			if err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %v, want %q", args, err, text)
			}
		} else if err != nil || !reflect.DeepEqual(o.addresses, want) || o.off != strings.Contains(args, "-no-net") {
			t.Errorf("%s: %+v, %v", args, o, err)
		}
	}
}

// wire is an interface without a kernel.
type wire struct {
	send    chan []byte // what the kernel sends
	got     chan []byte // what it has received
	down    error       // of writes
	deleted chan bool
	close   sync.Once
	closed  chan bool
}

func newWire() *wire {
	return &wire{send: make(chan []byte), got: make(chan []byte, 100), deleted: make(chan bool), closed: make(chan bool)}
}

func (w *wire) Read(p []byte) (int, error) {
	select {
	case f := <-w.send:
		return copy(p, f), nil
	case <-w.deleted:
		return 0, tap.ErrGone
	case <-w.closed:
		return 0, os.ErrClosed
	}
}

func (w *wire) Write(p []byte) (int, error) {
	if w.down != nil {
		return 0, w.down
	}
	w.got <- bytes.Clone(p)
	return len(p), nil
}

func (w *wire) Close() error {
	w.close.Do(func() { close(w.closed) })
	return nil
}

// dpu is the other end.
type dpu struct {
	send, got chan []byte
	refuse    error
}

func (d *dpu) Send(_ context.Context, frame []byte) error {
	d.got <- bytes.Clone(frame)
	return d.refuse
}

func (d *dpu) Receive(ctx context.Context, p []byte) (int, error) {
	select {
	case f := <-d.send:
		return copy(p, f), nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// host makes wires, or fails to.
type host struct {
	mu    sync.Mutex
	fail  error
	tries []time.Time
	o     tap.Options
	w     *wire
}

func (h *host) open(o tap.Options) (io.ReadWriteCloser, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tries = append(h.tries, time.Now())
	if h.fail != nil {
		return nil, h.fail
	}
	h.o, h.w = o, newWire()
	return h.w, nil
}

// wire is the one that was made last.
func (h *host) wire() *wire {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.w
}

func (h *host) failWith(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fail = err
}

// logBuffer is a log that may be read while it is written.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// netRig is a tmnet that runs, in virtual time.
type netRig struct {
	host host
	dpu  *dpu
	log  logBuffer
	stop func() // and wait
}

func netBubble(t *testing.T, fail error, f func(t *testing.T, r *netRig)) {
	synctest.Test(t, func(t *testing.T) {
		r := &netRig{dpu: &dpu{send: make(chan []byte), got: make(chan []byte, 100)}}
		r.host.fail = fail
		n := tmnet{index: 3, devPath: "/dev/net/tun", dpu: r.dpu, log: slog.New(slog.NewTextHandler(&r.log, nil)), open: r.host.open}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { n.run(ctx) })
		r.stop = func() { cancel(); wg.Wait() }
		synctest.Wait()
		f(t, r)
		r.stop()
	})
}

// pass lets time pass, and everything happen that is due.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (r *netRig) logged(t *testing.T, text string, times int) {
	t.Helper()
	if n := strings.Count(r.log.String(), text); n != times {
		t.Errorf("%d times %q, want %d:\n%s", n, text, times, &r.log)
	}
}

func TestNetPump(t *testing.T) {
	netBubble(t, nil, func(t *testing.T, r *netRig) {
		want := tap.Options{Name: "tmfifo_net3", MAC: [6]byte{0, 0x1a, 0xca, 0xff, 0xff, 8}, DevPath: "/dev/net/tun"}
		if !reflect.DeepEqual(r.host.o, want) {
			t.Errorf("options %+v", r.host.o)
		}
		w := r.host.wire()
		for _, n := range []int{14, 60, 1514, 1518} {
			frame := bytes.Repeat([]byte{byte(n)}, n)
			w.send <- frame
			r.dpu.send <- frame
			if got := <-r.dpu.got; !bytes.Equal(got, frame) {
				t.Errorf("to the DPU: %d bytes, want %d", len(got), n)
			}
			if got := <-w.got; !bytes.Equal(got, frame) {
				t.Errorf("from the DPU: %d bytes, want %d", len(got), n)
			}
		}
		r.logged(t, "drop", 0)
		for _, n := range []int{1519, 1522, 9014} {
			w.send <- make([]byte, n)
			r.dpu.send <- make([]byte, n)
		}
		synctest.Wait()
		w.down = syscall.EIO
		r.dpu.send <- make([]byte, 60)
		synctest.Wait()
		w.down = nil
		r.dpu.send <- make([]byte, 61)
		r.dpu.refuse = errors.New("refused")
		w.send <- make([]byte, 62)
		synctest.Wait()
		r.dpu.refuse = nil
		w.send <- make([]byte, 63)
		synctest.Wait()
		if len(w.got) != 1 || len(<-w.got) != 61 || len(r.dpu.got) != 2 {
			t.Error("a frame was lost or came through that should not")
		}
		r.stop()
		r.logged(t, "frame for the DPU dropped", 1)
		r.logged(t, "frame of the DPU dropped", 1)
		r.logged(t, "to_dpu=4 from_dpu=4", 1)
		r.logged(t, "no network interface", 0)
		select {
		case <-w.closed:
		default:
			t.Error("the interface is still there")
		}
	})
}

// What keeps failing is told once, and tried ever more slowly.
func TestNetRetries(t *testing.T) {
	netBubble(t, fmt.Errorf("tmfifo_net3: %w", tap.ErrNoDriver), func(t *testing.T, r *netRig) {
		pass(time.Hour)
		r.host.mu.Lock()
		if tries := r.host.tries; len(tries) < 60 || len(tries) > 70 || tries[1].Sub(tries[0]) > 2*time.Second {
			t.Errorf("%d tries in an hour", len(tries))
		}
		r.host.mu.Unlock()
		r.logged(t, "no network interface", 1)
		r.logged(t, "load the module tun", 1)

		r.host.failWith(nil)
		pass(2 * time.Minute)
		r.logged(t, "network interface is there", 1)
		close(r.host.wire().deleted)
		synctest.Wait()
		r.logged(t, "the interface is gone", 1)
		pass(2 * time.Second)
		r.logged(t, "network interface is there", 2)
		r.host.wire().send <- make([]byte, 60)
		<-r.dpu.got

		r.host.failWith(fmt.Errorf("tmfifo_net3: %w", tap.ErrTaken))
		close(r.host.wire().deleted)
		pass(time.Minute)
		r.logged(t, "no other daemon", 1)
		asked := time.Now()
		r.stop()
		if late := time.Since(asked); late > 0 {
			t.Errorf("ended after %v", late)
		}
	})
}

func TestNetHint(t *testing.T) {
	for want, err := range map[string]error{
		"CAP_NET_ADMIN":    fmt.Errorf("TUNSETIFF: %w", syscall.EPERM),
		"/dev/net/tun":     &fs.PathError{Err: syscall.EACCES},
		"the module tun":   fmt.Errorf("%w: %w", tap.ErrNoDriver, syscall.ENOENT),
		"delete or rename": fmt.Errorf("%w: %w", tap.ErrTaken, syscall.EBUSY),
		"-no-net":          syscall.ENOMEM,
	} {
		if got := hint(err); !strings.Contains(got, want) {
			t.Errorf("%v: %q", err, got)
		}
	}
}
