// SPDX-License-Identifier: Apache-2.0

package dbus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/bluefield-go/bmc-rshim/dbus/bus"
	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/rshim/bootlog"
)

// aggregate is what others know of all DPUs together: whether the RShim is
// served, as a service of OpenBMC and in NVIDIA's words, and how far the first
// one has booted.
type aggregate struct {
	s                           *Service
	service, nvidia, lfwp, host *bus.Object

	mu     sync.Mutex // keeps what is published in order
	stage  bootlog.Stage
	masked bool
}

var (
	errMasked  = bus.Errorf(errorNotAllowed, "the service is masked")
	errNoDPU   = fmt.Errorf("no DPU is there: %w", rshim.ErrGone)
	errPending = fmt.Errorf("%w: it would be lost", errPushing)
)

// export publishes the objects.
func (a *aggregate) export() {
	s := a.s
	a.service = s.add(s.rshim, PathService, a.serviceIface())
	nvidia := s.name(NameNvidiaRshim, true)
	nvidia.Manage(PathNvidiaRshim)
	a.nvidia = s.add(nvidia, PathNvidiaRshim, a.nvidiaIface())
	a.lfwp = s.add(s.name(NameDPUVersion, true), PathLFWP, a.lfwpIface())
	a.host = s.add(s.name(NameStateHost, true), PathHost, a.hostIface())
}

func boolean(name string, value bool, set func(ctx context.Context, on bool) error) bus.Property {
	return bus.Property{Name: name, Sig: "b", Value: value, Set: func(ctx context.Context, _ *bus.Call, v any) error {
		return set(ctx, v.(bool))
	}}
}

func (a *aggregate) serviceIface() bus.Interface {
	return describe(bus.Interface{Name: ifaceService, Properties: []bus.Property{
		boolean("Enabled", true, a.serve), boolean("Running", true, a.serve), boolean("Masked", false, a.mask),
	}})
}

func (a *aggregate) nvidiaIface() bus.Interface {
	return describe(bus.Interface{Name: ifaceNvidiaRshim, Properties: []bus.Property{
		{Name: "State", Sig: "s", Value: enum(ifaceNvidiaRshim, "State", "Disabled"),
			Set: func(ctx context.Context, _ *bus.Call, v any) error { return a.setState(ctx, v.(string)) }},
		boolean("LfwpEnabled", false, a.setLFWP),
	}})
}

func (a *aggregate) lfwpIface() bus.Interface {
	return describe(bus.Interface{Name: ifaceEnable, Properties: []bus.Property{boolean("Enabled", false, a.setLFWP)}})
}

func (a *aggregate) hostIface() bus.Interface {
	return describe(bus.Interface{Name: ifaceBootProgress, Properties: []bus.Property{
		{Name: "BootProgress", Sig: "s", Value: enum(ifaceBootProgress, "ProgressStages", "Unspecified")},
		{Name: "BootProgressLastUpdate", Sig: "t", Value: uint64(0)},
		{Name: "BootProgressOem", Sig: "s", Value: bootlog.StageUnknown.OEM()},
	}})
}

