// SPDX-License-Identifier: Apache-2.0

package dbus

import (
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/bluefield-go/bmc-rshim/dbus/bus"
	"github.com/bluefield-go/bmc-rshim/dbus/wire"
	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/rshim/bootlog"
)

const (
	pushLook     = time.Second      // between looks at the bytes of a stream,
	bootLook     = 10 * time.Second // and at a boot that says nothing
	pushPause    = 100 * time.Millisecond
	progressLate = 60 * time.Second // without Progress: it is said again
	// replyLead is how long after the reply the end of a push is told, at the
	// earliest: callers watch for it only once they know its path.
	replyLead = 250 * time.Millisecond
	// sendLead is how long a sender whose push is over may wait for its input.
	sendLead = time.Second
	// stuckLead is how long it may take to end then.
	stuckLead = 10 * time.Second
)

// stagePercent is how far a push has come when the DPU is at a stage.
var stagePercent = map[bootlog.Stage]byte{
	bootlog.StageROM: 41, bootlog.StageBL2: 42, bootlog.StageBL31: 43, bootlog.StageUEFI: 44, bootlog.StageOS: 48,
	bootlog.StageInstalling: 55, bootlog.StageRebooting: 90, bootlog.StageServices: 95, bootlog.StageReady: 99,
}

// push is one push with its objects.
type push struct {
	ps     *pushes
	v      *device
	origin string // Bus, File
	name   string // of the image
	began  time.Time

	// Of those that began here.
	streamOnly bool               // its end is that of the stream
	digest     string             // that the image must have, in hexadecimal digits
	cancel     context.CancelFunc // ends the sending; nil: it is not ours
	opened     chan struct{}      // closed when the stream is open
	sent       chan struct{}      // closed when the sending is over; then
	err        error              // how

	id        atomic.Int64  // of the core; 0: the stream is not open yet
	cancelled atomic.Bool   // by Delete
	replied   chan struct{} // closed when the caller has the path

	path   wire.ObjectPath
	own    *bus.Object   // /xyz/openbmc_project/rshim/push/N
	update *bus.Object   // /xyz/openbmc_project/software/BF_DPU_BFB_UPDATE
	ended  chan struct{} // closed when the end was told

	// Owned by follow.
	progress  byte
	said      time.Time // when it was told
	rate      uint64
	rateAt    time.Time
	rateBytes int64
}

// over reports whether the end was told.
func (p *push) over() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// follow publishes the push until its end was told.
func (p *push) follow(ctx context.Context) {
	defer close(p.ended)
	select {
	case <-p.replied:
	case <-ctx.Done():
		return
	}
	early := time.Now().Add(replyLead)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for sent := p.sent; ; {
		changed := p.v.d.Changed()
		w := p.view()
		if w.over() {
			p.settle(ctx)
			w = p.view() // the sender may know better why
			wait(ctx, time.Until(early))
			p.tell(w)
			p.log(w)
			return
		}
		p.tell(w)
		wait(ctx, pushPause)
		pause := pushLook
		switch w.phase {
		case "Booting":
			pause = bootLook
		case "Streaming":
			changed = nil // with every piece
		}
		timer.Reset(pause)
		select {
		case <-changed:
		case <-timer.C:
		case <-sent:
			sent = nil
		case <-ctx.Done():
			return
		}
	}
}

// settle waits until the device can be pushed to again, which who is told of the
// end may want at once. A sender that knows of no end, since it waits for its
// input, is ended.
func (p *push) settle(ctx context.Context) {
	if p.sent == nil {
		return
	}
	timer := time.NewTimer(sendLead)
	defer timer.Stop()
	select {
	case <-p.sent:
		return
	case <-timer.C:
	case <-ctx.Done():
	}
	p.cancel()
	select {
	case <-p.sent:
	case <-time.After(stuckLead): // a file system that hangs; the end is to be told all the same
	case <-ctx.Done():
	}
}

// tell publishes the state. Of the end, the details come first, then Progress 100
// if it is good, then the status, and Activation, by which bmcweb goes, last.
func (p *push) tell(w pushView) {
	now := time.Now()
	p.advance(w, now)
	var completed uint64
	if w.over() {
		completed = micros(w.at)
	}
	again := now.Sub(p.said) >= p.ps.s.late
	if v, _ := p.own.Value(ifaceActProgress, "Progress").(byte); again || v != p.progress {
		p.said = now
	}
	common := []bus.Change{
		{Interface: ifaceActProgress, Property: "Progress", Value: p.progress, Repeat: again},
		{Interface: ifaceProgress, Property: "CompletedTime", Value: completed},
		{Interface: ifaceProgress, Property: "Status", Value: w.status()},
		{Interface: ifaceActivation, Property: "Activation", Value: w.activation()},
	}
	_ = p.own.Update(append(p.details(w), common...)...)
	_ = p.update.Update(common...)
}

