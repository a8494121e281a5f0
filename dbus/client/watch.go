// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/bluefield-go/bmc-rshim/dbus/bus"
)

// Event is a change of something. Of Device, Push, HostAccess and Lines one is
// set.
type Event struct {
	Device     *Device // as it is now
	Push       *Push   // as it is now
	HostAccess *HostAccess
	Removed    bool // the device or the push is no more

	Lines []LogLine // new ones of the boot log of rshim<Index>
	Index int
	// Lost says that lines may be missing before these, which may be none:
	// they are to be had by Log.
	Lost bool
}

// Watch tells what changes. It belongs to one goroutine.
type Watch struct {
	c      *Client
	sub    *bus.Subscription
	end    context.CancelCauseFunc
	ctx    context.Context
	wg     sync.WaitGroup
	state  map[Path]map[string]bus.Properties
	queue  []Event
	events chan arrival
}

// arrival is a signal, or what else wakes Next.
type arrival struct {
	sig  bus.Signal
	lost int
}

// signalRoom is how many signals may wait for who watches.
const signalRoom = 1024

// Watch watches everything that the daemon has: first come what there is, as if
// it had just changed, then what changes. It ends with ErrLost when the daemon
// does.
func (c *Client) Watch(ctx context.Context) (*Watch, error) {
	limited, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	sub, err := c.c.Subscribe(limited, bus.Match{Sender: name, PathNamespace: root}, signalRoom)
	if err != nil {
		return nil, c.opError("watch", "", err)
	}
	w := &Watch{c: c, sub: sub, state: make(map[Path]map[string]bus.Properties), events: make(chan arrival)}
	life, end := context.WithCancelCause(context.Background())
	w.ctx, w.end = life, end
	w.wg.Go(func() { end(w.receive()) })
	w.wg.Go(func() { end(w.owner()) })
	if err := w.sync(limited); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

// Close ends the watch.
func (w *Watch) Close() {
	w.end(bus.ErrClosed)
	w.sub.Close()
	w.wg.Wait()
}

// receive passes signals on.
func (w *Watch) receive() error {
	for {
		sig, lost, err := w.sub.Next(w.ctx)
		if err != nil {
			return err
		}
		select {
		case w.events <- arrival{sig, lost}:
		case <-w.ctx.Done():
			return w.ctx.Err()
		}
	}
}

// owner ends when the daemon is another one.
func (w *Watch) owner() error {
	ctx, cancel := context.WithCancelCause(w.ctx)
	defer cancel(nil)
	was, first := "", true
	err := w.c.c.WatchOwner(ctx, name, func(owner string) {
		if !first && owner != was || owner == "" {
			cancel(ErrLost)
		}
		was, first = owner, false
	})
	if context.Cause(ctx) == ErrLost {
		return ErrLost
	}
	return err
}

// sync reads the state of everything, and queues what differs.
func (w *Watch) sync(ctx context.Context) error {
	all, err := w.c.objects(ctx)
	if err != nil {
		return err
	}
	was := w.state
	w.state = make(map[Path]map[string]bus.Properties)
	for _, p := range slices.Sorted(maps.Keys(was)) {
		if _, still := all[p]; !still {
			w.state[p] = was[p]
			if err := w.removed(p, slices.Collect(maps.Keys(was[p]))); err != nil {
				return err
			}
		}
	}
	for _, p := range slices.Sorted(maps.Keys(all)) {
		w.state[p] = all[p]
		for _, i := range []string{ifDevice, ifPush, ifHostAccess} {
			if _, has := all[p][i]; has {
				if err := w.changed(p, i); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// Next waits for the next event. The error is ctx's, ErrLost in an *OpError when
// the daemon or the bus has ended, or ErrAnswer.
func (w *Watch) Next(ctx context.Context) (Event, error) {
	for len(w.queue) == 0 {
		select {
		case a := <-w.events:
			if err := w.take(ctx, a); err != nil {
				return Event{}, w.c.opError("watch", "", err)
			}
		case <-w.ctx.Done():
			err := context.Cause(w.ctx)
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			return Event{}, w.c.opError("watch", "", err)
		case <-ctx.Done():
			return Event{}, ctx.Err()
		}
	}
	e := w.queue[0]
	w.queue = w.queue[1:]
	return e, nil
}

// take takes a signal.
func (w *Watch) take(ctx context.Context, a arrival) error {
	if a.lost > 0 {
		// Whatever it was: it is in what is read now. What is older than that
		// and still to come does no harm, as its values come again after it.
		if err := w.sync(ctx); err != nil {
			return err
		}
		for p := range w.state {
			if i := Index(p); i >= 0 {
				w.queue = append(w.queue, Event{Index: i, Lost: true})
			}
		}
	}
	sig := a.sig
	if iface, p, ok := bus.Changed(sig); ok {
		// Of an object that is not known, InterfacesAdded is still to come.
		if is, known := w.state[sig.Path][iface]; known {
			maps.Copy(is, p)
			return w.changed(sig.Path, iface)
		}
		return nil
	}
	if path, is, ok := bus.Added(sig); ok {
		if w.state[path] == nil {
			w.state[path] = make(map[string]bus.Properties)
		}
		maps.Copy(w.state[path], is)
		for _, i := range []string{ifDevice, ifPush, ifHostAccess} {
			if _, has := is[i]; has {
				if err := w.changed(path, i); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if path, is, ok := bus.Removed(sig); ok {
		return w.removed(path, is)
	}
	if sig.Interface == ifDevice && sig.Member == "LogAdded" && Index(sig.Path) >= 0 && len(sig.Body) == 1 {
		ls, err := decodeLines(sig.Body[0])
		if err != nil {
			return err
		}
		w.queue = append(w.queue, Event{Index: Index(sig.Path), Lines: ls})
	}
	return nil
}

// changed queues what an object is now.
func (w *Watch) changed(path Path, iface string) (err error) {
	var e Event
	switch is := w.state[path]; {
	case iface == ifDevice && Index(path) >= 0:
		e.Device, err = decodeDevice(path, is[iface])
		e.Index = Index(path)
	case (iface == ifPush || iface == ifPercent || iface == ifProgress) && isPush(path) && is[ifPush] != nil:
		e.Push, err = decodePush(path, is)
	case iface == ifHostAccess && path == root:
		e.HostAccess, err = decodeHostAccess(is[iface])
	default:
		return nil
	}
	w.queue = append(w.queue, e)
	return err
}

// removed queues that a device or a push is no more.
func (w *Watch) removed(path Path, interfaces []string) error {
	was := len(w.queue)
	for _, i := range interfaces {
		if _, had := w.state[path][i]; had && (i == ifDevice || i == ifPush) {
			if err := w.changed(path, i); err != nil {
				return err
			}
		}
	}
	for i := was; i < len(w.queue); i++ {
		w.queue[i].Removed = true
	}
	for _, i := range interfaces {
		delete(w.state[path], i)
	}
	if len(w.state[path]) == 0 {
		delete(w.state, path)
	}
	return nil
}
