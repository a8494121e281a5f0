// SPDX-License-Identifier: Apache-2.0

package metrics_test

import (
	"bytes"
	"context"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/internal/metrics"
)

func TestText(t *testing.T) {
	var x metrics.Text
	bytes := x.Metric("bmc_rshim_push_bytes_total", metrics.Counter, "Bytes of boot streams.\nOf all.")
	for _, d := range []string{"rshim0", "ev\"il\\\n\xff"} {
		x.Metric("bmc_rshim_attached", metrics.Gauge, "Whether.").Bool(d == "rshim0", "device", d)
		bytes.Add(1.5e12, "device", d, "kind", "boot")
	}
	x.Metric("bmc_rshim_none", metrics.Gauge, "Without samples.")
	x.Metric("bmc_rshim_devices", metrics.Gauge, "Devices.").Add(2)
	want := `# HELP bmc_rshim_push_bytes_total Bytes of boot streams.\nOf all.
# TYPE bmc_rshim_push_bytes_total counter
bmc_rshim_push_bytes_total{device="rshim0",kind="boot"} 1.5e+12
bmc_rshim_push_bytes_total{device="ev\"il\\\n?",kind="boot"} 1.5e+12
# HELP bmc_rshim_attached Whether.
# TYPE bmc_rshim_attached gauge
bmc_rshim_attached{device="rshim0"} 1
bmc_rshim_attached{device="ev\"il\\\n?"} 0
# HELP bmc_rshim_devices Devices.
# TYPE bmc_rshim_devices gauge
bmc_rshim_devices 2
`
	if got := string(x.Bytes()); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestFile(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "bmc_rshim.prom")
	synctest.Test(t, func(t *testing.T) {
		var value atomic.Int64
		f := &metrics.File{Name: name, Collect: func(x *metrics.Text) {
			x.Metric("m", metrics.Gauge, "M.").Add(float64(value.Load()))
		}}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); f.Run(ctx) }()
		read := func() (string, fs.FileInfo) {
			t.Helper()
			synctest.Wait()
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			st, err := os.Stat(name)
			if err != nil {
				t.Fatal(err)
			}
			return string(b), st
		}
		first, st := read()
		if !strings.HasSuffix(first, "\nm 0\n") || st.Mode().Perm() != 0o644 {
			t.Errorf("%q, %v", first, st.Mode())
		}
		time.Sleep(time.Minute)
		if _, now := read(); !os.SameFile(st, now) {
			t.Error("written although nothing has changed")
		}
		value.Store(7)
		time.Sleep(metrics.DefaultInterval)
		if now, _ := read(); !strings.HasSuffix(now, "\nm 7\n") {
			t.Errorf("after a change: %q", now)
		}
		os.Remove(name)
		time.Sleep(metrics.DefaultInterval)
		read() // again there
		cancel()
		<-done
	})
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestFileFails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "later")
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		f := &metrics.File{
			Name: filepath.Join(dir, "x.prom"), Logger: slog.New(slog.NewTextHandler(&log, nil)),
			Collect: func(x *metrics.Text) { x.Metric("m", metrics.Gauge, "M.").Add(1) },
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); f.Run(ctx) }()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "op=metrics") {
			t.Errorf("log:\n%s", &log)
		}
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		time.Sleep(metrics.DefaultInterval)
		synctest.Wait()
		if _, err := os.Stat(f.Name); err != nil {
			t.Error(err)
		}
		cancel()
		<-done
	})
}
