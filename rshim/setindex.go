// SPDX-License-Identifier: Apache-2.0

package rshim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

// Map replaces Index and Blocked of the options, for devices that are still to
// come: one that is being served stays as it is.
func (set *Set) Map(index map[string]int, blocked map[string]bool) {
	set.mu.Lock()
	defer set.mu.Unlock()
	set.index, set.blocked = maps.Clone(index), maps.Clone(blocked)
}

// Adopt finds the device that b belongs to, and returns a function that runs b
// as this device until b has gone or its context ends; Run must be running. The
// function ends at once, with ErrBlocked or ErrTooMany, if the device is not to
// be served or cannot be now.
//
// A device has the index that it is mapped to, otherwise the one that it had
// before. When just one device has ever been seen, one of its kind under another
// name is taken for the same device on another host controller, which happens
// to the DPU of a BMC, unless that name is mapped to another index; otherwise a
// new name gets the lowest index that never was used, and when all were, one
// that nobody uses now. What is mapped to one device is never another's.
func (set *Set) Adopt(b Backend) func(context.Context) error {
	s, fresh, err := set.claim(b.Name(), b.Generation())
	return func(ctx context.Context) error {
		if err != nil {
			return errors.Join(err, b.Close())
		}
		defer func() {
			set.mu.Lock()
			s.serving = false
			set.mu.Unlock()
		}()
		if fresh {
			select {
			case set.start <- s:
			case <-ctx.Done():
				return errors.Join(ctx.Err(), b.Close())
			}
		}
		return s.device.Serve(ctx, b)
	}
}

// Wants reports whether a device on the bus would be adopted now, so that one
// that is not to be served need not even be opened. Why one is not wanted is
// logged once.
func (set *Set) Wants(name string, gen reg.Generation) bool {
	set.mu.Lock()
	defer set.mu.Unlock()
	_, err := set.find(name, gen)
	return err == nil
}

// claim finds the slot for a name; fresh means that its device is new.
func (set *Set) claim(name string, gen reg.Generation) (_ *slot, fresh bool, err error) {
	set.mu.Lock()
	defer set.mu.Unlock()
	i, err := set.find(name, gen)
	if err != nil {
		return nil, false, err
	}
	for _, s := range set.slots {
		if s != nil && s.name == name {
			s.name = "" // it was mapped to another one since
		}
	}
	s, o := set.slots[i], set.device
	if s == nil {
		s = new(slot)
		set.slots[i] = s
	} else {
		// That is for when it comes first.
		o.Force, o.Drop = false, s.drop
	}
	s.name, s.gen, s.serving = name, gen, true
	if s.device == nil {
		s.device, fresh = New(i, o), true
		s.device.counts, s.device.off = s.counts, set.off
		wake(&set.changed)
	}
	return s, fresh, nil
}

// find finds the index for a name, or why there is none, which it logs unless
// it has.
func (set *Set) find(name string, gen reg.Generation) (int, error) {
	i, err := set.place(name, gen)
	switch {
	case err == nil:
		delete(set.refused, name)
	case set.refused[name] != err.Error():
		set.refused[name] = err.Error()
		level := slog.LevelWarn
		if errors.Is(err, ErrBlocked) {
			level = slog.LevelInfo // as told
		}
		set.log.Log(context.Background(), level, "not served", "op", "adopt", "err", err)
	}
	return i, err
}

// place is find without the log.
func (set *Set) place(name string, gen reg.Generation) (int, error) {
	switch {
	case set.o.OnlyName != "" && name != set.o.OnlyName:
		return 0, fmt.Errorf("%s: %w: %s alone is", name, ErrBlocked, set.o.OnlyName)
	case set.blocked[name]:
		return 0, fmt.Errorf("%s: %w: it is blocked", name, ErrBlocked)
	}
	had, last, used := -1, -1, 0
	for i, s := range set.slots {
		switch {
		case s == nil || s.name == "" && s.device == nil:
			continue
		case s.name == name && s.serving:
			return 0, fmt.Errorf("%s: %w: it is rshim%d already", name, ErrTooMany, i)
		case s.name == name:
			had = i
		}
		last, used = i, used+1
	}
	same := -1 // the index of what is taken for the same device
	if used == 1 && !set.slots[last].serving && set.slots[last].gen == gen {
		same = last
	}
	want, mapped := set.index[name]
	if set.o.OnlyIndex != nil {
		want, mapped = *set.o.OnlyIndex, true
	}
	if !mapped {
		return set.unmapped(name, had, same)
	}
	if want < 0 || want >= MaxDevices {
		return 0, fmt.Errorf("%s: %w: it is to be rshim%d", name, ErrTooMany, want)
	}
	if s := set.slots[want]; s != nil && s.device != nil && want != had && want != same {
		return 0, fmt.Errorf("%s: %w: it is to be rshim%d, which %s is", name, ErrTooMany, want, cmp.Or(s.name, "another device"))
	}
	return want, nil
}

// unmapped finds the index for a device that may have any but those that others
// are mapped to, preferably one of those given that is not negative.
func (set *Set) unmapped(name string, preferred ...int) (int, error) {
	var taken [MaxDevices]bool
	for _, i := range set.index {
		if i >= 0 && i < MaxDevices {
			taken[i] = true
		}
	}
	for _, i := range preferred {
		if i >= 0 && !taken[i] {
			return i, nil
		}
	}
	for _, may := range []func(s *slot) bool{
		func(s *slot) bool { return s == nil },
		func(s *slot) bool { return s != nil && s.device == nil },
	} {
		for i, s := range set.slots {
			if !taken[i] && may(s) {
				return i, nil
			}
		}
	}
	return 0, fmt.Errorf("%s: %w", name, ErrTooMany)
}
