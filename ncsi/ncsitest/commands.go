// SPDX-License-Identifier: Apache-2.0

package ncsitest

import (
	"bytes"
	"testing"

	"github.com/bluefield-go/bmc-rshim/ncsi"
	"github.com/bluefield-go/bmc-rshim/ncsi/oem"
	"github.com/bluefield-go/bmc-rshim/sim/ncsi"
)

// testCommands sets and gets every state.
func testCommands(t *testing.T, r *run) {
	for _, a := range []oem.HostAccess{oem.Disabled, oem.Enabled, oem.Locked} {
		r.want(t, oem.SetHostAccess(a), done(oem.SetHostAccess(a)))
		r.want(t, oem.GetHostAccess(), done(oem.GetHostAccess(), 0, 0, 0, byte(a)))
		if s := r.state(t); s.Stored != a || s.Active != first.Active || s.Runtime != first.Runtime {
			t.Fatalf("after setting %v: %+v", a, s)
		}
	}
	for _, a := range []oem.RuntimeAccess{oem.RuntimeEnabled, oem.RuntimeLocked} {
		r.want(t, oem.SetRuntimeAccess(a), done(oem.SetRuntimeAccess(a)))
		r.want(t, oem.GetRuntimeAccess(), done(oem.GetRuntimeAccess(), 0, 0, 0, byte(a)))
		if s := r.state(t); s.Runtime != a {
			t.Fatalf("after setting %v: %+v", a, s)
		}
	}
}

// testStandard sends commands that are not OEM. Linux takes no response to
// these that is not as long as it should be, so that none of them may fail.
func testStandard(t *testing.T, r *run) {
	for _, c := range []struct {
		typ     ncsi.Type
		payload []byte
		want    int // zeros in the response
	}{
		{ncsi.SelectPackage, make([]byte, 4), 4},
		{ncsi.GetPackageStatus, nil, 8},
	} {
		if got := r.answer(t, r.Channel.Whole(), c.typ, c.payload); !bytes.Equal(got, make([]byte, c.want)) {
			t.Errorf("%v: %x", c.typ, got)
		}
	}
}

// testLengths sends payloads of lengths that need padding, and such as need
// more than one MCTP packet.
func testLengths(t *testing.T, r *run) {
	for _, n := range []int{0, 1, 2, 3, 4, 5, 17, 18, 19, 30, 35, 36, 37, 64, 99, 200, 221, 300} {
		data := bytes.Repeat([]byte{0xa5}, n)
		command := oem.Request(0x77, 0x66, data)
		r.want(t, command, response(ncsi.Unsupported, ncsi.UnknownCommand, command[:8]...))
	}
}

// testRuntime has run-time access follow host access.
func testRuntime(t *testing.T, r *run) {
	for _, c := range []struct {
		stored  oem.HostAccess
		runtime oem.RuntimeAccess
	}{{oem.Enabled, oem.RuntimeEnabled}, {oem.Locked, oem.RuntimeLocked}} {
		r.want(t, oem.SetHostAccess(c.stored), done(oem.SetHostAccess(c.stored)))
		must(t, r.NIC.Reboot())
		r.want(t, oem.GetRuntimeAccess(), done(oem.GetRuntimeAccess(), 0, 0, 0, byte(c.runtime)))
	}
	r.want(t, oem.SetHostAccess(oem.Disabled), done(oem.SetHostAccess(oem.Disabled)))
	must(t, r.NIC.Reboot())
	r.want(t, oem.GetHostAccess(), done(oem.GetHostAccess(), 0, 0, 0, byte(oem.Disabled)))
	for _, command := range [][]byte{oem.GetRuntimeAccess(), oem.SetRuntimeAccess(oem.RuntimeLocked)} {
		r.want(t, command, response(ncsi.Unavailable, ncsi.NoReason, command[:8]...))
	}
}

func testUntrusted(t *testing.T, r *run) {
	s := first
	s.Untrusted = true
	must(t, r.NIC.SetState(s))
	for _, command := range [][]byte{oem.GetHostAccess(), oem.SetHostAccess(oem.Disabled), oem.GetRuntimeAccess()} {
		r.want(t, command, response(ncsi.Unsupported, ncsi.UnknownCommand, command[:4]...))
	}
	if got := r.state(t).Stored; got != first.Stored {
		t.Errorf("host access is %v", got)
	}
}

