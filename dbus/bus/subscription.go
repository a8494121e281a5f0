// SPDX-License-Identifier: Apache-2.0

package bus

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/bluefield-go/bmc-rshim/dbus/wire"
)

// Match says which signals are wanted: those that agree in all that is not empty.
type Match struct {
	Sender        string // unique or well-known name
	Path          wire.ObjectPath
	PathNamespace wire.ObjectPath // it, and all below; instead of Path
	Interface     string
	Member        string
	Arg0          string // the first argument, a string
}

// rule writes the match as the bus wants it. (What would need quoting is in no name
// and no path, and refused elsewhere.)
func (m Match) rule() string {
	var b strings.Builder
	b.WriteString("type='signal'")
	for _, f := range []struct{ key, value string }{
		{"sender", m.Sender}, {"path", string(m.Path)}, {"path_namespace", string(m.PathNamespace)},
		{"interface", m.Interface}, {"member", m.Member}, {"arg0", m.Arg0},
	} {
		if f.value != "" {
			b.WriteString("," + f.key + "='" + strings.ReplaceAll(f.value, "'", `'\''`) + "'")
		}
	}
	return b.String()
}

// agrees reports whether the match wants in, the sender aside.
func (m Match) agrees(in *incoming) bool {
	if m.Arg0 != "" {
		if len(in.Body) == 0 || in.Body[0] != any(m.Arg0) {
			return false
		}
	}
	return (m.Path == "" || m.Path == in.Path) && (m.Interface == "" || m.Interface == in.Interface) && (m.Member == "" || m.Member == in.Member) &&
		(m.PathNamespace == "" || m.PathNamespace == in.Path || in.Path.Below(m.PathNamespace))
}

// ownerMatch matches the changes of a name's owner.
func ownerMatch(name string) Match {
	return Match{Sender: driver, Path: driverPath, Interface: driver, Member: "NameOwnerChanged", Arg0: name}
}

// Signal is a signal that has been received.
type Signal struct {
	Sender    string // unique name
	Path      wire.ObjectPath
	Interface string
	Member    string
	Body      []any
}

// Subscription receives signals.
type Subscription struct {
	c    *Conn
	m    Match
	size int
	wake chan struct{} // there is something

	ended   chan struct{} // closed by Close
	endOnce sync.Once
	rules   []string // that the bus has

	mu     sync.Mutex
	sender string // unique name of m.Sender's owner
	known  bool   // sender has been told by a signal
	queue  []Signal
	lost   int // in front of the queue's first
}

// Subscribe asks the bus for signals, of which up to size wait to be read
// (0: 64); then the oldest go. If the sender is a well-known name, only signals
// of its owner at the time come. Signals sent after Subscribe has returned
// do come.
func (c *Conn) Subscribe(ctx context.Context, m Match, size int) (*Subscription, error) {
	if size <= 0 {
		size = 64
	}
	s := &Subscription{c: c, m: m, size: size, wake: make(chan struct{}, 1), ended: make(chan struct{}), sender: m.Sender}
	follow := m.Sender != "" && m.Sender != driver && m.Sender[0] != ':'
	if follow {
		s.sender = ""
	}
	c.mu.Lock()
	c.subs = append(c.subs, s)
	c.mu.Unlock()
	if err := s.ask(ctx, follow); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// ask makes the bus send the signals.
func (s *Subscription) ask(ctx context.Context, follow bool) error {
	if follow {
		if err := s.add(ctx, ownerMatch(s.m.Sender)); err != nil {
			return err
		}
		owner, err := s.c.c.owner(ctx, s.m.Sender)
		if err != nil {
			return err
		}
		s.mu.Lock()
		if !s.known { // else that is newer
			s.sender = owner
		}
		s.mu.Unlock()
	}
	return s.add(ctx, s.m)
}

func (s *Subscription) add(ctx context.Context, m Match) error {
	rule := m.rule()
	_, err := s.c.c.ask(ctx, "AddMatch", rule)
	// The bus counts them: one that it has refused must not be removed,
	// one to which there was no answer must.
	if _, refused := err.(*Error); !refused {
		s.rules = append(s.rules, rule)
	}
	return err
}

// Close ends the subscription. It does not wait for the bus.
func (s *Subscription) Close() {
	s.endOnce.Do(func() {
		s.c.remove(s)
		close(s.ended)
		for _, rule := range s.rules {
			_ = s.c.c.post(&wire.Message{
				Type: wire.MethodCall, Flags: wire.NoReplyExpected, Destination: driver, Path: driverPath, Interface: driver, Member: "RemoveMatch", Body: []any{rule},
			}, nil, nil)
		}
	})
}

// Next returns the next signal. lost is how many were lost in front of it for
// want of room. The error is ctx's, or ErrClosed if there will be no more.
func (s *Subscription) Next(ctx context.Context) (sig Signal, lost int, err error) {
	for {
		s.mu.Lock()
		if len(s.queue) > 0 {
			sig, lost = s.queue[0], s.lost
			s.queue = slices.Delete(s.queue, 0, 1)
			s.lost = 0
			s.mu.Unlock()
			return sig, lost, nil
		}
		s.mu.Unlock()
		select {
		case <-s.wake:
			continue
		case <-s.ended:
		case <-s.c.c.dead:
		case <-ctx.Done():
			return Signal{}, 0, ctx.Err()
		}
		return Signal{}, 0, ErrClosed
	}
}

func (s *Subscription) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// offer takes the signal in if it is wanted.
func (s *Subscription) offer(in *incoming) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if in.Sender == driver && s.m.Sender != "" && ownerMatch(s.m.Sender).agrees(in) && len(in.Body) == 3 {
		if owner, ok := in.Body[2].(string); ok {
			s.sender, s.known = owner, true
		}
	}
	if !s.m.agrees(in) || s.m.Sender != "" && s.sender != in.Sender {
		return
	}
	if len(s.queue) == s.size {
		s.queue = slices.Delete(s.queue, 0, 1)
		s.lost++
	}
	s.queue = append(s.queue, Signal{in.Sender, in.Path, in.Interface, in.Member, in.Body})
	s.poke()
}

// signal offers a signal to all subscriptions.
func (c *Conn) signal(_ context.Context, in *incoming) {
	in.discard()
	if in.err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.subs {
		s.offer(in)
	}
}
