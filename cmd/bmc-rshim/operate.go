// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

// operation is a command that does something to one device, or asks it.
type operation struct {
	name, args, help string
	least, most      int // arguments beside the flags
	flags            func(fs *flag.FlagSet)
	check            func(args []string) error // before any device is looked for
	do               func(ctx context.Context, t target, args []string) (answer, error)
}

// answer is what an operation has to say: to people, and in JSON.
type answer struct {
	text string // "" for nothing
	json fields // after the device's name
}

// run runs the command.
func (op *operation) run(ctx context.Context, e *env, args []string) error {
	var t targetFlags
	fs := flags(op.name, op.args, op.help+exitCodes)
	t.register(fs)
	asJSON := fs.Bool("json", false, "report in JSON")
	quiet := fs.Bool("q", false, "report nothing but errors")
	if op.flags != nil {
		op.flags(fs)
	}
	if err := parseBetween(e, fs, args, op.least, op.most); err != nil {
		return err
	}
	if op.check != nil {
		if err := op.check(fs.Args()); err != nil {
			return err
		}
	}
	dev, err := t.one(ctx, e)
	if err != nil {
		return err
	}
	defer dev.close()
	a, err := op.do(ctx, dev, fs.Args())
	switch {
	case err != nil:
		return unavailable(err)
	case *asJSON:
		return printJSON(e.stdout, fields(func(o *object) {
			o.text("device", nameOf(dev))
			a.json(o)
		}))
	case !*quiet && a.text != "":
		fmt.Fprintln(e.stdout, strings.TrimSuffix(a.text, "\n"))
	}
	return nil
}

// nameOf is the name of a target's device.
func nameOf(t target) string {
	switch t := t.(type) {
	case *local:
		return t.name()
	case nodes:
		return t.name
	case *busDevice:
		return t.name()
	}
	return ""
}

const resetHelp = `Resets the DPU, as "SW_RESET 1" in misc does. With the daemon on D-Bus it ends when
the chip has been reset and is attached again, or with an error when that does
not happen: 5 if the chip stays as it was, or is not back in time, 6 if another
has its RShim. Through the device files it ends when the reset has been asked
for, and nobody knows what comes of it; see "bmc-rshim status".

`

func resetCommand(ctx context.Context, e *env, args []string) error {
	op := operation{
		name: "reset",
		help: resetHelp,
		do: func(ctx context.Context, t target, _ []string) (answer, error) {
			back, err := t.reset(ctx)
			if !back {
				return answer{nameOf(t) + " is being reset", func(o *object) { o.text("result", "requested") }}, err
			}
			return answer{nameOf(t) + " is reset", func(o *object) { o.text("result", "reset") }}, err
		},
	}
	return op.run(ctx, e, args)
}

func bootModeCommand(ctx context.Context, e *env, args []string) error {
	op := operation{
		name: "boot-mode", args: " [MODE]", most: 1,
		help: "Shows, or sets, what the DPU boots from at its next reset: " + strings.Join(bootModes[:], ", ") + ".\n\n",
		check: func(args []string) error {
			if len(args) == 1 && !slices.Contains(bootModes[:], args[0]) {
				return usageError("boot-mode: %q is none of %s", args[0], strings.Join(bootModes[:], ", "))
			}
			return nil
		},
		do: func(ctx context.Context, t target, args []string) (answer, error) {
			if len(args) == 1 {
				var err error
				if b, ok := t.(*busDevice); ok {
					err = remote(b.c.SetBootMode(ctx, b.index, busBootMode(args[0])))
				} else {
					err = t.setMisc(ctx, fmt.Sprintf("BOOT_MODE %d\n", slices.Index(bootModes[:], args[0])))
				}
				if err != nil {
					return answer{}, err
				}
			}
			st, err := t.status(ctx)
			if err == nil && st.BootMode == "" {
				err = exitWith(exitDevice, "%s: the boot mode is not known", st.summary())
			}
			return answer{st.BootMode, func(o *object) { o.text("boot_mode", st.BootMode) }}, err
		},
	}
	return op.run(ctx, e, args)
}

// busBootMode is what D-Bus calls a boot mode.
func busBootMode(mode string) string {
	for name, m := range bootModeOf {
		if m == mode {
			return name
		}
	}
	return ""
}

func miscCommand(ctx context.Context, e *env, args []string) error {
	op := operation{
		name: "misc", args: " [KEY VALUE...]", most: 16,
		help: "Shows /dev/rshimN/misc, or writes a line to it.\n\n",
		check: func(args []string) error {
			if len(args) == 1 {
				return usageError("misc: %s needs a value", args[0])
			}
			if slices.ContainsFunc(args, func(s string) bool { return strings.ContainsAny(s, "\n\x00") }) {
				return usageError("misc: one line at a time")
			}
			return nil
		},
		do: func(ctx context.Context, t target, args []string) (answer, error) {
			if len(args) > 0 {
				line := strings.Join(args, " ")
				return answer{"", func(o *object) { o.text("set", line) }}, t.setMisc(ctx, line+"\n")
			}
			text, err := t.misc(ctx)
			return answer{text, miscJSON(parseMisc(text))}, err
		},
	}
	return op.run(ctx, e, args)
}

func miscJSON(m misc) fields {
	return func(o *object) {
		o.object("values", fields(func(o *object) {
			for _, k := range slices.Sorted(maps.Keys(m.values)) {
				if k = strings.TrimSpace(k); k != "" {
					o.text(k, m.values[k])
				}
			}
		}))
	}
}

const regHelp = `Reads, or writes, a register of the RShim. ADDRESS is the channel in its upper and
the offset in its lower 16 bits, such as 0x130008; numbers are decimal, or
hexadecimal with 0x. A wrong write can hang the DPU.

`

func regCommand(ctx context.Context, e *env, args []string) error {
	size := 8
	var addr uint32
	var value uint64
	op := operation{
		name: "reg", args: " ADDRESS [VALUE]", least: 1, most: 2, help: regHelp,
		flags: func(fs *flag.FlagSet) { fs.IntVar(&size, "size", 8, "of the register, 4 or 8 `bytes`") },
		check: func(args []string) error {
			a, err := strconv.ParseUint(args[0], 0, 32)
			if err == nil && len(args) == 2 {
				value, err = strconv.ParseUint(args[1], 0, 8*min(max(size, 4), 8))
			}
			if err == nil && size != 4 && size != 8 {
				err = errors.New("-size is 4 or 8")
			}
			if err == nil && a%uint64(size) != 0 {
				err = fmt.Errorf("%#x is no multiple of %d", a, size)
			}
			if err != nil {
				return usageError("reg: %v", err)
			}
			addr = uint32(a)
			return nil
		},
		do: func(ctx context.Context, t target, args []string) (answer, error) {
			if len(args) == 2 {
				return answer{"", func(o *object) {
					o.text("register", fmt.Sprintf("%#x", addr))
					o.text("written", fmt.Sprintf("%#x", value))
				}}, t.writeReg(ctx, addr, size, value)
			}
			v, err := t.readReg(ctx, addr, size)
			text := fmt.Sprintf("0x%0*x", 2*size, v)
			if reg.Bad(v) {
				text += " (what a chip that cannot be read gives)"
			}
			return answer{text, func(o *object) {
				o.text("register", fmt.Sprintf("%#x", addr))
				o.text("value", fmt.Sprintf("0x%0*x", 2*size, v))
			}}, err
		},
	}
	return op.run(ctx, e, args)
}
