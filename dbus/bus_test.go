// SPDX-License-Identifier: Apache-2.0

package dbus_test

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/bluefield-go/bmc-rshim/dbus/bustest"
	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
)

// trickle is a pipe that gives a stream, and its last part when it is told to.
func trickle(t testing.TB, stream []byte) (f *os.File, finish func()) {
	rd, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	on, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		defer w.Close()
		half := len(stream) / 2
		if _, err := w.Write(stream[:half]); err != nil {
			return
		}
		<-on
		_, _ = w.Write(stream[half:])
	}()
	t.Cleanup(func() { rd.Close() })
	return rd, func() { close(on); <-over }
}

// outcomeOf waits for the outcome of a device's last push, as the core has it.
func (r *rig) outcomeOf(want rshim.Outcome) {
	r.t.Helper()
	d := r.set.Devices()[0]
	r.c.eventually("outcome "+want.String(), func() bool { return d.Push().Outcome == want })
}

// TestRestart has a bus that dies in the middle of a push: the push goes on, and
// everything is there again when the bus is.
func TestRestart(t *testing.T) {
	t.Parallel()
	r := bf3(t, rigOptions{}, bluefield.Config{})
	stream := image(t, reg.BlueField3, 4<<20)
	f, finish := trickle(t, stream)
	path := r.c.push(f, options{"Name": "across"})
	r.c.until(own, path, pushI, "Phase", pushI+".Phases.Streaming")
	r.bus.Kill()
	finish()
	r.outcomeOf(rshim.OutcomeReady)
	r.bus.Restart()

	c := r.client()
	c.until(own, path, pushI, "Outcome", outcome("Ready"))
	c.until(own, path, activation, "Activation", activation+".Activations.Active")
	if got := c.get(own, path, pushI, "Name"); got != "across" {
		t.Errorf("name %v", got)
	}
	for name, at := range map[string]string{
		updater: dpuOS, "com.Nvidia.Software.Rshim": "/com/nvidia/software/rshim", "xyz.openbmc_project.Console.rshim0": "/xyz/openbmc_project/console/rshim0",
	} {
		c.ready(name, at)
	}
	again := c.push(file(t, stream), nil)
	c.until(own, again, pushI, "Outcome", outcome("Ready"))
}

// TestStuckBus has a bus that reads nothing: nothing waits for it.
func TestStuckBus(t *testing.T) {
	t.Parallel()
	r := bf3(t, rigOptions{}, bluefield.Config{})
	f, finish := trickle(t, image(t, reg.BlueField3, 4<<20))
	path := r.c.push(f, nil)
	r.c.until(own, path, pushI, "Phase", pushI+".Phases.Streaming")
	r.bus.Stop()
	finish()
	r.outcomeOf(rshim.OutcomeReady)
	r.bus.Continue()
	r.c.until(own, path, pushI, "Outcome", outcome("Ready"))
	r.c.until(own, path, activation, "Activation", activation+".Activations.Active")
}

