// SPDX-License-Identifier: Apache-2.0

// Package ncsitest holds the behaviour that every oem.Transport must show, as
// one suite of tests that is run against each of them with the same simulated
// NIC at the other end.
package ncsitest

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/ncsi"
	"github.com/bluefield-go/bmc-rshim/ncsi/oem"
	"github.com/bluefield-go/bmc-rshim/sim/ncsi"
)

// Rig is a transport with a NIC at the other end, which nobody else sends OEM
// commands to.
type Rig struct {
	Transport oem.Transport
	NIC       simncsi.Control
	Channel   ncsi.Channel  // one that the NIC has
	Timeout   time.Duration // how long Do waits for a response

	// HidesAEN is for a NIC whose front-end sends no AENs, as over MCTP.
	HidesAEN bool
}

// Run runs the suite; newRig makes a rig for each test, or gives the same one
// each time, and leaves cleaning up to t.Cleanup. A rig's NIC is put into its
// first state before each test.
func Run(t *testing.T, newRig func(t *testing.T) *Rig) {
	runAll(t, newRig, func(t *testing.T, f func(t *testing.T)) { f(t) })
}

// RunVirtual is Run with each test in a testing/synctest bubble, for rigs with
// no system calls in them.
func RunVirtual(t *testing.T, newRig func(t *testing.T) *Rig) {
	runAll(t, newRig, synctest.Test)
}

func runAll(t *testing.T, newRig func(t *testing.T) *Rig, wrap func(*testing.T, func(*testing.T))) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, r *run)
	}{
		{"Commands", testCommands},
		{"Standard", testStandard},
		{"Lengths", testLengths},
		{"Runtime", testRuntime},
		{"Untrusted", testUntrusted},
		{"Refusals", testRefusals},
		{"Short", testShort},
		{"WrongEcho", testWrongEcho},
		{"Checksums", testChecksums},
		{"Tail", testTail},
		{"AEN", testAEN},

		{"Silence", testSilence},
		{"Lost", testLost},
		{"WrongIID", testWrongIID},
		{"WrongLength", testWrongLength},
		{"Late", testLate},
		{"SlowInTime", testSlowInTime},
		{"Cancelled", testCancelled},
		{"Cancel", testCancel},
		{"Deadline", testDeadline},
		{"Parallel", testParallel},
		{"ParallelSlow", testParallelSlow},
		{"Repeat", testRepeat},
		{"Leaks", testLeaks},

		{"Client", testClient},
		{"ClientFaults", testClientFaults},
		{"ClientInit", testClientInit},
	} {
		t.Run(c.name, func(t *testing.T) {
			wrap(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
				t.Cleanup(cancel)
				r := &run{Rig: newRig(t), ctx: ctx}
				r.reset(t)
				c.test(t, r)
			})
		})
	}
}

// slack is how much later than it should anything may happen on a busy machine.
const slack = 30 * time.Second

// run is one test with its rig.
type run struct {
	*Rig
	ctx context.Context
}

// first is the state of a NIC when a test begins: all three values differ from
// each other and from zero wherever they can.
var first = simncsi.State{Stored: oem.Locked, Active: oem.Enabled, Runtime: oem.RuntimeLocked}

func (r *run) reset(t *testing.T) {
	t.Helper()
	must(t, r.NIC.Clear())
	must(t, r.NIC.SetState(first))
}

// attempts does what a machine that stands still spoils, from the NIC's first
// state. If that has timed out, it does it again, a few times.
func (r *run) attempts(t *testing.T, f func() error) error {
	t.Helper()
	for try := 1; ; try++ {
		r.reset(t)
		if err := f(); !oem.IsTimeout(err) || try == 5 {
			return err
		}
	}
}

func (r *run) inject(t *testing.T, f simncsi.Fault) {
	t.Helper()
	must(t, r.NIC.Inject(f))
}

func (r *run) state(t *testing.T) simncsi.State {
	t.Helper()
	s, err := r.NIC.State()
	must(t, err)
	return s
}

// do sends an OEM command.
func (r *run) do(payload []byte) ([]byte, error) {
	return r.Transport.Do(r.ctx, r.Channel, ncsi.OEM, payload)
}

// answer sends a command until it is answered: a machine that stands still may
// make it time out.
func (r *run) answer(t *testing.T, ch ncsi.Channel, typ ncsi.Type, payload []byte) []byte {
	t.Helper()
	for end := time.Now().Add(slack); ; {
		got, err := r.Transport.Do(r.ctx, ch, typ, payload)
		if err == nil {
			return got
		}
		if !oem.IsTimeout(err) || time.Now().After(end) {
			t.Fatalf("%v %x: %v", typ, payload, err)
		}
	}
}

// want sends an OEM command and compares the response.
func (r *run) want(t *testing.T, command, response []byte) {
	t.Helper()
	if got := r.answer(t, r.Channel, ncsi.OEM, command); !bytes.Equal(got, response) {
		t.Fatalf("command %x\n got %x\nwant %x", command, got, response)
	}
}

// timesOut injects a fault that keeps the response to the next OEM command from
// coming, sends that command, and checks the error and how long it took.
func (r *run) timesOut(t *testing.T, f simncsi.Fault, command []byte) {
	t.Helper()
	var got []byte
	var err error
	var took time.Duration
	for try := 1; ; try++ {
		before := r.state(t).Counts.OEM
		r.inject(t, f)
		began := time.Now()
		got, err = r.do(command)
		took = time.Since(began)
		// Where the machine stood still, an earlier command may still have been
		// under way, and taken the fault.
		if err != nil || try == 5 || r.state(t).Counts.OEM == before+1 {
			break
		}
		r.reset(t)
	}
	switch {
	case err == nil:
		t.Fatalf("command %x: a response without one: %x", command, got)
	case !isDeadline(err):
		t.Fatalf("command %x: %v instead of os.ErrDeadlineExceeded", command, err)
	case took < r.Timeout/2, took > r.Timeout+slack:
		t.Fatalf("command %x: took %v, with a timeout of %v", command, took, r.Timeout)
	}
}

// response is the payload of the response to an OEM command.
func response(code ncsi.Code, reason ncsi.Reason, data ...byte) []byte {
	return ncsi.Response{Code: code, Reason: reason, Data: data}.Append(nil)
}

// done is the response to an OEM command that was carried out.
func done(command []byte, state ...byte) []byte {
	return response(0, 0, append(bytes.Clone(command[:8]), state...)...)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// both reports whether an error is all of the targets.
func both(err error, targets ...error) bool {
	for _, target := range targets {
		if !errors.Is(err, target) {
			return false
		}
	}
	return true
}
