// SPDX-License-Identifier: Apache-2.0

package usbip_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/bluefield-go/bmc-rshim/sim/usbip"
)

func TestFreePorts(t *testing.T) {
	dir := t.TempDir()
	v := usbip.VHCI{Dir: dir}
	if _, err := v.FreePorts(); !errors.Is(err, usbip.ErrNoPort) {
		t.Errorf("without a controller: %v", err)
	}
	// As Linux 6.1 prints it; ports 0 and 2 are taken.
	text := `hub port sta spd dev      sockfd local_busid
hs  0000 006 003 00010001 000003 1-1
hs  0001 004 000 00000000 000000 0-0
hs  0002 005 000 00000000 000000 0-0
hs  0003 004 000 00000000 000000 0-0
ss  0008 004 000 00000000 000000 0-0
`
	if err := os.WriteFile(filepath.Join(dir, "status"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if ports, err := v.FreePorts(); err != nil || !slices.Equal(ports, []int{1, 3}) {
		t.Errorf("free ports %v, %v", ports, err)
	}
}
