// SPDX-License-Identifier: Apache-2.0

//go:build !nosim

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bluefield-go/bmc-rshim/dbus/client"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
)

func TestBusCommands(t *testing.T) {
	t.Parallel()
	r := newBusRig(t)
	r.daemon()
	ctx := t.Context()

	r.want(r.run(ctx, "status"), exitOK, "rshim0, usb-2-1.7", "attached", "BlueField-3, revision 1", "900-9D3B6-00CV-A", "boot 300 s, USB 40 s")
	r.want(r.run(ctx, "status", "-json"), exitOK)
	var all []map[string]any
	if err := json.Unmarshal([]byte(r.stdout.String()), &all); err != nil || len(all) != 1 {
		t.Fatalf("%v: %s", err, &r.stdout)
	}
	for key, want := range map[string]any{
		"device": "rshim0", "state": "attached", "owner": "bmc", "generation": "BlueField-3", "boot_timeout_seconds": 300.,
	} {
		if all[0][key] != want {
			t.Errorf("%s is %v, want %v", key, all[0][key], want)
		}
	}
	r.want(r.run(ctx, "status", "-device", "rshim3"), exitDevice, "no rshim3: the daemon has rshim0")
	r.want(r.run(ctx, "status", "-device", "etc"), exitDevice, `no device "etc"`)

	r.want(r.run(ctx, "boot-mode"), exitOK, "emmc")
	r.want(r.run(ctx, "boot-mode", "emmc-boot-swap"), exitOK, "emmc-boot-swap")
	r.want(r.run(ctx, "boot-mode", "-json"), exitOK, `{"device":"rshim0","boot_mode":"emmc-boot-swap"}`)
	r.want(r.run(ctx, "boot-mode", "floppy"), exitUsage, "none of rshim, emmc")

	r.want(r.run(ctx, "misc"), exitOK, "DISPLAY_LEVEL", "DEV_NAME        usb-2-1.7")
	r.want(r.run(ctx, "misc", "BOOT_TIMEOUT", "77"), exitOK)
	r.want(r.run(ctx, "misc", "-json"), exitOK, `"BOOT_TIMEOUT":"77 (seconds)"`)
	r.want(r.run(ctx, "misc", "NONSENSE", "1"), exitFailed)
	r.want(r.run(ctx, "misc", "BOOT_TIMEOUT"), exitUsage, "needs a value")

	dim := fmt.Sprintf("%#x", linear(reg.For(reg.BlueField3).FabricDim))
	r.want(r.run(ctx, "reg", dim), exitOK, "0x0000")
	r.want(r.run(ctx, "reg", "-json", dim), exitOK, `"register":"`+dim+`","value":"0x`)
	pad := fmt.Sprintf("%#x", linear(reg.For(reg.BlueField3).Scratchpad3))
	r.want(r.run(ctx, "reg", pad, "0x1234"), exitOK)
	r.want(r.run(ctx, "reg", pad), exitOK, "0x0000000000001234")
	r.want(r.run(ctx, "reg", "-size", "4", "0x13"), exitUsage, "no multiple")
	r.want(r.run(ctx, "reg"), exitUsage, "ADDRESS is missing")

	r.want(r.run(ctx, "log"), exitOK, "INFO[MISC]: DPU is ready")
	r.want(r.run(ctx, "log", "-json"), exitOK, `"event":"log","device":"rshim0","seq":`)

	r.want(r.run(ctx, "release"), exitOK, "rshim0 is released")
	r.want(r.run(ctx, "status"), exitOK, "dropped")
	r.want(r.run(ctx, "force", "-json"), exitOK, `{"device":"rshim0","result":"no owner"}`)
	r.want(r.run(ctx, "force"), exitOK, "ours already")
	r.want(r.run(ctx, "dump"), exitOK, "rshim0: usb-2-1.7, BlueField-3", "goroutines", "TMFIFO")
	r.want(r.run(ctx, "reset"), exitOK, "rshim0 is reset")
	r.want(r.run(ctx, "status"), exitOK, "attached") // by then
	r.want(r.run(ctx, "dump", "-json"), exitOK, `{"dump":"bmc-rshim `)
	r.want(r.run(ctx, "host-access"), exitDevice, "NCSI is not set")
	r.want(r.run(ctx, "host-access", "set", "disabled"), exitUsage, "cannot be disabled, but locked")
}

