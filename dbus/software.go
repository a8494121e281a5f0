// SPDX-License-Identifier: Apache-2.0

package dbus

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/bluefield-go/bmc-rshim/dbus/bus"
	"github.com/bluefield-go/bmc-rshim/dbus/wire"
)

// applyTime is when an update counts: a DPU boots what it gets at once.
const applyTime = "xyz.openbmc_project.Software.ApplyTime.RequestedApplyTimes.Immediate"

// softwareIfaces are the DPU's operating system as one of the firmwares that a
// BMC has: what bmcweb makes /redfish/v1/UpdateService/FirmwareInventory/DPU_OS
// of, and sends updates to.
func (v *device) softwareIfaces() []bus.Interface {
	prop := func(name string, sig wire.Signature, value any) bus.Property {
		return bus.Property{Name: name, Sig: sig, Value: value}
	}
	return []bus.Interface{
		describe(bus.Interface{Name: ifaceVersion, Properties: []bus.Property{
			prop("Version", "s", "unknown"),
			prop("Purpose", "s", enum(ifaceVersion, "VersionPurpose", "Other")),
		}}),
		describe(bus.Interface{Name: ifaceActivation, Properties: []bus.Property{
			prop("Activation", "s", enum(ifaceActivation, "Activations", "Active")),
			{Name: "RequestedActivation", Sig: "s", Value: enum(ifaceActivation, "RequestedActivations", "None"),
				Set: func(_ context.Context, _ *bus.Call, value any) error {
					_, err := enumValue(value.(string), ifaceActivation, "RequestedActivations", "None", "Active")
					return err // it is active
				}},
		}}),
		describe(bus.Interface{Name: ifaceUpdate, Properties: []bus.Property{
			prop("AllowedApplyTimes", "as", []string{applyTime}),
		}, Methods: []bus.Method{{Name: "StartUpdate", In: "hs", Out: "o", Handle: v.startUpdate}}}),
		describe(bus.Interface{Name: ifaceFilePath, Properties: []bus.Property{
			prop("Path", "s", filepath.Join(v.s.o.DevRoot, "rshim"+strconv.Itoa(v.d.Index()), "boot")),
		}}),
		// By this OpenBMC's mapper makes /xyz/openbmc_project/software/updateable,
		// where bmcweb looks what is Updateable.
		describe(bus.Interface{Name: ifaceAssociations, Properties: []bus.Property{
			prop("Associations", "a(sss)", wire.Array{Elem: "(sss)", Items: []any{
				wire.Struct{"software_version", "updateable", PathSoftware},
			}}),
		}}),
	}
}

// startUpdate is the method StartUpdate.
func (v *device) startUpdate(ctx context.Context, c *bus.Call) ([]any, error) {
	if when := c.Args[1].(string); when != applyTime {
		return nil, fmt.Errorf("%w: %.100q is not %s", errArgument, when, applyTime)
	}
	if v.s.pushes.pending(v.d) {
		return nil, fmt.Errorf("rshim%d: update: %w", v.d.Index(), errPushing)
	}
	f, err := c.TakeFile(c.Args[0].(wire.FD))
	if err != nil {
		return nil, err
	}
	p, err := v.startPush(ctx, c, &order{image: f})
	if err != nil {
		return nil, err
	}
	return []any{p.update.Path()}, nil
}
