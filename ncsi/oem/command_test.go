// SPDX-License-Identifier: Apache-2.0

package oem_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/bluefield-go/bmc-rshim/ncsi"
	"github.com/bluefield-go/bmc-rshim/ncsi/oem"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestRequests compares whole packets with those of the reference.
func TestRequests(t *testing.T) {
	for _, c := range []struct {
		payload []byte
		packet  string
	}{
		{oem.SetHostAccess(oem.Disabled), "000100015000000c 0000000000000000 00008119 00121900 00000000 ffff15c7"},
		{oem.SetHostAccess(oem.Enabled), "000100015000000c 0000000000000000 00008119 00121900 00000001 ffff15c6"},
		{oem.SetHostAccess(oem.Locked), "000100015000000c 0000000000000000 00008119 00121900 00000002 ffff15c5"},
		{oem.SetRuntimeAccess(oem.RuntimeEnabled), "000100015000000c 0000000000000000 00008119 00121b00 00000000 ffff13c7"},
		{oem.SetRuntimeAccess(oem.RuntimeLocked), "000100015000000c 0000000000000000 00008119 00121b00 00000001 ffff13c6"},
		{oem.GetHostAccess(), "0001000150000008 0000000000000000 00008119 00131900 ffff15ca"},
		{oem.GetRuntimeAccess(), "0001000150000008 0000000000000000 00008119 00131b00 ffff13ca"},
	} {
		got, err := ncsi.Packet{IID: 1, Type: ncsi.OEM, Payload: c.payload}.Append(nil)
		if err != nil || !bytes.Equal(got, unhex(t, c.packet)) {
			t.Errorf("%x, %v\ninstead of %s", got, err, c.packet)
		}
	}
}

