// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bluefield-go/bmc-rshim/internal/devnode"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/usbbackend"
	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

// registers are those of one chip. Addresses are as reg.Linear takes them,
// sizes 4 or 8 bytes.
type registers interface {
	read(ctx context.Context, addr uint32, size int) (uint64, error)
	write(ctx context.Context, addr uint32, size int, v uint64) error
	close()
}

// chipRegs are registers of a chip that is known.
type chipRegs struct {
	registers
	regs *reg.Map
}

func (c *chipRegs) readAt(ctx context.Context, a reg.Addr) (uint64, error) {
	return c.read(ctx, linear(a), 8)
}

func (c *chipRegs) writeAt(ctx context.Context, a reg.Addr, v uint64) error {
	return c.write(ctx, linear(a), 8, v)
}

func linear(a reg.Addr) uint32 { return uint32(a.Channel)<<16 | uint32(a.Offset) }

// errNoRshim means that there is no chip to work on.
var errNoRshim = errors.New("no RShim")

// fabricDimBF2 is the lowest byte of FABRIC_DIM of BlueField-1 and -2. Source:
// rshim_cmdmode.c.
const fabricDimBF2 = 0x22

// chip opens the device at the first use and finds out which chip it is.
func (m *cmdmode) chip(ctx context.Context) (*chipRegs, error) {
	if m.regs != nil {
		return m.regs, nil
	}
	r, err := m.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoRshim, err)
	}
	c := &chipRegs{r, reg.For(reg.BlueField3)}
	v, err := c.readAt(ctx, c.regs.FabricDim)
	if err == nil && reg.Bad(v) {
		err = fmt.Errorf("FABRIC_DIM is %#x", v)
	}
	if err != nil {
		r.close()
		rc := uint32(0)
		if !reg.Bad(v) {
			rc = 0xffffffff
		}
		fmt.Fprintf(m.out, "Failed to read FABRIC_DIM (0x%x)\n", rc)
		return nil, fmt.Errorf("%w: %w", errNoRshim, err)
	}
	if v&0xff == fabricDimBF2 {
		c.regs = reg.For(reg.BlueField2)
	}
	m.regs = c
	return c, nil
}

// uefiDebug returns whether UEFI is asked for its debug output, after having
// set that if there is something to set.
func (m *cmdmode) uefiDebug(ctx context.Context, set *uint64) (uint64, error) {
	c, err := m.chip(ctx)
	if err != nil {
		return 0, err
	}
	v, err := c.readAt(ctx, c.regs.Breadcrumb1)
	if err == nil && set != nil {
		v &^= reg.Breadcrumb1UEFIDebug
		if *set != 0 {
			v |= reg.Breadcrumb1UEFIDebug
		}
		err = c.writeAt(ctx, c.regs.Breadcrumb1, v)
	}
	if v&reg.Breadcrumb1UEFIDebug != 0 {
		return 1, err
	}
	return 0, err
}

// openRegs opens the registers: those that a running daemon serves, or else the
// first device on the USB bus.
func (m *cmdmode) openRegs(ctx context.Context) (registers, error) {
	if path := m.node(); path != "" {
		f, err := devnode.OpenRegisters(path)
		if err != nil {
			fmt.Fprint(m.out, "Can't open rshim\n")
			return nil, err
		}
		return nodeRegs{f}, nil
	}
	r, err := openBusRegs(ctx, backends["usbfs"](m.devRoot))
	if err != nil {
		fmt.Fprint(m.out, "Can't find rshim\n")
	}
	return r, err
}

// nodeRegs are registers behind the file of a daemon, whose calls cannot be
// cancelled.
type nodeRegs struct{ f *devnode.Registers }

func (n nodeRegs) read(ctx context.Context, addr uint32, size int) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, nodePatience)
	defer cancel()
	return blocking(ctx, func() (uint64, error) { return n.f.Read(addr, size) })
}

func (n nodeRegs) write(ctx context.Context, addr uint32, size int, v uint64) error {
	ctx, cancel := context.WithTimeout(ctx, nodePatience)
	defer cancel()
	_, err := blocking(ctx, func() (struct{}, error) { return struct{}{}, n.f.Write(addr, size, v) })
	return err
}

func (n nodeRegs) close() { n.f.Close() }

// busRegs are those of a USB device, whoever owns the RShim.
type busRegs struct{ d *usbbackend.Device }

// openBusRegs opens the first RShim on the bus.
func openBusRegs(ctx context.Context, host usb.Host) (registers, error) {
	infos, err := host.Devices(ctx, reg.USBVendor)
	if err != nil {
		return nil, err
	}
	err = errors.New("none on the USB bus")
	for _, info := range infos {
		if _, ok := reg.GenerationOf(info.Vendor, info.Product); !ok {
			continue
		}
		var d *usbbackend.Device
		if d, err = usbbackend.Open(ctx, host, info, nil); err == nil {
			return busRegs{d}, nil
		}
	}
	return nil, err
}

// usbPatience is for one transfer, as the C daemon has it by default.
const usbPatience = 40 * time.Second

func (b busRegs) address(addr uint32) reg.Addr {
	a := reg.Linear(addr)
	if b.d.Generation() != reg.BlueField3 {
		a.Channel &= 0xf
	}
	return a
}

func (b busRegs) read(ctx context.Context, addr uint32, size int) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, usbPatience)
	defer cancel()
	return b.d.ReadReg(ctx, b.address(addr), size)
}

func (b busRegs) write(ctx context.Context, addr uint32, size int, v uint64) error {
	ctx, cancel := context.WithTimeout(ctx, usbPatience)
	defer cancel()
	return b.d.WriteReg(ctx, b.address(addr), size, v)
}

func (b busRegs) close() { b.d.Close() }