// TestDeafClient has a client that asks for everything and reads nothing.
func TestDeafClient(t *testing.T) {
	t.Parallel()
	r := bf3(t, rigOptions{}, bluefield.Config{})
	_, socket, _ := strings.Cut(r.bus.Address(), "unix:path=")
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(limit))
	write := func(text string) {
		if _, err := conn.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	write("\x00AUTH EXTERNAL " + hex.EncodeToString([]byte(strconv.Itoa(os.Getuid()))) + "\r\n")
	in := bufio.NewReader(conn)
	if line, err := in.ReadString('\n'); err != nil || !strings.HasPrefix(line, "OK ") {
		t.Fatalf("%q, %v", line, err)
	}
	write("BEGIN\r\n")
	serial := uint32(0)
	call := func(dest, path, iface, member string, args ...any) error {
		serial++
		m := &godbus.Message{Type: godbus.TypeMethodCall, Headers: map[godbus.HeaderField]godbus.Variant{
			godbus.FieldDestination: godbus.MakeVariant(dest), godbus.FieldPath: godbus.MakeVariant(godbus.ObjectPath(path)),
			godbus.FieldInterface: godbus.MakeVariant(iface), godbus.FieldMember: godbus.MakeVariant(member),
		}, Body: args}
		if len(args) > 0 {
			m.Headers[godbus.FieldSignature] = godbus.MakeVariant(godbus.SignatureOf(args...))
		}
		// godbus numbers what it sends itself.
		return m.EncodeTo(numbered{conn, serial}, binary.LittleEndian)
	}
	const daemon = "org.freedesktop.DBus"
	if err := call(daemon, "/org/freedesktop/DBus", daemon, "Hello"); err != nil {
		t.Fatal(err)
	}
	if p, err := in.Peek(2); err != nil || string(p) != "l\x02" {
		t.Fatalf("no answer to Hello: %q, %v", p, err)
	}
	if err := call(daemon, "/org/freedesktop/DBus", daemon, "AddMatch", "type='signal'"); err != nil {
		t.Fatal(err)
	}
	for range 500 {
		if call(own, rshim0, properties, "GetAll", deviceI) != nil {
			break // the bus has had enough of it
		}
	}
	path := r.c.push(file(t, image(t, reg.BlueField3, 4<<20)), nil)
	r.c.until(own, path, pushI, "Outcome", outcome("Ready"))
	r.outcomeOf(rshim.OutcomeReady)
}

// numbered puts a serial into the header of a message that is written at once.
type numbered struct {
	net.Conn
	serial uint32
}

func (n numbered) Write(p []byte) (int, error) {
	if len(p) >= 12 {
		binary.LittleEndian.PutUint32(p[8:], n.serial)
	}
	return n.Conn.Write(p)
}

// TestYield has names that others own, or could own.
func TestYield(t *testing.T) {
	t.Parallel()
	const host = "xyz.openbmc_project.State.Host"
	var other *godbus.Conn
	r := newRig(t, rigOptions{
		bus: bustest.Options{Activatable: []string{"xyz.openbmc_project.Settings.connectx", "xyz.openbmc_project.Software.DPU.Version"}},
		before: func(b *bustest.Bus) {
			var err error
			if other, err = godbus.Connect(b.Address()); err != nil {
				t.Fatal(err)
			}
			if _, err := other.RequestName(host, godbus.NameFlagDoNotQueue); err != nil {
				t.Fatal(err)
			}
		},
	})
	defer other.Close()
	c := r.c
	c.ready("com.Nvidia.Software.Rshim", "/com/nvidia/software/rshim")
	owner := func(name string) string {
		body, err := c.call("org.freedesktop.DBus", "/", "org.freedesktop.DBus.GetNameOwner", name)
		if err != nil {
			return ""
		}
		return body[0].(string)
	}
	if got := owner(host); got != other.Names()[0] {
		t.Errorf("%s was taken from %s by %s", host, other.Names()[0], got)
	}
	if got := owner("xyz.openbmc_project.Software.DPU.Version"); got != "" {
		t.Errorf("a name of which there is a service was taken by %s", got)
	}
	if _, err := other.ReleaseName(host); err != nil {
		t.Fatal(err)
	}
	c.ready(host, "/xyz/openbmc_project/state/host0")
}

// TestEnd ends the daemon in the middle of a push that gets no input: it ends at
// once.
func TestEnd(t *testing.T) {
	t.Parallel()
	r := bf3(t, rigOptions{}, bluefield.Config{})
	f, finish := trickle(t, image(t, reg.BlueField3, 4<<20))
	path := r.c.push(f, nil)
	r.c.until(own, path, pushI, "Phase", pushI+".Phases.Streaming")
	began := time.Now()
	r.end()
	if took := time.Since(began); took > limit/2 {
		t.Errorf("it took %v", took)
	}
	f.Close()
	finish()
}
