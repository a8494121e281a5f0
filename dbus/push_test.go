// SPDX-License-Identifier: Apache-2.0

package dbus_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
)

// options are those of PushBoot.
type options map[string]any

func (o options) args() map[string]godbus.Variant {
	m := make(map[string]godbus.Variant)
	for k, v := range o {
		m[k] = godbus.MakeVariant(v)
	}
	return m
}

// push begins a push and returns its path.
func (c *client) push(f *os.File, o options) string {
	c.t.Helper()
	return string(c.must(own, rshim0, deviceI+".PushBoot", fd(f), o.args())[0].(godbus.ObjectPath))
}

func outcome(word string) string { return pushI + ".Outcomes." + word }

func TestPushBoot(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	fn := r.plug("1-1", bluefield.Config{Capture: true}, usbdev.Options{})
	c := r.c
	c.until(own, rshim0, deviceI, "Attached", true)
	stream, config := image(t, reg.BlueField3, 1<<20), []byte("ubuntu_PASSWORD='x'\n")
	sum := sha256.Sum256(stream)

	path := c.push(file(t, stream), options{
		"Config": fd(file(t, config)), "SHA256": hex.EncodeToString(sum[:]), "Name": "x.bfb", "Check": true, "Wait": "Ready", "TimeoutMs": uint32(60_000),
	})
	if path != "/xyz/openbmc_project/rshim/push/1" {
		t.Errorf("path %s", path)
	}
	c.until(own, path, pushI, "Outcome", outcome("Ready"))
	for property, want := range map[string]any{
		"Device": godbus.ObjectPath(rshim0), "Origin": pushI + ".Origins.Bus", "Name": "x.bfb", "Phase": pushI + ".Phases.Ended",
		"SHA256": hex.EncodeToString(sum[:]), "Error": "", "ErrorName": "",
		"Total": uint64(len(stream) + len(config)), "Bytes": uint64(len(stream) + len(config)),
	} {
		if got := c.get(own, path, pushI, property); got != want {
			t.Errorf("%s is %v, want %v", property, got, want)
		}
	}
	got := fn.DPU().BootBytes()
	if want := string(stream) + string(config); !strings.HasPrefix(string(got), want) || len(got) > len(want)+7 {
		t.Errorf("%d bytes arrived, want %d", len(got), len(want))
	}
	// A caller may be gone when it is streamed; the digest is one of bytes, too.
	path = c.push(file(t, stream), options{"SHA256": sum[:], "Wait": "Streamed"})
	c.until(own, path, pushI, "Outcome", outcome("Streamed"))
	c.until(own, path, progressI, "Progress", byte(100))
	c.until(own, path, activation, "Activation", activation+".Activations.Active")
}

func TestPushBootPipe(t *testing.T) {
	t.Parallel()
	r := bf3(t, rigOptions{}, bluefield.Config{})
	c := r.c
	stream := image(t, reg.BlueField3, 4<<20)
	pipe := func(content []byte, then func(w *os.File)) *os.File {
		rd, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { rd.Close() })
		go func() {
			defer w.Close()
			_, _ = w.Write(content)
			if then != nil {
				then(w)
			}
		}()
		return rd
	}
	path := c.push(pipe(stream, nil), options{"Size": uint64(len(stream))})
	c.until(own, path, pushI, "Outcome", outcome("Ready"))
	if got := c.get(own, path, pushI, "Total"); got != uint64(len(stream)) {
		t.Errorf("total %v", got)
	}

	// It ends early: that is not known before the DPU has a part of it.
	path = c.push(pipe(stream[:3<<20], nil), nil)
	c.until(own, path, pushI, "Outcome", outcome("Failed"))
	if name := c.get(own, path, pushI, "ErrorName"); name != "xyz.openbmc_project.Software.Update.Error.InvalidImage" {
		t.Errorf("error %v: %v", name, c.get(own, path, pushI, "Error"))
	}
	c.until(own, path, activation, "Activation", activation+".Activations.Invalid")

	// Nothing comes any more: Delete ends it at once.
	stop := make(chan struct{})
	defer close(stop)
	path = c.push(pipe(stream[:2<<20], func(*os.File) { <-stop }), nil)
	c.until(own, path, pushI, "Phase", pushI+".Phases.Streaming")
	c.fails(commonErr+"Unavailable", own, rshim0, deviceI+".PushBoot", fd(file(t, stream)), options{}.args())
	c.fails(commonErr+"Unavailable", own, rshim0, deviceI+".Release")
	c.fails(commonErr+"Unavailable", own, rshim0, deviceI+".SoftReset")
	c.must(own, path, deleteI+".Delete")
	for property, want := range map[string]string{"Phase": "Ended", "Outcome": "Cancelled"} {
		if got := c.get(own, path, pushI, property); last(got) != want {
			t.Errorf("%s is %v after Delete", property, got)
		}
	}
	if got := c.get(own, path, statusI, "Status"); last(got) != "Aborted" {
		t.Errorf("status %v", got)
	}
	c.must(own, path, deleteI+".Delete") // and now it goes
	c.fails("org.freedesktop.DBus.Error.UnknownObject", own, path, properties+".GetAll", "")
	path = c.push(file(t, stream), nil)
	c.until(own, path, pushI, "Outcome", outcome("Ready"))
}

