// SPDX-License-Identifier: Apache-2.0

package guest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	godbus "github.com/godbus/dbus/v5"

	"github.com/bluefield-go/bmc-rshim/dbus/bustest"
)

// Names on D-Bus, as others know them.
const (
	busOwn        = "xyz.openbmc_project.Rshim"
	busDevice     = busOwn + ".Device"
	busPush       = busOwn + ".Push"
	busUpdater    = "xyz.openbmc_project.Software.DPU.Updater"
	busConsole    = "xyz.openbmc_project.Console.rshim0"
	busNvidia     = "com.Nvidia.Software.Rshim"
	busActivation = "xyz.openbmc_project.Software.Activation"
	busProgress   = "xyz.openbmc_project.Software.ActivationProgress"
	busProperties = "org.freedesktop.DBus.Properties"
	busCommonErr  = "xyz.openbmc_project.Common.Error."

	busManagerAt = godbus.ObjectPath("/xyz/openbmc_project/rshim")
	busRshim0At  = godbus.ObjectPath("/xyz/openbmc_project/rshim/rshim0")
	busDPUOSAt   = godbus.ObjectPath("/xyz/openbmc_project/software/DPU_OS")
	busUpdateAt  = godbus.ObjectPath("/xyz/openbmc_project/software/BF_DPU_BFB_UPDATE")
	busConsoleAt = godbus.ObjectPath("/xyz/openbmc_project/console/rshim0")
	busNvidiaAt  = godbus.ObjectPath("/com/nvidia/software/rshim")
)

// busRig is a machine with a message bus, and a client on it that shares no
// code with the daemon.
type busRig struct {
	*rig
	bus  *bustest.Bus
	conn *godbus.Conn

	mu      sync.Mutex
	signals []*godbus.Signal
}

// busDaemon starts the daemon on a bus that has the rules of a BMC's and the
// policy that is shipped. Commands find it by themselves.
func (r *rig) busDaemon(args ...string) *busRig {
	r.t.Helper()
	policy, err := os.ReadFile("../../packaging/dbus/bmc-rshim.conf")
	if err != nil {
		r.t.Fatal(err)
	}
	b := &busRig{rig: r, bus: bustest.New(r.t, bustest.Options{Policy: []string{string(policy)}})}
	r.t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", b.bus.Address())
	r.daemon = start(r.t, "bmc-rshim", append([]string{"daemon", "-log-level", "info", "-bus", b.bus.Address()}, args...)...)
	inOrder := godbus.WithSignalHandler(godbus.NewSequentialSignalHandler())
	if b.conn, err = godbus.Connect(b.bus.Address(), inOrder); err != nil {
		r.t.Fatal(err)
	}
	ch, done := make(chan *godbus.Signal), make(chan struct{})
	b.conn.Signal(ch)
	go func() {
		defer close(done)
		for s := range ch {
			b.mu.Lock()
			b.signals = append(b.signals, s)
			b.mu.Unlock()
		}
	}()
	r.t.Cleanup(func() {
		b.conn.Close()
		<-done
	})
	if err := b.conn.AddMatchSignal(godbus.WithMatchInterface(busProperties)); err != nil {
		r.t.Fatal(err)
	}
	b.named(busOwn)
	return b
}

// named waits for the daemon to have names. It is in no hurry to take those
// that are not its own.
func (b *busRig) named(names ...string) {
	b.t.Helper()
	for _, name := range names {
		b.until(name, func() bool {
			var has bool
			return b.conn.BusObject().Call("org.freedesktop.DBus.NameHasOwner", 0, name).Store(&has) == nil && has
		})
	}
}

func (b *busRig) call(name string, at godbus.ObjectPath, method string, args ...any) ([]any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c := b.conn.Object(name, at).CallWithContext(ctx, method, 0, args...)
	return c.Body, c.Err
}

func (b *busRig) must(name string, at godbus.ObjectPath, method string, args ...any) []any {
	b.t.Helper()
	body, err := b.call(name, at, method, args...)
	if err != nil {
		b.t.Fatalf("%s %s: %v", at, method, err)
	}
	return body
}

// fails calls a method that has to fail with a certain error.
func (b *busRig) fails(want, name string, at godbus.ObjectPath, method string, args ...any) {
	b.t.Helper()
	_, err := b.call(name, at, method, args...)
	if e, ok := err.(godbus.Error); !ok || e.Name != want {
		b.t.Errorf("%s %s: %v, want %s", at, method, err, want)
	}
}

// get returns a property, nil if it cannot be had.
func (b *busRig) get(name string, at godbus.ObjectPath, iface, property string) any {
	body, err := b.call(name, at, busProperties+".Get", iface, property)
	if err != nil {
		return nil
	}
	return body[0].(godbus.Variant).Value()
}