// A chip that is off the bus is nothing that it is not.
func TestBusGone(t *testing.T) {
	t.Parallel()
	r := newBusRig(t)
	r.daemon()
	ctx := t.Context()
	r.fn.Unplug()
	r.await("the chip to be gone", func() bool {
		return r.run(ctx, "status") == exitOK && strings.Contains(r.stdout.String(), "gone: left the bus")
	})
	for _, args := range [][]string{{"dump"}, {"status"}, {"status", "-json"}} {
		r.want(r.run(ctx, args...), exitOK, "rshim0", "usb-2-1.7")
		for _, text := range []string{"BlueField", "generation", "revision", "boot_mode", "opn", "Part", "Boots"} {
			if strings.Contains(r.stdout.String(), text) {
				t.Errorf("%q knows a %s:\n%s", args, text, &r.stdout)
			}
		}
	}
	r.want(r.run(ctx, "boot-mode"), exitDevice, "the boot mode is not known")
	r.want(r.run(ctx, "reset"), exitDevice)
	r.want(r.run(ctx, "release", "-json"), exitOK)
}

// A reset that does not happen is not told as one.
func TestBusResetFails(t *testing.T) {
	t.Parallel()
	r := newBusRig(t)
	r.cfg.Reset.Never = true
	r.daemon()
	if code := r.run(t.Context(), "reset"); code == exitOK || r.stdout.String() != "" {
		t.Errorf("exit code %d, %s", code, &r.stdout)
	}
}

// With two DPUs, one has to be chosen, and is.
func TestBusTwo(t *testing.T) {
	t.Parallel()
	r := newBusRig(t)
	r.second = usbdev.New(bluefield.New(r.cfg), usbdev.Options{})
	r.daemon()
	ctx := t.Context()
	r.want(r.run(ctx, "status"), exitOK, "rshim0, usb-2-1.", "rshim1, usb-2-1.")
	for _, args := range [][]string{{"force"}, {"log"}, {"push", "-"}, {"reset"}, {"console", "-dev-root", t.TempDir()}} {
		r.want(r.run(ctx, args...), exitUsage, "there are 2 devices: choose one")
	}
	r.want(r.run(ctx, "release", "-device", "rshim1"), exitOK, "rshim1 is released")
	r.want(r.run(ctx, "status", "-device", "rshim1"), exitOK, "rshim1", "dropped")
	r.want(r.run(ctx, "status", "-device", "rshim0"), exitOK, "rshim0", "attached")
}

// Without a daemon, or a bus, the device files are tried, unless a bus is asked
// for.
func TestBusFallback(t *testing.T) {
	r := newBusRig(t)
	r.want(r.run(t.Context(), "status"), exitDevice, "is not on the bus")
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", r.bus.Address())
	for _, args := range [][]string{{"status"}, {"status", "-bus", "none"}, {"status", "-dev-root", t.TempDir()}, {"console"}} {
		var stdout, stderr lockedBuffer
		code := run(t.Context(), args, nil, &stdout, &stderr)
		if code != exitDevice || !strings.Contains(stderr.String(), "no rshim device in /") {
			t.Errorf("%q: exit code %d, %s", args, code, &stderr)
		}
	}
	r.bus.Kill()
	r.want(r.run(t.Context(), "status"), exitDevice, "no D-Bus")
	r.want(r.run(t.Context(), "watch"), exitDevice, "no D-Bus")
}

