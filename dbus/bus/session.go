// SPDX-License-Identifier: Apache-2.0

package bus

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/bluefield-go/bmc-rshim/dbus/wire"
)

// Flags and answers of RequestName.
const (
	allowReplacement = 1
	doNotQueue       = 4

	primaryOwner = 1
	alreadyOwner = 4
)

// ownRetry is how often a name is asked for again that the bus denies us: its
// policy may be read anew.
const ownRetry = time.Minute

// session is one connection of the service, from Hello to its end.
func (s *Service) session(ctx context.Context) error {
	l, err := connect(ctx, s.o.Address)
	if err != nil {
		return err
	}
	c := newConn(l, s.o.Stuck)
	n := &naming{s: s, c: c, changed: make(chan struct{}, 1)}
	c.onSignal = n.signal
	c.onCall = func(ctx context.Context, in *incoming) { s.dispatch(ctx, c, in) }
	c.refill = func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.c == c {
			s.flush()
		}
	}
	s.mu.Lock()
	s.c = c
	s.mu.Unlock()

	ctx, cancel := context.WithCancel(ctx)
	var own sync.WaitGroup
	own.Go(func() { c.fail(n.own(ctx)) })
	err = c.run(ctx)
	cancel()
	own.Wait()
	s.mu.Lock()
	s.c, s.live, s.owned, s.dirty = nil, false, false, nil
	s.mu.Unlock()
	return err
}

// naming is what a session does to own the service's name.
type naming struct {
	s       *Service
	c       *conn
	changed chan struct{} // the owner, or what is activatable
	foreign bool          // the owner, as the bus last told, is not us; for s.mu
}

// signal hears from the bus that something about the name has changed.
func (n *naming) signal(_ context.Context, in *incoming) {
	in.discard()
	if in.Sender != driver || in.Interface != driver {
		return
	}
	switch in.Member {
	case "NameOwnerChanged":
		if len(in.Body) != 3 || in.Body[0] != any(n.s.o.Name) {
			return
		}
		n.owner(in.Body[2])
	case "ActivatableServicesChanged":
	default:
		return
	}
	select {
	case n.changed <- struct{}{}:
	default:
	}
}

// wait returns when something has changed or, if d is not 0, after d. It
// reports whether something has.
func (n *naming) wait(ctx context.Context, d time.Duration) (changed bool, err error) {
	var after <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		after = t.C
	}
	select {
	case <-n.changed:
		return true, nil
	case <-after:
		return false, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// own takes the name whenever it may, until the connection ends.
func (n *naming) own(ctx context.Context) error {
	if _, err := n.c.ask(ctx, "AddMatch", ownerMatch(n.s.o.Name).rule()); err != nil {
		return err
	}
	if n.s.o.Yield {
		// A bus that does not send it takes the rule all the same.
		m := Match{Sender: driver, Path: driverPath, Interface: driver, Member: "ActivatableServicesChanged"}
		if _, err := n.c.ask(ctx, "AddMatch", m.rule()); err != nil {
			return err
		}
	}
	for {
		if n.s.o.Yield {
			if err := n.settle(ctx); err != nil {
				return err
			}
		}
		owned, err := n.request(ctx)
		pause := time.Duration(0)
		if e, ok := err.(*Error); ok {
			n.s.o.Log.Warn("the bus denies the name", "err", e)
			pause = ownRetry
		} else if err != nil {
			return err
		}
		for {
			if _, err := n.wait(ctx, pause); err != nil {
				return err
			}
			if !owned || !n.s.Owned() {
				break
			}
		}
	}
}

// settle returns when nobody has or could have the name for long enough.
func (n *naming) settle(ctx context.Context) error {
	for {
		v, err := n.c.ask(ctx, "ListActivatableNames")
		if err != nil {
			return err
		}
		names, _ := v.([]string)
		free := !slices.Contains(names, n.s.o.Name)
		if free {
			owner, err := n.c.owner(ctx, n.s.o.Name)
			if err != nil {
				return err
			}
			free = owner == ""
		}
		if free {
			changed, err := n.wait(ctx, n.s.o.Settle)
			if !changed {
				return err
			}
		} else if _, err := n.wait(ctx, 0); err != nil {
			return err
		}
	}
}

// request asks for the name. The objects are there; from now on changes are
// told, for the bus may give us the name before we know.
func (n *naming) request(ctx context.Context) (owned bool, err error) {
	s := n.s
	s.mu.Lock()
	s.live = true
	s.mu.Unlock()
	flags := uint32(doNotQueue)
	if s.o.Yield {
		flags |= allowReplacement
	}
	v, err := n.c.ask(ctx, "RequestName", s.o.Name, flags)
	if err == nil {
		owned = v == any(uint32(primaryOwner)) || v == any(uint32(alreadyOwner))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// The bus tells of the new owner before it answers; what it has told since
	// counts more.
	owned = owned && !n.foreign
	s.live, s.owned = owned, owned
	if owned {
		s.o.Log.Info("on the bus", "unique", n.c.name)
	} else {
		s.dirty = nil
		if err == nil {
			s.o.Log.Warn("the name is another's")
		}
	}
	return owned, err
}

// owner notes who owns the name now.
func (n *naming) owner(to any) {
	s := n.s
	s.mu.Lock()
	defer s.mu.Unlock()
	n.foreign = to != any(n.c.name)
	if n.foreign && s.owned {
		s.live, s.owned, s.dirty = false, false, nil
		s.o.Log.Warn("the name was taken", "owner", to)
	}
}

// uid asks the bus for the user id of a connection.
func (c *conn) uid(ctx context.Context, name string) (uint32, error) {
	v, err := c.ask(ctx, "GetConnectionUnixUser", name)
	if err != nil {
		return 0, err
	}
	uid, ok := v.(uint32)
	if !ok {
		return 0, &OpError{"call GetConnectionUnixUser", c.address, fmt.Errorf("%w: %T", wire.ErrInvalid, v)}
	}
	return uid, nil
}
