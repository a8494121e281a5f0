// SPDX-License-Identifier: Apache-2.0

package ncsi_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/bluefield-go/bmc-rshim/ncsi"
)

// TestStatus has the text of every code, of every reason, and what they are.
func TestStatus(t *testing.T) {
	all := []error{ncsi.ErrFailed, ncsi.ErrUnavailable, ncsi.ErrUnsupported, ncsi.ErrInitRequired}
	for _, c := range []struct {
		code   ncsi.Code
		reason ncsi.Reason
		text   string
		is     []error
	}{
		{1, 0, "command failed: no reason given (response code 0x0001, reason 0x0000)", all[:1]},
		{1, 1, "command failed: the interface must be initialised first (response code 0x0001, reason 0x0001)", []error{ncsi.ErrFailed, ncsi.ErrInitRequired}},
		{1, 2, "command failed: a parameter is invalid, unsupported or out of range (response code 0x0001, reason 0x0002)", all[:1]},
		{1, 3, "command failed: the channel is not ready (response code 0x0001, reason 0x0003)", all[:1]},
		{1, 4, "command failed: the package is not ready (response code 0x0001, reason 0x0004)", all[:1]},
		{1, 5, "command failed: the payload has a wrong length (response code 0x0001, reason 0x0005)", all[:1]},
		{1, 6, "command failed: the information is not available (response code 0x0001, reason 0x0006)", all[:1]},
		{1, 7, "command failed: somebody must intervene (response code 0x0001, reason 0x0007)", all[:1]},
		{1, 8, "command failed: the hardware of the link could not be accessed (response code 0x0001, reason 0x0008)", all[:1]},
		{1, 9, "command failed: the command took too long (response code 0x0001, reason 0x0009)", all[:1]},
		{1, 10, "command failed: the secondary device has no power (response code 0x0001, reason 0x000a)", all[:1]},
		{1, 11, "command failed: unknown reason 0x000b (response code 0x0001, reason 0x000b)", all[:1]},
		{2, 1, "command unavailable: the interface must be initialised first (response code 0x0002, reason 0x0001)", all[1:2]},
		{3, 0x7fff, "command unsupported: the command type is unknown or unsupported (response code 0x0003, reason 0x7fff)", all[2:3]},
		{4, 0, "command accepted but not done yet: no reason given (response code 0x0004, reason 0x0000)", nil},
		{5, 0x8000, "unknown response code 0x0005: manufacturer's reason 0x8000 (response code 0x0005, reason 0x8000)", nil},
		// Codes have 16 bits: neither may become 0 or a byte of itself.
		{0x8000, 0xff01, "manufacturer's response code 0x8000: manufacturer's reason 0xff01 (response code 0x8000, reason 0xff01)", nil},
		{0x0100, 0, "unknown response code 0x0100: no reason given (response code 0x0100, reason 0x0000)", nil},
	} {
		payload := []byte{byte(c.code >> 8), byte(c.code), byte(c.reason >> 8), byte(c.reason), 1, 2, 3}
		r, err := ncsi.ParseResponse(payload)
		if err != nil || r.Code != c.code || r.Reason != c.reason || !bytes.Equal(r.Data, payload[4:]) {
			t.Errorf("%x: %+v, %v", payload, r, err)
		}
		if got := r.Append(nil); !bytes.Equal(got, payload) {
			t.Errorf("%x became %x", payload, got)
		}
		err = r.Err()
		if err == nil || err.Error() != c.text {
			t.Errorf("%v\ninstead of\n%s", err, c.text)
		}
		for _, sentinel := range all {
			want := false
			for _, is := range c.is {
				want = want || is == sentinel
			}
			if errors.Is(err, sentinel) != want {
				t.Errorf("%v: is %v: %v", err, sentinel, !want)
			}
		}
		if s, ok := errors.AsType[*ncsi.StatusError](err); !ok || s.Code != c.code || s.Reason != c.reason {
			t.Errorf("%#v", err)
		}
	}
	if err := (ncsi.Response{Reason: 1}).Err(); err != nil {
		t.Errorf("completed is %v", err)
	}
	if ncsi.Completed.String() != "command completed" {
		t.Error(ncsi.Completed)
	}
	if _, err := ncsi.ParseResponse([]byte{0, 0, 0}); !errors.Is(err, ncsi.ErrMalformed) ||
		err.Error() != "malformed NC-SI packet: a response's payload of 3 bytes, less than the 4 of its codes" {
		t.Error(err)
	}
}