func TestBusPush(t *testing.T) {
	t.Parallel()
	r := newBusRig(t)
	r.cfg.StageScale = 0.1
	r.daemon()
	ctx := t.Context()
	img := testBFB(t, reg.BlueField3, 300_000)
	name := file(t, img)

	// Nothing is touched by what is refused.
	other := file(t, testBFB(t, reg.BlueField2, 10_000))
	r.want(r.run(ctx, "push", other), exitRefused, "bmc-rshim: "+other+" refused, nothing was touched: bfb: ", "-no-check")
	r.want(r.run(ctx, "push", "-sha256", strings.Repeat("0", 64), name), exitRefused, "bmc-rshim: "+name+" refused, nothing was touched: the digest")
	if out := r.stderr.String(); strings.Contains(out, "no-check") {
		t.Errorf("-no-check does not help: %s", out)
	}
	r.want(r.run(ctx, "push", "-follow", name), exitUsage, "takes no FILE")
	if n, _ := r.fn.BootSum(); n != 0 {
		t.Errorf("%d bytes were sent", n)
	}

	sum := fmt.Sprintf("%x", sha256.Sum256(img))
	r.want(r.run(ctx, "push", "-status", "-sha256", sum, "-config", file(t, []byte("PASSWORD=x\n")), name), exitOK,
		"INFO[MISC]: DPU is ready", "rshim0 is ready", "Last push    ready, 302.9 KiB", "sent 302.9 KiB")
	r.want(r.run(ctx, "push", "-q", "-wait", "streamed", name), exitOK)
	if out := r.stdout.String() + r.stderr.String(); out != "" {
		t.Errorf("-q, and yet %q", out)
	}

	r.want(r.run(ctx, "push", "-json", name), exitOK)
	var last map[string]any
	count := make(map[string]int)
	for line := range strings.Lines(r.stdout.String()) {
		last = nil
		if err := json.Unmarshal([]byte(line), &last); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		count[last["event"].(string)]++
	}
	if last["event"] != "result" || last["outcome"] != "ready" || last["exit_code"] != 0. || last["ready"] != true || last["push"] == nil {
		t.Errorf("the last event is %v", last)
	}
	if count["log"] < 20 || count["note"] == 0 || count["result"] != 1 {
		t.Errorf("events: %v", count)
	}
}

// A pipe is sent by the daemon as well, and a reader that is no file.
func TestBusPushPipe(t *testing.T) {
	t.Parallel()
	r := newBusRig(t)
	r.daemon()
	img := testBFB(t, reg.BlueField3, 3<<20)
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pr.Close()
	go func() {
		_, _ = pw.Write(img)
		pw.Close()
	}()
	r.stdin = pr
	r.want(r.run(t.Context(), "push", "-wait", "streamed", "-"), exitOK)
	r.stdin = bytes.NewReader(img)
	r.want(r.run(t.Context(), "push", "-wait", "streamed", "-"), exitOK)
	padded := append(img[:len(img):len(img)], make([]byte, -len(img)&7)...)
	if n, sum := r.fn.BootSum(); n != int64(len(padded)) || sum != sha256.Sum256(padded) {
		t.Errorf("%d bytes arrived, of %d", n, len(padded))
	}
}

// How a push ends is told by its exit code and its last line.
func TestBusPushOutcomes(t *testing.T) {
	for name, c := range map[string]struct {
		after, line string
		code        int
		text        string
		outcome     string
	}{
		"error":   {"Installing OS", "INFO[MISC]: CRITICAL ERROR: no disk", exitDPU, "the DPU reported an error: INFO[MISC]: CRITICAL ERROR: no disk", "dpu_error"},
		"silence": {"Installing OS", "INFO[MISC]: hm", exitTimeout, "installing", "timed_out"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newBusRig(t)
			r.cfg.FailAfter, r.cfg.FailLine = c.after, c.line
			r.daemon()
			code := r.run(t.Context(), "push", "-json", "-timeout", "20s", file(t, testBFB(t, reg.BlueField3, 300_000)))
			r.want(code, c.code, c.text, `"event":"result","outcome":"`+c.outcome+`","exit_code":`+strconv.Itoa(c.code))
		})
	}
	t.Run("contended", func(t *testing.T) {
		t.Parallel()
		r := newBusRig(t)
		r.host = &bluefield.HostOptions{}
		r.daemon()
		img := file(t, testBFB(t, reg.BlueField3, 300_000))
		r.want(r.run(t.Context(), "push", img), exitDevice, "rshim0 is contended", "nothing was touched; -force takes it over first")
		r.want(r.run(t.Context(), "push", "-force", img), exitOK, "its owner has handed it over", "rshim0 is ready")
	})
}

