// SPDX-License-Identifier: Apache-2.0

package oem_test

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/ncsi"
	"github.com/bluefield-go/bmc-rshim/ncsi/oem"
	"github.com/bluefield-go/bmc-rshim/sim/ncsi"
)

// timeout is the transport's.
const timeout = time.Second

// indirect hides that a transport is Direct.
type indirect struct{ oem.Transport }

// broken fails from the nth Do on, counted from 0.
type broken struct {
	oem.Transport
	n   int
	err error
}

func (b *broken) Do(ctx context.Context, ch ncsi.Channel, typ ncsi.Type, payload []byte) ([]byte, error) {
	if b.n--; b.n < 0 {
		return nil, b.err
	}
	return b.Transport.Do(ctx, ch, typ, payload)
}

// begin is the NIC's state before each case.
var begin = simncsi.State{Stored: oem.Locked, Active: oem.Enabled, Runtime: oem.RuntimeLocked}

func fault(k simncsi.Kind, count int) simncsi.Fault { return simncsi.Fault{Kind: k, Count: count} }

func refuse(code ncsi.Code, reason ncsi.Reason, count int) simncsi.Fault {
	return simncsi.Fault{Kind: simncsi.Refuse, Count: count, Code: code, Reason: reason, Size: 8}
}

const forever = 1000

// TestGet gets, whatever goes wrong, and looks at what was sent, which instance
// IDs it had, and how long it took.
func TestGet(t *testing.T) {
	for _, c := range []struct {
		name     string
		faults   []simncsi.Fault
		indirect bool
		err      error
		text     string // part of the error
		sent     int
		iids     int           // different ones
		took     time.Duration // in the transport's timeouts
	}{
		{name: "at once", sent: 1, iids: 1},
		{name: "silent once", faults: []simncsi.Fault{fault(simncsi.Silent, 1)}, sent: 2, iids: 1, took: timeout},
		{name: "silent twice", faults: []simncsi.Fault{fault(simncsi.Silent, 2)}, sent: 3, iids: 1, took: 2 * timeout},
		{name: "silent", faults: []simncsi.Fault{fault(simncsi.Silent, forever)}, sent: 3, iids: 1, took: 3 * timeout,
			err: os.ErrDeadlineExceeded, text: "package 0: get host access: 3 tries: no response in 1s"},
		{name: "silent, indirect", faults: []simncsi.Fault{fault(simncsi.Silent, 2)}, indirect: true, sent: 3, iids: 3, took: 2 * timeout},
		{name: "lost", faults: []simncsi.Fault{fault(simncsi.Lost, 2)}, sent: 3, iids: 1, took: 2 * timeout},
		// The late response to the first try is that to the second.
		{name: "late", faults: []simncsi.Fault{{Kind: simncsi.Slow, Delay: timeout * 3 / 2}}, sent: 2, iids: 1, took: timeout * 3 / 2},
		{name: "wrong IID", faults: []simncsi.Fault{fault(simncsi.WrongIID, 1)}, sent: 2, iids: 1, took: timeout},
		{name: "bad checksum", faults: []simncsi.Fault{fault(simncsi.BadChecksum, 2)}, sent: 3, iids: 1, took: 2 * timeout},
		{name: "zero checksum", faults: []simncsi.Fault{fault(simncsi.ZeroChecksum, 1)}, sent: 1, iids: 1},
		{name: "no checksum", faults: []simncsi.Fault{fault(simncsi.NoChecksum, 1)}, sent: 1, iids: 1},
		{name: "tail", faults: []simncsi.Fault{fault(simncsi.Tail, 1)}, sent: 1, iids: 1},
		{name: "AEN", faults: []simncsi.Fault{fault(simncsi.AENFirst, 1)}, sent: 1, iids: 1},
		{name: "wrong length", faults: []simncsi.Fault{fault(simncsi.WrongLength, 1)}, sent: 2, iids: 1, took: timeout},
		{name: "short", faults: []simncsi.Fault{fault(simncsi.Short, 2)}, sent: 3, iids: 1},
		{name: "short always", faults: []simncsi.Fault{fault(simncsi.Short, forever)}, sent: 3, iids: 1, err: ncsi.ErrMalformed, text: "3 tries: malformed"},
		{name: "wrong manufacturer", faults: []simncsi.Fault{fault(simncsi.WrongManufacturer, 1)}, sent: 2, iids: 1},
		{name: "wrong parameter", faults: []simncsi.Fault{fault(simncsi.WrongParameter, 1)}, sent: 2, iids: 1},
		{name: "unknown state", faults: []simncsi.Fault{fault(simncsi.UnknownState, 1)}, sent: 1, iids: 1, err: oem.ErrUnknownState},
		{name: "refused", faults: []simncsi.Fault{refuse(ncsi.Failed, ncsi.PackageNotReady, 1)}, sent: 1, iids: 1, err: ncsi.ErrFailed},
		{name: "unsupported", faults: []simncsi.Fault{simncsi.Unsupported(1)}, sent: 1, iids: 1, err: oem.ErrUnsupported,
			text: "package 0: get host access: the NIC's firmware does not know the command, or does not trust this BMC: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				nic := simncsi.New(simncsi.Config{State: begin, CacheByIID: c.indirect})
				client := &oem.Client{Transport: simncsi.NewMemory(nic, timeout), Channel: ncsi.WholePackage}
				if c.indirect {
					client.Transport = indirect{client.Transport}
				}
				for _, f := range c.faults {
					nic.Inject(f)
				}
				began := time.Now()
				got, err := client.Get(t.Context())
				check(t, err, c.err, c.text)
				if err == nil && got != begin.Stored {
					t.Errorf("got %v", got)
				}
				if took := time.Since(began); took != c.took {
					t.Errorf("took %v instead of %v", took, c.took)
				}
				s, _ := nic.State()
				iids := slices.Compact(slices.Sorted(slices.Values(s.Counts.IIDs)))
				if s.Counts.OEM != c.sent || len(iids) != c.iids || s.Counts.Clears != 0 {
					t.Errorf("sent %+v", s.Counts)
				}
			})
		})
	}
}

