// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim"
)

// fakeDev is a /dev with files that stand for the daemon's: misc is a text,
// boot is a FIFO of which the channel returns what came.
func fakeDev(t *testing.T, device, misc string) (root string, boot <-chan []byte) {
	t.Helper()
	root = t.TempDir()
	dir := filepath.Join(root, device)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "misc"), []byte(misc), 0o600); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(dir, "boot")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	came, done := make(chan []byte, 1), make(chan struct{})
	go func() {
		defer close(done)
		f, err := os.Open(fifo)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		b, _ := io.ReadAll(f)
		came <- b
	}()
	t.Cleanup(func() { // let go of a reader that nobody wrote to, once it is there
		for {
			if f, err := os.OpenFile(fifo, os.O_WRONLY|syscall.O_NONBLOCK, 0); err == nil {
				f.Close()
			}
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
			}
		}
	})
	return root, came
}

const miscBF3 = `DISPLAY_LEVEL   2 (0:basic, 1:advanced, 2:log)
BF_MODE         DPU mode
BOOT_MODE       1 (0:rshim, 1:emmc, 2:emmc-boot-swap)
BOOT_TIMEOUT    300 (seconds)
USB_TIMEOUT     40 (seconds)
DROP_MODE       0 (0:normal, 1:drop)
SW_RESET        0 (1: reset)
DEV_NAME        usb-1.1
DEV_INFO        BlueField-3(Rev 1)
OPN_STR         900-9D3B6-00CV-A
UP_TIME         75(s)
SECURE_NIC_MODE 0 (0:no, 1:yes)
FORCE_CMD       0 (1: send Force command)
---------------------------------------
             Log Messages
---------------------------------------
 INFO[PSC]: PSC BL1 START
 INFO[MISC]: DPU is ready
`

// Commands find the running daemon's files, and work through them.
func TestNodes(t *testing.T) {
	root, boot := fakeDev(t, "rshim3", miscBF3)
	do := func(stdin string, args ...string) (string, int) {
		var out bytes.Buffer
		args = slices.Insert(args, 1, "-dev-root", root)
		code := run(t.Context(), args, strings.NewReader(stdin), &out, &out)
		return out.String(), code
	}
	out, code := do("", "status")
	if code != exitOK || !strings.Contains(out, "rshim3, usb-1.1") || !strings.Contains(out, "Up           1m15s") {
		t.Errorf("status: exit code %d\n%s", code, out)
	}
	if out, code := do("", "log"); code != exitOK || out != "INFO[PSC]: PSC BL1 START\nINFO[MISC]: DPU is ready\n" {
		t.Errorf("log: exit code %d\n%s", code, out)
	}
	out, code = do("no BFB", "push", "-no-check", "-")
	if code != exitOK || !strings.Contains(out, "rshim3 is ready") {
		t.Errorf("push: exit code %d\n%s", code, out)
	}
	if came := <-boot; string(came) != "no BFB" {
		t.Errorf("boot got %q", came)
	}
	if out, code := do("no BFB", "push", "-"); code != exitRefused {
		t.Errorf("push of something else: exit code %d\n%s", code, out)
	}
	if err := os.Mkdir(filepath.Join(root, "rshim10"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "rshim10", "misc"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, code := do("", "log"); code != exitUsage || !strings.Contains(out, "choose one with -device") {
		t.Errorf("log of two devices: exit code %d\n%s", code, out)
	}
	names, err := findNodes(root, "")
	if err != nil || !slices.Equal(names, []string{"rshim3", "rshim10"}) {
		t.Errorf("found %q, %v", names, err)
	}
}

// A device that is away is waited for, in case it is rebooting, and not for
// ever.
func TestNodesAbsent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := t.TempDir()
		if err := os.Mkdir(filepath.Join(root, "rshim0"), 0o700); err != nil {
			t.Fatal(err)
		}
		misc := filepath.Join(root, "rshim0", "misc")
		write := func(text string) {
			if err := os.WriteFile(misc, []byte(text), 0o600); err != nil {
				t.Error(err)
			}
		}
		absent := strings.ReplaceAll(miscBF3, "DEV_INFO ", "X ")
		push := func() (string, int) {
			var out bytes.Buffer
			code := run(t.Context(), []string{"push", "-dev-root", root, "-"}, strings.NewReader("no BFB"), &out, &out)
			return out.String(), code
		}
		write(absent)
		began := time.Now()
		if out, code := push(); code != exitDevice || !strings.Contains(out, "rshim0 is gone, nothing was touched") {
			t.Errorf("exit code %d\n%s", code, out)
		}
		if took := time.Since(began); took < returnPatience || took > returnPatience+time.Second {
			t.Errorf("waited for %v", took)
		}
		time.AfterFunc(5*time.Second, func() { write(miscBF3) })
		if out, code := push(); code != exitRefused {
			t.Errorf("back after 5 s: exit code %d\n%s", code, out)
		}
	})
}

