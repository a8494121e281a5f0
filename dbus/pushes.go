// SPDX-License-Identifier: Apache-2.0

package dbus

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"github.com/bluefield-go/bmc-rshim/dbus/bus"
	"github.com/bluefield-go/bmc-rshim/dbus/wire"
	"github.com/bluefield-go/bmc-rshim/rshim"
)

// keptPushes is how many pushes have an object, those that run included.
const keptPushes = 8

// pushes are all pushes that have an object: those that callers have begun here,
// and those that the core tells of, whose streams came through /dev/rshimN/boot.
type pushes struct {
	s     *Service
	tasks *tasks // of pushes, which outlive callers, connections and devices

	mu     sync.Mutex
	number uint64 // of the last one
	kept   []*push
	lines  map[int]*pushLine
}

// pushLine is what is known of the pushes of one index.
type pushLine struct {
	seen    int64           // id of the last one that has an object, or had
	opening int             // how many of ours are being opened: ids to come may be theirs
	busy    bool            // one of ours runs, up to the end of its stream
	last    wire.ObjectPath // of the last one
	update  *bus.Object     // BF_DPU_BFB_UPDATE, nil before the first
}

// line returns what is known of an index. The lock is held.
func (ps *pushes) line(index int) *pushLine {
	l := ps.lines[index]
	if l == nil {
		l = &pushLine{last: "/"}
		ps.lines[index] = l
	}
	return l
}

// last is the path of the last push of an index, "/" if there was none.
func (ps *pushes) last(index int) wire.ObjectPath {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return ps.line(index).last
}

// observe gives the pushes of a device up to an id their objects, unless one of
// ours is just being opened: then it is not known yet whose the id is.
func (ps *pushes) observe(v *device, id int64) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.line(v.d.Index()).opening == 0 {
		ps.catchUp(v, id)
	}
}

// catchUp makes objects of the pushes up to an id that have none. The lock is
// held.
func (ps *pushes) catchUp(v *device, id int64) {
	l := ps.line(v.d.Index())
	for l.seen = max(l.seen, id-keptPushes); l.seen < id; {
		l.seen++
		if st, ok := v.d.PushByID(l.seen); ok {
			p := &push{ps: ps, v: v, origin: "File", began: st.Started, replied: make(chan struct{})}
			p.id.Store(l.seen)
			close(p.replied)
			ps.publish(p)
		}
	}
}

// begin reserves a device for a push of ours, up to the end of its stream.
func (ps *pushes) begin(v *device) bool {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	l := ps.line(v.d.Index())
	if l.busy {
		return false
	}
	l.busy = true
	return true
}

func (ps *pushes) end(v *device) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.line(v.d.Index()).busy = false
}

// open opens the stream of a push of ours.
func (ps *pushes) open(ctx context.Context, p *push, o rshim.PushOptions) (*rshim.BootStream, error) {
	ps.mu.Lock()
	l := ps.line(p.v.d.Index())
	l.opening++
	ps.mu.Unlock()

	o.Begun = func(id int64) { // ours, whatever becomes of it
		ps.mu.Lock()
		defer ps.mu.Unlock()
		ps.catchUp(p.v, id-1)
		l.seen = max(l.seen, id)
	}
	b, err := p.v.d.OpenPush(ctx, o)

	ps.mu.Lock()
	defer ps.mu.Unlock()
	l.opening--
	if err == nil {
		p.id.Store(b.ID())
	}
	p.v.look()
	return b, err
}

// publish gives a push its objects, and begins to keep them up to date. The
// lock is held.
func (ps *pushes) publish(p *push) {
	ps.number++
	p.path, p.ended = wire.ObjectPath(PushPath(ps.number)), make(chan struct{})
	l := ps.line(p.v.d.Index())
	p.own = ps.s.add(ps.s.rshim, p.path, p.ifaces(true)...)
	if l.update != nil {
		l.update.Remove()
	}
	l.update = ps.s.add(ps.s.dpus, wire.ObjectPath(UpdatePath(p.v.d.Index())), p.ifaces(false)...)
	p.update = l.update
	l.last = p.path

	ps.kept = append(ps.kept, p)
	for i := 0; i < len(ps.kept) && len(ps.kept) > keptPushes; {
		if old := ps.kept[i]; old.over() {
			ps.remove(old)
		} else {
			i++
		}
	}
	if !ps.tasks.run(p.follow) {
		close(p.ended)
	}
	p.v.look()
}

// announce is publish for who does not hold the lock. The device's Push is that
// one when it returns.
func (ps *pushes) announce(p *push) {
	ps.mu.Lock()
	ps.publish(p)
	ps.mu.Unlock()
	p.v.publish()
}

// remove takes away the objects of a push that has ended. The lock is held.
func (ps *pushes) remove(p *push) {
	p.own.Remove()
	l := ps.line(p.v.d.Index())
	if l.update == p.update && l.update != nil {
		l.update.Remove()
		l.update = nil
	}
	if l.last == p.path {
		l.last = "/"
		p.v.look()
	}
	for i, k := range ps.kept {
		if k == p {
			ps.kept = append(ps.kept[:i], ps.kept[i+1:]...)
			return
		}
	}
}

// pending reports whether a push of the device is under way: its stream, or the
// boot that comes after it, if that is followed.
func (ps *pushes) pending(d *rshim.Device) bool {
	ps.mu.Lock()
	busy := ps.line(d.Index()).busy
	ps.mu.Unlock()
	p := d.Push()
	return busy || streams(p) || p.Outcome == rshim.OutcomePending
}

// pending reports whether a push of any device is under way.
func (s *Service) pending() bool { return slices.ContainsFunc(s.devices(), s.pushes.pending) }

// streams reports whether a push still sends.
func streams(p rshim.PushStatus) bool {
	return p.Phase == rshim.PushResetting || p.Phase == rshim.PushStreaming
}

// percent is how far a push has come. Of what the DPU does with what it got only
// the stages are known; the numbers are about how long each takes.
func percent(p rshim.PushStatus, streamOnly bool) byte {
	share := 40.0 // of the stream in the whole
	if streamOnly {
		share = 99
	}
	total := cmp.Or(p.Total, p.Bytes+p.Missing)
	if p.Phase == rshim.PushDone {
		if n, ok := stagePercent[p.Stage]; ok && !streamOnly {
			return n
		}
		return byte(share)
	}
	if total <= 0 || p.Bytes <= 0 {
		return 0
	}
	return byte(share * float64(min(p.Bytes, total)) / float64(total))
}