// check compares an error with what it should be.
func check(t *testing.T, err, want error, text string) {
	t.Helper()
	if (err == nil) != (want == nil) || want != nil && !errors.Is(err, want) {
		t.Fatalf("%v instead of %v", err, want)
	}
	if err == nil {
		return
	}
	if o, ok := errors.AsType[*oem.OpError](err); !ok || o.Op == "" {
		t.Errorf("%v: no *OpError", err)
	}
	if !strings.Contains(err.Error(), text) {
		t.Errorf("%q does not contain %q", err, text)
	}
}

// TestSet sets with everything that can go wrong with the command, its response
// and with reading back.
func TestSet(t *testing.T) {
	set := func(k simncsi.Kind) []simncsi.Fault { return []simncsi.Fault{fault(k, 1)} }
	for _, c := range []struct {
		name   string
		faults []simncsi.Fault
		config simncsi.Config
		err    error
		text   string
		sets   int
		all    int // OEM commands
		stored oem.HostAccess
	}{
		{name: "at once", sets: 1, all: 2, stored: oem.Disabled},
		{name: "the response has the state", config: simncsi.Config{SetRepeats: true}, sets: 1, all: 2, stored: oem.Disabled},
		{name: "command lost", faults: set(simncsi.Silent), sets: 2, all: 4, stored: oem.Disabled},
		{name: "response lost", faults: set(simncsi.Lost), sets: 1, all: 2, stored: oem.Disabled},
		{name: "response late", faults: []simncsi.Fault{{Kind: simncsi.Slow, Delay: timeout * 3 / 2}}, sets: 1, all: 2, stored: oem.Disabled},
		{name: "response very late", faults: []simncsi.Fault{{Kind: simncsi.Slow, Delay: timeout * 5 / 2}}, sets: 1, all: 3, stored: oem.Disabled},
		{name: "response bad", faults: set(simncsi.BadChecksum), sets: 1, all: 2, stored: oem.Disabled},
		{name: "response short", faults: set(simncsi.Short), sets: 1, all: 2, stored: oem.Disabled},
		{name: "response of another", faults: set(simncsi.WrongParameter), sets: 1, all: 2, stored: oem.Disabled},
		{name: "command lost twice", faults: []simncsi.Fault{fault(simncsi.Silent, 1), fault(simncsi.Slow, 1), fault(simncsi.Silent, 1)},
			sets: 2, all: 4, stored: oem.Locked, err: oem.ErrNotTaken,
			text: "package 0: set host access: the setting was not taken: sent twice, and the NIC reports locked: no response in 1s"},
		{name: "refused the second time", faults: []simncsi.Fault{fault(simncsi.Silent, 1), fault(simncsi.Slow, 1), refuse(ncsi.Failed, ncsi.PackageNotReady, 1)},
			sets: 2, all: 3, stored: oem.Locked, err: ncsi.ErrFailed},
		{name: "reading back late", faults: []simncsi.Fault{fault(simncsi.Slow, 1), fault(simncsi.Silent, 2)}, sets: 1, all: 4, stored: oem.Disabled},
		{name: "reading back silent", faults: []simncsi.Fault{fault(simncsi.Slow, 1), fault(simncsi.Silent, forever)}, sets: 1, all: 4, stored: oem.Disabled,
			err: oem.ErrOutcomeUnknown, text: "set host access: it is not known whether the setting was taken: the NIC answered that it is done, but reading back failed: 3 tries: no response"},
		{name: "silent", faults: []simncsi.Fault{fault(simncsi.Silent, forever)}, sets: 1, all: 4, stored: oem.Locked,
			err: oem.ErrOutcomeUnknown, text: "it is not known whether the setting was taken: no response in 1s: i/o timeout; reading back: 3 tries: no response in 1s"},
		{name: "reading back nonsense", faults: []simncsi.Fault{fault(simncsi.Slow, 1), fault(simncsi.UnknownState, 1)}, sets: 1, all: 2, stored: oem.Disabled,
			err: oem.ErrOutcomeUnknown},
		{name: "reading back refused", faults: []simncsi.Fault{fault(simncsi.Slow, 1), simncsi.Unsupported(1)}, sets: 1, all: 2, stored: oem.Disabled,
			err: oem.ErrOutcomeUnknown},
		{name: "answered and not done", faults: set(simncsi.Ignore), sets: 1, all: 2, stored: oem.Locked,
			err: oem.ErrNotTaken, text: "the setting was not taken: the NIC answered that it is done, and reports locked"},
		{name: "the state in force is reported", config: simncsi.Config{ReportActive: true}, sets: 1, all: 2, stored: oem.Disabled,
			err: oem.ErrNotTaken, text: "and reports enabled"},
		{name: "refused", faults: []simncsi.Fault{refuse(ncsi.Failed, ncsi.InvalidParameter, 1)}, sets: 1, all: 1, stored: oem.Locked, err: ncsi.ErrFailed},
		{name: "unsupported", faults: []simncsi.Fault{simncsi.Unsupported(1)}, sets: 1, all: 1, stored: oem.Locked, err: oem.ErrUnsupported},
		{name: "manufacturer's code", faults: []simncsi.Fault{refuse(0x8000, 0, 1)}, sets: 1, all: 1, stored: oem.Locked, err: &ncsi.StatusError{},
			text: "manufacturer's response code 0x8000"},
		{name: "delayed", faults: []simncsi.Fault{refuse(ncsi.DelayedResponse, 0, 1)}, sets: 1, all: 2, stored: oem.Locked, err: oem.ErrOutcomeUnknown,
			text: "it is not known whether the setting was taken: the NIC still reports locked: command accepted but not done yet"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.config.State = begin
				c.config.CacheByIID = true
				nic := simncsi.New(c.config)
				client := &oem.Client{Transport: simncsi.NewMemory(nic, timeout), Channel: ncsi.WholePackage}
				for _, f := range c.faults {
					nic.Inject(f)
				}
				err := client.Set(t.Context(), oem.Disabled)
				if _, any := c.err.(*ncsi.StatusError); any {
					s, ok := errors.AsType[*ncsi.StatusError](err)
					if !ok {
						t.Fatal(err)
					}
					c.err = s
				}
				check(t, err, c.err, c.text)
				s, _ := nic.State()
				if s.Counts.Sets != c.sets || s.Counts.OEM != c.all || s.Stored != c.stored {
					t.Errorf("the NIC has %v, sent %+v", s.Stored, s.Counts)
				}
			})
		})
	}
}

