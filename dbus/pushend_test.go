// SPDX-License-Identifier: Apache-2.0

package dbus_test

import (
	"context"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
)

// hangs is a DPU that installs for ever.
var hangs = bluefield.Config{FailAfter: "exit Boot Service", FailLine: "INFO[MISC]: Ubuntu installation started"}

// TestGivenUp has an RShim that is released while the DPU installs: whoever has
// begun the push, and however, is not told that all went well.
func TestGivenUp(t *testing.T) {
	t.Parallel()
	stream := image(t, reg.BlueField3, 1<<20)
	for name, begin := range map[string]func(r *rig){
		"StartUpdate": func(r *rig) {
			r.c.must(updater, dpuOS, updateI+".StartUpdate", fd(file(r.t, stream)), immediate)
		},
		"PushBoot": func(r *rig) { r.c.push(file(r.t, stream), nil) },
		"file": func(r *rig) {
			ctx := context.Background()
			b, err := r.set.Devices()[0].OpenBoot(ctx)
			if err == nil {
				_, err = b.Write(ctx, stream)
			}
			if err == nil {
				err = b.Close(ctx)
			}
			if err != nil {
				r.t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := bf3(t, rigOptions{}, hangs)
			c := r.c
			c.ready(updater, dpuOS)
			const path = "/xyz/openbmc_project/rshim/push/1"
			c.task(path)
			c.task(dpuUpdate)
			begin(r)
			c.until(own, path, pushI, "Phase", pushI+".Phases.Booting")
			c.must(own, rshim0, deviceI+".Release")
			c.ended(path, "Failed")
			c.ended(dpuUpdate, "Failed")
			for _, at := range []struct{ name, path string }{{own, path}, {updater, dpuUpdate}} {
				if got := c.get(at.name, at.path, statusI, "Status"); last(got) != "Failed" {
					t.Errorf("%s: status %v", at.path, got)
				}
				if got := c.get(at.name, at.path, progressI, "Progress").(byte); got > 99 {
					t.Errorf("%s: progress %d", at.path, got)
				}
			}
			if got := c.get(own, path, pushI, "Outcome"); last(got) != "Streamed" {
				t.Errorf("outcome %v", got)
			}
			if got := c.get(own, path, pushI, "ErrorName"); got != commonErr+"Unavailable" || c.get(own, path, pushI, "Error") == "" {
				t.Errorf("error %v", got)
			}
		})
	}
}

// TestStreamed has a push that is over when the DPU has the stream: nothing waits
// for its boot.
func TestStreamed(t *testing.T) {
	t.Parallel()
	const nvidia, nvidiaPath, nvidiaI = "com.Nvidia.Software.Rshim", "/com/nvidia/software/rshim", "com.nvidia.BF.Rshim"
	const service, serviceI = "/xyz/openbmc_project/control/service/rshim", "xyz.openbmc_project.Control.Service.Attributes"
	r := bf3(t, rigOptions{}, hangs)
	c := r.c
	c.ready(updater, dpuOS)
	c.ready(nvidia, nvidiaPath)
	stream := image(t, reg.BlueField3, 1<<20)
	streamed := func() {
		t.Helper()
		path := c.push(file(t, stream), options{"Wait": "Streamed"})
		c.until(own, path, activation, "Activation", activation+".Activations.Active")
		if got := c.get(own, path, pushI, "Outcome"); last(got) != "Streamed" || c.get(own, path, pushI, "Error") != "" {
			t.Errorf("outcome %v, error %v", got, c.get(own, path, pushI, "Error"))
		}
	}
	streamed()
	c.must(updater, dpuOS, updateI+".StartUpdate", fd(file(t, stream)), immediate)
	c.setFails(commonErr+"Unavailable", nvidia, nvidiaPath, nvidiaI, "State", nvidiaI+".State.Disabled") // it installs, and is followed
	c.must(updater, dpuUpdate, deleteI+".Delete")
	for _, off := range []struct {
		name, path, iface, property string
		value, back                 any
	}{
		{nvidia, nvidiaPath, nvidiaI, "State", nvidiaI + ".State.Disabled", nvidiaI + ".State.Enabled"},
		{own, service, serviceI, "Running", false, true},
		{own, service, serviceI, "Masked", true, false},
	} {
		streamed()
		if err := c.set(off.name, off.path, off.iface, off.property, off.value); err != nil {
			t.Errorf("%s: %v", off.property, err)
		}
		if err := c.set(off.name, off.path, off.iface, off.property, off.back); err != nil {
			t.Errorf("%s: %v", off.property, err)
		}
		if err := c.set(own, service, serviceI, "Running", true); err != nil {
			t.Error(err)
		}
		c.until(own, rshim0, deviceI, "Attached", true)
	}
}

// TestPushAgain has a DPU that reports an error while its stream waits for its
// input, which nobody ends: when the end is told, the device can be pushed to.
func TestPushAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	dpu := r.plug("1-1", bluefield.Config{NoFirmware: true}, usbdev.Options{}).DPU()
	r.c.until(own, rshim0, deviceI, "Attached", true)
	stream := image(t, reg.BlueField3, 4<<20)
	f, finish := trickle(t, stream)
	defer finish()
	defer f.Close()
	path := r.c.push(f, nil)
	d := r.set.Devices()[0]
	r.c.eventually("all of the input is taken", func() bool { return d.Push().Bytes >= 1<<20 })
	dpu.Log(t.Context(), "ERR[BL2]: CRITICAL ERROR on MSS0")
	r.c.until(own, path, pushI, "Phase", pushI+".Phases.Ended")
	again := r.c.push(file(t, stream), options{"Wait": "Streamed"})
	if got := r.c.get(own, path, pushI, "Outcome"); last(got) != "DpuError" {
		t.Errorf("outcome %v", got)
	}
	r.c.until(own, again, pushI, "Outcome", outcome("Streamed"))
}

