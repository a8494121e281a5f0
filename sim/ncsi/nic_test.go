// SPDX-License-Identifier: Apache-2.0

package simncsi_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/ncsi"
	"github.com/bluefield-go/bmc-rshim/ncsi/oem"
	"github.com/bluefield-go/bmc-rshim/sim/ncsi"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// send gives the NIC a command and returns the payload of its response, nil if
// there is none. Everything else in the response is compared.
func send(t *testing.T, n *simncsi.NIC, ch ncsi.Channel, typ ncsi.Type, payload string) []byte {
	t.Helper()
	b, err := ncsi.Packet{IID: 42, Type: typ, Channel: ch, Payload: unhex(t, payload)}.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	r := n.Respond(b)
	if len(r.Packets) == 0 {
		return nil
	}
	p, sum, err := ncsi.Parse(r.Packets[0])
	if err != nil || sum != ncsi.ChecksumOK || p.IID != 42 || p.Type != typ|0x80 || p.Channel != ch || len(r.Packets) != 1 || r.After != 0 {
		t.Fatalf("%v: %+v, %v, %v, %v", typ, p, sum, err, r)
	}
	return p.Payload
}

// TestGolden compares whole responses with those of the reference.
func TestGolden(t *testing.T) {
	state := simncsi.State{Stored: oem.Enabled, Active: oem.Enabled, Runtime: oem.RuntimeLocked}
	for _, c := range []struct {
		name              string
		command, response string
		config            simncsi.Config
		fault             simncsi.Fault
	}{
		{name: "get host access", command: "0001000150000008 0000000000000000 00008119 00131900 ffff15ca",
			response: "00010001d0000010 0000000000000000 00000000 00008119 00131900 00000001 fffe95c1"},
		{name: "get run-time access", command: "0001000150000008 0000000000000000 00008119 00131b00 ffff13ca",
			response: "00010001d0000010 0000000000000000 00000000 00008119 00131b00 00000001 fffe93c1"},
		{name: "set", command: "000100015000000c 0000000000000000 00008119 00121900 00000002 ffff15c5",
			response: "00010001d000000c 0000000000000000 00000000 00008119 00121900 fffe95c7"},
		{name: "set run-time access", command: "000100015000000c 0000000000000000 00008119 00121b00 00000001 ffff13c6",
			response: "00010001d000000c 0000000000000000 00000000 00008119 00121b00 fffe93c7"},
		{name: "set, with the state", command: "000100015000000c 0000000000000000 00008119 00121900 00000000 ffff15c7", config: simncsi.Config{SetRepeats: true},
			response: "00010001d0000010 0000000000000000 00000000 00008119 00121900 00000000 fffe95c3"},
		{name: "no such state", command: "000100015000000c 0000000000000000 00008119 00121900 00000003 ffff15c4",
			response: "00010001d000000c 0000000000000000 00010002 00008119 00121900 fffe95c4"},
		{name: "unavailable", command: "000100015000000c 0000000000000000 00008119 00121900 00000001 ffff15c6",
			fault:    simncsi.Fault{Kind: simncsi.Refuse, Code: ncsi.Unavailable, Size: 8},
			response: "00010001d000000c 0000000000000000 00020000 00008119 00121900 fffe95c5"},
		{name: "unsupported, with the manufacturer", command: "0001000150000008 0000000000000000 00008119 00131900 ffff15ca",
			fault:    simncsi.Fault{Kind: simncsi.Refuse, Code: ncsi.Unsupported, Reason: ncsi.UnknownCommand, Size: 4},
			response: "00010001d0000008 0000000000000000 00037fff 00008119 fffe2edb"},
		{name: "unsupported", command: "0001000150000008 0000000000000000 00008119 00131900 ffff15ca", fault: simncsi.Unsupported(1),
			response: "00010001d0000004 0000000000000000 00037fff fffeaff8"},
		{name: "without checksum", command: "0001000150000008 0000000000000000 00008119 00131900",
			response: "00010001d0000010 0000000000000000 00000000 00008119 00131900 00000001 fffe95c1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.config.State = state
			n := simncsi.New(c.config)
			if c.fault.Kind != "" {
				n.Inject(c.fault)
			}
			r := n.Respond(unhex(t, c.command))
			if len(r.Packets) != 1 || !bytes.Equal(r.Packets[0], unhex(t, c.response)) {
				t.Errorf("%x\ninstead of %s", r.Packets, c.response)
			}
			msg := simncsi.New(c.config).Message(append([]byte{2}, unhex(t, c.command)...))
			if len(msg) == 0 || msg[0] != 2 || c.fault.Kind == "" && !bytes.Equal(msg[1:], unhex(t, c.response)) {
				t.Errorf("MCTP: %x", msg)
			}
		})
	}
}

