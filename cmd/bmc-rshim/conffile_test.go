// SPDX-License-Identifier: Apache-2.0

//go:build !nosim

package main

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
)

func TestCheckConf(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "rshim.conf")
	for _, c := range []struct {
		text, stdout string
		code         int
	}{
		{"", "FILE: ok\n", exitOK},
		{"BOOT_TIMEOUT 5\n", "FILE: ok\n", exitOK},
		{"PCIE_HAS_UIO 1\n", "FILE:1: note: PCIE_HAS_UIO has no effect over USB\nFILE: ok\n", exitOK},
		{
			"#\nBOOT_TIMEOT 5\nPCIE_HAS_UIO 1\nDROP_MODE 5\n",
			"FILE:2: unknown key \"BOOT_TIMEOT\": did you mean BOOT_TIMEOUT?\nFILE:3: note: PCIE_HAS_UIO has no effect over USB\n" +
				"FILE:4: DROP_MODE is 0 or 1: \"5\" counts as 1\nFILE: 2 wrong\n", exitFailed,
		},
	} {
		if err := os.WriteFile(name, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		var stdout, stderr bytes.Buffer
		// There is no /dev/cuse to be had in dir, and no need of it.
		code := run(t.Context(), []string{"daemon", "-check-conf", "-conf", name, "-dev-root", dir}, nil, &stdout, &stderr)
		if want := strings.ReplaceAll(c.stdout, "FILE", name); code != c.code || stdout.String() != want {
			t.Errorf("%q: exit code %d, %s%s", c.text, code, &stdout, &stderr)
		}
	}
	var stdout, stderr bytes.Buffer
	for _, name := range []string{dir, dir + "/none"} {
		if code := run(t.Context(), []string{"daemon", "-check-conf", "-conf", name}, nil, &stdout, &stderr); code != exitFailed || stdout.Len() > 0 {
			t.Errorf("%s: exit code %d, %s%s", name, code, &stdout, &stderr)
		}
	}
}

// TestHupApplies: a reload gives the devices what the file says anew, and
// nothing else.
func TestHupApplies(t *testing.T) {
	t.Setenv("JOURNAL_STREAM", "")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		defer wg.Wait()
		defer cancel()
		var text bytes.Buffer
		log := slog.New(slog.NewTextHandler(&text, nil))
		hup := make(chan os.Signal)
		o := &daemonOptions{conf: filepath.Join(t.TempDir(), "rshim.conf"), hup: hup}
		write := func(text string) {
			if err := os.WriteFile(o.conf, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write("BOOT_TIMEOUT 7\nDISPLAY_LEVEL 1\n")
		c, err := o.readConf(log)
		if err != nil {
			t.Fatal(err)
		}
		set := rshim.NewSet(rshim.SetOptions{Device: c.options(), Index: c.index, Blocked: c.blocked})
		fn := usbdev.New(bluefield.New(bluefield.Config{}), usbdev.Options{})
		wg.Go(func() { _ = plug(fn).serve(ctx, set, log) })
		wg.Go(func() { o.reload(ctx, set, log) })
		time.Sleep(10 * time.Second)
		d := set.Devices()[0]
		misc := func(lines ...string) {
			t.Helper()
			got := d.Misc(ctx)
			for _, l := range lines {
				if !strings.Contains(got, l+" ") {
					t.Errorf("no %q in misc:\n%s", l, got)
				}
			}
		}
		// signal returns what is logged.
		signal := func() string {
			text.Reset()
			hup <- syscall.SIGHUP
			synctest.Wait()
			return text.String()
		}
		logs := func(got string, want ...string) {
			t.Helper()
			for _, w := range want {
				if !strings.Contains(got, w) {
					t.Errorf("no %q in the log:\n%s", w, got)
				}
			}
		}
		misc("BOOT_TIMEOUT    7", "DISPLAY_LEVEL   1", "USB_TIMEOUT     40")

		// What the file leaves as it was stays as misc has changed it.
		if err := d.WriteMisc(ctx, "DISPLAY_LEVEL 0\nBOOT_TIMEOUT 9"); err != nil {
			t.Fatal(err)
		}
		logs(signal(), "changed=nothing")
		misc("BOOT_TIMEOUT    9", "DISPLAY_LEVEL   0", "USB_TIMEOUT     40")
		write("BOOT_TIMEOUT 7\nDISPLAY_LEVEL 1\nUSB_TIMEOUT 50\nDROP_MODE 1\nAUTO_ATTACH 0\nrshim0 usb-1.1\nFOO 1\n")
		logs(signal(), `changed="USB_TIMEOUT AUTO_ATTACH rshim<N>"`, "DROP_MODE applies at start", o.conf+`:7: unknown key`)
		misc("BOOT_TIMEOUT    9", "DISPLAY_LEVEL   0", "USB_TIMEOUT     50", "DROP_MODE       0")
		write("BOOT_TIMEOUT 8\n") // and with that the default DISPLAY_LEVEL, which is what it has
		logs(signal(), "BOOT_TIMEOUT", "USB_TIMEOUT", "DISPLAY_LEVEL")
		misc("BOOT_TIMEOUT    8", "DISPLAY_LEVEL   0", "USB_TIMEOUT     40")

		// A file that cannot be read changes nothing.
		if err := os.Remove(o.conf); err != nil {
			t.Fatal(err)
		}
		logs(signal(), "level=WARN", "stays as it is")
		if err := os.Mkdir(o.conf, 0o700); err != nil {
			t.Fatal(err)
		}
		logs(signal(), "level=WARN", "stays as it is")
		misc("BOOT_TIMEOUT    8", "DISPLAY_LEVEL   0", "USB_TIMEOUT     40")
	})
}

// TestHupBlocked: a device that is blocked is not touched until the file says
// otherwise, and the log says so once.
func TestHupBlocked(t *testing.T) {
	t.Setenv("JOURNAL_STREAM", "")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		conf := filepath.Join(t.TempDir(), "rshim.conf")
		write := func(text string) {
			if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
				t.Error(err)
			}
		}
		write("none usb-2-1.7\n")
		hup := make(chan os.Signal, 1)
		var before string
		var stdout, stderr bytes.Buffer
		e := &env{stdout: &stdout, stderr: &stderr, hangups: func() <-chan os.Signal { return hup }, simulate: func(simFlags) (*usbBus, error) {
			return plug(usbdev.New(bluefield.New(bluefield.Config{}), usbdev.Options{})), nil
		}}
		time.AfterFunc(time.Minute, func() {
			before = stderr.String()
			write("rshim5 usb-2-1.7\n")
			hup <- syscall.SIGHUP
		})
		time.AfterFunc(time.Minute+8*time.Second, cancel)
		code := runIn(ctx, e, []string{"daemon", "-simulate", "bf3", "-conf", conf, "-dev-root", t.TempDir()})
		if code != exitOK || strings.Count(before, "not served") != 1 || strings.Contains(before, "detected") {
			t.Errorf("exit code %d, blocked:\n%s", code, before)
		}
		if after := strings.TrimPrefix(stderr.String(), before); !strings.Contains(after, "rshim5 attached") {
			t.Errorf("no longer blocked:\n%s", after)
		}
	})
}

// TestHupCaught: the signal itself does not end the process.
func TestHupCaught(t *testing.T) {
	c := hangups()
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	select {
	case <-c:
	case <-time.After(time.Minute):
		t.Error("no SIGHUP in a minute")
	}
}
