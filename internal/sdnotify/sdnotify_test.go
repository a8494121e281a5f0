// SPDX-License-Identifier: Apache-2.0

package sdnotify_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/bluefield-go/bmc-rshim/internal/sdnotify"
)

// supervisor is the other end, which NOTIFY_SOCKET names.
func supervisor(t *testing.T, name string) *net.UnixConn {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	t.Setenv("NOTIFY_SOCKET", name)
	t.Setenv("WATCHDOG_USEC", "")
	t.Setenv("WATCHDOG_PID", "")
	return c
}

func receive(t *testing.T, c *net.UnixConn) string {
	t.Helper()
	b := make([]byte, 4096)
	c.SetReadDeadline(time.Now().Add(time.Minute))
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

func TestNotify(t *testing.T) {
	for _, name := range []string{filepath.Join(t.TempDir(), "s"), "@bmc-rshim-test-" + strconv.Itoa(os.Getpid())} {
		c := supervisor(t, name)
		n := sdnotify.FromEnv()
		if _, ok := os.LookupEnv("NOTIFY_SOCKET"); ok {
			t.Error("NOTIFY_SOCKET is still there, for a child to use")
		}
		if d := n.Interval(); d != 0 {
			t.Errorf("a watchdog of %v that nobody asked for", d)
		}
		n.Watch(t.Context(), func(context.Context) error { t.Error("a beat without a watchdog"); return nil }, nil)
		for _, step := range []struct {
			send func() error
			want string // as a regular expression
		}{
			{func() error { return n.Ready("1 device") }, "READY=1\nSTATUS=1 device"},
			{func() error { return n.Status("a\nREADY=0\x00") }, "STATUS=a READY=0 "},
			{n.Reloading, "RELOADING=1\nMONOTONIC_USEC=[1-9][0-9]*"},
			{n.Alive, "WATCHDOG=1"},
			{n.Stopping, "STOPPING=1"},
		} {
			if err := step.send(); err != nil {
				t.Fatal(err)
			}
			if got := receive(t, c); !regexp.MustCompile("^" + step.want + "$").MatchString(got) {
				t.Errorf("%s: got %q, want %q", name, got, step.want)
			}
		}
		c.Close()
		if err := n.Alive(); err == nil {
			t.Errorf("%s: no error with nobody there", name)
		}
	}
}

func TestNotifyNobody(t *testing.T) {
	for _, name := range []string{"", "@", "/", "vsock:2:1234", "relative"} {
		t.Setenv("NOTIFY_SOCKET", name)
		t.Setenv("WATCHDOG_USEC", "1000")
		n := sdnotify.FromEnv()
		if n != nil {
			t.Fatalf("%q: somebody to talk to", name)
		}
		for _, f := range []func() error{n.Reloading, n.Alive, n.Stopping} {
			if err := f(); err != nil {
				t.Errorf("%q: %v", name, err)
			}
		}
		n.Watch(t.Context(), nil, nil)
	}
}

func TestNotifyInterval(t *testing.T) {
	for _, c := range []struct {
		usec, pid string
		want      time.Duration
	}{
		{"30000000", "", 30 * time.Second},
		{"30000000", fmt.Sprint(os.Getpid()), 30 * time.Second},
		{"30000000", "1", 0}, // another's
		{"-1", "", 0},
		{"x", "", 0},
		{"9223372036854775807", "", 0},
	} {
		t.Setenv("NOTIFY_SOCKET", "/nowhere")
		t.Setenv("WATCHDOG_USEC", c.usec)
		t.Setenv("WATCHDOG_PID", c.pid)
		if got := sdnotify.FromEnv().Interval(); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

// The watchdog hears of nothing while what is watched is stuck.
func TestNotifyWatch(t *testing.T) {
	c := supervisor(t, filepath.Join(t.TempDir(), "s"))
	t.Setenv("WATCHDOG_USEC", "2000")
	n := sdnotify.FromEnv()
	ctx, cancel := context.WithCancel(t.Context())
	beats := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.Watch(ctx, func(ctx context.Context) error {
			select {
			case beats <- struct{}{}:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}, func(err error) { t.Error(err) })
	}()
	for range 3 {
		<-beats
		if got := receive(t, c); got != "WATCHDOG=1" {
			t.Fatalf("got %q", got)
		}
	}
	c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if k, err := c.Read(make([]byte, 64)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("stuck, and still %d bytes, %v", k, err)
	}
	cancel()
	<-done
}