// TestBringUp is what Linux sends until a channel is up, and what it needs to
// see: it takes no response with a length of its own.
func TestBringUp(t *testing.T) {
	n := simncsi.New(simncsi.Config{Packages: []int{0, 2}, Channels: 2})
	ok := "00000000"
	for _, c := range []struct {
		ch       ncsi.Channel
		typ      ncsi.Type
		payload  string
		response string // a prefix
		size     int    // 0: as long as the prefix
	}{
		{0x1f, ncsi.DeselectPackage, "", ok, 0},
		{0x3f, ncsi.DeselectPackage, "", "", 0}, // no such package
		{0x5f, ncsi.DeselectPackage, "", ok, 0},
		{0x5f, ncsi.SelectPackage, "00000001", ok, 0},
		{0x40, ncsi.GetVersionID, "", "00010001", 0},
		{0x40, ncsi.ClearInitialState, "", ok, 0},
		{0x40, ncsi.GetVersionID, "", ok + "f1f1f000 00000000 426c7565", 40},
		{0x40, ncsi.GetCapabilities, "", ok + "00000010 0000000f 00000007 00002000 00000007 04000002 00000702", 0},
		{0x40, ncsi.GetLinkStatus, "", ok + "00000071 00000000 00000000", 0},
		{0x41, ncsi.GetLinkStatus, "", "00010001", 0}, // the other channel is not initialised
		{0x42, ncsi.ClearInitialState, "", "00010002", 0},
		{0x40, ncsi.OEM, "00008119 00001b00", ok + "00008119 00001b00 00000000 02005e100001 0000", 0},
		{0x40, ncsi.SetVLANFilter, "0000002a 00000201", ok, 0},
		{0x40, ncsi.SetVLANFilter, "0000002a 00000001", "00010002", 0},
		{0x40, ncsi.SetVLANFilter, "0000002a 00000501", "00010002", 0},
		{0x40, ncsi.EnableVLAN, "00000002", ok, 0},
		{0x40, ncsi.SetMACAddress, "021122334455 0101", ok, 0},
		{0x40, ncsi.SetMACAddress, "021122334455 0301", "00010002", 0},
		{0x40, ncsi.EnableBroadcastFilter, "0000000f", ok, 0},
		{0x40, ncsi.EnableGlobalMulticastFilter, "00000007", ok, 0},
		{0x40, ncsi.EnableChannelTx, "", ok, 0},
		{0x40, ncsi.EnableChannel, "", ok, 0},
		{0x40, ncsi.EnableAEN, "00000000 00000007", ok, 0},
		{0x40, ncsi.SetLink, "00000101 00000000", ok, 0},
		{0x40, ncsi.SetFlowControl, "00000003", ok, 0},
		{0x40, ncsi.GetParameters, "", ok + "02000001 04000002 00000101 0000000f 0000000f 02030000 00000007 021122334455 000000000000 0000002a 00000000", 0},
		{0x40, ncsi.DisableVLAN, "", ok, 0},
		{0x40, ncsi.DisableBroadcastFilter, "", ok, 0},
		{0x40, ncsi.DisableGlobalMulticastFilter, "", ok, 0},
		{0x40, ncsi.DisableChannelTx, "", ok, 0},
		{0x40, ncsi.DisableChannel, "00000000", ok, 0},
		{0x40, ncsi.SetVLANFilter, "0000002a 00000200", ok, 0},
		{0x40, ncsi.GetParameters, "", ok + "02000001 04000000 00000101 00000000 00000000 00030000 00000007 021122334455 000000000000 0000002a 00000000", 0},
		{0x5f, ncsi.GetPackageStatus, "", ok + "00000000", 0},
		{0x40, ncsi.GetPackageStatus, "", "00010002", 0},
		{0x40, ncsi.GetNCSIStatistics, "", ok + "00000020", 32},
		{0x40, ncsi.GetPackageUUID, "", "00037fff", 0},
		{0x40, ncsi.EnableAEN, "00000000", "00010005", 0},
		{0x40, ncsi.ResetChannel, "00000000", ok, 0},
		{0x40, ncsi.GetVersionID, "", "00010001", 0},
		{0x5f, ncsi.EnableChannel, "", "00010002", 0},
	} {
		got, want := send(t, n, c.ch, c.typ, c.payload), unhex(t, c.response)
		if c.typ == ncsi.GetNCSIStatistics && len(got) == 32 { // the number of commands until then
			want = append(want[:7:7], got[7])
		}
		if !bytes.HasPrefix(got, want) || len(got) != max(c.size, len(want)) {
			t.Errorf("%v, %v %s:\n got %x\nwant %x", c.ch, c.typ, c.payload, got, want)
		}
	}
}

