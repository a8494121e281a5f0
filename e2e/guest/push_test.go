// SPDX-License-Identifier: Apache-2.0

package guest_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
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

// TestPush pushes a BFB by every means that people use, through the kernel.
func TestPush(t *testing.T) {
	for _, gen := range generations {
		t.Run(gen, func(t *testing.T) {
			r := newRig(t, "-generation", gen)
			const file = image
			server := httptest.NewServer(http.FileServer(http.Dir("/srv")))
			defer server.Close()
			for _, way := range []struct{ name, script string }{
				{"cat", "cat " + file + " > /dev/rshim0/boot"},
				{"dd", "dd bs=1M if=" + file + " of=/dev/rshim0/boot"},
				{"curl", "curl -sSf -o /dev/rshim0/boot " + server.URL + strings.TrimPrefix(file, "/srv")},
				{"bmc-rshim", "bmc-rshim push -wait streamed " + file},
			} {
				t.Run(way.name, func(t *testing.T) {
					if _, err := exec.LookPath(way.name); err != nil && vmguest.Lane() != "uml" {
						t.Skip(err)
					}
					begin := time.Now()
					if out, code := sh(t, way.script); code != 0 {
						t.Fatalf("%s: exit code %d\n%s", way.script, code, out)
					}
					took := time.Since(begin)
					r.t = t
					r.arrived(file)
					if st, err := os.Stat(file); err == nil {
						vmguest.Metric(t, "push_"+gen+"_"+way.name, float64(st.Size())/1e6/took.Seconds(), "MB/s")
					}
					r.stage("ready")
				})
			}
			r.t = t
		})
	}
}

// TestPushFollowed pushes with the command line's defaults: to the end of the
// boot.
func TestPushFollowed(t *testing.T) {
	for _, gen := range generations {
		t.Run(gen, func(t *testing.T) {
			r := newRig(t, "-generation", gen)
			out, code := sh(t, "bmc-rshim push "+image)
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
			text := misc()
			// What depends on the machine.
			text = regexp.MustCompile(`usb-[0-9a-f]+\.[0-9a-f]+`).ReplaceAllString(text, "usb-N.N")
			text = regexp.MustCompile(`(UP_TIME +)\d+`).ReplaceAllString(text, "${1}N")
			if diff := cmp.Diff(tc.want, text); diff != "" {
				t.Errorf("misc (-want +got):\n%s", diff)
			}
			if out, code := sh(t, "printf 'BOOT_TIMEOUT 77\nDISPLAY_LEVEL 2\n' > /dev/rshim0/misc && cat /dev/rshim0/misc"); code != 0 ||
				!strings.Contains(out, "BOOT_TIMEOUT    77 ") || !strings.Contains(out, "Log Messages") || !strings.Contains(out, " INFO[MISC]: DPU is ready\n") {
				t.Errorf("exit code %d\n%s", code, out)
			}
			if out, code := sh(t, "env echo NONSENSE 1 > /dev/rshim0/misc"); code == 0 || !strings.Contains(out, "Invalid argument") {
				t.Errorf("exit code %d\n%s", code, out)
			}
		})
	}
}

// TestUnplugDuringPush: the writer is told, the daemon lives on, and the device
// works again when it is back.
func TestUnplugDuringPush(t *testing.T) {
	for _, gen := range generations {
		t.Run(gen, func(t *testing.T) {
			r := newRig(t, "-generation", gen)
			r.control("hold 0 on")
			cat := start(t, "sh", "-c", "cat "+image+" > /dev/rshim0/boot")
			r.until("some of the stream", func() bool { return !strings.Contains(r.control("sum 0"), "bytes=0 ") })
			r.control("unplug 0")
			select {
			case <-cat.done:
			case <-time.After(10 * time.Second):
				t.Fatal("the writer hangs after the device was unplugged")
			}
			if cat.err == nil || !strings.Contains(cat.output(), "No such device") {
				t.Errorf("cat: %v: %s", cat.err, cat.output())
			}
			r.control("hold 0 off")
			r.control("plug 0")
			if out, code := sh(t, "cat "+image+" > /dev/rshim0/boot"); code != 0 {
				t.Errorf("push after it was back: exit code %d\n%s", code, out)
			}
			r.arrived(image)
		})
	}
}

// TestInterruptedPush: Ctrl-C on a push to a chip that has stopped reading.
func TestInterruptedPush(t *testing.T) {
	for _, gen := range generations {
		t.Run(gen, func(t *testing.T) {
			r := newRig(t, "-generation", gen)
			r.control("hold 0 on")
			c := exec.Command("sh", "-c", "exec cat "+image+" > /dev/rshim0/boot")
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(3 * time.Second)
			begin := time.Now()
			_ = c.Process.Signal(syscall.SIGINT)
			_ = c.Wait()
			if took := time.Since(begin); took > time.Second {
				t.Errorf("cat took %v to end", took)
			}
			r.control("hold 0 off")
			if out, code := sh(t, "cat "+image+" > /dev/rshim0/boot"); code != 0 {
				t.Errorf("next push: exit code %d\n%s", code, out)
			}
			r.arrived(image)
		})
	}
}

// TestStop: SIGTERM ends the daemon in under a second, in the middle of a push
// too, and takes the files away.
func TestStop(t *testing.T) {
	r := newRig(t)
	r.control("hold 0 on")
	cat := start(t, "sh", "-c", "cat "+image+" > /dev/rshim0/boot")
	r.until("some of the stream", func() bool { return !strings.Contains(r.control("sum 0"), "bytes=0 ") })
	if took := r.daemon.stop(); took > time.Second {
		t.Errorf("the daemon took %v to end", took)
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
	r.until("the files to go", func() bool { _, err := os.Stat("/dev/rshim0/misc"); return err != nil })
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
		r.until("the files to go", func() bool { _, err := os.Stat("/dev/rshim0/misc"); return err != nil })
	}
	if after := fds(); after > before {
		t.Errorf("%d file descriptors, %d before", after, before)
	}
}