// becomes waits for a property's value to end with a word.
func (b *busRig) becomes(name string, at godbus.ObjectPath, iface, property, want string) {
	b.t.Helper()
	var got any
	so := false
	defer func() {
		if !so {
			b.t.Logf("%s of %s is %v", property, at, got)
		}
	}()
	b.until(property+" "+want, func() bool {
		got = b.get(name, at, iface, property)
		so = lastWord(got) == want
		return so
	})
}

// lastWord is that of an enumeration's value.
func lastWord(v any) string {
	s, _ := v.(string)
	return s[strings.LastIndexByte(s, '.')+1:]
}

// said are the values that a property was said to have, in order.
func (b *busRig) said(at godbus.ObjectPath, property string) (all []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.signals {
		if s.Path != at || s.Name != busProperties+".PropertiesChanged" {
			continue
		}
		if v, ok := s.Body[1].(map[string]godbus.Variant)[property]; ok {
			all = append(all, lastWord(fmt.Sprint(v.Value())))
		}
	}
	return all
}

// forget forgets the signals so far.
func (b *busRig) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.signals = nil
}

// agree checks that D-Bus, misc and the command line tell the same of the
// device.
func (b *busRig) agree() {
	b.t.Helper()
	var diff string
	defer func() {
		if diff != "" {
			b.t.Logf("the last difference: %s", diff)
		}
	}()
	// A change reaches one before the other.
	b.until("all to tell the same", func() bool {
		diff = b.differ()
		return diff == ""
	})
}

// differ returns a difference, "" if there is none.
func (b *busRig) differ() string {
	b.t.Helper()
	first := miscValues(misc())
	bus := miscValues(b.must(busOwn, busRshim0At, busDevice+".ReadMisc")[0].(string))
	props := b.must(busOwn, busRshim0At, busProperties+".GetAll", busDevice)[0].(map[string]godbus.Variant)
	out, code := sh(b.t, "bmc-rshim status -json")
	var all []map[string]any
	if err := json.Unmarshal([]byte(out), &all); code != 0 || err != nil || len(all) != 1 {
		b.t.Fatalf("status: exit code %d, %v\n%s", code, err, out)
	}
	status, last := all[0], miscValues(misc())
	for key, v := range first {
		if key != "UP_TIME" && (v != bus[key] || v != last[key]) || len(first) != len(bus) {
			return fmt.Sprintf("%s: %q in the file, %q on D-Bus", key, v, bus[key])
		}
	}
	prop := func(name string) string { return fmt.Sprint(props[name].Value()) }
	state := strings.ToLower(lastWord(prop("State")))
	same := map[string][2]any{
		"state":      {state, status["state"]},
		"DROP_MODE":  {map[bool]string{true: "0", false: "1"}[state == "attached"], first["DROP_MODE"]},
		"reason":     {prop("Reason"), fmt.Sprint(status["reason"])},
		"owner":      {strings.ToLower(lastWord(prop("Owner"))), status["owner"]},
		"name":       {prop("Name"), status["name"]},
		"DEV_NAME":   {prop("Name"), first["DEV_NAME"]},
		"generation": {prop("Generation"), status["generation"]},
	}
	if state == "attached" {
		same["DEV_INFO"] = [2]any{fmt.Sprintf("%s(Rev", prop("Generation")), first["DEV_INFO"]}
		same["OPN_STR"] = [2]any{prop("OPN"), first["OPN_STR"]}
		same["opn"] = [2]any{prop("OPN"), status["opn"]}
		mode := map[string]string{"0": "RShim", "1": "EMMC", "2": "EMMCSwap"}[first["BOOT_MODE"]]
		same["BOOT_MODE"] = [2]any{mode, lastWord(prop("BootMode"))}
		same["stage"] = [2]any{prop("BootStage"), fmt.Sprint(status["stage"])}
		up, _ := props["Uptime"].Value().(uint64)
		if from, to := seconds(first), seconds(last); up < from || up > to {
			return fmt.Sprintf("uptime: %d s on D-Bus, from %d to %d s in misc", up, from, to)
		}
	}
	for key, v := range same {
		if v[0] != v[1] {
			return fmt.Sprintf("%s: %q on D-Bus, %q elsewhere", key, v[0], v[1])
		}
	}
	return ""
}

// seconds is the uptime in misc.
func seconds(misc map[string]string) uint64 {
	n, _ := strconv.ParseUint(strings.TrimSuffix(misc["UP_TIME"], "(s)"), 10, 64)
	return n
}

// miscValues are the first words of the values in misc.
func miscValues(text string) map[string]string {
	m := make(map[string]string)
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 1 {
			m[f[0]] = f[1]
		}
	}
	return m
}
