// SPDX-License-Identifier: Apache-2.0

package rshim

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// sendAll is the session's side of the input: it sends what there is until ctx
// ends, in messages of limit bytes and with a pause after each.
func (c *Console) sendAll(ctx context.Context, limit int, pause time.Duration) (sent []byte) {
	for {
		p := c.next(limit)
		if p == nil {
			select {
			case <-c.pending():
				continue
			case <-ctx.Done():
				return sent
			}
		}
		sent = append(sent, p...)
		time.Sleep(pause)
	}
}

// What one call writes is sent in one piece, however many write at once.
func TestConsoleWriters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(0, Options{}).Console()
		ctx, cancel := context.WithCancel(t.Context())
		var sent []byte
		var sender, writers sync.WaitGroup
		sender.Go(func() { sent = c.sendAll(ctx, 1000, time.Millisecond) })
		const calls, size = 5, 40000
		for i := range 8 {
			cc := c.Open(false)
			writers.Go(func() {
				defer cc.Close()
				for j := range calls {
					p := bytes.Repeat([]byte{byte('a' + i), byte('0' + j)}, size/2)
					if n, err := cc.Write(t.Context(), p); n != size || err != nil {
						t.Errorf("write: %d, %v", n, err)
					}
					clear(p) // it is the caller's again
				}
			})
		}
		writers.Wait()
		last := c.Open(false)
		if err := last.Drain(t.Context()); err != nil || last.Queued() != 0 {
			t.Errorf("drain: %v with %d queued", err, last.Queued())
		}
		cancel()
		sender.Wait()
		next := make(map[byte]byte)
		for i := 0; i < len(sent); i += size {
			who, call := sent[i], sent[i+1]
			if call != '0'+next[who] || !bytes.Equal(sent[i:i+size], bytes.Repeat(sent[i:i+2], size/2)) {
				t.Fatalf("at %d: call %c of %c is not in one piece, or not in order", i, call, who)
			}
			next[who]++
		}
		if st := c.Stats(); len(sent) != 8*calls*size || st.Input != int64(len(sent)) || st.Dropped != 0 {
			t.Errorf("sent %d; %+v", len(sent), st)
		}
	})
}

// Input that was typed before a reset is dropped and counted, to the end of the
// call that was typing; what is typed afterwards waits for the chip.
func TestConsoleFlushInput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(0, Options{}).Console()
		cc, other := c.Open(false), c.Open(false)
		const size = 100000
		done := make(chan bool)
		go func() {
			if n, err := cc.Write(t.Context(), make([]byte, size)); n != size || err != nil {
				t.Errorf("write over the reset: %d, %v", n, err)
			}
			close(done)
		}()
		synctest.Wait()
		go func() { // has not begun: it waits for its turn
			if n, err := other.Write(t.Context(), []byte("typed after")); n != 11 || err != nil {
				t.Errorf("write after the reset: %d, %v", n, err)
			}
		}()
		synctest.Wait()
		if p := c.next(1000); len(p) != 1000 {
			t.Fatalf("%d bytes", len(p))
		}
		synctest.Wait()
		c.flushInput()
		<-done
		synctest.Wait()
		select {
		case <-c.pending():
		default:
			t.Error("input is not announced")
		}
		if p := c.next(1000); string(p) != "typed after" {
			t.Errorf("%q", p)
		}
		if p := c.next(1000); p != nil {
			t.Errorf("%q is left", p)
		}
		c.flushInput() // of nothing
		if st := c.Stats(); st.Dropped != size-1000 || st.Input != 1011 {
			t.Errorf("%+v", st)
		}
	})
}

// An opener takes back what it has written itself, and Drain does not wait for
// that.
func TestConsoleDiscardInput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(0, Options{}).Console()
		a, b := c.Open(false), c.Open(false)
		for _, w := range []struct {
			cc   *ConsoleConn
			text string
		}{{a, "one "}, {a, "two "}, {b, "reboot\n"}, {a, "three"}} {
			if _, err := w.cc.Write(t.Context(), []byte(w.text)); err != nil {
				t.Fatal(err)
			}
		}
		if n := b.Queued(); n != 20 {
			t.Errorf("%d queued", n)
		}
		drained := make(chan bool)
		go func() {
			if err := a.Drain(t.Context()); err != nil {
				t.Error(err)
			}
			close(drained)
		}()
		synctest.Wait()
		a.DiscardInput()
		synctest.Wait()
		select {
		case <-drained:
			t.Error("drained with input queued")
		default:
		}
		b.Close() // what it has written is sent all the same
		if p := c.next(1000); string(p) != "reboot\n" {
			t.Errorf("%q", p)
		}
		<-drained
		if st := c.Stats(); st.Input != 7 || st.Dropped != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// A call that must not wait writes what there is room for.
func TestConsoleWriteNow(t *testing.T) {
	c := New(0, Options{}).Console()
	cc := c.Open(false)
	if n, err := cc.Write(endedContext(), make([]byte, consoleQueue)); n != consoleQueue || err != nil {
		t.Errorf("exactly the queue: %d, %v", n, err)
	}
	if n, err := cc.Write(endedContext(), []byte("x")); n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("into a full queue: %d, %v", n, err)
	}
	if n, err := cc.Write(endedContext(), nil); n != 0 || err != nil {
		t.Errorf("nothing: %d, %v", n, err)
	}
	c.next(10)
	if n, err := cc.Write(endedContext(), make([]byte, 11)); n != 10 || !errors.Is(err, context.Canceled) {
		t.Errorf("into room for 10: %d, %v", n, err)
	}
}
