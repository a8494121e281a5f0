// SPDX-License-Identifier: Apache-2.0

package usbbackend

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

const (
	defaultRescan = 5 * time.Second
	retryPause    = time.Second
	resetLimit    = 5 * time.Second
	maxResets     = 5 // of the port of a device that enumerated too slow
)

// Finder notices RShims on a USB host.
type Finder struct {
	Host usb.Host
	// Wake tells that something on the bus may have changed. Nil is fine:
	// the bus is looked at every Rescan anyway.
	Wake <-chan struct{}
	// Ping, not buffered, is received from when all that was on the bus has
	// been looked at: who sends knows that Run makes progress. Nil is fine.
	Ping   <-chan struct{}
	Rescan time.Duration // 0 means 5 s
	// Wants says whether a device is to be opened, by the name that it would
	// have. It is asked at every look at the bus. Nil: all are.
	Wants  func(name string, gen reg.Generation) bool
	Logger *slog.Logger
}

// port is what the finder remembers of a place on the bus.
type port struct {
	address int       // of the enumeration seen last
	known   bool      // it has been served before
	serving bool      // that enumeration is being served
	resets  int       // of the port, since it last enumerated at high speed
	retry   time.Time // not to be tried again before
}

// Run calls adopt for every RShim that appears, until ctx ends. What adopt
// returns owns the device, serves it in a goroutine of its own, and closes it;
// Run returns when all of these have. RShims that are there at the same time
// are adopted in the order of their locations.
//
// A device that enumerated below high speed (a race between the host
// controllers of BMC chips) has its port reset so that it enumerates anew. If
// that does not help it is served all the same.
func (f *Finder) Run(ctx context.Context, adopt func(*Device) func(context.Context) error) error {
	log := f.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	rescan := f.Rescan
	if rescan == 0 {
		rescan = defaultRescan
	}

	var wg sync.WaitGroup
	defer wg.Wait()
	ports := make(map[usb.Location]*port)
	ended := make(chan usb.Location)
	for {
		next := time.Now().Add(rescan)
		infos, err := f.Host.Devices(ctx, reg.USBVendor)
		if err != nil && ctx.Err() == nil {
			log.Warn("cannot list USB devices", "op", "scan", "err", err)
		}
		slices.SortFunc(infos, func(a, b usb.Info) int { return compareLocations(a.Location, b.Location) })
		for _, info := range infos {
			gen, ok := reg.GenerationOf(info.Vendor, info.Product)
			if !ok {
				continue
			}
			p := ports[info.Location]
			if p == nil {
				p = new(port)
				ports[info.Location] = p
			}
			if p.serving || f.Wants != nil && !f.Wants(NameOf(info.Location), gen) {
				continue
			}
			d := f.open(ctx, log.With("device", NameOf(info.Location)), info, p)
			if d == nil {
				if p.retry.Before(next) {
					next = p.retry
				}
				continue
			}
			p.serving = true
			serve := adopt(d)
			wg.Go(func() {
				err := serve(ctx)
				log.Debug("no longer served", "device", d.Name(), "err", err)
				if ctx.Err() == nil && gone(d) {
					log.Info("USB device leaving", "device", d.Name())
				}
				select {
				case ended <- info.Location:
				case <-ctx.Done():
				}
			})
		}
		timer := time.NewTimer(time.Until(next))
		select {
		case l := <-ended:
			// Should it still be there, it is not taken up again at once.
			ports[l].serving, ports[l].retry = false, time.Now().Add(retryPause)
		case <-f.Wake:
		case <-f.Ping:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

func gone(d *Device) bool {
	select {
	case <-d.Gone():
		return true
	default:
		return false
	}
}

// open opens a device that is not being served, nil if that cannot be now.
func (f *Finder) open(ctx context.Context, log *slog.Logger, info usb.Info, p *port) *Device {
	if info.Address != p.address {
		p.address, p.retry = info.Address, time.Time{}
		log.Info("USB device detected", "speed", info.Speed.String())
		log.Info("Probing " + NameOf(info.Location))
	}
	if time.Now().Before(p.retry) {
		return nil
	}
	if info.Speed != usb.SpeedUnknown && info.Speed < usb.SpeedHigh && p.resets < maxResets {
		p.retry = time.Now().Add(time.Second << p.resets)
		p.resets++
		log.Warn("enumerated below high speed, resetting the port", "op", "reset", "speed", info.Speed.String(), "try", p.resets)
		// Others wait for this one meanwhile.
		limit, cancel := context.WithTimeout(ctx, resetLimit)
		defer cancel()
		if err := f.Host.Reset(limit, info); err != nil {
			log.Warn("cannot reset the port", "op", "reset", "err", err)
		}
		return nil
	}
	d, err := Open(ctx, f.Host, info, f.Logger)
	if err != nil {
		p.retry = time.Now().Add(retryPause)
		log.Warn("cannot open the device", "op", "open", "err", err)
		return nil
	}
	if info.Speed >= usb.SpeedHigh {
		p.resets = 0
	}
	if !p.known {
		p.known = true
		log.Info("create rshim " + d.Name())
	}
	return d
}

// compareLocations orders by bus, then port by port.
func compareLocations(a, b usb.Location) int {
	abus, aports, aerr := a.Split()
	bbus, bports, berr := b.Split()
	if aerr != nil || berr != nil {
		return cmp.Compare(a, b)
	}
	return cmp.Or(cmp.Compare(abus, bbus), slices.Compare(aports, bports))
}
