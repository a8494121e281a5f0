// SPDX-License-Identifier: Apache-2.0

package rshim

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// endedContext is that of a call which must not wait.
func endedContext() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// output makes n bytes that tell where in all of the output they are.
func output(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i ^ i>>8 ^ i>>16)
	}
	return p
}

// drainOutput reads what there is.
func (cc *ConsoleConn) drainOutput(t *testing.T) []byte {
	t.Helper()
	var got []byte
	p := make([]byte, 4096)
	for {
		n, err := cc.Read(endedContext(), p)
		got = append(got, p[:n]...)
		if errors.Is(err, context.Canceled) {
			return got
		}
		if n == 0 || err != nil {
			t.Fatal(n, err)
		}
	}
}

// Every opener sees all output from its opening on, in order, whatever the
// sizes of messages and reads.
func TestConsoleReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(0, Options{}).Console()
		all := output(1 << 20)
		early, start := all[:300<<10], max(0, 300<<10-consoleRing)
		c.deliver(t.Context(), early) // nobody is there
		var wg sync.WaitGroup
		for i := range 6 {
			cc, want := c.Open(i%2 == 0), all[len(early):]
			if i%2 == 0 {
				want = all[start:]
			}
			wg.Go(func() {
				defer cc.Close()
				var got []byte
				p := make([]byte, 1+i*1000)
				for len(got) < len(want) {
					n, err := cc.Read(t.Context(), p)
					if n == 0 || err != nil {
						t.Errorf("reader %d: %d, %v", i, n, err)
						return
					}
					got = append(got, p[:n]...)
				}
				if !bytes.Equal(got, want) || cc.Lost() != 0 {
					t.Errorf("reader %d: wrong after %d bytes, lost %d", i, len(got), cc.Lost())
				}
			})
		}
		for p := all[len(early):]; len(p) > 0; {
			n := min(len(p), 1+rand.IntN(2000))
			c.deliver(t.Context(), p[:n])
			p = p[n:]
		}
		wg.Wait()
		if st := c.Stats(); st.Output != int64(len(all)) || st.Lost != 0 || st.Openers != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// The ring is made for the first byte, and keeps the last 256 KiB.
func TestConsoleRing(t *testing.T) {
	c := New(0, Options{}).Console()
	cc := c.Open(true)
	if got := cc.drainOutput(t); got != nil || c.ring != nil {
		t.Errorf("before the first byte: %d bytes, ring of %d", len(got), len(c.ring))
	}
	cc.Close()
	all := output(3*consoleRing + 12345)
	for sent := 0; sent < len(all); sent += 999 {
		c.deliver(t.Context(), all[sent:min(sent+999, len(all))])
	}
	cc = c.Open(true)
	for range 2 {
		if n := cc.Buffered(); n != consoleRing {
			t.Errorf("%d bytes buffered", n)
		}
		if got := cc.drainOutput(t); !bytes.Equal(got, all[len(all)-consoleRing:]) {
			t.Errorf("replay of %d bytes is not the last of the output", len(got))
		}
		cc.Replay()
	}
	cc.DiscardOutput()
	c.deliver(t.Context(), []byte("next"))
	if got := cc.drainOutput(t); string(got) != "next" || cc.Lost() != 0 {
		t.Errorf("after a discard: %q, lost %d", got, cc.Lost())
	}
	c.deliver(t.Context(), all) // in one piece
	if got := c.Open(true).drainOutput(t); !bytes.Equal(got, all[len(all)-consoleRing:]) {
		t.Errorf("replay of %d bytes is not the last of the output", len(got))
	}
}