// TestNoop sets what is set already: a command that got lost twice is no
// failure then.
func TestNoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nic := simncsi.New(simncsi.Config{State: begin})
		client := &oem.Client{Transport: simncsi.NewMemory(nic, timeout)}
		nic.Inject(fault(simncsi.Silent, 1))
		check(t, client.Set(t.Context(), begin.Stored), nil, "")
		if s, _ := nic.State(); s.Counts.Sets != 1 {
			t.Errorf("%+v", s.Counts)
		}
	})
}

func TestRuntime(t *testing.T) {
	nic := simncsi.New(simncsi.Config{State: begin})
	client := &oem.Client{Transport: simncsi.NewMemory(nic, timeout)}
	check(t, client.SetRuntime(t.Context(), oem.RuntimeEnabled), nil, "")
	if a, err := client.GetRuntime(t.Context()); err != nil || a != oem.RuntimeEnabled {
		t.Errorf("%v, %v", a, err)
	}
	nic.SetState(simncsi.State{Stored: oem.Enabled, Active: oem.Disabled})
	_, err := client.GetRuntime(t.Context())
	check(t, err, oem.ErrUnavailable, "package 0 channel 0: get run-time access: run-time access is not available while host access is disabled")
	check(t, client.SetRuntime(t.Context(), oem.RuntimeLocked), oem.ErrUnavailable, "set run-time access: ")

	// Firmware that cannot be asked.
	nic = simncsi.New(simncsi.Config{State: begin, NoRuntimeGet: true})
	client.Transport = simncsi.NewMemory(nic, timeout)
	err = client.SetRuntime(t.Context(), oem.RuntimeEnabled)
	check(t, err, oem.ErrNotReadBack, "set run-time access: the NIC answered that it is done, and its firmware cannot be asked for the state: ")
	check(t, err, oem.ErrUnsupported, "")
	if s, _ := nic.State(); s.Runtime != oem.RuntimeEnabled || s.Counts.Sets != 1 || errors.Is(err, oem.ErrOutcomeUnknown) {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestNotReadBack has the NIC refuse to tell the run-time access that it has
// just been given. What says that the firmware does not know the question is
// one thing, any other refusal another.
func TestNotReadBack(t *testing.T) {
	for _, c := range []struct {
		code   ncsi.Code
		reason ncsi.Reason
		want   error
	}{
		{ncsi.Unsupported, ncsi.UnknownCommand, oem.ErrNotReadBack},
		{ncsi.Unsupported, ncsi.NoReason, oem.ErrNotReadBack},
		{ncsi.Failed, ncsi.UnknownCommand, oem.ErrNotReadBack},
		{ncsi.Failed, ncsi.InvalidParameter, oem.ErrNotReadBack},
		{ncsi.Unavailable, ncsi.NoReason, oem.ErrOutcomeUnknown},
		{ncsi.Failed, ncsi.PackageNotReady, oem.ErrOutcomeUnknown},
	} {
		nic := simncsi.New(simncsi.Config{State: begin})
		nic.Inject(fault(simncsi.Slow, 1)) // none
		nic.Inject(refuse(c.code, c.reason, forever))
		client := &oem.Client{Transport: simncsi.NewMemory(nic, timeout)}
		check(t, client.SetRuntime(t.Context(), oem.RuntimeEnabled), c.want, "")
	}
	// Without an answer to the command, nobody's word is left.
	synctest.Test(t, func(t *testing.T) {
		nic := simncsi.New(simncsi.Config{State: begin, NoRuntimeGet: true})
		nic.Inject(fault(simncsi.Lost, 1))
		client := &oem.Client{Transport: simncsi.NewMemory(nic, timeout)}
		check(t, client.SetRuntime(t.Context(), oem.RuntimeEnabled), oem.ErrOutcomeUnknown, "reading back: ")
	})
}

func TestNoSuchState(t *testing.T) {
	nic := simncsi.New(simncsi.Config{State: begin})
	client := &oem.Client{Transport: simncsi.NewMemory(nic, timeout)}
	for want, err := range map[string]error{
		"package 0 channel 0: set host access: host access 3 has no name":         client.Set(t.Context(), 3),
		"package 0 channel 0: set run-time access: run-time access 2 has no name": client.SetRuntime(t.Context(), 2),
	} {
		if err == nil || err.Error() != want {
			t.Errorf("%v instead of %s", err, want)
		}
	}
	if s, _ := nic.State(); s.Counts.OEM != 0 {
		t.Errorf("sent %+v", s.Counts)
	}
}

// TestInit has the NIC ask for Clear Initial State.
func TestInit(t *testing.T) {
	for _, c := range []struct {
		name   string
		faults []simncsi.Fault
		always bool // it asks again and again
		wrap   bool
		err    error
		text   string
		clears int
	}{
		{name: "once", clears: 1},
		{name: "Clear Initial State lost", faults: []simncsi.Fault{{}, {Kind: simncsi.Silent, All: true, Count: 2}}, clears: 3},
		{name: "never enough", always: true, clears: 1, err: ncsi.ErrInitRequired, text: "get host access: command failed: the interface must be initialised first"},
		{name: "Clear Initial State refused", clears: 1, err: ncsi.ErrInitRequired,
			faults: []simncsi.Fault{{}, {Kind: simncsi.Refuse, All: true, Code: ncsi.Failed, Reason: ncsi.PackageNotReady}},
			text:   "must be initialised first (response code 0x0001, reason 0x0001); Clear Initial State: command failed: the package is not ready"},
		{name: "Clear Initial State not answered", clears: 3, err: ncsi.ErrInitRequired, text: "; Clear Initial State: 3 tries: ",
			faults: []simncsi.Fault{{}, {Kind: simncsi.WrongIID, All: true, Count: 3}}},
		{name: "indirect", wrap: true, err: ncsi.ErrInitRequired},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				nic := simncsi.New(simncsi.Config{State: begin, Packages: []int{5}})
				client := &oem.Client{Transport: simncsi.NewMemory(nic, timeout), Channel: 5<<5 | ncsi.WholePackage}
				if c.wrap {
					client.Transport = indirect{client.Transport}
				}
				nic.Uninitialise()
				for _, f := range c.faults {
					nic.Inject(f)
				}
				if c.always {
					nic.Inject(refuse(ncsi.Failed, ncsi.InitRequired, forever))
				}
				a, err := client.Get(t.Context())
				check(t, err, c.err, c.text)
				if err == nil && a != begin.Stored {
					t.Errorf("got %v", a)
				}
				if s, _ := nic.State(); s.Counts.Clears != c.clears {
					t.Errorf("sent %+v", s.Counts)
				}
			})
		})
	}
}

