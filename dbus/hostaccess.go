// SPDX-License-Identifier: Apache-2.0

package dbus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/bluefield-go/bmc-rshim/dbus/bus"
)

// What the errors of a HostAccess may be, besides those of package os.
var (
	// ErrNoHostAccess says that there is no NIC to ask, or no way to it.
	ErrNoHostAccess = errors.New("the NIC cannot be asked")
	// ErrHostAccessRefused says that the NIC has answered, and does not do it.
	ErrHostAccessRefused = errors.New("the NIC refuses")
)

// HostAccess is whether the host may use the RShim, as the NIC has it. Modes are
// "enabled", "disabled" (the host does not see it), "locked" (it sees it, and
// cannot use it) and "unknown".
type HostAccess interface {
	// Get returns the persistent mode, which counts from the DPU's next reset
	// on, and the mode until then: enabled, locked or unknown.
	Get(ctx context.Context) (persistent, runtime string, err error)
	SetPersistent(ctx context.Context, mode string) error
	SetRuntime(ctx context.Context, mode string) error
}

const (
	hostPatience = 30 * time.Second // of one question to the NIC
	hostRefresh  = time.Minute      // others can change the modes too
)

// hostAccess publishes the modes: as our own interface on the Manager's object,
// and as the attribute under which NVIDIA's firmware has it.
type hostAccess struct {
	h   HostAccess
	log *slog.Logger

	turn     chan struct{} // filled by who talks to the NIC
	own, nic *bus.Object

	failed string // that was logged; of who has the turn
}

func newHostAccess(h HostAccess, log *slog.Logger) *hostAccess {
	return &hostAccess{h: h, log: log, turn: make(chan struct{}, 1)}
}

func (h *hostAccess) iface() bus.Interface {
	unknown := enum(ifaceHostAccess, "Modes", "Unknown")
	return describe(bus.Interface{
		Name: ifaceHostAccess,
		Properties: []bus.Property{
			{Name: "Persistent", Sig: "s", Value: unknown, Set: func(ctx context.Context, _ *bus.Call, v any) error {
				m, err := enumValue(v.(string), ifaceHostAccess, "Modes", "Enabled", "Disabled", "Locked")
				if err != nil {
					return err
				}
				return h.set(ctx, h.h.SetPersistent, strings.ToLower(m))
			}},
			{Name: "Runtime", Sig: "s", Value: unknown, Set: func(ctx context.Context, _ *bus.Call, v any) error {
				m, err := enumValue(v.(string), ifaceHostAccess, "Modes", "Enabled", "Disabled")
				if err != nil {
					return err
				}
				if m == "Disabled" {
					m = "Locked" // at run time the RShim cannot be hidden, only locked
				}
				return h.set(ctx, h.h.SetRuntime, strings.ToLower(m))
			}},
			{Name: "Locked", Sig: "b", Value: false},
		},
		Methods: []bus.Method{{Name: "Refresh", Handle: func(ctx context.Context, _ *bus.Call) ([]any, error) {
			return nil, h.refresh(ctx)
		}}},
	})
}

func (h *hostAccess) nicIface() bus.Interface {
	return describe(bus.Interface{Name: ifaceNIC, Properties: []bus.Property{{
		Name: "NicAttribute", Sig: "s", Value: enum(ifaceNIC, "Modes", "Invalid"),
		Set: func(ctx context.Context, _ *bus.Call, v any) error {
			m, err := enumValue(v.(string), ifaceNIC, "Modes", "Enabled", "Disabled")
			if err != nil {
				return err
			}
			return h.set(ctx, h.h.SetPersistent, strings.ToLower(m))
		},
	}}})
}

// hostMode is a mode as a value of an enumeration; unless it is one of some words,
// it is the other.
func hostMode(iface, mode, other string, words ...string) string {
	if slices.Contains(words, mode) {
		other = title(mode)
	}
	return enum(iface, "Modes", other)
}

// run keeps what is published up to date.
func (h *hostAccess) run(ctx context.Context) {
	for ctx.Err() == nil {
		_ = h.refresh(ctx) // it logs
		wait(ctx, hostRefresh)
	}
}

// set changes a mode, and publishes what the NIC says afterwards.
func (h *hostAccess) set(ctx context.Context, set func(context.Context, string) error, mode string) error {
	done, err := h.take(ctx)
	if err != nil {
		return err
	}
	defer done()
	inner, cancel := context.WithTimeout(ctx, hostPatience)
	defer cancel()
	if err := set(inner, mode); err != nil {
		return err
	}
	if err := h.read(ctx); err != nil {
		return fmt.Errorf("it was set, but could not be read back: %w", err)
	}
	return nil
}

// refresh asks the NIC and publishes what it says.
func (h *hostAccess) refresh(ctx context.Context) error {
	done, err := h.take(ctx)
	if err != nil {
		return err
	}
	defer done()
	return h.read(ctx)
}

// take waits for its turn.
func (h *hostAccess) take(ctx context.Context) (done func(), err error) {
	select {
	case h.turn <- struct{}{}:
		return func() { <-h.turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (h *hostAccess) read(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, hostPatience)
	defer cancel()
	mode, now, err := h.h.Get(ctx)
	if err != nil {
		mode, now = "", ""
	}
	if now == "locked" {
		now = "disabled"
	}
	_ = h.own.Update(
		bus.Change{Interface: ifaceHostAccess, Property: "Persistent", Value: hostMode(ifaceHostAccess, mode, "Unknown", "enabled", "disabled", "locked")},
		bus.Change{Interface: ifaceHostAccess, Property: "Runtime", Value: hostMode(ifaceHostAccess, now, "Unknown", "enabled", "disabled")},
		bus.Change{Interface: ifaceHostAccess, Property: "Locked", Value: mode == "locked"},
	)
	if mode == "locked" { // NVIDIA's attribute has no word for it
		mode = "disabled"
	}
	_ = h.nic.Set(ifaceNIC, "NicAttribute", hostMode(ifaceNIC, mode, "Invalid", "enabled", "disabled"))
	switch {
	case err == nil:
		h.failed = ""
	case ctx.Err() == nil && h.failed != err.Error():
		h.failed = err.Error()
		h.log.Warn("the NIC does not tell the host's access", "op", "host access", "err", err)
	}
	return err
}

// wait waits for d, or until ctx ends.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
