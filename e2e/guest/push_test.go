// SPDX-License-Identifier: Apache-2.0

package guest_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	vmguest "github.com/bluefield-go/bmc-rshim/internal/vmtest/guest"
)

// image is a BFB for both generations: Debian's arm64 kernel and an initramfs
// behind stand-ins for the boot firmware.
const image = "/srv/debian.bfb"

var generations = []string{"bf2", "bf3"}

// TestPush pushes a BFB by every means that people use, through the kernel. On an
// emulated BMC, where the large one takes minutes, one of them pushes that.
func TestPush(t *testing.T) {
	for _, gen := range generations {
		t.Run(gen, func(t *testing.T) {
			r := newRig(t, "-generation", gen)
			file := image
			if vmguest.Lane() != "uml" {
				file = small(t)
			}
			server := httptest.NewServer(http.FileServer(http.Dir(filepath.Dir(file))))
			defer server.Close()
			url := server.URL + "/" + filepath.Base(file)
			for _, way := range []struct{ name, file, script string }{
				{"cat", image, "cat " + image + " > /dev/rshim0/boot"},
				{"dd", file, "dd bs=1M if=" + file + " of=/dev/rshim0/boot"},
				{"curl", file, "curl -sSf -o /dev/rshim0/boot " + url},
				{"wget", file, "wget -q -O /dev/rshim0/boot " + url},
				{"bmc-rshim", file, "bmc-rshim push -wait streamed " + file},
			} {
				downloader := map[string]string{"uml": "curl", "ast2600": "wget"}[vmguest.Lane()]
				if (way.name == "curl" || way.name == "wget") && way.name != downloader {
					continue
				}
				t.Run(way.name, func(t *testing.T) {
					begin := time.Now()
					if out, code := sh(t, way.script); code != 0 {
						t.Fatalf("%s: exit code %d\n%s", way.script, code, out)
					}
					took := time.Since(begin)
					r := r.in(t)
					r.arrived(way.file)
					if way.file == image {
						vmguest.Metric(t, "push_"+gen+"_"+way.name, took.Seconds(), "s") // with the reset
					}
					r.stage("ready")
				})
			}
		})
	}
}

// TestPushFollowed pushes with the command line's defaults: to the end of the
// boot.
func TestPushFollowed(t *testing.T) {
	umlOnly(t)
	for _, gen := range generations {
		t.Run(gen, func(t *testing.T) {
			r := newRig(t, "-generation", gen)
			out, code := sh(t, "bmc-rshim push "+small(t))
			if code != 0 || !strings.Contains(out, "DPU is ready") {
				t.Errorf("exit code %d\n%s", code, out)
			}
			r.stage("ready")
		})
	}
}

// TestMisc compares the text of misc, byte for byte, with what it is known as.
func TestMisc(t *testing.T) {
	const bf2 = `DISPLAY_LEVEL   0 (0:basic, 1:advanced, 2:log)
BOOT_MODE       1 (0:rshim, 1:emmc, 2:emmc-boot-swap)
BOOT_TIMEOUT    300 (seconds)
USB_TIMEOUT     40 (seconds)
DROP_MODE       0 (0:normal, 1:drop)
SW_RESET        0 (1: reset)
DEV_NAME        usb-N.N
DEV_INFO        BlueField-2(Rev 0)
OPN_STR         MBF2H516A-CEEO
FORCE_CMD       0 (1: send Force command)
`
	const bf3 = `DISPLAY_LEVEL   0 (0:basic, 1:advanced, 2:log)
BF_MODE         DPU mode
BOOT_MODE       1 (0:rshim, 1:emmc, 2:emmc-boot-swap)
BOOT_TIMEOUT    300 (seconds)
USB_TIMEOUT     40 (seconds)
DROP_MODE       0 (0:normal, 1:drop)
SW_RESET        0 (1: reset)
DEV_NAME        usb-N.N
DEV_INFO        BlueField-3(Rev 0)
OPN_STR         900-9D3B6-00CV
UP_TIME         N(s)
SECURE_NIC_MODE 0 (0:no, 1:yes)
FORCE_CMD       0 (1: send Force command)
`
	for gen, tc := range map[string]struct{ opn, want string }{
		"bf2": {"MBF2H516A-CEEO", bf2},
		"bf3": {"900-9D3B6-00CV", bf3},
	} {
		t.Run(gen, func(t *testing.T) {
			r := newRig(t, "-generation", gen, "-opn", tc.opn)
			r.stage("ready")
			var diff string
			for range 5 { // a value that takes too long to read is left out, or 0
				// What depends on the machine.
				text := regexp.MustCompile(`usb-[0-9a-f]+\.[0-9a-f]+`).ReplaceAllString(misc(), "usb-N.N")
				text = regexp.MustCompile(`(UP_TIME +)\d+`).ReplaceAllString(text, "${1}N")
				if diff = cmp.Diff(tc.want, text); diff == "" {
					break
				}
			}
			if diff != "" {
				t.Errorf("misc (-want +got):\n%s", diff)
			}
			if out, code := sh(t, "printf 'BOOT_TIMEOUT 77\nDISPLAY_LEVEL 2\n' > /dev/rshim0/misc && cat /dev/rshim0/misc"); code != 0 ||
				!strings.Contains(out, "BOOT_TIMEOUT    77 ") || !strings.Contains(out, "Log Messages") {
				t.Errorf("exit code %d\n%s", code, out)
			}
			// misc does not wait for all of a long log.
			r.until("the log in misc", func() bool { return strings.Contains(misc(), " INFO[MISC]: DPU is ready\n") })
			if out, code := sh(t, "env echo NONSENSE 1 > /dev/rshim0/misc"); code == 0 || !strings.Contains(out, "Invalid argument") {
				t.Errorf("exit code %d\n%s", code, out)
			}
		})
	}
}

