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
		found, interfaces, err := netlinkPackages(ctx, e, o)
		why = "the only NC-SI package that the kernel lists on " + o.device.ifname
		if err == nil && len(found) == 0 {
			found, why, err = askInterfaces(ctx, e, o, interfaces, log)
		}
		if err == nil && len(found) == 0 {
			err = noPackage(interfaces[0])
		}
		c, err = only(found, err)
		return c, why, err
	case "mctp", "i2c":
		p, err := probeFirst(ctx, e, o, o.device, log)
		return candidate{o.device, p.pkg}, p.chosen(o), err
	}
	found, interfaces, err := netlinkPackages(ctx, e, o)
	if err != nil && !errors.Is(err, netlink.ErrNoFamily) {
		return c, "", err
	}
	if len(found) > 0 {
		c, err = only(found, nil)
		return c, "the only NC-SI package that the kernel lists", err
	}
	found, why, refused := askInterfaces(ctx, e, o, interfaces, log)
	if ctx.Err() != nil {
		return c, "", ctx.Err()
	}
	if len(found) > 0 {
		c, err = only(found, nil)
		return c, why, err
	}
	found, why, silent, err := mctpPackages(ctx, e, o, log)
	if err == nil && len(found) == 0 {
		err = nothing(o, interfaces, refused, silent)
	}
	c, err = only(found, err)
	return c, "behind the only MCTP endpoint that has answered; " + why, err
}

// nothing is the error when no package was found anywhere: not on the
// interfaces that do NC-SI, where refused has kept us from asking, and not
// behind an MCTP endpoint, whose last error is silent.
func nothing(o options, interfaces []netlink.Interface, refused, silent error) error {
	if errors.Is(refused, os.ErrPermission) {
		return refused
	}
	if errors.Is(silent, os.ErrPermission) {
		return silent // nobody knows what root would find
	}
	what, where := "no NC-SI package", "no network interface does NC-SI"
	if o.pkg >= 0 {
		what += fmt.Sprintf(" %d", o.pkg)
	}
	if len(interfaces) > 0 {
		var names []string
		for _, i := range interfaces {
			name := i.Name
			if !i.Up {
				name += " (which is down)"
			}
			names = append(names, name)
		}
		where = "none is known or answers on " + strings.Join(names, ", ")
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

func noPackage(i netlink.Interface) error {
	if !i.Up {
		return exitWith(exitDevice, "%s: the interface is down: ip link set %s up", i.Name, i.Name)
	}
	return exitWith(exitDevice, "%s: the kernel lists no NC-SI package there, and none answers; it looks for about 15 s after the interface is set up", i.Name)
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
func netlinkPackages(ctx context.Context, e *env, o options) (found []candidate, interfaces []netlink.Interface, err error) {
	all, err := e.interfaces(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, i := range all {
		if o.device.transport != "" && i.Name != o.device.ifname {
			continue
		}
		interfaces = append(interfaces, i)
		for _, p := range i.Packages {
			if o.pkg < 0 || o.pkg == p.ID {
				found = append(found, candidate{address{transport: "netlink", ifname: i.Name}, p.ID})
			}
		}
	}
	if o.device.transport != "" && len(interfaces) == 0 {
		return nil, nil, noInterface(o.device.ifname)
	}
	return found, interfaces, nil
}

// askInterfaces returns the packages that answer on the interfaces that are up,
// although the kernel does not list them: its list ends at the first number that
// is free. If any of them tell the host's access, those that refuse are left
// out; why is right if that leaves one. The error is the last interface's.
func askInterfaces(ctx context.Context, e *env, o options, interfaces []netlink.Interface, log *slog.Logger) (found []candidate, why string, err error) {
	var refuse []candidate
	for _, i := range interfaces {
		if !i.Up {
			continue
		}
		probes, failed := askInterface(ctx, e, o, i.Name, log)
		if failed != nil {
			err = failed
		}
		for _, p := range probes {
			c := candidate{address{transport: "netlink", ifname: i.Name}, p.pkg}
			if p.err == nil {
				found = append(found, c)
			} else {
				refuse = append(refuse, c)
			}
		}
	}
	switch {
	case len(found) > 0:
		return found, "the only NC-SI package that has told the host's access", nil
	case len(refuse) > 0:
		return refuse, "the only NC-SI package that has answered", nil
	}
	return nil, "", err
}

// askInterface asks the packages of an interface, and says so, as it takes a
// while.
func askInterface(ctx context.Context, e *env, o options, name string, log *slog.Logger) ([]probe, error) {
	a := address{transport: "netlink", ifname: name}
	fmt.Fprintf(e.stderr, "ncsi-oem: %s: not in the kernel's list, asking %s\n", name, o.asked())
	t, giveUp, err := e.open(a, o.timeout, log)
	if err != nil {
		return nil, &deviceError{a, err}
	}
	defer giveUp()
	found, err := probeAll(ctx, t, o.packages(), func(probe) bool { return false })
	if err != nil {
		return nil, &deviceError{a, err}
	}
	return found, nil
}

// mctpPackages returns the packages that answer behind the MCTP endpoints that
// the kernel knows, one for each, and why the last of them it is. Silent is why
// the last of the others did not.
func mctpPackages(ctx context.Context, e *env, o options, log *slog.Logger) (found []candidate, why string, silent, err error) {
	endpoints, err := e.endpoints(ctx)
	if err != nil || len(endpoints) == 0 {
		return nil, "", nil, err
	}
	fmt.Fprintf(e.stderr, "ncsi-oem: asking %s behind MCTP %s\n", o.asked(), names(endpoints))
	probes, errs := make([]probe, len(endpoints)), make([]error, len(endpoints))
	askAll(endpoints, func(i int) { probes[i], errs[i] = probeFirst(ctx, e, o, endpoints[i], log) })
	if ctx.Err() != nil {
		return nil, "", nil, ctx.Err()
	}
	for i, p := range probes {
		if errs[i] != nil {
			silent = errs[i]
			continue
		}
		found, why = append(found, candidate{endpoints[i], p.pkg}), p.chosen(o)
	}
	return found, why, silent, nil
}