// testRefusals has the NIC refuse with every code, in every length.
func testRefusals(t *testing.T, r *run) {
	reasons := []ncsi.Reason{
		ncsi.NoReason, ncsi.InitRequired, ncsi.InvalidParameter, ncsi.ChannelNotReady, ncsi.PackageNotReady,
		ncsi.InvalidLength, ncsi.NoInformation, ncsi.InterventionNeeded, ncsi.LinkAccessError, ncsi.CommandTimeout,
		ncsi.NotPowered, ncsi.UnknownCommand, 0x8001, 0xffff,
	}
	codes := []ncsi.Code{ncsi.Failed, ncsi.Unavailable, ncsi.Unsupported, ncsi.DelayedResponse, 0x8000, 0xffff}
	command := oem.SetHostAccess(oem.Enabled)
	refuse := func(code ncsi.Code, reason ncsi.Reason, size int) {
		t.Helper()
		// Once more if the machine stands still: the fault strikes one command.
		r.inject(t, simncsi.Fault{Kind: simncsi.Refuse, Count: 1000, Code: code, Reason: reason, Size: size})
		r.want(t, command, response(code, reason, command[:size]...))
		must(t, r.NIC.Clear())
	}
	for i, code := range codes {
		for j, reason := range reasons {
			refuse(code, reason, (i+j)%4*4)
		}
	}
	for _, size := range []int{0, 4, 8, 12} {
		refuse(ncsi.Failed, ncsi.InvalidParameter, size)
	}
	if got := r.state(t).Stored; got != first.Stored {
		t.Errorf("host access is %v", got)
	}
}

// testShort has the NIC complete commands with less than they promise.
func testShort(t *testing.T, r *run) {
	command := oem.GetHostAccess()
	whole := done(command, 0, 0, 0, byte(first.Stored))
	for _, size := range []int{4, 5, 8, 11, 12, 15} {
		r.inject(t, simncsi.Fault{Kind: simncsi.Short, Count: 1000, Size: size})
		r.want(t, command, whole[:size])
		must(t, r.NIC.Clear())
	}
}

// testWrongEcho has the response look as if it were another command's. A
// transport does not look into payloads.
func testWrongEcho(t *testing.T, r *run) {
	for _, kind := range []simncsi.Kind{simncsi.WrongManufacturer, simncsi.WrongParameter, simncsi.UnknownState} {
		r.inject(t, simncsi.Fault{Kind: kind, Count: 1000})
		got := r.answer(t, r.Channel, ncsi.OEM, oem.GetHostAccess())
		want := done(oem.GetHostAccess(), 0, 0, 0, byte(first.Stored))
		if len(got) != len(want) || bytes.Equal(got, want) {
			t.Errorf("%s: got %x, and as it should be it is %x", kind, got, want)
		}
		if a, err := oem.HostAccessResponse(got); err == nil {
			t.Errorf("%s: taken for %v", kind, a)
		}
		must(t, r.NIC.Clear())
	}
}

// testChecksums has the NIC send no checksum, which is fine, and a wrong one.
func testChecksums(t *testing.T, r *run) {
	command := oem.GetHostAccess()
	want := done(command, 0, 0, 0, byte(first.Stored))
	for _, kind := range []simncsi.Kind{simncsi.ZeroChecksum, simncsi.NoChecksum} {
		r.inject(t, simncsi.Fault{Kind: kind, Count: 1000})
		r.want(t, command, want)
		must(t, r.NIC.Clear())
	}
	r.inject(t, simncsi.Fault{Kind: simncsi.BadChecksum, Count: 1000})
	if got, err := r.do(command); err == nil {
		t.Errorf("with a bad checksum: %x", got)
	} else if !again(err) {
		t.Errorf("with a bad checksum: %v, which nobody would try again", err)
	}
	must(t, r.NIC.Clear())
	r.want(t, command, want)
}

// testTail has bytes follow the packet.
func testTail(t *testing.T, r *run) {
	r.inject(t, simncsi.Fault{Kind: simncsi.Tail, Count: 1000})
	for _, command := range [][]byte{oem.GetHostAccess(), oem.SetHostAccess(oem.Locked)} {
		want := done(command)
		if command[5] == byte(oem.Get) {
			want = done(command, 0, 0, 0, byte(first.Stored))
		}
		r.want(t, command, want)
	}
}

// testAEN has an AEN come before each response.
func testAEN(t *testing.T, r *run) {
	if r.HidesAEN {
		t.Skip("this NIC's front-end sends no AENs")
	}
	r.inject(t, simncsi.Fault{Kind: simncsi.AENFirst, Count: 1000})
	for range 10 {
		r.want(t, oem.GetHostAccess(), done(oem.GetHostAccess(), 0, 0, 0, byte(first.Stored)))
	}
}
