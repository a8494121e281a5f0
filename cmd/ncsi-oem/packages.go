// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/bluefield-go/bmc-rshim/ncsi/netlink"
)

// packages lists the packages on the chosen device, or all that can be reached.
func packages(ctx context.Context, e *env, o options, r *report) error {
	if o.channel >= 0 || o.pkg >= 0 {
		return usageError("packages lists them all: -package and -channel have no meaning")
	}
	log := e.logger(o)
	switch o.device.transport {
	case "netlink":
		interfaces, err := listInterfaces(ctx, e, o.device.ifname, r)
		switch {
		case err == nil && len(interfaces) == 0:
			err = noInterface(o.device.ifname)
		case err == nil && len(r.Packages) == 0:
			err = noPackage(o.device.ifname)
		}
		return err
	case "mctp", "i2c":
		return listEndpoint(ctx, e, o, o.device, r, log)
	}
	// A kernel without NC-SI can have MCTP, and the other way round.
	interfaces, err := listInterfaces(ctx, e, "", r)
	if err != nil && !errors.Is(err, netlink.ErrNoFamily) {
		return err
	}
	endpoints, err := e.endpoints(ctx)
	if err != nil {
		return err
	}
	var silent error
	for _, a := range endpoints {
		if err := listEndpoint(ctx, e, o, a, r, log); err != nil {
			if ctx.Err() != nil {
				return err
			}
			silent = err
			r.line("%s: %s", a.flag(), oneLine(errors.Unwrap(err).Error()))
		}
	}
	if len(r.Packages) == 0 {
		return nothing(o, interfaces, silent)
	}
	return nil
}

// listInterfaces lists what the kernel has found on an interface, or on all,
// and returns their names.
func listInterfaces(ctx context.Context, e *env, name string, r *report) (names []string, err error) {
	interfaces, err := e.interfaces(ctx)
	if err != nil {
		return nil, err
	}
	for _, i := range interfaces {
		if name != "" && i.Name != name {
			continue
		}
		names = append(names, i.Name)
		state := ""
		if !i.Up {
			state = "; the interface is down"
		}
		if len(i.Packages) == 0 {
			r.line("-if %s: the kernel has found no package%s", i.Name, state)
		}
		for _, p := range i.Packages {
			r.line("-if %s -package %d%s", i.Name, p.ID, state)
			pr := packageReport{Transport: "netlink", Device: i.Name, Package: p.ID}
			for _, c := range p.Channels {
				cr := channelReport{c.ID, fmt.Sprintf("%d.%d", c.Major, c.Minor), c.Firmware, c.LinkUp(), c.Active}
				pr.Channels = append(pr.Channels, cr)
				r.line("    %v", cr)
			}
			r.Packages = append(r.Packages, pr)
		}
	}
	return names, nil
}

func (c channelReport) String() string {
	link, active := "link down", "not in use"
	if c.LinkUp {
		link = "link up"
	}
	if c.Active {
		active = "in use"
	}
	return fmt.Sprintf("channel %d: NC-SI %s, firmware %q, %s, %s", c.Channel, c.Version, c.Firmware, link, active)
}

// listEndpoint lists the packages that answer at an address.
func listEndpoint(ctx context.Context, e *env, o options, a address, r *report, log *slog.Logger) error {
	t, giveUp, err := e.open(a, o.timeout, log)
	if err != nil {
		return &deviceError{a, err}
	}
	defer giveUp()
	found, err := probeAll(ctx, t, allPackages, func(probe) bool { return false })
	if err == nil && len(found) == 0 {
		err = errSilent
	}
	if err != nil {
		return &deviceError{a, err}
	}
	for _, p := range found {
		r.line("%s -package %d: %s", a.flag(), p.pkg, p.answer())
		r.Packages = append(r.Packages, packageReport{Transport: a.transport, Device: a.String(), Package: p.pkg, Answer: p.answer()})
	}
	return nil
}
