// SPDX-License-Identifier: Apache-2.0

package rshim

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

// WriteMisc carries out what is written to /dev/rshimN/misc: commands of the
// form "KEY VALUE", one a line, in order. It stops at the first that fails;
// the error, ErrInvalid for a command that cannot be understood, names it.
func (d *Device) WriteMisc(ctx context.Context, text string) error {
	done := 0
	for line := range strings.Lines(strings.TrimRight(text, "\x00")) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if err := d.miscCommand(ctx, f[0], f[1:]); err != nil {
			return d.opError("misc write", fmt.Errorf("%.64q: %w", strings.Join(f, " "), err))
		}
		done++
	}
	if done == 0 {
		return d.opError("misc write", fmt.Errorf("%w: want KEY VALUE", ErrInvalid))
	}
	return nil
}

// miscKey is a key of misc and what writing it does. base is that of the value.
type miscKey struct {
	base int
	do   func(d *Device, ctx context.Context, v uint64) error
}

var miscKeys = map[string]miscKey{
	"DISPLAY_LEVEL": {10, func(d *Device, _ context.Context, v uint64) error {
		return d.change(v <= 2, "0, 1 or 2", func(s *settings) { s.displayLevel = int(v) })
	}},
	"BOOT_TIMEOUT": {10, func(d *Device, _ context.Context, v uint64) error {
		return d.change(v > 0 && v <= maxBootTimeout, "1 to 86400 seconds", func(s *settings) {
			s.bootTimeout = time.Duration(v) * time.Second
		})
	}},
	"USB_TIMEOUT": {10, func(d *Device, _ context.Context, v uint64) error {
		return d.change(v <= 300, "0 to 300 seconds, 0 being the default", func(s *settings) {
			s.usbTimeout = orDefault(time.Duration(v)*time.Second, DefaultUSBTimeout)
		})
	}},
	"CLEAR_ON_READ": {10, func(d *Device, _ context.Context, v uint64) error {
		return d.change(true, "", func(s *settings) { s.clearOnRead = v != 0 })
	}},
	"BOOT_RESET_SKIP": {16, func(d *Device, _ context.Context, v uint64) error {
		return d.change(true, "", func(s *settings) { s.bootResetSkip = v != 0 })
	}},
	"BOOT_MODE": {16, func(d *Device, ctx context.Context, v uint64) error {
		return d.SetBootMode(ctx, reg.BootMode(v&reg.BootModeMask))
	}},
	"SW_RESET": {16, func(d *Device, ctx context.Context, v uint64) error {
		if v == 0 {
			return nil
		}
		return d.Reset(ctx)
	}},
}

const maxBootTimeout = 24 * 60 * 60

// Keys of the C daemon that are not to be had (yet, or over USB).
var miscUnsupported = []string{
	"DEBUG_CODE", "DEV_NAME", "DROP_MODE", "FORCE_CMD", "OPN_STR",
}

func (d *Device) miscCommand(ctx context.Context, key string, args []string) error {
	if parse, ok := miscPeer[key]; ok {
		m, err := parse(args)
		if err != nil {
			return err
		}
		return d.tell(ctx, m...)
	}
	k, ok := miscKeys[key]
	if !ok {
		if slices.Contains(miscUnsupported, key) {
			return ErrNotSupported
		}
		return fmt.Errorf("%w: unknown key", ErrInvalid)
	}
	v, err := miscNumber(args, 0, k.base, 32)
	if err != nil {
		return err
	}
	return k.do(d, ctx, v)
}

// change changes the settings, if the value it comes from is valid.
func (d *Device) change(valid bool, want string, f func(*settings)) error {
	if !valid {
		return fmt.Errorf("%w: value must be %s", ErrInvalid, want)
	}
	d.update(func() { f(&d.set) })
	return nil
}

// SetBootMode sets what the chip boots from after its next reset.
func (d *Device) SetBootMode(ctx context.Context, m reg.BootMode) error {
	s, err := d.owner(ctx)
	if err == nil {
		err = s.write(ctx, s.regs.BootControl, 8, uint64(m))
	}
	return d.opError("boot mode", err)
}
