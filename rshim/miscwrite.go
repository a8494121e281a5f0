// SPDX-License-Identifier: Apache-2.0

package rshim

import (
	"context"
	"fmt"
	"strconv"
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
	"DROP_MODE": {10, func(d *Device, ctx context.Context, v uint64) error {
		return d.setDrop(ctx, v != 0)
	}},
	"FORCE_CMD": {16, func(d *Device, ctx context.Context, v uint64) error {
		if v == 0 {
			return nil
		}
		r, err := d.forceNow(ctx)
		if err == nil && r == ForceNotNeeded {
			err = fmt.Errorf("%w: the RShim is ours already", ErrInvalid)
		}
		return err
	}},
}

const maxBootTimeout = 24 * 60 * 60

func (d *Device) miscCommand(ctx context.Context, key string, args []string) error {
	if parse, ok := miscPeer[key]; ok {
		m, err := parse(args)
		if err != nil {
			return err
		}
		return d.tell(ctx, m...)
	}
	switch key {
	case "OPN_STR":
		if len(args) == 0 {
			return fmt.Errorf("%w: value is missing", ErrInvalid)
		}
		return d.setOPN(ctx, args[0])
	case "DEBUG_CODE":
		code, err := miscDebugCode(args)
		if err != nil {
			return err
		}
		return d.setDebugCode(ctx, code)
	case "DEV_NAME":
		return fmt.Errorf("%w: the name is where it hangs on the USB bus", ErrInvalid)
	}
	k, ok := miscKeys[key]
	if !ok {
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

// miscDebugCode parses the value of DEBUG_CODE, which has to begin with 0x.
func miscDebugCode(args []string) (uint64, error) {
	if len(args) == 0 {
		return 0, fmt.Errorf("%w: value is missing", ErrInvalid)
	}
	digits, ok := strings.CutPrefix(args[0], "0x")
	code, err := strconv.ParseUint(digits, 16, 64)
	if !ok || err != nil {
		return 0, fmt.Errorf("%w: value is not 0x and up to 16 hexadecimal digits", ErrInvalid)
	}
	return code, nil
}

// setDebugCode writes a code for the chip's firmware to scratchpad 1. It stands
// there in place of the keepalive until another one, 0, is written or the chip
// goes: whoever checks for an owner meanwhile finds none.
func (d *Device) setDebugCode(ctx context.Context, code uint64) error {
	s, err := d.owner(ctx)
	if err != nil {
		return err
	}
	before := uint64(0)
	d.update(func() { before, s.debugCode = s.debugCode, code })
	if err := s.write(ctx, s.regs.Scratchpad1, 8, code); err != nil {
		d.update(func() { s.debugCode = before })
		return err
	}
	return nil
}
