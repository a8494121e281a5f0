// SPDX-License-Identifier: Apache-2.0

package client

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/bluefield-go/bmc-rshim/dbus/bus"
)

// Device is what a device's properties were at one time.
type Device struct {
	Index         int
	Backend       string // usb
	Name          string // usb-2-1.7
	Generation    string // BlueField-3; "" while it is not known
	Revision      int
	OPN           string // part number, "" if unknown
	Attached      bool   // the RShim is ours
	AttachedSince time.Time
	State         string // Gone, Probing, Attached, Contended, Requesting, Granting, Dropped, Locked, Rebooting
	Owner         string // Bmc, Other, None, Unknown
	Reason        string // of the state, in words
	DropMode      bool
	BootMode      string // RShim, EMMC, EMMCSwap, EMMCLegacy, Unknown
	BFMode        string // Dpu, Nic, Reserved, Unknown
	BootResetSkip bool
	BootStage     string        // what the DPU is doing, in words
	Uptime        time.Duration // since the chip's last reset; 0 unknown
	Counters      map[string]uint64
	Push          Path // the last push, "/" if there was none
}

// String is rshim<index>.
func (d *Device) String() string { return deviceName(d.Index) }

func decodeDevice(path Path, p bus.Properties) (*Device, error) {
	f := &fields{p: p}
	d := &Device{
		Index:         Index(path),
		Backend:       f.text("Backend"),
		Name:          f.text("Name"),
		Generation:    f.text("Generation"),
		Revision:      int(field[uint32](f, "Revision")),
		OPN:           f.text("OPN"),
		Attached:      field[bool](f, "Attached"),
		AttachedSince: f.when("AttachedSince"),
		State:         f.enum("State", ifDevice+".States"),
		Owner:         f.enum("Owner", ifDevice+".Owners"),
		Reason:        f.text("Reason"),
		DropMode:      field[bool](f, "DropMode"),
		BootMode:      f.enum("BootMode", ifDevice+".BootModes"),
		BFMode:        f.enum("BFMode", ifDevice+".BFModes"),
		BootResetSkip: field[bool](f, "BootResetSkip"),
		BootStage:     f.text("BootStage"),
		Uptime:        time.Duration(min(field[uint64](f, "Uptime"), 1<<33)) * time.Second,
		Counters:      f.counters("Counters"),
		Push:          field[Path](f, "Push"),
	}
	return d, f.err
}

// Devices returns the devices by their index.
func (c *Client) Devices(ctx context.Context) ([]*Device, error) {
	all, err := c.objects(ctx)
	if err != nil {
		return nil, err
	}
	var ds []*Device
	for path, interfaces := range all {
		p, ok := interfaces[ifDevice]
		if !ok || Index(path) < 0 {
			continue
		}
		d, err := decodeDevice(path, p)
		if err != nil {
			return nil, c.opError("devices", deviceName(Index(path)), err)
		}
		ds = append(ds, d)
	}
	slices.SortFunc(ds, func(a, b *Device) int { return cmp.Compare(a.Index, b.Index) })
	return ds, nil
}

// objects returns what the daemon has on the bus.
func (c *Client) objects(ctx context.Context) (map[Path]map[string]bus.Properties, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	all, err := c.c.GetManagedObjects(ctx, name, root)
	return all, c.opError("objects", "", err)
}

// Device returns rshim<index>. The error is ErrNotFound if there is none.
func (c *Client) Device(ctx context.Context, index int) (*Device, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	p, err := c.c.GetAll(ctx, name, devicePath(index), ifDevice)
	if err == nil {
		var d *Device
		if d, err = decodeDevice(devicePath(index), p); err == nil {
			return d, nil
		}
	}
	return nil, c.opError("status", deviceName(index), err)
}

// do calls a method of a device that has no reply.
func (c *Client) do(ctx context.Context, limit time.Duration, op string, index int, member string, args ...any) error {
	_, err := c.call(ctx, limit, op, deviceName(index), devicePath(index), ifDevice, member, nil, args...)
	return err
}

// Force asks the RShim's owner for it for up to limit; 0: the daemon's own
// limit. The result is Granted, NoOwner or NotNeeded.
func (c *Client) Force(ctx context.Context, index int, limit time.Duration) (string, error) {
	ms := min(max(limit.Milliseconds(), 0), 1<<31)
	r, err := c.call(ctx, limit+callLimit, "force", deviceName(index), devicePath(index), ifDevice, "Force", nil, uint32(ms))
	if err != nil {
		return "", err
	}
	v, err := one[string](r.Body)
	if err != nil {
		return "", c.opError("force", deviceName(index), err)
	}
	f := &fields{p: bus.Properties{"Result": v}}
	s := f.enum("Result", ifDevice+".ForceResults")
	return s, c.opError("force", deviceName(index), f.err)
}

// Release gives the RShim up, until Force or SetDropMode.
func (c *Client) Release(ctx context.Context, index int) error {
	return c.do(ctx, callLimit, "release", index, "Release")
}

// SoftReset resets the chip, and returns when it has been reset and is attached
// again. The error is ErrTimeout for a chip that stays as it was or is not back
// in time, and ErrUnavailable for one whose RShim is not ours.
func (c *Client) SoftReset(ctx context.Context, index int) error {
	return c.do(ctx, resetLimit, "reset", index, "SoftReset")
}

// SetBootMode sets what the chip boots from: RShim, EMMC, EMMCSwap or
// EMMCLegacy.
func (c *Client) SetBootMode(ctx context.Context, index int, mode string) error {
	return c.do(ctx, callLimit, "boot mode", index, "SetBootMode", ifDevice+".BootModes."+mode)
}

// Misc returns the text of /dev/rshimN/misc.
func (c *Client) Misc(ctx context.Context, index int) (string, error) {
	r, err := c.call(ctx, callLimit, "misc", deviceName(index), devicePath(index), ifDevice, "ReadMisc", nil)
	if err != nil {
		return "", err
	}
	s, err := one[string](r.Body)
	return lines(s), c.opError("misc", deviceName(index), err)
}

// SetMisc does what lines written to /dev/rshimN/misc would.
func (c *Client) SetMisc(ctx context.Context, index int, commands string) error {
	return c.do(ctx, resetLimit, "misc", index, "WriteMisc", commands)
}

// ReadRegister reads a register of size bytes, 4 or 8. The address is the
// channel in its upper and the offset in its lower 16 bits.
func (c *Client) ReadRegister(ctx context.Context, index int, address uint32, size int) (uint64, error) {
	r, err := c.call(ctx, callLimit, "register read", deviceName(index), devicePath(index), ifDevice, "ReadRegister", nil, address, byte(size))
	if err != nil {
		return 0, err
	}
	v, err := one[uint64](r.Body)
	return v, c.opError("register read", deviceName(index), err)
}

// WriteRegister writes a register.
func (c *Client) WriteRegister(ctx context.Context, index int, address uint32, size int, value uint64) error {
	return c.do(ctx, callLimit, "register write", index, "WriteRegister", address, byte(size), value)
}
