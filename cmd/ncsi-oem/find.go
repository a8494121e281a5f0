// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/bluefield-go/bmc-rshim/ncsi"
	"github.com/bluefield-go/bmc-rshim/ncsi/netlink"
	"github.com/bluefield-go/bmc-rshim/ncsi/oem"
)

// target is the package, or a channel of it, that a command is for.
type target struct {
	address   address
	channel   ncsi.Channel
	chosen    string // why this one, if the command line left it open
	transport oem.Transport
	giveUp    func() error
}

func (t *target) String() string {
	return fmt.Sprintf("%s, %v", t.address.label(), t.channel)
}

func (t *target) client() *oem.Client {
	return &oem.Client{Transport: t.transport, Channel: t.channel}
}

func (t *target) close() { _ = t.giveUp() } // the command's result stands

// failed says which device an error is of.
func (t *target) failed(err error) error { return &deviceError{t.address, err} }

// deviceError says which device an error is of.
type deviceError struct {
	address address
	err     error
}

func (e *deviceError) Error() string { return e.address.label() + ": " + e.err.Error() }
func (e *deviceError) Unwrap() error { return e.err }

// candidate is a package that there is.
type candidate struct {
	address address
	pkg     int
}

func (c candidate) flags() string { return fmt.Sprintf("%s -package %d", c.address.flag(), c.pkg) }

// find returns the package that the command line chooses, or the only one there
// is. What it has to find out, it says.
func find(ctx context.Context, e *env, o options, r *report) (*target, error) {
	log := e.logger(o)
	c, chosen, err := choose(ctx, e, o, log)
	if err != nil {
		return nil, err
	}
	t := &target{address: c.address, chosen: chosen}
	// 31 is the channel that means the package, and what NVIDIA's commands are for.
	channel := ncsi.WholePackage
	if o.channel >= 0 {
		channel = o.channel
	}
	if t.channel, err = ncsi.NewChannel(c.pkg, channel); err != nil {
		return nil, err
	}
	r.on(t)
	if chosen != "" {
		fmt.Fprintf(e.stderr, "ncsi-oem: using %s: %s\n", c.flags(), chosen)
	}
	if t.transport, t.giveUp, err = e.open(c.address, o.timeout, log); err != nil {
		return nil, t.failed(err)
	}
	return t, nil
}

// choose returns which package it is, and why, if there was a choice.
func choose(ctx context.Context, e *env, o options, log *slog.Logger) (c candidate, why string, err error) {
	if o.device.transport != "" && o.pkg >= 0 {
		return candidate{o.device, o.pkg}, "", nil
	}
	switch o.device.transport {
	case "netlink":
		found, _, err := netlinkPackages(ctx, e, o)
		if err == nil && len(found) == 0 {
			err = noPackage(o.device.ifname)
		}
		c, err = only(found, err)
		return c, "the only NC-SI package on " + o.device.ifname, err
	case "mctp", "i2c":
		p, err := probeFirst(ctx, e, o, o.device, log)
		return candidate{o.device, p.pkg}, fmt.Sprintf("of packages 0 to 7, this one has answered (%s)", p.answer()), err
	}
	found, interfaces, err := netlinkPackages(ctx, e, o)
	if err != nil && !errors.Is(err, netlink.ErrNoFamily) {
		return c, "", err
	}
	if len(found) > 0 {
		c, err = only(found, nil)
		return c, "the only NC-SI package that the kernel has found", err
	}
	found, silent, err := mctpPackages(ctx, e, o, log)
	if err == nil && len(found) == 0 {
		err = nothing(o, interfaces, silent)
	}
	c, err = only(found, err)
	return c, "the only NC-SI package that has answered over MCTP", err
}

// nothing is the error when no package was found anywhere: not on the
// interfaces that do NC-SI, and not behind an MCTP endpoint, whose last error is
// silent.
func nothing(o options, interfaces []string, silent error) error {
	if errors.Is(silent, os.ErrPermission) {
		return silent // nobody knows what root would find
	}
	what, where := "no NC-SI package", "no network interface does NC-SI"
	if o.pkg >= 0 {
		what += fmt.Sprintf(" %d", o.pkg)
	}
	if len(interfaces) > 0 {
		where = "the kernel has not found it on " + strings.Join(interfaces, ", ")
	}
	if silent != nil {
		where += ", nor does an MCTP endpoint have it (" + oneLine(silent.Error()) + ")"
	} else {
		where += ", and the kernel knows no MCTP endpoint"
	}
	return exitWith(exitDevice, "%s: %s: choose with -if, -mctp or -i2c, and -package", what, where)
}

func noInterface(name string) error {
	return exitWith(exitDevice, "%s: there is no such interface, or it does no NC-SI; ncsi-oem packages lists those that do", name)
}

func noPackage(name string) error {
	return exitWith(exitDevice, "%s: the kernel has found no NC-SI package there; it looks for 20 s and more after the interface is set up, and -package N asks one all the same", name)
}

// only returns the only candidate.
func only(found []candidate, err error) (candidate, error) {
	if err != nil {
		return candidate{}, err
	}
	if len(found) == 1 {
		return found[0], nil
	}
	var flags []string
	for _, c := range found {
		flags = append(flags, c.flags())
	}
	return candidate{}, exitWith(exitSeveral, "there are several NC-SI packages: choose with %s", strings.Join(flags, ", or "))
}

// netlinkPackages returns the packages that the kernel has found on the
// interface that is chosen, or on any, with the number that is chosen, or any;
// and the interfaces that do NC-SI.
func netlinkPackages(ctx context.Context, e *env, o options) (found []candidate, names []string, err error) {
	interfaces, err := e.interfaces(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, i := range interfaces {
		if o.device.transport != "" && i.Name != o.device.ifname {
			continue
		}
		names = append(names, i.Name)
		for _, p := range i.Packages {
			if o.pkg < 0 || o.pkg == p.ID {
				found = append(found, candidate{address{transport: "netlink", ifname: i.Name}, p.ID})
			}
		}
	}
	if o.device.transport != "" && len(names) == 0 {
		return nil, nil, noInterface(o.device.ifname)
	}
	return found, names, nil
}

// mctpPackages returns the packages that answer behind the MCTP endpoints that
// the kernel knows, one for each. Silent is why the last of the others did not.
func mctpPackages(ctx context.Context, e *env, o options, log *slog.Logger) (found []candidate, silent, err error) {
	endpoints, err := e.endpoints(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, a := range endpoints {
		p, err := probeFirst(ctx, e, o, a, log)
		switch {
		case ctx.Err() != nil:
			return nil, nil, ctx.Err()
		case err != nil:
			silent = err
		default:
			found = append(found, candidate{a, p.pkg})
		}
	}
	return found, silent, nil
}