// update publishes what follows from the devices as they are now.
func (a *aggregate) update() {
	a.mu.Lock()
	defer a.mu.Unlock()
	set := a.s.devicesOf()
	if set == nil {
		return
	}
	state, lfwp := "Disabled", true
	var stage bootlog.Stage
	ds := set.Devices()
	for i, d := range ds {
		st := d.Status()
		if isOurs(st.State) {
			state = "Enabled"
		}
		lfwp = lfwp && st.BootResetSkip
		if i == 0 {
			stage = st.Stage
		}
	}
	lfwp = lfwp && len(ds) > 0
	on := set.Serving()
	_ = a.service.Update(
		bus.Change{Interface: ifaceService, Property: "Enabled", Value: on},
		bus.Change{Interface: ifaceService, Property: "Running", Value: on},
		bus.Change{Interface: ifaceService, Property: "Masked", Value: a.masked},
	)
	_ = a.nvidia.Update(
		bus.Change{Interface: ifaceNvidiaRshim, Property: "State", Value: enum(ifaceNvidiaRshim, "State", state)},
		bus.Change{Interface: ifaceNvidiaRshim, Property: "LfwpEnabled", Value: lfwp},
	)
	_ = a.lfwp.Set(ifaceEnable, "Enabled", lfwp)
	if stage == a.stage {
		return
	}
	a.stage = stage
	word := "OEM" // NVIDIA's bmcweb shows BootProgressOem with this word alone
	if stage == bootlog.StageUnknown {
		word = "Unspecified"
	}
	_ = a.host.Update(
		bus.Change{Interface: ifaceBootProgress, Property: "BootProgressOem", Value: stage.OEM()},
		bus.Change{Interface: ifaceBootProgress, Property: "BootProgressLastUpdate", Value: micros(time.Now())},
		bus.Change{Interface: ifaceBootProgress, Property: "BootProgress", Value: enum(ifaceBootProgress, "ProgressStages", word)},
	)
}

// published returns the set, and what is to be called when it was changed.
func (a *aggregate) published() (set *rshim.Set, done func()) {
	return a.s.devicesOf(), func() { a.update(); a.s.refresh() }
}

// serve has the devices served, or not. What is so already is left alone.
func (a *aggregate) serve(ctx context.Context, on bool) error {
	set, done := a.published()
	defer done()
	a.mu.Lock()
	masked := a.masked
	a.mu.Unlock()
	switch {
	case set == nil:
		return rshim.ErrNotReady
	case on == set.Serving():
		return nil
	case on && masked:
		return errMasked
	case !on && a.s.pending():
		return errPending
	}
	return set.Serve(ctx, on)
}

// mask keeps the devices from being served, until it is undone.
func (a *aggregate) mask(ctx context.Context, on bool) error {
	if on {
		if err := a.serve(ctx, false); err != nil {
			return err
		}
	}
	a.mu.Lock()
	a.masked = on
	a.mu.Unlock()
	a.update()
	return nil
}

// setState is the property State. Enabled is a wish, which the devices come to
// as they can; Disabled and Forced are so when it returns.
func (a *aggregate) setState(ctx context.Context, v string) error {
	word, err := enumValue(v, ifaceNvidiaRshim, "State", "Enabled", "Disabled", "Forced")
	switch {
	case err != nil:
		return err
	case word == "Disabled":
		return a.serve(ctx, false)
	}
	if err := a.serve(ctx, true); err != nil {
		return err
	}
	_, done := a.published()
	defer done()
	ds := a.s.devices()
	if word == "Enabled" {
		return each(ds, func(d *rshim.Device) error {
			if state, _ := d.State(); state != rshim.Dropped {
				return nil
			}
			err := d.SetDrop(ctx, false)
			if errors.Is(err, rshim.ErrNotOwner) {
				return nil // it is taken as soon as its owner is gone
			}
			return err
		})
	}
	if len(ds) == 0 {
		return errNoDPU
	}
	return each(ds, func(d *rshim.Device) error {
		if state, _ := d.State(); isOurs(state) {
			return nil // nothing may happen to a push, or to who uses it
		}
		_, err := d.Force(ctx)
		return err
	})
}

// setLFWP sets BOOT_RESET_SKIP of all devices.
func (a *aggregate) setLFWP(ctx context.Context, on bool) error {
	_, done := a.published()
	defer done()
	ds := a.s.devices()
	if len(ds) == 0 && on {
		return errNoDPU
	}
	value := "0"
	if on {
		value = "1"
	}
	return each(ds, func(d *rshim.Device) error { return d.WriteMisc(ctx, "BOOT_RESET_SKIP "+value) })
}

// each does something to all devices at once, and returns what went wrong.
func each(ds []*rshim.Device, f func(d *rshim.Device) error) error {
	errs := make([]error, len(ds))
	var wg sync.WaitGroup
	for i, d := range ds {
		wg.Go(func() { errs[i] = f(d) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
