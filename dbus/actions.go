// SPDX-License-Identifier: Apache-2.0

package dbus

import (
	"context"
	"fmt"
	"time"

	"github.com/bluefield-go/bmc-rshim/dbus/bus"
	"github.com/bluefield-go/bmc-rshim/dbus/wire"
	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

const (
	actionPatience = 30 * time.Second // of an order, whatever its own limit
	resetPatience  = 4 * time.Minute  // of a reset: more than a chip has to come back
	maxMisc        = 4 << 10          // bytes of what is written to misc, as through its file
	maxLogLines    = 1024             // in one reply
)

// methods are those of Rshim.Device.
func (v *device) methods() []bus.Method {
	method := func(name string, in, out wire.Signature, f func(ctx context.Context, c *bus.Call) ([]any, error)) bus.Method {
		return bus.Method{Name: name, In: in, Out: out, Handle: func(ctx context.Context, c *bus.Call) ([]any, error) {
			ctx, cancel := context.WithTimeout(ctx, actionPatience)
			defer cancel()
			return f(ctx, c)
		}}
	}
	// Of a call without an answer of its own.
	do := func(f func(ctx context.Context, args []any) error) func(context.Context, *bus.Call) ([]any, error) {
		return func(ctx context.Context, c *bus.Call) ([]any, error) { return nil, f(ctx, c.Args) }
	}
	return []bus.Method{
		method("Force", "u", "s", v.force),
		method("Release", "", "", do(func(ctx context.Context, _ []any) error { return v.setDrop(ctx, true) })),
		{Name: "SoftReset", Handle: v.softReset},
		method("SetBootMode", "s", "", do(func(ctx context.Context, a []any) error { return v.setBootMode(ctx, a[0].(string)) })),
		{Name: "PushBoot", In: "ha{sv}", Out: "o", Handle: v.pushBoot},
		method("ReadLog", "t", "a(tts)t", v.readLog),
		method("ReadMisc", "", "s", func(ctx context.Context, _ *bus.Call) ([]any, error) {
			return []any{v.d.Misc(ctx)}, nil
		}),
		method("WriteMisc", "s", "", do(v.writeMisc)),
		method("ReadRegister", "uy", "t", func(ctx context.Context, c *bus.Call) ([]any, error) {
			size, err := registerSize(c.Args[1])
			if err != nil {
				return nil, err
			}
			value, err := v.d.ReadReg(ctx, reg.Linear(c.Args[0].(uint32)), size)
			return []any{value}, err
		}),
		method("WriteRegister", "uyt", "", do(func(ctx context.Context, a []any) error {
			size, err := registerSize(a[1])
			if err != nil {
				return err
			}
			value := a[2].(uint64)
			if size == 4 && value>>32 != 0 {
				return fmt.Errorf("%w: %#x does not go into 4 bytes", errArgument, value)
			}
			return v.d.WriteReg(ctx, reg.Linear(a[0].(uint32)), size, value)
		})),
	}
}

// registerSize is the size of a register in bytes, 4 or 8.
func registerSize(v any) (int, error) {
	if size := v.(byte); size == 4 || size == 8 {
		return int(size), nil
	}
	return 0, fmt.Errorf("%w: a register has 4 or 8 bytes", errArgument)
}

// force takes the RShim from its owner.
func (v *device) force(ctx context.Context, c *bus.Call) ([]any, error) {
	if ms := c.Args[0].(uint32); ms > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(ms)*time.Millisecond)
		defer cancel()
	}
	r, err := v.d.Force(ctx)
	v.update()
	if err != nil {
		return nil, err
	}
	return []any{enum(ifaceDevice, "ForceResults", forceResult(r))}, nil
}

func forceResult(r rshim.ForceResult) string {
	switch r {
	case rshim.ForceGranted:
		return "Granted"
	case rshim.ForceNotNeeded:
		return "NotNeeded"
	}
	return "NoOwner"
}

// softReset resets the chip and waits until it is back.
func (v *device) softReset(ctx context.Context, _ *bus.Call) ([]any, error) {
	if streams(v.d.Push()) {
		return nil, fmt.Errorf("rshim%d: reset: %w", v.d.Index(), errPushing)
	}
	defer v.update()
	ctx, cancel := context.WithTimeout(ctx, resetPatience)
	defer cancel()
	return nil, v.d.ResetWait(ctx)
}

func (v *device) writeMisc(ctx context.Context, a []any) error {
	text := a[0].(string)
	if len(text) > maxMisc {
		return fmt.Errorf("%w: %d bytes, of %d at most", errArgument, len(text), maxMisc)
	}
	defer v.update()
	return v.d.WriteMisc(ctx, text)
}
