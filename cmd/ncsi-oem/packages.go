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
		interfaces, refused, err := listInterfaces(ctx, e, o, r, log)
		switch {
		case err == nil && len(interfaces) == 0:
			err = noInterface(o.device.ifname)
		case err == nil && len(r.Packages) == 0 && refused != nil:
			err = refused
		case err == nil && len(r.Packages) == 0:
			err = noPackage(interfaces[0])
		}
		return err
	case "mctp", "i2c":
		found, err := askEndpoint(ctx, e, o, o.device, log)
		if err == nil {
			list(o.device, found, r)
		}
		return err
	}
	// A kernel without NC-SI can have MCTP, and the other way round.
	interfaces, refused, err := listInterfaces(ctx, e, o, r, log)
	if err != nil && !errors.Is(err, netlink.ErrNoFamily) {
		return err
	}
	endpoints, err := e.endpoints(ctx)
	if err != nil {
		return err
	}
	if len(endpoints) > 0 {
		fmt.Fprintf(e.stderr, "ncsi-oem: asking %s behind MCTP %s\n", o.asked(), names(endpoints))
	}
	found, errs := make([][]probe, len(endpoints)), make([]error, len(endpoints))
	askAll(endpoints, func(i int) { found[i], errs[i] = askEndpoint(ctx, e, o, endpoints[i], log) })
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var silent error
	for i, a := range endpoints {
		if errs[i] != nil {
			silent = errs[i]
			r.line("%s: %s", a.flag(), oneLine(errors.Unwrap(silent).Error()))
		}
		list(a, found[i], r)
	}
	if len(r.Packages) == 0 {
		return nothing(o, interfaces, refused, silent)
	}
	return nil
}

// listInterfaces lists what the kernel has found on the interface that is
// chosen, or on all, and what answers where it has found nothing; refused is
// why the last of these could not be asked. It returns those interfaces.
func listInterfaces(ctx context.Context, e *env, o options, r *report, log *slog.Logger) (interfaces []netlink.Interface, refused, err error) {
	all, err := e.interfaces(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, i := range all {
		if o.device.ifname != "" && i.Name != o.device.ifname {
			continue
		}
		interfaces = append(interfaces, i)
		state := ""
		if !i.Up {
			state = "; the interface is down"
		}
		if len(i.Packages) == 0 {
			r.line("-if %s: the kernel lists no package%s", i.Name, state)
		}
		if len(i.Packages) == 0 && i.Up {
			found, err := askInterface(ctx, e, o, i.Name, log)
			if ctx.Err() != nil {
				return nil, nil, ctx.Err()
			}
			if err != nil {
				refused = err
				r.line("-if %s: %s", i.Name, oneLine(errors.Unwrap(err).Error()))
			}
			list(address{transport: "netlink", ifname: i.Name}, found, r)
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
	return interfaces, refused, nil
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

// askEndpoint returns the packages that answer at an address.
func askEndpoint(ctx context.Context, e *env, o options, a address, log *slog.Logger) ([]probe, error) {
	t, giveUp, err := e.open(a, o.timeout, log)
	if err != nil {
		return nil, &deviceError{a, err}
	}
	defer giveUp()
	found, err := probeAll(ctx, t, allPackages, func(probe) bool { return false })
	if err == nil && len(found) == 0 {
		err = errSilent
	}
	if err != nil {
		return nil, &deviceError{a, err}
	}
	return found, nil
}

// list lists the packages that have answered at an address.
func list(a address, found []probe, r *report) {
	for _, p := range found {
		r.line("%s -package %d: %s", a.flag(), p.pkg, p.answer())
		r.Packages = append(r.Packages, packageReport{Transport: a.transport, Device: a.String(), Package: p.pkg, Answer: p.answer()})
	}
}
