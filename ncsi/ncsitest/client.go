// SPDX-License-Identifier: Apache-2.0

package ncsitest

import (
	"errors"
	"testing"

	"github.com/bluefield-go/bmc-rshim/ncsi"
	"github.com/bluefield-go/bmc-rshim/ncsi/oem"
	"github.com/bluefield-go/bmc-rshim/sim/ncsi"
)

// testClient gets and sets with an oem.Client.
func testClient(t *testing.T, r *run) {
	c := &oem.Client{Transport: r.Transport, Channel: r.Channel}
	for _, a := range []oem.HostAccess{oem.Enabled, oem.Disabled, oem.Locked} {
		must(t, c.Set(r.ctx, a))
		got, err := c.Get(r.ctx)
		must(t, err)
		if s := r.state(t); got != a || s.Stored != a {
			t.Fatalf("set %v, got %v, the NIC has %v", a, got, s.Stored)
		}
	}
	for _, a := range []oem.RuntimeAccess{oem.RuntimeEnabled, oem.RuntimeLocked} {
		must(t, c.SetRuntime(r.ctx, a))
		got, err := c.GetRuntime(r.ctx)
		must(t, err)
		if s := r.state(t); got != a || s.Runtime != a {
			t.Fatalf("set %v, got %v, the NIC has %v", a, got, s.Runtime)
		}
	}
	must(t, c.Set(r.ctx, oem.Disabled))
	must(t, r.NIC.Reboot())
	if err := c.SetRuntime(r.ctx, oem.RuntimeEnabled); !errors.Is(err, oem.ErrUnavailable) {
		t.Errorf("with host access disabled: %v", err)
	}
	s := r.state(t)
	s.Untrusted = true
	must(t, r.NIC.SetState(s))
	if a, err := c.Get(r.ctx); !both(err, oem.ErrUntrusted, oem.ErrUnsupported) {
		t.Errorf("untrusted: %v, %v", a, err)
	}
	if _, err := c.Raw(r.ctx, 0x42, 0x42, []byte{1, 2, 3}); !errors.Is(err, oem.ErrUnsupported) {
		t.Errorf("an unknown command: %v", err)
	}
}

// testClientFaults has what goes wrong once or twice not reach the caller.
func testClientFaults(t *testing.T, r *run) {
	c := &oem.Client{Transport: r.Transport, Channel: r.Channel}
	for _, f := range []simncsi.Fault{
		{Kind: simncsi.Silent, Count: 2}, {Kind: simncsi.Lost}, {Kind: simncsi.BadChecksum}, {Kind: simncsi.WrongIID},
		{Kind: simncsi.WrongLength}, {Kind: simncsi.Short, Count: 2}, {Kind: simncsi.WrongManufacturer}, {Kind: simncsi.WrongParameter, Count: 2},
	} {
		var a oem.HostAccess
		err := r.attempts(t, func() (err error) {
			r.inject(t, f)
			a, err = c.Get(r.ctx)
			return err
		})
		if err != nil || a != first.Stored {
			t.Errorf("%s: %v, %v", f.Kind, a, err)
		}
	}

	for _, f := range []simncsi.Fault{{Kind: simncsi.Silent}, {Kind: simncsi.Lost}, {Kind: simncsi.BadChecksum}} {
		before := 0
		err := r.attempts(t, func() error {
			before = r.state(t).Counts.Sets
			r.inject(t, f)
			return c.Set(r.ctx, oem.Enabled)
		})
		if err != nil {
			t.Errorf("%s: %v", f.Kind, err)
		}
		want := 1 // reading back shows that it was done
		if f.Kind == simncsi.Silent {
			want = 2
		}
		s := r.state(t)
		if n := s.Counts.Sets - before; n != want || s.Stored != oem.Enabled {
			t.Errorf("%s: sent %d times, want %d, and the NIC has %v", f.Kind, n, want, s.Stored)
		}
	}

	r.reset(t)
	r.inject(t, simncsi.Fault{Kind: simncsi.Ignore, Count: 1000})
	if err := c.Set(r.ctx, oem.Disabled); !errors.Is(err, oem.ErrNotTaken) {
		t.Errorf("a Set that does nothing: %v", err)
	}
	r.reset(t)
	r.inject(t, simncsi.Fault{Kind: simncsi.UnknownState, Count: 1000})
	if err := c.Set(r.ctx, oem.Disabled); !both(err, oem.ErrOutcomeUnknown, oem.ErrUnknownState) {
		t.Errorf("reading back an unknown state: %v", err)
	}
}

// testClientInit has the NIC ask for Clear Initial State, which is the caller's
// business on a transport that does not own the channel.
func testClientInit(t *testing.T, r *run) {
	c := &oem.Client{Transport: r.Transport, Channel: r.Channel}
	if _, ok := r.Transport.(oem.Direct); !ok {
		r.inject(t, simncsi.Fault{Kind: simncsi.Refuse, Count: 1000, Code: ncsi.Failed, Reason: ncsi.InitRequired})
		if a, err := c.Get(r.ctx); !errors.Is(err, ncsi.ErrInitRequired) {
			t.Errorf("%v, %v", a, err)
		}
		return
	}
	must(t, r.NIC.Uninitialise())
	before := r.state(t).Counts.Clears
	must(t, c.Set(r.ctx, oem.Enabled))
	if a, err := c.Get(r.ctx); err != nil || a != oem.Enabled {
		t.Errorf("%v, %v", a, err)
	}
	if n := r.state(t).Counts.Clears - before; n < 1 || n > 3 {
		t.Errorf("%d times Clear Initial State", n)
	}
}
