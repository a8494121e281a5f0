// SPDX-License-Identifier: Apache-2.0

package dbus

import (
	"context"
	"sync"
	"time"

	"github.com/bluefield-go/bmc-rshim/dbus/bus"
	"github.com/bluefield-go/bmc-rshim/dbus/wire"
	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

// device is what is published of one DPU while it is there.
type device struct {
	s     *Service
	d     *rshim.Device
	tasks *tasks
	path  wire.ObjectPath
	o     *bus.Object
	poke  chan struct{} // filled when the status is to be looked at

	order sync.Mutex // keeps what is published of the status in order
	hw    hardware
}

// Present publishes d until ctx ends. It is for rshim.SetOptions.Present.
func (s *Service) Present(ctx context.Context, d *rshim.Device) {
	v := &device{
		s: s, d: d, tasks: newTasks(ctx), path: wire.ObjectPath(DevicePath(d.Index())),
		poke: make(chan struct{}, 1),
	}
	v.hw = hardware{v: v, wake: make(chan struct{}, 1), turn: make(chan struct{}, 1)}
	s.mu.Lock()
	s.known[d.Index()] = v
	s.mu.Unlock()

	// Who calls it at once waits until v.o is known.
	v.order.Lock()
	v.hw.turn <- struct{}{}
	v.o = s.add(s.rshim, v.path, v.iface())
	<-v.hw.turn
	v.order.Unlock()
	v.publish()
	software := s.add(s.dpus, wire.ObjectPath(SoftwarePath(d.Index())), v.softwareIfaces()...)

	c := &console{c: d.Console(), tasks: v.tasks}
	names := s.connection(ConsoleName(d.Index()), true)
	s.add(names, wire.ObjectPath(ConsolePath(d.Index())), c.iface())
	v.tasks.run(func(ctx context.Context) { _ = names.Run(ctx) })
	v.tasks.run(v.follow)
	v.tasks.run(v.hw.run)
	v.tasks.run(v.followLog)

	<-ctx.Done()
	v.tasks.stop()
	v.o.Remove()
	software.Remove()
	s.mu.Lock()
	delete(s.known, d.Index())
	s.mu.Unlock()
	s.all.update()
}

// look has the status looked at.
func (v *device) look() {
	select {
	case v.poke <- struct{}{}:
	default:
	}
}

// statusPause is between two looks at a status that changes all the time.
const statusPause = 100 * time.Millisecond

// follow publishes the status as it changes.
func (v *device) follow(ctx context.Context) {
	for ctx.Err() == nil {
		changed := v.d.Changed()
		st := v.publish()
		v.s.all.update()
		v.hw.look(st)
		wait(ctx, statusPause)
		select {
		case <-changed:
		case <-v.poke:
		case <-ctx.Done():
		}
	}
}

// publish publishes the status as it is now, and returns it. One status is read
// and published before the next is read: an older one never comes after it.
func (v *device) publish() rshim.Status {
	v.order.Lock()
	defer v.order.Unlock()
	st := v.d.Status()
	v.s.pushes.observe(v, st.Push.ID)
	_ = v.o.Update(v.changes(st)...)
	return st
}

// changes is the status as properties.
func (v *device) changes(st rshim.Status) []bus.Change {
	change := func(property string, value any) bus.Change {
		return bus.Change{Interface: ifaceDevice, Property: property, Value: value}
	}
	backend, generation := "", ""
	if st.Name != "" {
		backend = "usb"
	}
	if st.Generation != 0 {
		generation = st.Generation.String()
	}
	stage := ""
	if st.Stage != 0 {
		stage = st.Stage.String()
	}
	return []bus.Change{
		change("Backend", backend),
		change("Name", st.Name),
		change("Generation", generation),
		change("Revision", uint32(max(0, st.Revision))),
		change("OPN", st.OPN),
		change("State", enum(ifaceDevice, "States", title(st.State.String()))),
		change("Reason", st.Reason),
		change("Owner", enum(ifaceDevice, "Owners", owners[st.Owner.String()])),
		change("Attached", isOurs(st.State)),
		change("AttachedSince", micros(st.Attached)),
		change("DropMode", st.Drop),
		change("BootResetSkip", st.BootResetSkip),
		change("BootStage", stage),
		change("Push", v.s.pushes.last(st.Index)),
	}
}

// owners are the words of Owners.
var owners = map[string]string{"BMC": "Bmc", "other": "Other", "none": "None", "unknown": "Unknown"}

// isOurs reports whether the RShim is ours in a state.
func isOurs(s rshim.State) bool { return s == rshim.Attached || s == rshim.Rebooting }

// micros is a time as it stands on the bus.
func micros(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(t.UnixMicro())
}

// bootModes are the words of BootModes, by the register's value.
var bootModes = [...]string{"RShim", "EMMC", "EMMCSwap", "EMMCLegacy"}

func bootMode(m reg.BootMode) string {
	return enum(ifaceDevice, "BootModes", bootModes[m&reg.BootMode(reg.BootModeMask)])
}

// bfModes are the words of BFModes, by the register's value.
var bfModes = [...]string{"Unknown", "Dpu", "Nic", "Reserved"}

func (v *device) iface() bus.Interface {
	prop := func(name string, sig wire.Signature, value any) bus.Property {
		return bus.Property{Name: name, Sig: sig, Value: value}
	}
	p := []bus.Property{{Name: "Index", Sig: "u", Value: uint32(v.d.Index()), Emits: bus.EmitsNothing}}
	for _, name := range []string{"Backend", "Name", "Generation", "OPN", "Reason", "BootStage"} {
		p = append(p, prop(name, "s", ""))
	}
	p = append(p,
		prop("Revision", "u", uint32(0)),
		prop("Attached", "b", false),
		prop("AttachedSince", "t", uint64(0)),
		prop("State", "s", enum(ifaceDevice, "States", "Gone")),
		prop("Owner", "s", enum(ifaceDevice, "Owners", "Unknown")),
		prop("BFMode", "s", enum(ifaceDevice, "BFModes", bfModes[0])),
		prop("Push", "o", v.s.pushes.last(v.d.Index())),
		bus.Property{Name: "Uptime", Sig: "t", Get: v.hw.uptime},
		bus.Property{Name: "Counters", Sig: "a{st}", Get: v.counters},
		bus.Property{Name: "DropMode", Sig: "b", Value: false, Set: func(ctx context.Context, _ *bus.Call, value any) error {
			return v.setDrop(ctx, value.(bool))
		}},
		bus.Property{Name: "BootMode", Sig: "s", Value: enum(ifaceDevice, "BootModes", "Unknown"),
			Set: func(ctx context.Context, _ *bus.Call, value any) error { return v.setBootMode(ctx, value.(string)) }},
		bus.Property{Name: "BootResetSkip", Sig: "b", Value: false, Set: func(ctx context.Context, _ *bus.Call, value any) error {
			return v.setResetSkip(ctx, value.(bool))
		}},
	)
	return describe(bus.Interface{Name: ifaceDevice, Properties: p, Methods: v.methods()})
}

// update publishes the status now, for who has just changed it.
func (v *device) update() {
	v.publish()
	v.s.all.update()
}

func (v *device) setDrop(ctx context.Context, drop bool) error {
	defer v.update()
	return v.d.SetDrop(ctx, drop)
}

func (v *device) setBootMode(ctx context.Context, mode string) error {
	word, err := enumValue(mode, ifaceDevice, "BootModes", bootModes[:]...)
	if err != nil {
		return err
	}
	for m, w := range bootModes {
		if w == word {
			err = v.d.SetBootMode(ctx, reg.BootMode(m))
		}
	}
	v.hw.refresh(ctx)
	return err
}

func (v *device) setResetSkip(ctx context.Context, skip bool) error {
	defer v.update()
	value := "0"
	if skip {
		value = "1"
	}
	return v.d.WriteMisc(ctx, "BOOT_RESET_SKIP "+value)
}

// counters counts what has happened to the device.
func (v *device) counters() any {
	c, console, tm := v.d.Status().Counters, v.d.Console().Stats(), v.d.TMFIFO()
	d := wire.Dict{Key: "s", Elem: "t"}
	for _, e := range []struct {
		name  string
		value int64
	}{
		{"Attaches", c.Attaches},
		{"Pushes", c.Pushes},
		{"PushBytes", c.PushBytes},
		{"Resets", c.Resets},
		{"Forced", c.Forced},
		{"Granted", c.Granted},
		{"LogLines", c.LogLines},
		{"ConsoleOutputBytes", console.Output},
		{"ConsoleInputBytes", console.Input},
		{"ConsoleLostBytes", console.Lost},
		{"NetToDpuBytes", tm.NetToDPU.Bytes},
		{"NetFromDpuBytes", tm.NetFromDPU.Bytes},
		{"TmfifoResyncs", tm.Resyncs},
		{"TmfifoErrors", tm.Errors},
	} {
		d.Entries = append(d.Entries, wire.Entry{Key: e.name, Value: uint64(max(0, e.value))})
	}
	return d
}