// TestUnplugDuringPush: the writer is told, the daemon lives on, and the device
// works again when it is back.
func TestUnplugDuringPush(t *testing.T) {
	umlOnly(t)
	for _, gen := range generations {
		t.Run(gen, func(t *testing.T) {
			r := newRig(t, "-generation", gen)
			r.control("hold 0 on")
			file := small(t)
			cat := start(t, "sh", "-c", "cat "+file+" > /dev/rshim0/boot")
			r.some()
			r.control("unplug 0")
			select {
			case <-cat.done:
			case <-time.After(patience):
				t.Fatal("the writer hangs after the device was unplugged")
			}
			if cat.err == nil || !strings.Contains(cat.output(), "No such device") {
				t.Errorf("cat: %v: %s", cat.err, cat.output())
			}
			r.control("hold 0 off")
			r.plug()
			if out, code := sh(t, "cat "+file+" > /dev/rshim0/boot"); code != 0 {
				t.Errorf("push after it was back: exit code %d\n%s", code, out)
			}
			r.arrived(file)
		})
	}
}

// TestInterruptedPush: Ctrl-C on a push to a chip that has stopped reading.
func TestInterruptedPush(t *testing.T) {
	umlOnly(t)
	for _, gen := range generations {
		t.Run(gen, func(t *testing.T) {
			r := newRig(t, "-generation", gen)
			r.control("hold 0 on")
			file := small(t)
			cat := start(t, "sh", "-c", "exec cat "+file+" > /dev/rshim0/boot")
			r.some()
			time.Sleep(500 * time.Millisecond) // now the chip is full, and so is all before it
			machine := watchStalls(t)
			begin := time.Now()
			_ = cat.cmd.Process.Signal(syscall.SIGINT)
			select {
			case <-cat.done:
			case <-time.After(patience):
				t.Fatal("the writer does not end")
			}
			if took, limit := time.Since(begin), machine.allow(t, endTime); took > limit {
				t.Errorf("cat took %v to end, more than %v", took, limit)
			}
			if ended := cat.cmd.ProcessState.Sys().(syscall.WaitStatus); !ended.Signaled() {
				t.Errorf("cat ended by itself: %v: %s", cat.err, cat.output())
			}
			r.control("hold 0 off")
			if out, code := sh(t, "cat "+file+" > /dev/rshim0/boot"); code != 0 {
				t.Errorf("next push: exit code %d\n%s", code, out)
			}
			r.arrived(file)
		})
	}
}

// endTime is how long a program may take to end, three times what it should.
const endTime = 3 * time.Second

// TestStop: SIGTERM ends the daemon in under a second, in the middle of a push
// too, and takes the files away.
func TestStop(t *testing.T) {
	r := newRig(t)
	r.control("hold 0 on")
	cat := start(t, "sh", "-c", "cat "+small(t)+" > /dev/rshim0/boot")
	r.some()
	machine := watchStalls(t)
	took := r.daemon.stop()
	vmguest.Metric(t, "stop_during_push", took.Seconds(), "s")
	if limit := machine.allow(t, endTime); took > limit {
		t.Errorf("the daemon took %v to end, more than %v", took, limit)
	}
	if code := r.daemon.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("the daemon's exit code is %d", code)
	}
	<-cat.done
	if cat.err == nil {
		t.Error("the writer is told that all is well")
	}
	if _, err := os.Stat("/dev/rshim0/boot"); err == nil {
		t.Error("/dev/rshim0/boot is still there")
	}
	r.control("hold 0 off")
	r.startDaemon()
}

// TestGone: a device that is unplugged for good leaves no file behind.
func TestGone(t *testing.T) {
	r := newRig(t)
	r.control("unplug 0")
	gone := func() bool {
		names, err := os.ReadDir("/dev/rshim0")
		return err != nil || len(names) == 0
	}
	r.until("the files to go", gone)
	fds := func() int {
		names, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", r.daemon.cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	before := fds()
	for range 3 {
		r.control("plug 0")
		r.until("the files to come", func() bool { return strings.Contains(misc(), "DEV_INFO") })
		r.control("unplug 0")
		r.until("the files to go", gone)
	}
	// A file leaves /dev while its descriptor is being closed, and the
	// interface's is closed after them.
	r.until(fmt.Sprintf("%d file descriptors or fewer", before), func() bool { return fds() <= before })
}