// An interrupted push is cancelled; one that is only followed is not.
func TestBusPushInterrupted(t *testing.T) {
	t.Parallel()
	r := newBusRig(t)
	r.cfg.DrainRate = 200_000
	r.daemon()
	img := file(t, testBFB(t, reg.BlueField3, 4<<20))
	interrupt := func(args ...string) int {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			r.await("the stream", func() bool { return strings.Contains(r.stdout.String(), `"phase":"streaming"`) })
			cancel()
		}()
		return r.run(ctx, args...)
	}
	r.want(interrupt("push", "-json", img), exitInterrupted, "the DPU waits for the rest: push again", `"outcome":"interrupted"`)
	r.want(r.run(t.Context(), "push", "-follow"), exitFailed, "the push was cancelled after")
	r.want(r.run(t.Context(), "status", "-json"), exitOK, `"outcome":"cancelled"`)

	r.want(r.run(t.Context(), "push", "-detach", img), exitOK, "the daemon pushes "+img)
	r.want(interrupt("push", "-json", "-follow"), exitInterrupted, "the push goes on")
	r.want(r.run(t.Context(), "push", img), exitDevice) // while another runs
	r.want(r.run(t.Context(), "release"), exitDevice)

	// Somebody else cancels.
	c, err := client.Connect(t.Context(), r.bus.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	last, err := c.LastPush(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Cancel(t.Context(), last.Path); err != nil {
		t.Fatal(err)
	}
	r.want(r.run(t.Context(), "push", "-follow", "-json"), exitFailed, `"outcome":"cancelled","exit_code":1`)
}

// An interrupt while the bus is away cannot cancel, and does not say so.
func TestBusPushNotCancelled(t *testing.T) {
	t.Parallel()
	r := newBusRig(t)
	r.cfg.DrainRate = 100_000
	r.daemon()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		r.await("the stream", func() bool { return strings.Contains(r.stdout.String(), `"phase":"streaming"`) })
		r.bus.Kill()
		r.await("its loss", func() bool { return strings.Contains(r.stdout.String(), "the connection to the daemon is lost") })
		cancel()
	}()
	code := r.run(ctx, "push", "-json", file(t, testBFB(t, reg.BlueField3, 8<<20)))
	r.want(code, exitInterrupted, "interrupted; the push could not be cancelled, and may go on")
}

// Who reads the progress may go: the push is not his.
func TestBusPushUnread(t *testing.T) {
	t.Parallel()
	r := newBusRig(t)
	r.daemon()
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out.Close()
	cmd := child(t, "main", "push", "-json", "-bus", r.bus.Address(), file(t, testBFB(t, reg.BlueField3, 300_000)))
	cmd.Stdout = in
	err = cmd.Run()
	in.Close()
	if err != nil {
		t.Errorf("the push ended with %v", err)
	}
}

// The daemon's end is told, and the bus's is got over.
func TestBusPushLost(t *testing.T) { // not parallel: others wait by rejoinPatience
	r := newBusRig(t)
	r.cfg.DrainRate = 500_000
	stop := r.daemon()
	img := file(t, testBFB(t, reg.BlueField3, 4<<20))
	streaming := func() bool { return strings.Contains(r.stdout.String(), `"phase":"streaming"`) }
	go func() {
		r.await("the stream", streaming)
		r.bus.Restart()
	}()
	r.want(r.run(t.Context(), "push", "-json", img), exitOK, "the connection to the daemon is lost", "the daemon is there again", "rshim0 is ready")
	r.stdout.Reset() // of the first push
	go func() {
		r.await("the stream", streaming)
		stop()
	}()
	old := rejoinPatience
	rejoinPatience = 3 * time.Second
	defer func() { rejoinPatience = old }()
	r.want(r.run(t.Context(), "push", "-json", img), exitFailed, "and the push with it", "push -follow finds", `"outcome":"failed"`)
}

