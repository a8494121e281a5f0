// SPDX-License-Identifier: Apache-2.0

//go:build libusb

package libusb

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/gousb"

	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

// controlTimeout bounds a control transfer, which cannot be cancelled.
const controlTimeout = 2 * time.Second

// Device is an open device.
type Device struct {
	loc    usb.Location
	ctx    *gousb.Context
	dev    *gousb.Device
	config gousb.ConfigDesc
	ifs    []usb.Interface

	// sync is held by whoever is in one of libusb's synchronous calls, which
	// may wait for the device; and it guards dev.ControlTimeout.
	sync    chan struct{}
	workers sync.WaitGroup // endpoints
	altered atomic.Uint32  // how often ClearHalt has selected a setting

	closing chan struct{}
	gone    chan struct{}
	close   sync.Once

	mu        sync.Mutex
	end       error // why nothing more is done
	claims    map[int]claim
	endpoints map[uint8]*endpoint
}

// claim is a claimed interface. gousb counts claims by Config, so each has its
// own.
type claim struct {
	config *gousb.Config
	iface  *gousb.Interface
}

var _ usb.Device = (*Device)(nil)

func newDevice(c *gousb.Context, dev *gousb.Device, loc usb.Location) (*Device, error) {
	if err := dev.SetAutoDetach(true); err != nil {
		return nil, cause(err)
	}
	number, err := dev.ActiveConfigNum()
	if err != nil {
		return nil, cause(err)
	}
	config, ok := dev.Desc.Configs[number]
	if !ok {
		return nil, fmt.Errorf("configuration %d has no descriptor", number)
	}
	return &Device{
		loc:       loc,
		ctx:       c,
		dev:       dev,
		config:    config,
		ifs:       interfaces(config),
		sync:      make(chan struct{}, 1),
		closing:   make(chan struct{}),
		gone:      make(chan struct{}),
		claims:    make(map[int]claim),
		endpoints: make(map[uint8]*endpoint),
	}, nil
}

func interfaces(config gousb.ConfigDesc) []usb.Interface {
	var ifs []usb.Interface
	for _, i := range config.Interfaces {
		alt := i.AltSettings[0]
		next := usb.Interface{Number: i.Number, Class: uint8(alt.Class), Subclass: uint8(alt.SubClass), Protocol: uint8(alt.Protocol)}
		for _, addr := range slices.Sorted(maps.Keys(alt.Endpoints)) {
			e := alt.Endpoints[addr]
			next.Endpoints = append(next.Endpoints, usb.Endpoint{
				Address:   uint8(e.Address),
				Type:      usb.TransferType(e.TransferType),
				MaxPacket: e.MaxPacketSize,
			})
		}
		ifs = append(ifs, next)
	}
	return ifs
}

// Interfaces describes the active configuration; not to be changed.
func (d *Device) Interfaces() []usb.Interface { return d.ifs }

// Gone is closed when the device has been seen to be unplugged.
func (d *Device) Gone() <-chan struct{} { return d.gone }

// Claim takes an interface. To claim what one has is no error.
func (d *Device) Claim(iface int) error {
	if err := d.lock(context.Background()); err != nil {
		return d.fail("claim", err)
	}
	defer d.unlock()
	d.mu.Lock()
	_, have := d.claims[iface]
	d.mu.Unlock()
	if have {
		return nil
	}
	c, err := d.select0(iface, false)
	if err != nil {
		return d.fail("claim", d.cause(err))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.claims[iface] = c
	for addr, desc := range c.iface.Setting.Endpoints {
		e := &endpoint{dev: d, address: uint8(addr), wake: make(chan struct{}, 1)}
		if desc.Direction == gousb.EndpointDirectionIn {
			in, err := c.iface.InEndpoint(desc.Number)
			if err != nil {
				return d.fail("claim", err)
			}
			e.transfer = in.ReadContext
		} else {
			out, err := c.iface.OutEndpoint(desc.Number)
			if err != nil {
				return d.fail("claim", err)
			}
			e.transfer, e.out = out.WriteContext, true
		}
		d.endpoints[e.address] = e
		d.workers.Go(e.run)
	}
	return nil
}

// select0 claims an interface, and when set is set selects alternate setting 0
// even if there is no other. gousb does so only for an interface that has
// several, and finds it by its number as an index, so it is shown a list made
// to measure.
func (d *Device) select0(iface int, set bool) (claim, error) {
	i := slices.IndexFunc(d.config.Interfaces, func(i gousb.InterfaceDesc) bool { return i.Number == iface })
	if i < 0 {
		return claim{}, fmt.Errorf("no interface %d", iface)
	}
	config, err := d.dev.Config(d.config.Number)
	if err != nil {
		return claim{}, err
	}
	config.Desc.Interfaces = make([]gousb.InterfaceDesc, iface+1)
	alts := d.config.Interfaces[i].AltSettings[:1]
	if set {
		alts = []gousb.InterfaceSetting{alts[0], alts[0]}
	}
	config.Desc.Interfaces[iface] = gousb.InterfaceDesc{Number: iface, AltSettings: alts}
	intf, err := config.Interface(iface, alts[0].Alternate)
	if err != nil {
		return claim{}, err
	}
	return claim{config, intf}, nil
}

// Control does one control transfer and returns how many bytes of data moved.
func (d *Device) Control(ctx context.Context, s usb.Setup, data []byte) (int, error) {
	n, err := d.control(ctx, s, data)
	if err != nil {
		return n, d.fail("control", err)
	}
	return n, nil
}

func (d *Device) control(ctx context.Context, s usb.Setup, data []byte) (int, error) {
	if len(data) > 0xffff {
		return 0, gousb.ErrorInvalidParam
	}
	if err := d.lock(ctx); err != nil {
		return 0, err
	}
	timeout := controlTimeout
	if end, ok := ctx.Deadline(); ok {
		timeout = min(timeout, max(time.Until(end), 0)+10*time.Millisecond) // ctx is to end first
	}
	buf := slices.Clone(data) // the transfer may outlast the call
	type result struct {
		n   int
		err error
	}
	done := make(chan result, 1)
	go func() {
		d.dev.ControlTimeout = timeout
		n, err := d.dev.Control(s.RequestType, s.Request, s.Value, s.Index, buf)
		r := result{max(n, 0), d.cause(err)}
		d.unlock()
		done <- r
	}()
	select {
	case r := <-done:
		if s.RequestType&0x80 != 0 {
			copy(data, buf[:r.n])
		}
		if r.err != nil && ctx.Err() != nil {
			return r.n, ctx.Err()
		}
		return r.n, r.err
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-d.closing:
		return 0, usb.ErrClosed
	}
}

// lock waits for its turn to be in a synchronous call.
func (d *Device) lock(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case <-d.closing:
		return usb.ErrClosed
	case <-d.gone:
		return usb.ErrNoDevice
	case <-ctx.Done():
		return ctx.Err()
	case d.sync <- struct{}{}:
	}
	d.mu.Lock()
	err := d.end
	d.mu.Unlock()
	if err != nil {
		d.unlock()
	}
	return err
}