// TestNoAnswer has what a NIC does not answer.
func TestNoAnswer(t *testing.T) {
	n := simncsi.New(simncsi.Config{})
	good := unhex(t, "0001000150000008 0000000000000000 00008119 00131900 ffff15ca")
	for name, edit := range map[string]func(b []byte){
		"response":     func(b []byte) { b[4] |= 0x80; clear(b[24:]) },
		"AEN":          func(b []byte) { b[4] = 0xff; clear(b[24:]) },
		"IID 0":        func(b []byte) { b[3] = 0; clear(b[24:]) },
		"bad checksum": func(b []byte) { b[27]++ },
		"package 1":    func(b []byte) { b[5] = 0x20; clear(b[24:]) },
	} {
		b := bytes.Clone(good)
		edit(b)
		if r := n.Respond(b); r.Packets != nil {
			t.Errorf("%s: %x", name, r.Packets)
		}
	}
	for _, b := range [][]byte{nil, {2}, {3, 0}, append([]byte{1}, good...)} {
		if got := n.Message(b); got != nil {
			t.Errorf("%x: %x", b, got)
		}
	}
	if s, _ := n.State(); s.Counts.Commands != 0 {
		t.Errorf("%+v", s.Counts)
	}
}

// TestAccess has the rules of the OEM commands that the conformance suite
// leaves out.
func TestAccess(t *testing.T) {
	for _, c := range []struct {
		name     string
		config   simncsi.Config
		payload  []byte
		response string
	}{
		{"another manufacturer", simncsi.Config{}, []byte{0, 0, 0x11, 0x3d, 1, 2, 3, 4}, "00037fff 0000113d"},
		{"no manufacturer", simncsi.Config{}, []byte{0, 0}, "00037fff 0000"},
		{"no command", simncsi.Config{}, oem.GetHostAccess()[:7], "00010005 00008119"},
		{"no state", simncsi.Config{}, oem.SetHostAccess(oem.Enabled)[:11], "00010005 00008119 00121900"},
		{"a state in the wrong byte", simncsi.Config{}, oem.Request(oem.Set, oem.ParamHostAccess, []byte{1, 0, 0, 0}), "00010002 00008119 00121900"},
		{"no such run-time state", simncsi.Config{State: simncsi.State{Active: oem.Enabled}}, oem.SetRuntimeAccess(2), "00010002 00008119 00121b00"},
		{"another refusal", simncsi.Config{RefuseRuntime: ncsi.StatusError{Code: 1, Reason: 2}}, oem.GetRuntimeAccess(), "00010002 00008119 00131b00"},
		{"another distrust", simncsi.Config{RefuseUntrusted: ncsi.StatusError{Code: 1, Reason: 0x7fff}, State: simncsi.State{Untrusted: true}}, oem.GetHostAccess(), "00017fff 00008119"},
		{"old firmware", simncsi.Config{NoRuntimeGet: true, State: simncsi.State{Active: oem.Enabled}}, oem.GetRuntimeAccess(), "00037fff 00008119 00131b00"},
		{"a final lock", simncsi.Config{LockIsFinal: true, State: simncsi.State{Active: oem.Locked}}, oem.SetHostAccess(oem.Enabled), "00010002 00008119 00121900"},
		{"a lock that is none yet", simncsi.Config{LockIsFinal: true, State: simncsi.State{Stored: oem.Locked}}, oem.SetHostAccess(oem.Enabled), "00000000 00008119 00121900"},
		{"the state in force", simncsi.Config{ReportActive: true, State: simncsi.State{Stored: oem.Locked, Active: oem.Enabled}}, oem.GetHostAccess(), "00000000 00008119 00131900 00000001"},
	} {
		if got := send(t, simncsi.New(c.config), 0x1f, ncsi.OEM, hex.EncodeToString(c.payload)); !bytes.Equal(got, unhex(t, c.response)) {
			t.Errorf("%s: %x", c.name, got)
		}
	}
}