// TestInitChannel looks at who is initialised: the channel that the command is
// for, and channel 0 for the package.
func TestInitChannel(t *testing.T) {
	for client, want := range map[ncsi.Channel]ncsi.Channel{
		5<<5 | ncsi.WholePackage: 5 << 5, 5 << 5: 5 << 5, 5<<5 | 1: 5<<5 | 1,
	} {
		nic := simncsi.New(simncsi.Config{State: begin, Packages: []int{5}, Channels: 2})
		nic.Uninitialise()
		tr := &watched{Memory: simncsi.NewMemory(nic, timeout)}
		if a, err := (&oem.Client{Transport: tr, Channel: client}).Get(t.Context()); err != nil || a != begin.Stored {
			t.Errorf("%v: %v, %v", client, a, err)
		}
		if !slices.Equal(tr.cleared, []ncsi.Channel{want}) {
			t.Errorf("%v: Clear Initial State to %v, want %v", client, tr.cleared, want)
		}
	}
}

// watched remembers which channels were sent Clear Initial State.
type watched struct {
	*simncsi.Memory
	cleared []ncsi.Channel
}

func (w *watched) DoIID(ctx context.Context, iid uint8, ch ncsi.Channel, typ ncsi.Type, payload []byte) ([]byte, error) {
	if typ == ncsi.ClearInitialState {
		w.cleared = append(w.cleared, ch)
	}
	return w.Memory.DoIID(ctx, iid, ch, typ, payload)
}