func TestPushBootOptions(t *testing.T) {
	// Not parallel: it counts the files of the process.
	r := bf3(t, rigOptions{}, bluefield.Config{})
	c := r.c
	f := file(t, image(t, reg.BlueField3, 1<<20))
	r.connected()
	before := openFiles(t)
	for _, o := range []options{
		{"Colour": "red"}, {"SHA256": "abc"}, {"SHA256": strings.Repeat("x", 64)}, {"SHA256": []byte{1}}, {"SHA256": uint32(1)},
		{"Check": "yes"}, {"Force": uint32(1)}, {"Size": "1"}, {"Size": uint64(1) << 63}, {"Name": strings.Repeat("n", 256)}, {"Name": true},
		{"Wait": "Forever"}, {"Wait": uint32(1)}, {"TimeoutMs": uint64(1)}, {"Config": "/etc/passwd"}, {"Rootfs": uint32(0)},
	} {
		c.fails(commonErr+"InvalidArgument", own, rshim0, deviceI+".PushBoot", fd(f), o.args())
	}
	wrong := sha256.Sum256(nil)
	c.fails("xyz.openbmc_project.Software.Update.Error.InvalidImage", own, rshim0, deviceI+".PushBoot", fd(f), options{"SHA256": wrong[:]}.args())
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.call(own, rshim0, deviceI+".PushBoot", fd(dir), options{}.args()); err == nil {
		t.Error("a directory was pushed")
	}
	dir.Close()
	c.eventually("files are closed", func() bool { return openFiles(t) <= before })
}

// TestPushesKept proves that the last 8 pushes stay, and the others go.
func TestPushesKept(t *testing.T) {
	t.Parallel()
	r := bf3(t, rigOptions{}, bluefield.Config{NoFirmware: true})
	c := r.c
	for n := 1; n <= 10; n++ {
		f := file(t, []byte("no BFB, and short"))
		path := c.push(f, options{"Check": false, "Wait": "Streamed"})
		if want := fmt.Sprintf("/xyz/openbmc_project/rshim/push/%d", n); path != want {
			t.Errorf("path %s, want %s", path, want)
		}
		c.until(own, path, pushI, "Phase", pushI+".Phases.Ended")
		c.until(own, rshim0, deviceI, "Attached", true)
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
	}
	pushes := 0
	for path := range c.objects(own) {
		if strings.HasPrefix(path, "/xyz/openbmc_project/rshim/push/") {
			pushes++
		}
	}
	if pushes != 8 {
		t.Errorf("%d pushes are kept", pushes)
	}
	c.fails("org.freedesktop.DBus.Error.UnknownObject", own, "/xyz/openbmc_project/rshim/push/2", properties+".GetAll", "")
}

// TestProgressAgain has a push that stands still: Progress is said again all the
// same, or bmcweb would give it up.
func TestProgressAgain(t *testing.T) {
	t.Parallel()
	r := bf3(t, rigOptions{again: 100 * time.Millisecond}, bluefield.Config{})
	f, finish := trickle(t, image(t, reg.BlueField3, 4<<20))
	path := r.c.push(f, nil)
	r.c.task(path)
	r.c.eventually("the same Progress three times", func() bool {
		times := make(map[byte]int)
		for _, ch := range r.c.changes(path) {
			if ch.property == "Progress" {
				if times[ch.value.(byte)]++; times[ch.value.(byte)] == 3 {
					return true
				}
			}
		}
		return false
	})
	finish()
	r.c.ended(path, "Active")
}
