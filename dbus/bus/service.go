// SPDX-License-Identifier: Apache-2.0

package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/bluefield-go/bmc-rshim/dbus/wire"
)

// Options of a Service. The zero value of each is its default; Name must be set.
type Options struct {
	Name    string // well-known name
	Address string // of the bus; default SystemAddress()

	// Yield is set for a name that belongs to others: it is taken only if
	// the bus knows no activatable service of it and it has had no owner
	// for Settle, and given up to whoever replaces it.
	Yield  bool
	Settle time.Duration // default 30 s

	MaxCalls          int           // handlers at work, default 32
	MaxCallsPerCaller int           // of one caller, default 8
	Stuck             time.Duration // a bus that reads nothing for so long is left and connected to anew; default 60 s

	// MapError gives an error of a handler its name on the bus; nil of it is
	// as without it. An *Error is taken as it is. Default: everything is
	// ErrNameInternalFailure.
	MapError func(error) *Error

	Log *slog.Logger // nil discards
}

// Service is one well-known name on a connection of its own, with its objects.
// The methods may be called at any time, from any goroutine, connected or not;
// none of them waits for the bus.
type Service struct {
	o     Options
	calls sync.WaitGroup // handlers at work

	mu       sync.Mutex // of all below, and of the objects; never held across I/O
	objects  map[wire.ObjectPath]*Object
	managers []wire.ObjectPath
	atWork   int            // handlers
	callers  map[string]int // handlers, by the caller's unique name

	c     *conn      // nil: not connected
	live  bool       // signals are sent: the name is ours, or will be in a moment
	owned bool       // the name is ours
	dirty []property // changes to be told, in order
}

// New makes a service without objects. Nothing happens before Run.
func New(o Options) *Service {
	o.Address = cmp.Or(o.Address, SystemAddress())
	o.Settle = cmp.Or(o.Settle, 30*time.Second)
	o.MaxCalls = cmp.Or(o.MaxCalls, 32)
	o.MaxCallsPerCaller = cmp.Or(o.MaxCallsPerCaller, 8)
	o.Stuck = cmp.Or(o.Stuck, time.Minute)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Log = o.Log.With("name", o.Name)
	return &Service{o: o, objects: make(map[wire.ObjectPath]*Object), callers: make(map[string]int)}
}

// Owned reports whether the service owns its name at the moment.
func (s *Service) Owned() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.owned
}

// Manage makes path an ObjectManager of all objects below it, whether or not
// there is an object at path. To be called before Run.
func (s *Service) Manage(path wire.ObjectPath) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.managers = append(s.managers, path)
}

// Add exports an object. ObjectManagers above it say so (InterfacesAdded).
// Errors: ErrExists, or what is wrong with path or interfaces.
func (s *Service) Add(path wire.ObjectPath, interfaces ...Interface) (*Object, error) {
	if !path.Valid() {
		return nil, fmt.Errorf("no object path: %q", string(path))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.objects[path] != nil {
		return nil, fmt.Errorf("%w: %s", ErrExists, path)
	}
	o := &Object{s: s, path: path}
	if err := o.extend(interfaces); err != nil {
		return nil, err
	}
	s.objects[path] = o
	s.added(o, o.interfaces)
	return o, nil
}

// paths returns the paths of all objects, in order. s.mu is held.
func (s *Service) paths() []wire.ObjectPath {
	return slices.Sorted(maps.Keys(s.objects))
}

// managersOf returns the ObjectManagers above path. s.mu is held.
func (s *Service) managersOf(path wire.ObjectPath) []wire.ObjectPath {
	var above []wire.ObjectPath
	for _, m := range s.managers {
		if path.Below(m) {
			above = append(above, m)
		}
	}
	return above
}

// signal sends a signal if anybody may hear it. s.mu is held. What does not
// fit into a queue that nobody reads ends the connection, so that clients look
// anew, and is no error.
func (s *Service) signal(path wire.ObjectPath, iface, member string, body ...any) error {
	if !s.live {
		return nil
	}
	err := s.c.post(&wire.Message{Type: wire.Signal, Flags: wire.NoReplyExpected, Path: path, Interface: iface, Member: member, Body: body}, nil, nil)
	if errors.Is(err, ErrClosed) || errors.Is(err, ErrFull) {
		return nil
	}
	return err
}

// added tells of interfaces that an object has now. s.mu is held.
func (s *Service) added(o *Object, interfaces []*export) {
	if !s.live || len(interfaces) == 0 {
		return
	}
	all := s.describe(interfaces)
	for _, m := range s.managersOf(o.path) {
		if err := s.signal(m, ifaceObjectManager, "InterfacesAdded", o.path, all); err != nil {
			s.o.Log.Warn("InterfacesAdded", "path", o.path, "err", err)
		}
	}
}

// removed tells of interfaces that an object had. s.mu is held.
func (s *Service) removed(o *Object, names []string) {
	s.dirty = slices.DeleteFunc(s.dirty, func(p property) bool { return p.o == o && slices.Contains(names, p.e.Name) })
	if !s.live || len(names) == 0 {
		return
	}
	for _, m := range s.managersOf(o.path) {
		if err := s.signal(m, ifaceObjectManager, "InterfacesRemoved", o.path, names); err != nil {
			s.o.Log.Warn("InterfacesRemoved", "path", o.path, "err", err)
		}
	}
}

// describe returns the properties of interfaces as an a{sa{sv}}. s.mu is held.
func (s *Service) describe(interfaces []*export) wire.Dict {
	all := wire.Dict{Key: "s", Elem: "a{sv}"}
	for _, e := range interfaces {
		all.Entries = append(all.Entries, wire.Entry{Key: e.Name, Value: s.values(e)})
	}
	return all
}

// values returns the properties of interfaces as an a{sv}. s.mu is held.
func (s *Service) values(interfaces ...*export) wire.Dict {
	all := wire.Dict{Key: "s", Elem: "v"}
	for _, e := range interfaces {
		for i, p := range e.Properties {
			v, err := e.value(i)
			if err != nil {
				s.o.Log.Warn("property has no value", "interface", e.Name, "property", p.Name, "err", err)
				continue
			}
			all.Entries = append(all.Entries, wire.Entry{Key: p.Name, Value: wire.Variant{Value: v}})
		}
	}
	return all
}

// Run connects, serves the objects, takes the name, and does so again, for
// ever, whenever the connection ends. It returns ctx's error when ctx is done
// and all handlers have returned. To be called once.
func (s *Service) Run(ctx context.Context) error {
	const first, most = 100 * time.Millisecond, 10 * time.Second
	defer s.calls.Wait() // their contexts end with the session
	wait := first
	for {
		began := time.Now()
		err := s.session(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		level := slog.LevelWarn
		if time.Since(began) > most {
			wait = first
		} else if wait > first {
			level = slog.LevelDebug // it has been said
		}
		s.o.Log.Log(ctx, level, "no connection to the bus", "err", err, "retry", wait)
		select {
		case <-time.After(wait):
			wait = min(2*wait, most)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