func (d *Device) unlock() { <-d.sync }

// Submit queues a bulk or interrupt transfer on an endpoint of a claimed
// interface.
func (d *Device) Submit(ep uint8, data []byte) (usb.Transfer, error) {
	d.mu.Lock()
	e, err := d.endpoints[ep], d.end
	d.mu.Unlock()
	if e == nil && err == nil {
		err = fmt.Errorf("no endpoint 0x%02x in a claimed interface", ep)
	}
	if err != nil {
		return nil, d.fail("submit", err)
	}
	t, err := e.submit(data)
	if err != nil {
		return nil, d.fail("submit", err)
	}
	return t, nil
}

// ClearHalt resumes an endpoint after ErrStall, and the others of its
// interface.
func (d *Device) ClearHalt(ctx context.Context, ep uint8) error {
	iface := slices.IndexFunc(d.ifs, func(i usb.Interface) bool {
		return slices.ContainsFunc(i.Endpoints, func(e usb.Endpoint) bool { return e.Address == ep })
	})
	if iface < 0 {
		return d.fail("clear halt", fmt.Errorf("no endpoint 0x%02x", ep))
	}
	if err := d.lock(ctx); err != nil {
		return d.fail("clear halt", err)
	}
	done := make(chan error, 1)
	go func() {
		// This resumes the device, and would do if libusb's
		// libusb_clear_halt could be asked to tell the host controller that
		// the device starts again at DATA0. What can be asked to is selecting
		// the alternate setting. The kernel then takes back what is pending on
		// the interface, with a status that looks like an empty packet: the
		// endpoints must know.
		d.dev.ControlTimeout = controlTimeout
		_, err := d.dev.Control(0x02, 1, 0, uint16(ep), nil) // CLEAR_FEATURE(ENDPOINT_HALT)
		if err == nil {
			d.altered.Add(1)
			_, err = d.select0(d.ifs[iface].Number, true)
			d.altered.Add(1)
		}
		err = d.cause(err)
		d.unlock()
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			return d.fail("clear halt", err)
		}
		return nil
	case <-ctx.Done():
		return d.fail("clear halt", ctx.Err())
	case <-d.closing:
		return d.fail("clear halt", usb.ErrClosed)
	}
}

// present asks the kernel whether the device is still there, without any
// traffic on the bus. libusb does not always know: what is pending when a
// device goes may end like an empty transfer. Preparing a configuration asks
// for the drivers of the interfaces, which fails on a device that has gone.
func (d *Device) present() bool {
	_, err := d.dev.Config(d.config.Number)
	return err == nil || code(err) != gousb.ErrorNoDevice
}

// cause translates an error of gousb, finding out whether the device has gone.
// The caller holds sync, since Close must not come between.
func (d *Device) cause(err error) error {
	if err == nil {
		return nil
	}
	if err = cause(err); errors.Is(err, usb.ErrNoDevice) || !d.present() {
		d.finish(usb.ErrNoDevice)
		return usb.ErrNoDevice
	}
	return err
}

// finish makes every transfer and every later call fail with err.
func (d *Device) finish(err error) {
	d.mu.Lock()
	if d.end == nil {
		d.end = err
		if err == usb.ErrNoDevice {
			close(d.gone)
		}
	}
	eps := slices.Collect(maps.Values(d.endpoints))
	d.mu.Unlock()
	for _, e := range eps {
		e.finish(err)
	}
}

// Close ends all transfers with ErrClosed and closes the device. It waits for
// a control transfer that is under way.
func (d *Device) Close() error {
	d.close.Do(func() {
		close(d.closing)
		d.finish(usb.ErrClosed)
		d.sync <- struct{}{} // for good: whoever waits for it sees closing
		d.workers.Wait()
		for _, c := range d.claims {
			c.iface.Close()
			c.config.Close()
		}
		d.dev.Close()
		d.ctx.Close()
	})
	return nil
}

func (d *Device) fail(op string, err error) error {
	return &usb.OpError{Op: op, Location: d.loc, Err: err}
}