// details are the properties of Rshim.Push.
func (p *push) details(w pushView) []bus.Change {
	change := func(property string, value any) bus.Change {
		return bus.Change{Interface: ifacePush, Property: property, Value: value}
	}
	text, name, stage, digest := "", "", "", ""
	if w.err != nil {
		text, name = w.err.Error(), errorName(w.err)
	}
	if w.st.Stage != bootlog.StageUnknown {
		stage = w.st.Stage.String()
	}
	if w.good() {
		digest = p.digest
	}
	return []bus.Change{
		change("Bytes", uint64(max(0, w.st.Bytes))),
		change("Total", uint64(max(0, w.st.Total))),
		change("Rate", p.rate),
		change("Stage", stage),
		change("Line", w.st.Line),
		change("SHA256", digest),
		change("Error", text),
		change("ErrorName", name),
		change("Outcome", enum(ifacePush, "Outcomes", w.outcome)),
		change("Phase", enum(ifacePush, "Phases", w.phase)),
	}
}

// advance works out progress, which never goes back, and rate.
func (p *push) advance(w pushView, now time.Time) {
	switch {
	case w.over() && w.good():
		p.progress = 100
	case !w.over():
		p.progress = max(p.progress, min(99, percent(w.st, p.streamOnly)))
	}
	switch {
	case w.phase != "Streaming":
		p.rate = 0
		if s := w.st.Elapsed.Seconds(); w.over() && s > 0 {
			p.rate = uint64(float64(w.st.Bytes) / s)
		}
	case p.rateAt.IsZero():
		p.rateAt, p.rateBytes = now, w.st.Bytes
	case now.Sub(p.rateAt) >= pushLook/2:
		p.rate = uint64(float64(max(0, w.st.Bytes-p.rateBytes)) / now.Sub(p.rateAt).Seconds())
		p.rateAt, p.rateBytes = now, w.st.Bytes
	}
}

func (p *push) log(w pushView) {
	if p.origin == "Bus" && w.err != nil {
		p.ps.s.log.Warn("push has ended", "device", "rshim"+strconv.Itoa(p.v.d.Index()), "op", "push", "push", string(p.path), "outcome", w.outcome, "err", w.err)
	}
}

// delete cancels a push that runs, and removes the objects of one that has ended.
func (p *push) delete(ctx context.Context, _ *bus.Call) ([]any, error) {
	if p.over() {
		p.ps.mu.Lock()
		defer p.ps.mu.Unlock()
		p.ps.remove(p)
		return nil, nil
	}
	cancelled := true
	if id := p.id.Load(); id != 0 {
		err := p.v.d.CancelPush(ctx, id)
		if err != nil && !errors.Is(err, rshim.ErrNoPush) {
			return nil, err
		}
		cancelled = err == nil // or it has ended by itself
	}
	if cancelled {
		p.cancelled.Store(true)
	}
	if p.cancel != nil {
		p.cancel()
	}
	select {
	case <-p.ended:
		return nil, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// ifaces are the interfaces of one of its objects; own is the one at push/N.
func (p *push) ifaces(own bool) []bus.Interface {
	w := pushView{phase: "Waiting", outcome: "None"}
	requested := bus.Property{Name: "RequestedActivation", Sig: "s", Value: enum(ifaceActivation, "RequestedActivations", "Active"),
		Set: func(_ context.Context, _ *bus.Call, v any) error {
			word, err := enumValue(v.(string), ifaceActivation, "RequestedActivations", "None", "Active")
			if word == "None" {
				err = bus.Errorf(errorNotAllowed, "a push is cancelled by Delete")
			}
			return err // it goes on by itself
		}}
	common := []bus.Interface{
		describe(bus.Interface{Name: ifaceProgress, Properties: []bus.Property{
			{Name: "Status", Sig: "s", Value: w.status()},
			{Name: "StartTime", Sig: "t", Value: micros(p.began)},
			{Name: "CompletedTime", Sig: "t", Value: uint64(0)},
		}}),
		describe(bus.Interface{Name: ifaceActivation, Properties: []bus.Property{
			{Name: "Activation", Sig: "s", Value: w.activation()}, requested,
		}}),
		describe(bus.Interface{Name: ifaceActProgress, Properties: []bus.Property{{Name: "Progress", Sig: "y", Value: byte(0)}}}),
		describe(bus.Interface{Name: ifaceDelete, Methods: []bus.Method{{Name: "Delete", Handle: p.delete}}}),
	}
	if !own {
		return common
	}
	details := []bus.Property{
		{Name: "Device", Sig: "o", Value: p.v.path, Emits: bus.EmitsNothing},
		{Name: "Origin", Sig: "s", Value: enum(ifacePush, "Origins", p.origin), Emits: bus.EmitsNothing},
		{Name: "Name", Sig: "s", Value: p.name},
	}
	for _, c := range p.details(w) {
		sig := wire.Signature("s")
		if _, is := c.Value.(uint64); is {
			sig = "t"
		}
		details = append(details, bus.Property{Name: c.Property, Sig: sig, Value: c.Value})
	}
	return append(common, describe(bus.Interface{Name: ifacePush, Properties: details}))
}