// TestInitSet sets a NIC that asks for Clear Initial State: that is no refusal.
func TestInitSet(t *testing.T) {
	nic := simncsi.New(simncsi.Config{State: begin})
	nic.Uninitialise()
	client := &oem.Client{Transport: simncsi.NewMemory(nic, timeout)}
	check(t, client.Set(t.Context(), oem.Enabled), nil, "")
	if s, _ := nic.State(); s.Stored != oem.Enabled || s.Counts.Clears != 1 || s.Counts.Sets != 2 {
		t.Errorf("%+v", s)
	}
}

// TestContext ends the context at various times.
func TestContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nic := simncsi.New(simncsi.Config{State: begin})
		client := &oem.Client{Transport: simncsi.NewMemory(nic, timeout)}
		done, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := client.Get(done)
		check(t, err, context.Canceled, "")
		err = client.Set(done, oem.Disabled)
		check(t, err, context.Canceled, "package 0 channel 0: set host access: context canceled")
		if errors.Is(err, oem.ErrOutcomeUnknown) {
			t.Error(err)
		}
		_, err = client.Raw(done, 1, 2, nil)
		check(t, err, context.Canceled, "")
		if s, _ := nic.State(); s.Counts.Commands != 0 {
			t.Errorf("sent %+v", s.Counts)
		}

		nic.Inject(fault(simncsi.Silent, forever))
		short, cancel := context.WithTimeout(t.Context(), timeout*3/2)
		defer cancel()
		began := time.Now()
		_, err = client.Get(short)
		check(t, err, context.DeadlineExceeded, "")
		if took := time.Since(began); took != timeout*3/2 {
			t.Errorf("took %v", took)
		}

		during, cancel := context.WithCancel(t.Context())
		time.AfterFunc(timeout/2, cancel)
		err = client.Set(during, oem.Disabled)
		check(t, err, oem.ErrOutcomeUnknown, "it is not known whether the setting was taken: context canceled; reading back: context canceled")
		check(t, err, context.Canceled, "")
	})
}