// TestReboot brings stored states into force.
func TestReboot(t *testing.T) {
	n := simncsi.New(simncsi.Config{})
	for _, c := range []struct {
		stored oem.HostAccess
		want   oem.RuntimeAccess
	}{{oem.Enabled, oem.RuntimeEnabled}, {oem.Locked, oem.RuntimeLocked}, {oem.Disabled, oem.RuntimeEnabled}} {
		n.SetState(simncsi.State{Stored: c.stored, Runtime: 1 - c.want})
		n.Reboot()
		if s, _ := n.State(); s.Active != c.stored || s.Runtime != c.want {
			t.Errorf("%v: %+v", c.stored, s)
		}
	}
}

// TestUninitialised asks for Clear Initial State until it comes, or the fault is
// taken back.
func TestUninitialised(t *testing.T) {
	n := simncsi.New(simncsi.Config{Packages: []int{0, 3}})
	get := hex.EncodeToString(oem.GetHostAccess())
	for _, heal := range []func(){
		func() { n.Clear() },
		func() { send(t, n, 0, ncsi.ClearInitialState, "") },
	} {
		n.Uninitialise()
		send(t, n, 3<<5, ncsi.ClearInitialState, "") // another package's
		for range 2 {
			if got := send(t, n, 0x1f, ncsi.OEM, get); !bytes.Equal(got, unhex(t, "00010001 00008119 00131900")) {
				t.Errorf("%x", got)
			}
		}
		heal()
		if got := send(t, n, 0x1f, ncsi.OEM, get); len(got) != 16 || got[3] != 0 {
			t.Errorf("%x", got)
		}
	}
}

// TestFaults looks at what the faults do to a packet, and to how many.
func TestFaults(t *testing.T) {
	command := unhex(t, "0001000150000008 0000000000000000 00008119 00131900 ffff15ca")
	clean := "00010001d0000010 0000000000000000 00000000 00008119 00131900 00000002 "
	for _, c := range []struct {
		fault    simncsi.Fault
		response string
	}{
		{simncsi.Fault{Kind: simncsi.Slow}, clean + "fffe95c0"},
		{simncsi.Fault{Kind: simncsi.Silent}, ""},
		{simncsi.Fault{Kind: simncsi.Lost}, ""},
		{simncsi.Fault{Kind: simncsi.BadChecksum}, clean + "fffe9595"},
		{simncsi.Fault{Kind: simncsi.ZeroChecksum}, clean + "00000000"},
		{simncsi.Fault{Kind: simncsi.NoChecksum}, clean},
		{simncsi.Fault{Kind: simncsi.WrongIID}, "00010081d0000010 0000000000000000 00000000 00008119 00131900 00000002 fffe9540"},
		{simncsi.Fault{Kind: simncsi.WrongLength}, "00010001d0000050 0000000000000000 00000000 00008119 00131900 00000002 fffe95c0"},
		{simncsi.Fault{Kind: simncsi.Short}, "00010001d0000004 0000000000000000 00000000 ffff2ffa"},
		{simncsi.Fault{Kind: simncsi.Short, Size: 8}, "00010001d0000008 0000000000000000 00000000 00008119 fffeaedd"},
		{simncsi.Fault{Kind: simncsi.WrongManufacturer}, "00010001d0000010 0000000000000000 00000000 0000113d 00131900 00000002 ffff059c"},
		{simncsi.Fault{Kind: simncsi.WrongParameter}, "00010001d0000010 0000000000000000 00000000 00008119 00135900 00000002 fffe55c0"},
		{simncsi.Fault{Kind: simncsi.UnknownState}, "00010001d0000010 0000000000000000 00000000 00008119 00131900 00000007 fffe95bb"},
		{simncsi.Fault{Kind: simncsi.Tail}, clean + "fffe95c0 deadbeef01"},
		{simncsi.Fault{Kind: simncsi.Refuse, Code: 0x8000, Reason: 0x8001, Size: 99}, "00010001d000000c 0000000000000000 80008001 00008119 00131900 fffd95c5"},
	} {
		n := simncsi.New(simncsi.Config{State: simncsi.State{Stored: oem.Locked}})
		c.fault.Count = 2
		n.Inject(c.fault)
		if other := send(t, n, 0x1f, ncsi.SelectPackage, "00000000"); !bytes.Equal(other, make([]byte, 4)) {
			t.Errorf("%s struck Select Package: %x", c.fault.Kind, other)
		}
		for i := range 3 {
			want := unhex(t, c.response)
			if i == 2 {
				want = unhex(t, clean+"fffe95c0")
			}
			if got := slices.Concat(n.Respond(command).Packets...); !bytes.Equal(got, want) {
				t.Errorf("%s, command %d:\n got %x\nwant %x", c.fault.Kind, i, got, want)
			}
		}
	}
	n := simncsi.New(simncsi.Config{})
	n.Inject(simncsi.Fault{Kind: simncsi.AENFirst})
	r := n.Respond(command)
	if len(r.Packets) != 2 {
		t.Fatalf("%x", r.Packets)
	}
	p, sum, err := ncsi.Parse(r.Packets[0])
	if err != nil || sum != ncsi.ChecksumOK || p.Type != ncsi.AEN || p.IID != 0 {
		t.Errorf("%+v, %v, %v", p, sum, err)
	}
	n.Inject(simncsi.Fault{Kind: simncsi.Silent, All: true})
	if got := send(t, n, 0x1f, ncsi.SelectPackage, "00000000"); got != nil {
		t.Errorf("%x", got)
	}
}

