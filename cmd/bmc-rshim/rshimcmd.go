// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
)

const cmdmodeHelp = `Usage: rshim [options]

OPTIONS:
  -c, --cmdmode             run in command line mode
    -g, --get-debug         get debug code
    -m, --bfdump            debug dump
    -r, --reg <addr.[32|64] [value]> read/write register
    -p, --get-config <NAME | all> get config value
    -s, --set-debug <0 | 1> set debug code
  -h, --help                show help info
  -i, --index               use device path /dev/rshim<i>/
`

// Behind -c, these come before the options of rshim itself, which still count.
// A number behind -i is its argument, but it can be without, see bareIndex.
var cmdmodeLongOptions = []longOption{
	{"", 'i', false}, {"index", 'i', true}, {"help", 'h', false},
	{"get-debug", 'g', false}, {"bfdump", 'm', false}, {"reg", 'r', true},
	{"set-debug", 's', true}, {"get-config", 'p', true},
}

// Exit status of cmdmode, as a shell sees the C daemon's negative numbers.
const (
	exitRshimFailed  = 256 - 1
	exitRshimDevice  = 256 - int(syscall.ENODEV)
	exitRshimTimeout = 256 - int(syscall.ETIMEDOUT)
)

// rshimCommand is a command of cmdmode.
type rshimCommand struct {
	letter byte
	name   string // -p
	addr   uint32 // -r
	size   int    // in bytes
	write  bool
	value  uint64 // -r, and 0 or 1 for -s
}

// newRshimCommand makes a command of an option. What is wrong is found here,
// before any command runs.
func newRshimCommand(letter byte, arg string, g *getopt) (rshimCommand, *rshimExit) {
	c := rshimCommand{letter: letter}
	switch letter {
	case 'p':
		c.name = arg
	case 's':
		v, err := parseNumber(arg)
		if err != nil {
			return c, rshimUsage("rshim: --set-debug takes 0 or 1, not %q", arg)
		}
		c.value = min(v, 1)
	case 'r':
		text, bits, _ := strings.Cut(arg, ".")
		addr, err := parseNumber(text)
		switch {
		case err != nil || addr > 1<<32-1:
			return c, rshimUsage("rshim: %q is no address of a register", text)
		case bits == "32":
			c.size = 4
		case bits == "64":
			c.size = 8
		default:
			return c, rshimUsage("rshim: a register is ADDRESS.32 or ADDRESS.64, not %q", arg)
		}
		c.addr = uint32(addr)
		if text, ok := g.takeIf(func(w string) bool { return !strings.HasPrefix(w, "-") || isNumber(w) }); ok {
			if c.value, err = parseNumber(text); err != nil {
				return c, rshimUsage("rshim: %q is no value of a register", text)
			}
			c.write = true
		}
	}
	return c, nil
}

// parseNumber parses a number of 64 bits, in C's notation; a negative one is
// its two's complement.
func parseNumber(s string) (uint64, error) {
	v, err := strconv.ParseUint(s, 0, 64)
	if err != nil && strings.HasPrefix(s, "-") {
		var i int64
		i, err = strconv.ParseInt(s, 0, 64)
		v = uint64(i)
	}
	return v, err
}

func isNumber(s string) bool { _, err := parseNumber(s); return err == nil }

// bareIndex is the argument of a short -i behind -c: the number that follows.
// Without one the C daemon takes whatever follows for 0, and nothing at the
// end of the line for no -i at all.
func bareIndex(g *getopt, have int) string {
	isIndex := func(w string) bool { _, err := strconv.Atoi(w); return err == nil }
	if n, ok := g.takeIf(isIndex); ok {
		return n
	}
	if g.bundle == "" && len(g.args) == 0 {
		return strconv.Itoa(have)
	}
	return "0"
}

// cmdmode runs commands on a device.
type cmdmode struct {
	e    *env
	o    *rshimOptions
	out  io.Writer // for text; data goes to e.stdout
	regs *chipRegs // nil until it is needed

	// What tests put in the place of the machine.
	devRoot, conf string
	open          func(ctx context.Context) (registers, error)
}

// runCmdmode runs the commands in their order and returns the exit code.
func runCmdmode(ctx context.Context, e *env, o *rshimOptions) int {
	m := &cmdmode{e: e, o: o, devRoot: "/dev", conf: defaultConf}
	m.open = m.openRegs
	return m.run(ctx)
}