// TestBroken has the transport fail with what is no timeout: nothing is sent
// twice, and what was done is not made up.
func TestBroken(t *testing.T) {
	nic := simncsi.New(simncsi.Config{State: begin})
	b := &broken{Transport: simncsi.NewMemory(nic, timeout), err: syscall.ENODEV}
	client := &oem.Client{Transport: b}
	_, err := client.Get(t.Context())
	check(t, err, syscall.ENODEV, "")

	err = client.Set(t.Context(), oem.Disabled)
	check(t, err, oem.ErrOutcomeUnknown, "")
	check(t, err, syscall.ENODEV, "")

	b.n = 1
	check(t, client.Set(t.Context(), oem.Disabled), oem.ErrOutcomeUnknown, "the NIC answered that it is done")
	if s, _ := nic.State(); s.Counts.OEM != 1 {
		t.Errorf("sent %+v", s.Counts)
	}
}

// TestNotSent has the transport say that nothing has left: the outcome is
// known, and there is nothing to read back.
func TestNotSent(t *testing.T) {
	for _, cause := range []error{syscall.EPERM, os.ErrDeadlineExceeded} {
		nic := simncsi.New(simncsi.Config{State: begin})
		b := &broken{Transport: simncsi.NewMemory(nic, timeout), err: oem.NotSent(cause)}
		client := &oem.Client{Transport: b}
		err := client.Set(t.Context(), oem.Disabled)
		check(t, err, cause, "package 0 channel 0: set host access: "+cause.Error())
		if errors.Is(err, oem.ErrOutcomeUnknown) || !oem.IsNotSent(err) || b.n != -1 {
			t.Errorf("%v after %d calls", err, -b.n)
		}

		// Sent, and then not to be asked for.
		b.n = 1
		err = client.Set(t.Context(), oem.Disabled)
		check(t, err, oem.ErrOutcomeUnknown, "")
		check(t, err, cause, "")
	}
	if oem.NotSent(nil) != nil || oem.IsNotSent(nil) || oem.IsNotSent(syscall.EPERM) {
		t.Error("marks that nobody has made")
	}
}