// TestCache repeats a response to what only looks like a repetition.
func TestCache(t *testing.T) {
	n := simncsi.New(simncsi.Config{CacheByIID: true, State: simncsi.State{Stored: oem.Locked, Active: oem.Enabled}})
	get := hex.EncodeToString(oem.GetHostAccess())
	first := send(t, n, 0, ncsi.OEM, get)
	if got := send(t, n, 0, ncsi.OEM, hex.EncodeToString(oem.SetHostAccess(oem.Disabled))); !bytes.Equal(got, first) {
		t.Errorf("%x", got)
	}
	send(t, n, 0x1f, ncsi.SelectPackage, "00000000")
	if s, _ := n.State(); s.Stored != oem.Locked {
		t.Errorf("%+v", s)
	}
	if got := send(t, n, 0, ncsi.OEM, hex.EncodeToString(oem.SetHostAccess(oem.Disabled))); bytes.Equal(got, first) {
		t.Errorf("%x", got)
	}
}

// TestBusy keeps commands behind a slow one waiting.
func TestBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simncsi.New(simncsi.Config{})
		command := append([]byte{2}, unhex(t, "0001000150000008 0000000000000000 00008119 00131900 ffff15ca")...)
		n.Inject(simncsi.Fault{Kind: simncsi.Slow, Delay: 3 * time.Second})
		for _, want := range []time.Duration{3 * time.Second, 3 * time.Second} {
			if r := n.Respond(command[1:]); r.After != want || len(r.Packets) != 1 {
				t.Errorf("%v instead of %v", r.After, want)
			}
		}
		began := time.Now()
		if n.Message(command) == nil || time.Since(began) != 3*time.Second {
			t.Errorf("took %v", time.Since(began))
		}
		if r := n.Respond(command[1:]); r.After > 0 {
			t.Errorf("%v when all has been answered", r.After)
		}
	})
}

// FuzzRespond gives a NIC any packet: what it says is a packet, and the response
// to that one.
func FuzzRespond(f *testing.F) {
	for typ := range 0x60 {
		b, _ := ncsi.Packet{IID: 1, Type: ncsi.Type(typ), Payload: make([]byte, 8)}.Append(nil)
		f.Add(b)
	}
	for _, p := range [][]byte{oem.GetHostAccess(), oem.SetHostAccess(oem.Locked), oem.GetRuntimeAccess(), oem.Request(0, 0x1b, nil)} {
		b, _ := ncsi.Packet{IID: 7, Type: ncsi.OEM, Channel: 0x1f, Payload: p}.Append(nil)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		n := simncsi.New(simncsi.Config{State: simncsi.State{Active: oem.Enabled}})
		init, _ := ncsi.Packet{IID: 1}.Append(nil)
		n.Respond(init)
		for _, out := range n.Respond(in).Packets {
			command, _, err := ncsi.Parse(in)
			p, sum, err2 := ncsi.Parse(out)
			if err != nil || err2 != nil || sum != ncsi.ChecksumOK || p.IID != command.IID || p.Type != command.Type|0x80 || p.Channel != command.Channel {
				t.Fatalf("%x\n%x\n%v, %v", in, out, err, err2)
			}
			if _, err := ncsi.ParseResponse(p.Payload); err != nil {
				t.Fatal(err)
			}
		}
		n.Frame(append(bytes.Repeat([]byte{0xff}, 12), append([]byte{0x88, 0xf8}, in...)...))
		s, _ := n.State()
		if s.Stored > oem.Locked || s.Runtime > oem.RuntimeLocked {
			t.Fatal(fmt.Sprint(s))
		}
	})
}
