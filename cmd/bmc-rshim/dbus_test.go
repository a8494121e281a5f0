// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/bluefield-go/bmc-rshim/dbus"
	"github.com/bluefield-go/bmc-rshim/internal/hostaccess"
)

// TestBusHostError: what ncsi-oem says is one of the service's errors, and keeps
// its text.
func TestBusHostError(t *testing.T) {
	for _, tt := range []struct{ err, want error }{
		{hostaccess.ErrRefused, dbus.ErrHostAccessRefused},
		{hostaccess.ErrNoNIC, dbus.ErrNoHostAccess},
		{hostaccess.ErrNoTool, dbus.ErrNoHostAccess},
		{hostaccess.ErrTimeout, os.ErrDeadlineExceeded},
		{hostaccess.ErrAnswer, hostaccess.ErrAnswer},
	} {
		err := error(&hostaccess.OpError{Op: "set", Err: tt.err})
		got := busHostError(err)
		if !errors.Is(got, tt.want) || !errors.Is(got, tt.err) || got.Error() != err.Error() {
			t.Errorf("%v became %v, which is not %v", err, got, tt.want)
		}
	}
	if err := busHostError(nil); err != nil {
		t.Error(err)
	}
	h := hostTool{&hostaccess.Tool{Path: filepath.Join(t.TempDir(), "none")}}
	_, _, err := h.Get(t.Context())
	for _, err := range []error{err, h.SetPersistent(t.Context(), hostaccess.Enabled), h.SetRuntime(t.Context(), hostaccess.Locked)} {
		if !errors.Is(err, dbus.ErrNoHostAccess) {
			t.Errorf("without a tool: %v", err)
		}
	}
}