func TestResponses(t *testing.T) {
	const ok = ""
	for _, c := range []struct {
		payload string
		state   oem.HostAccess
		text    string // of the error
	}{
		{"00000000 00008119 00131900 00000000", oem.Disabled, ok},
		{"00000000 00008119 00131900 00000001", oem.Enabled, ok},
		{"00000000 00008119 00131900 00000002", oem.Locked, ok},
		{"00000000 00008119 00131900 01020302", oem.Locked, ok},
		{"00000000 00008119 001319ff 00000001 00000000", oem.Enabled, ok},
		{"00000000 00008119 00131900 00000003", 0, "the NIC reports a state that is not known: host access 3"},
		{"00000000 00008119 00131900 000000ff", 0, "the NIC reports a state that is not known: host access 255"},

		{"", 0, "malformed NC-SI packet: a response's payload of 0 bytes, less than the 4 of its codes"},
		{"00000000", 0, "malformed NC-SI packet: 0 bytes of the command come back, and not all 8"},
		{"00000000 00008119 001319", 0, "malformed NC-SI packet: 7 bytes of the command come back, and not all 8"},
		{"00000000 00008119 00131900", 0, "malformed NC-SI packet: 0 bytes of state instead of 4"},
		{"00000000 00008119 00131900 000000", 0, "malformed NC-SI packet: 3 bytes of state instead of 4"},
		{"00000000 0000113d 00131900 00000001", 0, "malformed NC-SI packet: manufacturer 0x0000113d instead of 0x00008119"},
		{"00000000 00008119 01131900 00000001", 0, "malformed NC-SI packet: OEM revision 0x01 instead of 0x00"},
		{"00000000 00008119 00121900 00000001", 0, "malformed NC-SI packet: OEM command 0x12 instead of 0x13"},
		{"00000000 00008119 00131b00 00000001", 0, "malformed NC-SI packet: OEM parameter 0x1b instead of 0x19"},
		{"00010002 00008119 00131b00", 0, `malformed NC-SI packet: OEM parameter 0x1b instead of 0x19, in a response that says "command failed: a parameter is invalid, unsupported or out of range (response code 0x0001, reason 0x0002)"`},

		// Failures with 4, 8, 12 and 16 bytes.
		{"00010002", 0, "command failed: a parameter is invalid, unsupported or out of range (response code 0x0001, reason 0x0002)"},
		{"00020000 00008119", 0, "command unavailable: no reason given (response code 0x0002, reason 0x0000)"},
		{"00010003 00008119 00131900", 0, "command failed: the channel is not ready (response code 0x0001, reason 0x0003)"},
		{"80000000 00008119 00131900 00000001", 0, "manufacturer's response code 0x8000: no reason given (response code 0x8000, reason 0x0000)"},
		{"00037fff", 0, "the NIC's firmware does not know the command, or does not trust this BMC: command unsupported: the command type is unknown or unsupported (response code 0x0003, reason 0x7fff)"},
		{"00017fff 00008119", 0, "the NIC does not trust this BMC: command failed: the command type is unknown or unsupported (response code 0x0001, reason 0x7fff)"},
		{"00030000", 0, "the NIC's firmware does not support the command: command unsupported: no reason given (response code 0x0003, reason 0x0000)"},
	} {
		got, err := oem.HostAccessResponse(unhex(t, c.payload))
		text := ok
		if err != nil {
			text = err.Error()
		}
		if got != c.state || text != c.text {
			t.Errorf("%s: %v, %s\ninstead of %v, %s", c.payload, got, text, c.state, c.text)
		}
		if malformed := strings.HasPrefix(c.text, "malformed"); errors.Is(err, ncsi.ErrMalformed) != malformed {
			t.Errorf("%v: malformed is %v", err, !malformed)
		}
	}
	for payload, want := range map[string]oem.RuntimeAccess{
		"00000000 00008119 00131b00 00000000": oem.RuntimeEnabled,
		"00000000 00008119 00131b00 00000001": oem.RuntimeLocked,
	} {
		if got, err := oem.RuntimeAccessResponse(unhex(t, payload)); err != nil || got != want {
			t.Errorf("%s: %v, %v", payload, got, err)
		}
	}
	if a, err := oem.RuntimeAccessResponse(unhex(t, "00000000 00008119 00131b00 00000002")); !errors.Is(err, oem.ErrUnknownState) {
		t.Errorf("%v, %v", a, err)
	}
	for _, payload := range []string{"00000000 00008119 00121900", "00000000 00008119 00121900 00000000"} {
		if _, err := oem.ParseResponse(oem.Set, oem.ParamHostAccess, unhex(t, payload)); err != nil {
			t.Errorf("a Set answered with %s: %v", payload, err)
		}
	}
}

// TestMeaning tells apart what NVIDIA's documentation has run together.
func TestMeaning(t *testing.T) {
	all := []error{oem.ErrUnsupported, oem.ErrUntrusted, oem.ErrUnavailable}
	for _, c := range []struct {
		code    ncsi.Code
		reason  ncsi.Reason
		param   oem.Parameter
		is      []bool
		meaning string
	}{
		{3, 0x7fff, oem.ParamHostAccess, []bool{true, true, false}, "the NIC's firmware does not know the command, or does not trust this BMC: "},
		{3, 0, oem.ParamHostAccess, []bool{true, false, false}, "the NIC's firmware does not support the command: "},
		{1, 0x7fff, oem.ParamRuntimeAccess, []bool{false, true, false}, "the NIC does not trust this BMC: "},
		{2, 0, oem.ParamRuntimeAccess, []bool{false, false, true}, "run-time access is not available while host access is disabled: "},
		{1, 2, oem.ParamRuntimeAccess, []bool{false, false, true}, "run-time access is not available, because host access is disabled or the NIC's firmware does not have it: "},
		{2, 0, oem.ParamHostAccess, []bool{false, false, false}, ""},
		{1, 2, oem.ParamHostAccess, []bool{false, false, false}, ""},
		{1, 1, oem.ParamRuntimeAccess, []bool{false, false, false}, ""},
	} {
		s := ncsi.StatusError{Code: c.code, Reason: c.reason}
		err := error(&oem.StatusError{NCSI: s, Parameter: c.param})
		for i, sentinel := range all {
			if errors.Is(err, sentinel) != c.is[i] {
				t.Errorf("%v: is %v: %v", err, sentinel, !c.is[i])
			}
		}
		if want := c.meaning + s.Error(); err.Error() != want {
			t.Errorf("%v\ninstead of\n%s", err, want)
		}
		if got, ok := errors.AsType[*ncsi.StatusError](err); !ok || *got != s {
			t.Errorf("%v: unwraps to %v", err, got)
		}
	}
}