// run returns what the last command returned. Some that fail end it all, as in
// the C daemon.
func (m *cmdmode) run(ctx context.Context) (code int) {
	// The C daemon's text waits until it ends unless it goes to a terminal, so
	// that a dump in a file begins with the data.
	var late bytes.Buffer
	m.out = m.e.stdout
	if newTerminal(m.e.stdout) == nil {
		m.out = &late
		defer func() { m.e.stdout.Write(late.Bytes()) }()
	}
	defer func() {
		if m.regs != nil {
			m.regs.close()
		}
	}()
	for _, c := range m.o.commands {
		if ctx.Err() != nil {
			return exitInterrupted
		}
		end := false
		if code, end = m.do(ctx, c); end {
			break
		}
	}
	return code
}

func (m *cmdmode) do(ctx context.Context, c rshimCommand) (code int, end bool) {
	switch c.letter {
	case 'h':
		fmt.Fprint(m.out, cmdmodeHelp)
	case 'g':
		v, err := m.uefiDebug(ctx, nil)
		if err != nil {
			m.failed(err)
			fmt.Fprintf(m.out, "Failed to read debug setting (0x%x)\n--get-debug failed\n", uint32(0xffffffff))
			return exitRshimFailed, true
		}
		fmt.Fprintf(m.out, "0x%x\n", v)
	case 's':
		if _, err := m.uefiDebug(ctx, &c.value); err != nil {
			m.failed(err)
			fmt.Fprint(m.out, "--set-debug failed\n")
			return exitRshimFailed, true
		}
	case 'm':
		return m.dump(ctx), false
	case 'p':
		return m.config(c.name), false
	case 'r':
		if err := m.register(ctx, c); err != nil {
			m.failed(err)
			return codeOf(err), true
		}
	}
	return 0, false
}

// failed says on stderr what the C daemon's messages do not.
func (m *cmdmode) failed(err error) { fmt.Fprintln(m.e.stderr, "rshim:", err) }

func codeOf(err error) int {
	if errors.Is(err, errNoRshim) {
		return exitRshimDevice
	}
	if errors.Is(err, context.Canceled) {
		return exitInterrupted
	}
	return exitRshimFailed
}

func (m *cmdmode) register(ctx context.Context, c rshimCommand) error {
	r, err := m.chip(ctx)
	if err != nil {
		return err
	}
	if c.write {
		if err := r.write(ctx, c.addr, c.size, c.value); err != nil {
			return err
		}
		fmt.Fprintf(m.out, "[0x%x] <- 0x%016x\n", c.addr, c.value)
		return nil
	}
	v, err := r.read(ctx, c.addr, c.size)
	if err == nil {
		fmt.Fprintf(m.out, "[0x%x] -> 0x%016x\n", c.addr, v)
	}
	return err
}

// config prints what the configuration file sets, or the default.
func (m *cmdmode) config(name string) int {
	settings := []struct {
		name  string
		value int
	}{{"BOOT_TIMEOUT", 300}, {"PCIE_RESET_DELAY", 5}, {"USB_RESET_DELAY", 1}, {"USB_TIMEOUT", 40}}
	text, err := os.ReadFile(m.conf)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.failed(err)
	}
	found := false
	for _, s := range settings {
		for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
			if f := strings.Fields(lines.Text()); len(f) > 1 && f[0] == s.name {
				if n, err := strconv.Atoi(f[1]); err == nil {
					s.value = n
				}
			}
		}
		switch name {
		case s.name:
			fmt.Fprintln(m.out, s.value)
		case "all":
			fmt.Fprintf(m.out, "%-17s %d\n", s.name, s.value)
		default:
			continue
		}
		found = true
	}
	if !found {
		fmt.Fprint(m.out, "Invalid command\n")
		return exitRshimUsage
	}
	return 0
}

// node is the file of the registers of the device that is meant, "" if there
// is none and none was asked for.
func (m *cmdmode) node() string {
	if m.o.index >= 0 {
		return fmt.Sprintf("%s/rshim%d/rshim", m.devRoot, m.o.index)
	}
	names, err := findNodes(m.devRoot, "")
	if err != nil {
		return ""
	}
	return m.devRoot + "/" + names[0] + "/rshim"
}
