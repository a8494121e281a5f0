// SPDX-License-Identifier: Apache-2.0

package tap_test

import (
	"errors"
	"io/fs"
	"testing"

	"go.uber.org/goleak"

	"github.com/bluefield-go/bmc-rshim/internal/tap"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestOpenFails(t *testing.T) {
	none := t.TempDir()
	for name, c := range map[string]struct {
		o    tap.Options
		want error
	}{
		"no node":      {tap.Options{Name: "tap0", DevPath: none + "/tun"}, tap.ErrNoDriver},
		"no namespace": {tap.Options{Name: "tap0", Netns: none + "/netns"}, fs.ErrNotExist},
		"no name":      {tap.Options{DevPath: none + "/tun"}, nil},
		"long name":    {tap.Options{Name: "tmfifo_net123456", DevPath: none + "/tun"}, nil},
	} {
		i, err := tap.Open(c.o)
		if err == nil {
			i.Close()
			t.Errorf("%s: no error", name)
		} else if c.want != nil && !errors.Is(err, c.want) || c.want == nil && errors.Is(err, tap.ErrNoDriver) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