func TestNames(t *testing.T) {
	for a, name := range map[oem.HostAccess]string{oem.Disabled: "disabled", oem.Enabled: "enabled", oem.Locked: "locked"} {
		b, err := oem.ParseHostAccess(name)
		if a.String() != name || err != nil || a != b {
			t.Errorf("%v, %v, %v", a, b, err)
		}
	}
	for a, name := range map[oem.RuntimeAccess]string{oem.RuntimeEnabled: "enabled", oem.RuntimeLocked: "locked"} {
		b, err := oem.ParseRuntimeAccess(name)
		if a.String() != name || err != nil || a != b {
			t.Errorf("%v, %v, %v", a, b, err)
		}
	}
	type both struct {
		Host    oem.HostAccess
		Runtime oem.RuntimeAccess
	}
	text, err := json.Marshal(both{oem.Locked, oem.RuntimeLocked})
	if err != nil || string(text) != `{"Host":"locked","Runtime":"locked"}` {
		t.Errorf("%s, %v", text, err)
	}
	var back both
	if err := json.Unmarshal(text, &back); err != nil || back != (both{oem.Locked, oem.RuntimeLocked}) {
		t.Errorf("%+v, %v", back, err)
	}
	for want, err := range map[string]error{
		`host access "open": want disabled, enabled or locked`: back.Host.UnmarshalText([]byte("open")),
		`run-time access "disabled": want enabled or locked`:   back.Runtime.UnmarshalText([]byte("disabled")),
		"host access 3 has no name":                            second(oem.HostAccess(3).MarshalText()),
		"run-time access 2 has no name":                        second(oem.RuntimeAccess(2).MarshalText()),
	} {
		if err == nil || err.Error() != want {
			t.Errorf("%v instead of %s", err, want)
		}
	}
	if a, b := oem.HostAccess(7).String(), oem.RuntimeAccess(9).String(); a != "unknown (7)" || b != "unknown (9)" {
		t.Errorf("%s, %s", a, b)
	}
}

func second[T any](_ T, err error) error { return err }

// FuzzResponse gives any payload to all that decode responses.
func FuzzResponse(f *testing.F) {
	for _, s := range []string{
		"00000000 00008119 00131900 00000001", "00000000 00008119 00131b00 00000001", "00000000 00008119 00121900",
		"00037fff", "00010002 00008119 00131900", "00020000 00008119", "80000000 00008119 00131900 00000001",
	} {
		f.Add(unhex(f, s), uint8(oem.Get), uint8(oem.ParamHostAccess))
	}
	f.Fuzz(func(t *testing.T, payload []byte, command, param uint8) {
		c, p := oem.Command(command), oem.Parameter(param)
		data, err := oem.ParseResponse(c, p, payload)
		if err == nil {
			again := append([]byte{0, 0, payload[2], payload[3]}, oem.Request(c, p, data)...)
			again[11] = payload[11] // reserved
			if !bytes.Equal(again, payload) {
				t.Fatalf("%x is taken for the response to %x: %x", payload, oem.Request(c, p, nil), data)
			}
		} else if _, refused := errors.AsType[*oem.StatusError](err); !refused && !errors.Is(err, ncsi.ErrMalformed) || err.Error() == "" {
			t.Fatal(err)
		}
		if a, err := oem.HostAccessResponse(payload); err == nil && (a > oem.Locked || payload[15] != byte(a) || payload[6] != 0x81) {
			t.Fatalf("%x is %v", payload, a)
		}
		if a, err := oem.RuntimeAccessResponse(payload); err == nil && (a > oem.RuntimeLocked || payload[15] != byte(a) || payload[10] != 0x1b) {
			t.Fatalf("%x is %v", payload, a)
		}
	})
}
