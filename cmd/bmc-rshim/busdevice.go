// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/bluefield-go/bmc-rshim/dbus/client"
	"github.com/bluefield-go/bmc-rshim/rshim"
	corepush "github.com/bluefield-go/bmc-rshim/rshim/push"
)

// busDevice is a device of the running daemon, used through D-Bus.
type busDevice struct {
	c     *client.Client
	index int
	known *client.Device // when it was found
}

// busDevices returns the devices that the flags select, at least one. They
// share the client, which the first one's close closes.
func (t *targetFlags) busDevices(ctx context.Context, c *client.Client) ([]target, error) {
	want, err := t.index()
	var found []*client.Device
	if err == nil {
		found, err = c.Devices(ctx)
		err = remote(err)
	}
	var ts []target
	for _, d := range found {
		if want < 0 || want == d.Index {
			ts = append(ts, &busDevice{c, d.Index, d})
		}
	}
	switch {
	case err != nil:
	case ts == nil && want < 0:
		err = exitWith(exitDevice, "the daemon has no device: is the DPU on the bus?")
	case ts == nil:
		err = exitWith(exitDevice, "no %s: the daemon has %s", t.device, names(found))
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return ts, nil
}

func names(ds []*client.Device) string {
	if len(ds) == 0 {
		return "no device"
	}
	var s []string
	for _, d := range ds {
		s = append(s, d.String())
	}
	return strings.Join(s, ", ")
}

func (b *busDevice) close()       { b.c.Close() }
func (b *busDevice) name() string { return fmt.Sprintf("rshim%d", b.index) }

func (b *busDevice) misc(ctx context.Context) (string, error) {
	text, err := b.c.Misc(ctx, b.index)
	return text, remote(err)
}

func (b *busDevice) setMisc(ctx context.Context, commands string) error {
	return remote(b.c.SetMisc(ctx, b.index, commands))
}

func (b *busDevice) readReg(ctx context.Context, addr uint32, size int) (uint64, error) {
	v, err := b.c.ReadRegister(ctx, b.index, addr, size)
	return v, remote(err)
}

func (b *busDevice) writeReg(ctx context.Context, addr uint32, size int, v uint64) error {
	return remote(b.c.WriteRegister(ctx, b.index, addr, size, v))
}

func (b *busDevice) release(ctx context.Context) error { return remote(b.c.Release(ctx, b.index)) }

func (b *busDevice) reset(ctx context.Context) (bool, error) {
	return true, remote(b.c.SoftReset(ctx, b.index))
}

// forceResults are those of D-Bus.
var forceResults = map[string]rshim.ForceResult{
	"Granted": rshim.ForceGranted, "NoOwner": rshim.ForceNoOwner, "NotNeeded": rshim.ForceNotNeeded,
}

func (b *busDevice) force(ctx context.Context) (rshim.ForceResult, error) {
	s, err := b.c.Force(ctx, b.index, 0)
	if err != nil {
		return 0, remote(err)
	}
	r, ok := forceResults[s]
	if !ok {
		return 0, fmt.Errorf("%w: %q", client.ErrAnswer, s)
	}
	return r, nil
}

// openBoot is not for D-Bus: there the daemon sends the image by itself.
func (b *busDevice) openBoot(context.Context) (corepush.Stream, error) {
	return nil, errors.ErrUnsupported
}

func (b *busDevice) status(ctx context.Context) (status, error) {
	d, err := b.c.Device(ctx, b.index)
	if err != nil {
		return status{}, remote(err)
	}
	b.known = d
	s := busStatus(d)
	// The time limits are in misc alone.
	if text, err := b.c.Misc(ctx, b.index); err == nil {
		s.limits(parseMisc(text))
	}
	if d.Push == "" || d.Push == "/" {
		return s, nil
	}
	p, err := b.c.Push(ctx, d.Push)
	if err != nil {
		if errors.Is(err, client.ErrNotFound) {
			err = nil // somebody has deleted it
		}
		return s, remote(err)
	}
	s.Push = busPushStatus(p)
	return s, nil
}

func busStatus(d *client.Device) status {
	s := status{
		Device: d.String(), State: strings.ToLower(d.State), Reason: d.Reason, Name: d.Name,
		Generation: d.Generation, Revision: d.Revision, OPN: d.OPN,
		BFMode: bfModes[d.BFMode], BootMode: bootModeOf[d.BootMode], Uptime: int(d.Uptime / time.Second),
		Owner: strings.ToLower(d.Owner), Stage: d.BootStage, Since: d.AttachedSince, Counts: d.Counters,
	}
	if s.Owner == "unknown" {
		s.Owner = ""
	}
	return s
}

func busPushStatus(p *client.Push) *pushStatus {
	s := &pushStatus{Path: string(p.Path), Phase: strings.ToLower(p.Phase), Bytes: p.Bytes, Error: p.Error}
	if p.Ended() {
		s.Outcome = outcomeNames[p.Outcome]
		s.Seconds = seconds(p.Completed.Sub(p.Started))
	} else if !p.Started.IsZero() {
		s.Seconds = seconds(max(0, time.Since(p.Started)))
	}
	return s
}

// What D-Bus calls what misc has in words or numbers.
var (
	bootModeOf = map[string]string{
		"RShim": bootModes[0], "EMMC": bootModes[1], "EMMCSwap": bootModes[2], "EMMCLegacy": bootModes[3],
	}
	bfModes = map[string]string{"Dpu": "DPU mode", "Nic": "NIC mode", "Reserved": "reserved"}
)

// outcomeNames are the outcomes of a push as commands have them.
var outcomeNames = map[string]string{
	client.Ready: outcomeReady, client.Streamed: outcomeStreamed, client.DPUError: "dpu_error",
	client.TimedOut: "timed_out", client.Cancelled: "cancelled", client.DeviceLost: "device_lost", client.Failed: "failed",
}

// busConsole opens a console through D-Bus, with a connection for each time:
// the daemon may be another one by then.
type busConsole struct {
	t     *targetFlags
	index int
}

func (b busConsole) openConsole(ctx context.Context, replay bool) (f *os.File, unkept, err error) {
	if replay {
		unkept = errNoReplay
	}
	c, err := client.Connect(ctx, b.t.bus)
	if err != nil {
		return nil, nil, remote(err)
	}
	defer c.Close()
	f, err = c.OpenConsole(ctx, b.index)
	return f, unkept, remote(err)
}

var errNoReplay = errors.New("over D-Bus the output of before cannot be had, the device file has it")