// TestPushNotOpened has pushes that fail while their streams are opened: that is
// the error of the call, and nothing else is left of them.
func TestPushNotOpened(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	dpu := r.plug("1-1", bluefield.Config{}, usbdev.Options{}).DPU()
	c := r.c
	c.until(own, rshim0, deviceI, "Attached", true)
	c.ready(updater, dpuOS)
	stream := image(t, reg.BlueField3, 1<<20)
	first := c.push(file(t, stream), nil)
	c.until(own, first, pushI, "Outcome", outcome("Ready"))
	c.match("type='signal',interface='org.freedesktop.DBus.ObjectManager'")
	for range 2 {
		dpu.BadReads(dpu.Map().ResetControl, bluefield.BadRegister, 0, 1)
		c.fails(commonErr+"Unavailable", own, rshim0, deviceI+".PushBoot", fd(file(t, stream)), options{}.args())
		dpu.BadReads(dpu.Map().ResetControl, bluefield.BadRegister, 0, 1)
		c.fails(commonErr+"Unavailable", updater, dpuOS, updateI+".StartUpdate", fd(file(t, stream)), immediate)
	}
	if n := r.set.Devices()[0].Push().ID; n != 5 {
		t.Errorf("%d pushes, want 5: nothing was tried", n)
	}
	second := c.push(file(t, stream), nil)
	if second != "/xyz/openbmc_project/rshim/push/2" || c.get(own, rshim0, deviceI, "Push") != godbus.ObjectPath(second) {
		t.Errorf("the next push is %s, the device's %v", second, c.get(own, rshim0, deviceI, "Push"))
	}
	c.until(own, second, pushI, "Outcome", outcome("Ready"))
	var of []any
	signals, _ := c.seen()
	for _, s := range signals {
		if s.Name == "org.freedesktop.DBus.ObjectManager.InterfacesAdded" {
			of = append(of, s.Body[0])
		}
	}
	for _, path := range of {
		if path != godbus.ObjectPath(second) && path != godbus.ObjectPath(dpuUpdate) {
			t.Errorf("%v has come", path)
		}
	}
}

// TestSoftReset is answered when it is known what has come of it.
func TestSoftReset(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{device: rshim.Options{ReturnTimeout: 10 * time.Second}})
	dpu := r.plug("1-1", bluefield.Config{}, usbdev.Options{}).DPU()
	c := r.c
	c.until(own, rshim0, deviceI, "Attached", true)
	c.must(own, rshim0, deviceI+".SoftReset")
	if got := c.get(own, rshim0, deviceI, "State"); last(got) != "Attached" {
		t.Errorf("it is %v after the reset", got)
	}
	if n := c.get(own, rshim0, deviceI, "Counters").(map[string]uint64)["Resets"]; n != 1 {
		t.Errorf("%d resets", n)
	}
	dpu.SetReset(bluefield.ResetBehaviour{Never: true})
	c.fails(commonErr+"Unavailable", own, rshim0, deviceI+".SoftReset")
}

// TestReplyFirst has a push that is over before the call is answered: its caller
// does not hear of the end before it has the path, on one connection, where order
// is all there is.
func TestReplyFirst(t *testing.T) {
	t.Parallel()
	r := bf3(t, rigOptions{}, bluefield.Config{NoFirmware: true})
	if err := r.c.set(own, rshim0, deviceI, "BootResetSkip", true); err != nil {
		t.Fatal(err)
	}
	c := r.client()
	c.match("type='signal',interface='org.freedesktop.DBus.Properties',member='PropertiesChanged'")
	all := make(chan *godbus.Message, 4096)
	c.conn.Eavesdrop(all)
	defer c.conn.Eavesdrop(nil)
	release := r.service.HoldStatus(0) // which is published before the reply
	defer release()
	m := &godbus.Message{Type: godbus.TypeMethodCall, Headers: map[godbus.HeaderField]godbus.Variant{
		godbus.FieldDestination: godbus.MakeVariant(own), godbus.FieldPath: godbus.MakeVariant(godbus.ObjectPath(rshim0)),
		godbus.FieldInterface: godbus.MakeVariant(deviceI), godbus.FieldMember: godbus.MakeVariant("PushBoot"),
	}, Body: []any{fd(file(t, []byte("no BFB, and short"))), options{"Check": false, "Wait": "Streamed"}.args()}}
	m.Headers[godbus.FieldSignature] = godbus.MakeVariant(godbus.SignatureOf(m.Body...))
	c.conn.Send(m, make(chan *godbus.Call, 1)) // nil would ask for no reply
	r.outcomeOf(rshim.OutcomeStreamed)
	time.Sleep(500 * time.Millisecond) // to be wrong in
	release()
	for path := ""; ; {
		var got *godbus.Message
		select {
		case got = <-all:
		case <-time.After(limit):
			t.Fatal("neither a reply nor an end")
		}
		switch {
		case got.Type == godbus.TypeError:
			t.Fatal(got.Body...)
		case got.Type == godbus.TypeMethodReply:
			path = string(got.Body[0].(godbus.ObjectPath))
		case got.Type == godbus.TypeSignal && got.Headers[godbus.FieldMember].Value() == "PropertiesChanged":
			at := got.Headers[godbus.FieldPath].Value()
			v, of := got.Body[1].(map[string]godbus.Variant)["Activation"]
			if at != godbus.ObjectPath("/xyz/openbmc_project/rshim/push/1") || !of || last(v.Value()) == "Activating" {
				continue
			}
			if path == "" {
				t.Errorf("%v is %v before the reply", at, v)
			}
			return
		}
	}
}