func TestRaw(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nic := simncsi.New(simncsi.Config{State: begin, MAC: [6]byte{2, 3, 4, 5, 6, 7}})
		client := &oem.Client{Transport: simncsi.NewMemory(nic, timeout)}
		got, err := client.Raw(t.Context(), 0x00, 0x1b, nil)
		if err != nil || string(got) != "\x00\x00\x00\x00\x02\x03\x04\x05\x06\x07\x00\x00" {
			t.Errorf("%x, %v", got, err)
		}
		_, err = client.Raw(t.Context(), 0x42, 0x43, []byte{1, 2, 3})
		check(t, err, oem.ErrUnsupported, "package 0 channel 0: OEM command 0x42 parameter 0x43: ")
		nic.Inject(fault(simncsi.Silent, 1))
		before := time.Now()
		_, err = client.Raw(t.Context(), 0x13, 0x19, nil)
		check(t, err, os.ErrDeadlineExceeded, "")
		if took := time.Since(before); took != timeout {
			t.Errorf("took %v", took)
		}
		nic.Uninitialise()
		if got, err = client.Raw(t.Context(), 0x13, 0x19, nil); err != nil || string(got) != "\x00\x00\x00\x02" {
			t.Errorf("%x, %v", got, err)
		}
		_, err = client.Raw(t.Context(), 1, 2, make([]byte, oem.MaxData+1))
		if err == nil || !strings.HasSuffix(err.Error(), "4088 bytes of data: an OEM command has room for 4087") {
			t.Error(err)
		}
		if _, err = client.Raw(t.Context(), 1, 2, make([]byte, oem.MaxData)); !errors.Is(err, oem.ErrUnsupported) {
			t.Error(err)
		}
	})
}

func TestIsTimeout(t *testing.T) {
	for err, want := range map[error]bool{
		os.ErrDeadlineExceeded: true, context.DeadlineExceeded: true, syscall.ETIMEDOUT: true,
		&oem.OpError{Err: os.ErrDeadlineExceeded}: true,
		context.Canceled: false, io.EOF: false, syscall.ENODEV: false,
	} {
		if got := oem.IsTimeout(err); got != want {
			t.Errorf("%v: %v", err, got)
		}
	}
	if oem.IsTimeout(nil) {
		t.Error("nil is a timeout")
	}
}
