// SPDX-License-Identifier: Apache-2.0

package dbus

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/bluefield-go/bmc-rshim/dbus/bus"
	"github.com/bluefield-go/bmc-rshim/dbus/wire"
	"github.com/bluefield-go/bmc-rshim/rshim"
)

// Options of a Service.
type Options struct {
	Address string // of the bus; "" is the system bus
	Version string // of the daemon
	// DevRoot is where the device files are; "" means /dev.
	DevRoot string
	// Dump returns the state of everything as text. It may be nil.
	Dump func(set *rshim.Set) string
	// HostAccess reaches the NIC; nil where NC-SI is not configured.
	HostAccess HostAccess
	// Settle is how long a name that belongs to others must have had no owner
	// before it is taken; 0 means 30 s.
	Settle time.Duration
	Logger *slog.Logger // nil: discard
}

// Service is the daemon on the bus.
type Service struct {
	o   Options
	log *slog.Logger

	names []*bus.Service // all but the consoles'
	rshim *bus.Service   // NameRshim
	dpus  *bus.Service   // NameDPUUpdater
	host  *hostAccess    // nil: none

	all    aggregate
	pushes pushes
	late   time.Duration // without Progress: it is said again

	mu    sync.Mutex
	set   *rshim.Set // nil until Run
	known map[int]*device
}

// New makes a service. Nothing happens before Run.
func New(o Options) *Service {
	if o.DevRoot == "" {
		o.DevRoot = "/dev"
	}
	s := &Service{o: o, log: o.Logger, late: progressLate, known: make(map[int]*device)}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.rshim = s.name(NameRshim, false)
	s.dpus = s.name(NameDPUUpdater, true)
	s.rshim.Manage(PathManager)
	s.dpus.Manage("/")
	s.dpus.Manage(PathSoftware)
	s.pushes = pushes{s: s, tasks: newTasks(context.Background()), lines: make(map[int]*pushLine)}
	s.all.s = s

	manager := s.add(s.rshim, PathManager, s.managerIface())
	s.all.export()
	if o.HostAccess != nil {
		s.host = newHostAccess(o.HostAccess, s.log)
		s.host.own = manager
		_ = manager.Extend(s.host.iface())
		s.host.nic = s.add(s.name(NameConnectX, true), PathHostAccess, s.host.nicIface())
	}
	return s
}

// name makes a connection for a name.
func (s *Service) name(name string, yield bool) *bus.Service {
	b := s.connection(name, yield)
	s.names = append(s.names, b)
	return b
}

func (s *Service) connection(name string, yield bool) *bus.Service {
	return bus.New(bus.Options{
		Name: name, Address: s.o.Address, Yield: yield, Settle: s.o.Settle,
		MapError: mapError, Log: s.log.With("bus", name),
	})
}

// add exports an object whose path nobody else can have. What is wrong with it
// would show in every test.
func (s *Service) add(b *bus.Service, path wire.ObjectPath, interfaces ...bus.Interface) *bus.Object {
	o, err := b.Add(path, interfaces...)
	if err != nil {
		s.log.Error("object is not published", "op", "export", "path", string(path), "err", err)
	}
	return o
}

func (s *Service) managerIface() bus.Interface {
	return describe(bus.Interface{
		Name: ifaceManager,
		Properties: []bus.Property{
			{Name: "Version", Sig: "s", Value: s.o.Version, Emits: bus.EmitsNothing},
		},
		Methods: []bus.Method{{Name: "DumpState", Out: "s", Handle: func(context.Context, *bus.Call) ([]any, error) {
			text := ""
			if set := s.devicesOf(); set != nil && s.o.Dump != nil {
				text = s.o.Dump(set)
			}
			return []any{text}, nil
		}}},
	})
}

// Run publishes the devices of set, and carries out what callers ask for, until
// ctx ends. A bus that is not there, or goes, is waited for.
func (s *Service) Run(ctx context.Context, set *rshim.Set) error {
	s.mu.Lock()
	s.set = set
	s.mu.Unlock()
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, b := range s.names {
		wg.Go(func() {
			if err := b.Run(ctx); err != nil && ctx.Err() == nil {
				s.log.Error("not on the bus", "op", "bus", "err", err)
			}
		})
	}
	if s.host != nil {
		wg.Go(func() { s.host.run(ctx) })
	}
	for ctx.Err() == nil {
		changed := set.Changed()
		s.all.update()
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	s.pushes.tasks.stop()
	return ctx.Err()
}

// devices are the devices that are there, by index.
func (s *Service) devices() []*rshim.Device {
	if set := s.devicesOf(); set != nil {
		return set.Devices()
	}
	return nil
}

func (s *Service) devicesOf() *rshim.Set {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.set
}

// refresh has the status of all devices looked at.
func (s *Service) refresh() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.known {
		v.look()
	}
}

// mapError gives an error its name on the bus.
func mapError(err error) *bus.Error {
	var e *bus.Error
	if errors.As(err, &e) {
		return e
	}
	return &bus.Error{Name: errorName(err), Message: err.Error()}
}
