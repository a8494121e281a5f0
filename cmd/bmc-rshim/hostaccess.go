// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/bluefield-go/bmc-rshim/dbus/client"
	"github.com/bluefield-go/bmc-rshim/internal/hostaccess"
)

const hostAccessHelp = `Shows, or sets, what the host may do with the RShim, which its NIC decides. At run
time, until the DPU's next reset, that is enabled or locked: the host sees it,
and cannot use it. With -persistent it is disabled, enabled or locked from the
DPU's next reset on.

The daemon reaches the NIC by what NCSI says in ` + defaultConf + `, such as
"NCSI -if eth0", and without a daemon on D-Bus so does this command.

`

// hostControl is who can ask the NIC.
type hostControl interface {
	Get(ctx context.Context) (persistent, runtime string, err error)
	SetPersistent(ctx context.Context, mode string) error
	SetRuntime(ctx context.Context, mode string) error
}

// busHost asks the NIC through the daemon, by the connection that the device has
// at the time: it may be lost and found again.
type busHost struct{ b *busDevice }

func (h busHost) Get(ctx context.Context) (persistent, runtime string, err error) {
	a, err := h.b.c.HostAccess(ctx, true)
	if err != nil {
		return hostaccess.Unknown, hostaccess.Unknown, err
	}
	return strings.ToLower(a.Persistent), runtimeMode(a), nil
}

func (h busHost) SetPersistent(ctx context.Context, mode string) error {
	return h.b.c.SetHostAccess(ctx, upper(mode))
}

func (h busHost) SetRuntime(ctx context.Context, mode string) error {
	if mode == hostaccess.Locked {
		mode = hostaccess.Disabled // its name on D-Bus
	}
	return h.b.c.SetRuntimeHostAccess(ctx, upper(mode))
}

// upper is Locked for locked.
func upper(mode string) string {
	if mode == "" {
		return ""
	}
	return strings.ToUpper(mode[:1]) + mode[1:]
}

// runtimeMode is what NVIDIA calls locked, and D-Bus disabled.
func runtimeMode(a *client.HostAccess) string {
	if a.Runtime == "Disabled" {
		return hostaccess.Locked
	}
	return cmp.Or(strings.ToLower(a.Runtime), hostaccess.Unknown)
}

func hostText(a *client.HostAccess) string {
	return runtimeMode(a) + " now, " + strings.ToLower(a.Persistent) + " from the DPU's next reset on"
}

func hostJSON(a *client.HostAccess) fields {
	return func(o *object) {
		o.text("runtime", runtimeMode(a))
		o.text("persistent", strings.ToLower(a.Persistent))
	}
}

var errNoNCSI = errors.New("there is no way to the NIC: NCSI is not set in " + defaultConf)

// findHost returns who can ask the NIC: the daemon, if b is not nil, and otherwise
// this process by what the file conf says. The error is errNoNCSI if nobody can.
func findHost(ctx context.Context, b *busDevice, conf string) (hostControl, error) {
	if b != nil {
		_, err := b.c.HostAccess(ctx, false)
		switch {
		case err == nil:
			return busHost{b}, nil
		case !errors.Is(err, client.ErrUnsupported) && !errors.Is(err, client.ErrNotFound):
			return nil, remote(err)
		}
		return nil, &exitError{exitDevice, errNoNCSI}
	}
	said, _, err := loadConf(cmp.Or(conf, defaultConf))
	if err != nil && (conf != "" || !errors.Is(err, fs.ErrNotExist)) {
		return nil, err
	}
	if said.ncsi == nil {
		return nil, &exitError{exitDevice, errNoNCSI}
	}
	return &hostaccess.Tool{Args: said.ncsi}, nil
}

// hostError gives an error of a NIC its exit code.
func hostError(err error) error {
	switch {
	case errors.Is(err, hostaccess.ErrTimeout):
		return &exitError{exitTimeout, err}
	case errors.Is(err, hostaccess.ErrNoTool), errors.Is(err, hostaccess.ErrNoNIC), errors.Is(err, hostaccess.ErrRefused):
		return &exitError{exitDevice, err}
	}
	return remote(err)
}

func hostAccessCommand(ctx context.Context, e *env, args []string) error {
	var t targetFlags
	fs := flags("host-access", " get|set MODE", hostAccessHelp+exitCodes)
	t.registerNodes(fs)
	conf := fs.String("conf", "", "configuration `file` (default "+defaultConf+"), if there is no daemon on D-Bus")
	persistent := fs.Bool("persistent", false, "set what counts from the DPU's next reset on")
	yes := fs.Bool("yes", false, "set even \"disabled\", which only a power cycle of the host undoes, without a question")
	asJSON := fs.Bool("json", false, "report in JSON")
	if err := parseBetween(e, fs, args, 0, 2); err != nil {
		return err
	}
	mode, words := "", fs.Args()
	switch {
	case len(words) == 0, len(words) == 1 && words[0] == "get":
	case len(words) == 2 && words[0] == "set":
		mode = words[1]
	default:
		return usageError("host-access: get, or set MODE, not %q", strings.Join(words, " "))
	}
	switch {
	case mode == "", mode == hostaccess.Enabled, mode == hostaccess.Locked:
	case mode == hostaccess.Disabled && !*persistent:
		return usageError("host-access: at run time the RShim cannot be disabled, but locked; or see -persistent")
	case mode != hostaccess.Disabled:
		return usageError("host-access: %q is none of disabled, enabled and locked", mode)
	case !*yes:
		return usageError("host-access: once disabled, only a power cycle of the host brings its RShim back; -yes disables it")
	}
	c, err := t.connect(ctx)
	if err != nil {
		return err
	}
	var b *busDevice
	if c != nil {
		defer c.Close()
		b = &busDevice{c: c}
	}
	h, err := findHost(ctx, b, *conf)
	if err != nil {
		return err
	}
	switch {
	case mode == "":
	case *persistent:
		err = h.SetPersistent(ctx, mode)
	default:
		if err = h.SetRuntime(ctx, mode); err == nil {
			forgetHost()
		}
	}
	if err != nil {
		return hostError(err)
	}
	later, now, err := h.Get(ctx)
	if err != nil {
		return hostError(err)
	}
	if *asJSON {
		return printJSON(e.stdout, fields(func(o *object) {
			o.text("runtime", now)
			o.text("persistent", later)
		}))
	}
	fmt.Fprintf(e.stdout, "%-13s%s\n%-13s%s, from the DPU's next reset on\n", "Run time", now, "Persistent", later)
	return nil
}