// A reader that has stopped costs the others 200 ms, once until it has caught
// up, and loses exactly what it was told of.
func TestConsoleStoppedReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(0, Options{}).Console()
		all := output(4 << 20)
		stopped, quick := c.Open(false), c.Open(false)
		var got []byte
		deliver := func(p []byte) time.Duration {
			start := time.Now()
			for q := range slices.Chunk(p, 1000) {
				c.deliver(t.Context(), q)
				got = append(got, quick.drainOutput(t)...)
			}
			return time.Since(start)
		}
		if d := deliver(all[:consoleRing]); d != 0 {
			t.Errorf("with room in the ring: waited %v", d)
		}
		if d := deliver(all[consoleRing : 1<<20]); d != consolePatience {
			t.Errorf("waited %v", d)
		}
		if d := deliver(all[1<<20 : 2<<20]); d != 0 {
			t.Errorf("once more: waited %v", d)
		}
		if n, want := stopped.Lost(), int64(2<<20-consoleRing); n != want || c.Stats().Lost != want {
			t.Errorf("lost %d, want %d; %+v", n, want, c.Stats())
		}
		// It reads, but next to nothing.
		if n, err := stopped.Read(t.Context(), make([]byte, 100)); n != 100 || err != nil {
			t.Fatal(n, err)
		}
		if d := deliver(all[2<<20 : 3<<20]); d > time.Millisecond {
			t.Errorf("after a short read: waited %v", d)
		}
		if tail := stopped.drainOutput(t); !bytes.Equal(tail, all[3<<20-consoleRing:3<<20]) {
			t.Errorf("reads %d bytes that are not the last of the output", len(tail))
		}
		if d := deliver(all[3<<20:]); d != consolePatience {
			t.Errorf("after it had caught up: waited %v", d)
		}
		if !bytes.Equal(got, all) || quick.Lost() != 0 {
			t.Errorf("the other reader got %d bytes, lost %d", len(got), quick.Lost())
		}
		want := stopped.Lost()
		if st := c.Stats(); st.Lost != want || st.Openers != 2 {
			t.Errorf("%+v, want %d lost", st, want)
		}
		stopped.Close()
		if st := c.Stats(); st.Lost != want || stopped.Lost() != want || want != 4<<20-2*consoleRing-100 {
			t.Errorf("%+v, it says %d lost", st, want)
		}
	})
}

// A reader that is slow, but not too slow, sets the pace and loses nothing. One
// that is too slow does not.
func TestConsoleSlowReader(t *testing.T) {
	for _, test := range []struct {
		name  string
		chunk int           // read every 10 ms
		most  time.Duration // that 8 MiB of output may take
		loses bool
	}{
		{"catches up", consoleRing, 400 * time.Millisecond, false},
		{"never catches up", 16 << 10, 6 * time.Second, false},
		{"too slow", 1000, 220 * time.Millisecond, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := New(0, Options{}).Console()
				cc := c.Open(false)
				const total = 8 << 20
				var reader sync.WaitGroup
				reader.Go(func() {
					p := make([]byte, test.chunk)
					for {
						time.Sleep(10 * time.Millisecond)
						if _, err := cc.Read(t.Context(), p); err != nil {
							return
						}
					}
				})
				start := time.Now()
				for p := range slices.Chunk(output(total), 2000) {
					c.deliver(t.Context(), p)
				}
				if d := time.Since(start); d > test.most || d == 0 {
					t.Errorf("waited %v in all", d)
				}
				if lost := cc.Lost(); (lost > 0) != test.loses {
					t.Errorf("lost %d", lost)
				}
				cc.Close()
				reader.Wait()
			})
		})
	}
}

// Who only writes is never waited for, and loses nothing.
func TestConsoleOpenInput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(0, Options{}).Console()
		cc := c.OpenInput()
		start := time.Now()
		c.deliver(t.Context(), output(2*consoleRing))
		for _, f := range []func(){func() {}, cc.Replay, cc.DiscardOutput} {
			f()
			if n, err := cc.Read(endedContext(), make([]byte, 8)); n != 0 || !errors.Is(err, context.Canceled) {
				t.Errorf("read: %d, %v", n, err)
			}
			if cc.Readable() || cc.Lost() != 0 || !cc.Writable() {
				t.Errorf("readable %v, lost %d, writable %v", cc.Readable(), cc.Lost(), cc.Writable())
			}
		}
		c.deliver(t.Context(), output(2*consoleRing))
		if d := time.Since(start); d != 0 {
			t.Errorf("waited %v", d)
		}
		cc.Close()
		if st := c.Stats(); st.Lost != 0 || st.Openers != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// Output is kept, without a wait, when the session ends, and a reader that goes