// A write that hangs does not hold up who wants to end.
func TestNodesInterrupted(t *testing.T) {
	root, _ := fakeDev(t, "rshim0", miscBF3)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ctx, cancel := context.WithCancel(t.Context())
	b := nodeBoot{w}
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := b.Write(ctx, make([]byte, 1<<20)); !errors.Is(err, context.Canceled) {
		t.Errorf("Write: %v", err)
	}
	if err := b.Close(ctx); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("Close: %v", err)
	}
	if _, err := (nodes{root, "rshim0"}).misc(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("misc: %v", err)
	}
}

// The level is set for as long as the log is read.
func TestReadLogLevel(t *testing.T) {
	f := &fakeTarget{text: "DISPLAY_LEVEL   1 (0:basic, 1:advanced, 2:log)\n"}
	r := readLog{t: f}
	for range 3 {
		if _, err := r.lines(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r.restore(ctx)
	r.restore(ctx)
	if want := []string{"DISPLAY_LEVEL 2\n", "DISPLAY_LEVEL 1\n"}; !slices.Equal(f.commands, want) {
		t.Errorf("wrote %q, want %q", f.commands, want)
	}
}

// A log that cannot be read for a while is read again, and no line comes twice.
func TestFollowTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeTarget{text: miscBF3}
		ctx, cancel := context.WithCancel(t.Context())
		var got []string
		failed := 0
		calls := 0
		follow(ctx, &readLog{t: f}, func(lines []string, err error) {
			calls++
			switch calls {
			case 4:
				f.err = errDaemonGone
			case 8:
				f.text, f.err = miscBF3+" INFO[MISC]: more\n", nil
			case 12:
				cancel()
			}
			got = append(got, lines...)
			if err != nil {
				failed++
			}
		})
		want := []string{" INFO[PSC]: PSC BL1 START", " INFO[MISC]: DPU is ready", " INFO[MISC]: more"}
		if !slices.Equal(got, want) || failed != 4 {
			t.Errorf("%d failures, lines %q", failed, got)
		}
	})
}

type fakeTarget struct {
	target
	text     string
	err      error
	commands []string
}

func (f *fakeTarget) misc(context.Context) (string, error) { return f.text, f.err }

func (f *fakeTarget) setMisc(_ context.Context, commands string) error {
	f.commands = append(f.commands, commands)
	f.text = strings.ReplaceAll(commands, " ", "   ")
	return nil
}

func TestExplain(t *testing.T) {
	for errno, want := range map[syscall.Errno]error{
		syscall.EBUSY: rshim.ErrBusy, syscall.ENODEV: rshim.ErrNotReady, syscall.EINVAL: rshim.ErrNotOwner,
		syscall.ETIMEDOUT: os.ErrDeadlineExceeded, syscall.ENOTCONN: errDaemonGone,
	} {
		err := explain(fmt.Errorf("x: %w", errno))
		if !errors.Is(err, want) || !errors.Is(err, errno) {
			t.Errorf("%v: %v", errno, err)
		}
	}
	if err := explain(syscall.EIO); err != syscall.EIO {
		t.Errorf("EIO: %v", err)
	}
}
