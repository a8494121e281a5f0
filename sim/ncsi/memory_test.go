// SPDX-License-Identifier: Apache-2.0

package simncsi_test

import (
	"testing"
	"time"

	"github.com/bluefield-go/bmc-rshim/ncsi"
	"github.com/bluefield-go/bmc-rshim/ncsi/ncsitest"
	"github.com/bluefield-go/bmc-rshim/sim/ncsi"
)

func rig(config simncsi.Config, timeout time.Duration) func(t *testing.T) *ncsitest.Rig {
	return func(t *testing.T) *ncsitest.Rig {
		n := simncsi.New(config)
		return &ncsitest.Rig{Transport: simncsi.NewMemory(n, timeout), NIC: n, Timeout: timeout}
	}
}

func TestMemory(t *testing.T) {
	ncsitest.RunVirtual(t, rig(simncsi.Config{}, time.Second))
}

// TestMemoryRealTime is what a transport with system calls goes through.
func TestMemoryRealTime(t *testing.T) {
	ncsitest.Run(t, rig(simncsi.Config{CacheByIID: true}, 200*time.Millisecond))
}

func TestMemoryOtherPackage(t *testing.T) {
	ch, err := ncsi.NewChannel(3, ncsi.WholePackage)
	if err != nil {
		t.Fatal(err)
	}
	ncsitest.RunVirtual(t, func(t *testing.T) *ncsitest.Rig {
		r := rig(simncsi.Config{Packages: []int{3}, Channels: 2, CacheByIID: true}, time.Second)(t)
		r.Channel = ch
		return r
	})
}