// away is not waited for.
func TestConsoleDeliverEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(0, Options{}).Console()
		cc := c.Open(false)
		start := time.Now()
		c.deliver(endedContext(), output(2*consoleRing))
		if d := time.Since(start); d != 0 || cc.Lost() != consoleRing {
			t.Errorf("waited %v, lost %d", d, cc.Lost())
		}
		time.AfterFunc(50*time.Millisecond, cc.Close)
		c.deliver(t.Context(), []byte("more"))
		if d := time.Since(start); d != 50*time.Millisecond {
			t.Errorf("waited %v", d)
		}
	})
}

// Reads and drains wait, and end with their context or the opener's Close.
func TestConsoleWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(0, Options{}).Console()
		cc := c.Open(false)
		full, other := c.Open(false), c.Open(false)
		if n, err := full.Write(endedContext(), make([]byte, 1<<20)); n != consoleQueue || !errors.Is(err, context.Canceled) {
			t.Fatal(n, err)
		}
		calls := map[string]func(ctx context.Context) error{
			"read":  func(ctx context.Context) error { _, err := cc.Read(ctx, make([]byte, 8)); return err },
			"write": func(ctx context.Context) error { _, err := cc.Write(ctx, make([]byte, 8)); return err },
			"write in turn": func(ctx context.Context) error {
				go func() { _, _ = other.Write(ctx, make([]byte, 8)) }()
				time.Sleep(time.Millisecond)
				_, err := cc.Write(ctx, make([]byte, 8))
				return err
			},
			"drain": func(ctx context.Context) error { return cc.Drain(ctx) },
		}
		for name, call := range calls {
			start := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			if err := call(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) < time.Hour {
				t.Errorf("%s: %v after %v", name, err, time.Since(start))
			}
			cancel()
			synctest.Wait()
			cc = c.Open(false)
			time.AfterFunc(time.Hour, cc.Close)
			ctx, cancel = context.WithCancel(t.Context())
			if err := call(ctx); !errors.Is(err, os.ErrClosed) {
				t.Errorf("%s of a closed opener: %v", name, err)
			}
			if err := call(ctx); !errors.Is(err, os.ErrClosed) {
				t.Errorf("%s after Close: %v", name, err)
			}
			cancel()
			synctest.Wait()
			cc.Close()
			cc = c.Open(false)
		}
	})
}

// Watch tells once, of output and of room.
func TestConsoleWatch(t *testing.T) {
	c := New(0, Options{}).Console()
	cc := c.Open(false)
	told := 0
	watch := func() { told++ }
	expect := func(what string, want int, readable, writable bool) {
		t.Helper()
		if told != want || cc.Readable() != readable || cc.Writable() != writable {
			t.Errorf("%s: told %d times, readable %v, writable %v", what, told, cc.Readable(), cc.Writable())
		}
		told = 0
	}
	cc.Watch(watch)
	expect("new", 0, false, true)
	c.deliver(t.Context(), []byte("x"))
	c.deliver(t.Context(), []byte("y"))
	expect("output", 1, true, true)
	cc.drainOutput(t)
	cc.Watch(watch)
	if n, err := cc.Write(endedContext(), make([]byte, 1<<20)); n != consoleQueue || err == nil {
		t.Fatal(n, err)
	}
	expect("full", 0, false, false)
	c.next(1000)
	expect("a little room", 0, false, false)
	for c.queued > 0 {
		c.next(1000)
	}
	expect("room", 1, false, true)
	cc.Watch(watch)
	_, _ = cc.Write(endedContext(), make([]byte, 1<<20))
	cc.DiscardInput()
	expect("discarded", 1, false, true)
	cc.Watch(watch)
	_, _ = cc.Write(endedContext(), make([]byte, 1<<20))
	c.flushInput()
	expect("flushed", 1, false, true)
	cc.Watch(watch)
	cc.Replay()
	expect("replay", 1, true, true)
	cc.Watch(watch)
	cc.Close()
	c.deliver(t.Context(), []byte("x"))
	if told != 0 {
		t.Error("told after Close")
	}
}

// A Set keeps a device that is away for as long as its console is open.
func TestConsoleKeepsDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(0, Options{})
		first, second := d.Console().Open(false), d.Console().Open(true)
		time.AfterFunc(time.Hour, first.Close)
		time.AfterFunc(2*time.Hour, second.Close)
		start := time.Now()
		if gone := d.settle(t.Context(), 10*time.Second); !gone || time.Since(start) != 2*time.Hour {
			t.Errorf("settled %v after %v", gone, time.Since(start))
		}
	})
}
