// SPDX-License-Identifier: Apache-2.0

// Package usbdev puts a model of a BlueField on USB: as a USB function, and on
// a bus in the same process that implements usb.Host. It also holds the faults
// that belong to the bus rather than to the chip: NAKs, STALLs, short
// transfers, unplugging, latency, a slow link, enumerating at low speed.
package usbdev

import (
	"context"
	"sync"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/internal/pace"
	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

// Options say how a function shows itself. The zero value is what the RShim of
// the reference page looks like, infinitely fast.
type Options struct {
	// Latency passes between the last byte of a transfer on the link and its
	// completion. Transfers do not wait for each other's.
	Latency time.Duration
	// LinkRate is in bytes a second, shared by all endpoints; 0 is unlimited.
	LinkRate int64
	// LowSpeed is at how many enumerations the function comes up at low speed
	// before it does at high speed.
	LowSpeed int
	EmptyIn  EmptyIn

	// Endpoint addresses; 0 is the usual: 0x01, 0x02, 0x81, 0x82.
	Boot, TMOut, TMIn, TMInt uint8
	TMFIFOFirst              bool // the TMFIFO's interface is number 0
	Reversed                 bool // endpoints in reverse order
}

// EmptyIn is what the TMFIFO's bulk IN endpoint does while the FIFO is empty.
type EmptyIn int

// Ways to be empty.
const (
	EmptyAsChip EmptyIn = iota // EmptyNAK on BlueField-3, else EmptyZero
	EmptyNAK                   // wait for data
	EmptyZero                  // end the transfer with nothing
)

// Function is a DPU as a USB function, together with the host controller's
// work of carrying out transfers. All methods are safe for concurrent use.
type Function struct {
	dpu *bluefield.DPU
	opt Options

	// mu guards all below and the endpoints. It comes before the DPU's lock,
	// and is not held when a transfer's Complete is called.
	mu      sync.Mutex
	eps     []*endpoint // eps[0] is control
	plugged bool
	onBus   bool // as the DPU says
	inReset bool // of the port
	present bool // all of that
	epoch   int
	speed   usb.Speed
	low     int
	configs int // SET_CONFIGURATIONs since enumeration
	gone    chan struct{}
	changed chan struct{}
	watch   []func()
	claims  map[int]any

	latency time.Duration
	rate    int64
	link    pace.Pacer
	faults  []Fault

	errorPause time.Duration
}

// State is how a function stands on its bus.
type State struct {
	Present bool
	Epoch   int // number of enumerations so far
	Speed   usb.Speed
}

// New returns d as a USB function that is plugged in. Transfers are carried
// out while Run runs.
func New(d *bluefield.DPU, o Options) *Function {
	for _, def := range []struct {
		ep   *uint8
		addr uint8
	}{{&o.Boot, 0x01}, {&o.TMOut, 0x02}, {&o.TMIn, 0x81}, {&o.TMInt, 0x82}} {
		if *def.ep == 0 {
			*def.ep = def.addr
		}
	}
	if o.EmptyIn == EmptyAsChip {
		o.EmptyIn = EmptyZero
		if d.Config().Generation == reg.BlueField3 {
			o.EmptyIn = EmptyNAK
		}
	}
	f := &Function{
		dpu: d, opt: o, plugged: true, low: o.LowSpeed,
		latency: o.Latency, rate: o.LinkRate,
		gone: make(chan struct{}), changed: make(chan struct{}),
		eps: []*endpoint{
			{Endpoint: usb.Endpoint{Address: 0, Type: usb.Control, MaxPacket: 64}},
			{Endpoint: usb.Endpoint{Address: o.Boot, Type: usb.Bulk, MaxPacket: 512}},
			{Endpoint: usb.Endpoint{Address: o.TMOut, Type: usb.Bulk, MaxPacket: 512}},
			{Endpoint: usb.Endpoint{Address: o.TMIn, Type: usb.Bulk, MaxPacket: 512}},
			{Endpoint: usb.Endpoint{Address: o.TMInt, Type: usb.Interrupt, MaxPacket: 8}},
		},
	}
	f.onBus = d.OnBus(func(present bool) {
		f.update(func() { f.onBus = present })
	})
	f.update(func() {})
	return f
}

// DPU returns the model behind the function.
func (f *Function) DPU() *bluefield.DPU { return f.dpu }

// Run runs the DPU and carries out transfers until ctx ends. Then it ends all
// transfers with usb.ErrNoDevice and returns nil.
func (f *Function) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { f.dpu.Run(ctx) })
	for _, e := range f.eps {
		wg.Go(func() { f.serve(ctx, e) })
		wg.Go(func() { f.finish(ctx, e) })
	}
	wg.Wait()
	f.Unplug()
	return nil
}

// State returns the state, and a channel that is closed when it changes.
func (f *Function) State() (State, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return State{f.present, f.epoch, f.speed}, f.changed
}

// Unplug pulls the cable. The DPU goes on.
func (f *Function) Unplug() { f.update(func() { f.plugged = false }) }

// Plug plugs the cable in again.
func (f *Function) Plug() { f.update(func() { f.plugged = true }) }

// portReset is how long a port's reset keeps a device off the bus.
const portReset = 10 * time.Millisecond

// Reset resets the port: the function leaves the bus and is enumerated anew.
func (f *Function) Reset() {
	f.update(func() { f.inReset = true })
	time.AfterFunc(portReset, func() { f.update(func() { f.inReset = false }) })
}

// update makes a change that may put the function on the bus or take it off.
func (f *Function) update(change func()) {
	f.mu.Lock()
	change()
	present := f.plugged && f.onBus && !f.inReset
	if present == f.present {
		f.mu.Unlock()
		return
	}
	f.present = present
	var ended []*URB
	if present {
		f.epoch++
		f.configs = 0
		f.claims = map[int]any{}
		f.gone = make(chan struct{})
		f.speed = usb.SpeedHigh
		if f.low > 0 {
			f.low--
			f.speed = usb.SpeedLow
		}
	} else {
		close(f.gone)
		for _, e := range f.eps {
			ended = append(ended, e.drop(usb.ErrNoDevice)...)
			e.halted, e.raw = false, nil
		}
	}
	close(f.changed)
	f.changed = make(chan struct{})
	watch := f.watch
	f.mu.Unlock()
	complete(ended)
	for _, w := range watch {
		w()
	}
}

// lowSpeedRate is what a low-speed link carries at best, in bytes a second.
const lowSpeedRate = 150_000

// reserve books n bytes on the link and returns how long they take. The caller
// holds mu.
func (f *Function) reserve(n int) time.Duration {
	rate := f.rate
	if f.speed == usb.SpeedLow && (rate == 0 || rate > lowSpeedRate) {
		rate = lowSpeedRate
	}
	return f.link.Reserve(time.Now(), n, rate)
}