func TestBusWatchAndLog(t *testing.T) {
	t.Parallel()
	r := newBusRig(t)
	stop := r.daemon()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var logged lockedBuffer
	ended := make(chan int, 1)
	go func() {
		e := &env{stdout: &logged, stderr: &logged}
		ended <- runIn(ctx, e, []string{"log", "-f", "-json", "-bus", r.bus.Address()})
	}()
	done := make(chan int, 1)
	go func() { done <- r.run(ctx, "watch", "-json") }()
	saw := func(text string) {
		t.Helper()
		r.await(text, func() bool { return strings.Contains(r.stdout.String(), text) })
	}
	saw(`"event":"device","device":"rshim0","state":"attached"`)
	c, err := client.Connect(t.Context(), r.bus.Address())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Release(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	saw(`"state":"dropped"`)
	if _, err := c.Force(t.Context(), 0, 0); err != nil {
		t.Fatal(err)
	}
	c.Close()
	r.await("the log", func() bool { return strings.Contains(logged.String(), "DPU is ready") })
	r.fn.DPU().Log(t.Context(), "INFO[MISC]: hello there")
	saw("hello there")
	r.await("the line in the log", func() bool { return strings.Contains(logged.String(), "hello there") })
	stop()
	saw(`{"event":"daemon","state":"gone"}`)
	r.daemon()
	saw(`{"event":"daemon","state":"running"}`)
	cancel()
	if code := <-done; code != exitOK {
		t.Errorf("watch: exit code %d", code)
	}
	if code := <-ended; code != exitOK {
		t.Errorf("log -f: exit code %d, %s", code, &logged)
	}
}

// Without device files, the daemon connects to the console.
func TestBusConsole(t *testing.T) {
	t.Parallel()
	r := newBusRig(t)
	r.daemon()
	r.await("the console on the bus", func() bool {
		c, err := client.Connect(t.Context(), r.bus.Address())
		if err != nil {
			return false
		}
		defer c.Close()
		f, err := c.OpenConsole(t.Context(), 0)
		if err == nil {
			f.Close()
		}
		return err == nil
	})
	in, out := io.Pipe()
	r.stdin = in
	go func() {
		_, _ = io.WriteString(out, "uname\n")
		r.await("the echo", func() bool { return strings.Contains(r.stdout.String(), "uname") })
		out.Close()
	}()
	code := r.run(t.Context(), "console", "-dev-root", t.TempDir(), "-linger", "1s", "-replay")
	r.want(code, exitOK, "console of rshim0", "no output of before: over D-Bus")
}

func TestDaemonDump(t *testing.T) {
	t.Parallel()
	r := newBusRig(t)
	prom := filepath.Join(t.TempDir(), "bmc_rshim.prom")
	r.conf = file(t, []byte("METRICS_FILE "+prom+"\n"))
	r.usr1 = make(chan os.Signal, 1)
	stop := r.daemon()
	r.usr1 <- syscall.SIGUSR1
	r.await("the dump in the log", func() bool { return strings.Contains(r.log.String(), "TMFIFO: running true") })
	r.await("metrics", func() bool {
		b, _ := os.ReadFile(prom)
		return strings.Contains(string(b), "\nbmc_rshim_devices ")
	})
	b, err := os.ReadFile(prom)
	if err != nil {
		t.Fatal(err)
	}
	help := make(map[string]bool)
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		switch {
		case strings.HasPrefix(line, "# HELP "):
			if help[f[2]] {
				t.Errorf("twice: %s", line)
			}
			help[f[2]] = true
		case !strings.HasPrefix(line, "#"):
			name, _, _ := strings.Cut(f[0], "{")
			if !help[name] || !strings.HasPrefix(name, "bmc_rshim_") {
				t.Errorf("a sample without its help: %s", line)
			}
		}
	}
	stop()
	if _, err := os.Stat(prom); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the metrics outlive the daemon: %v", err)
	}
}
