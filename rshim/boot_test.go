// SPDX-License-Identifier: Apache-2.0

package rshim_test

import (
	"crypto/sha256"
	"testing"

	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
)

// arrived checks that exactly stream, padded to whole words, has arrived.
func arrived(t *testing.T, fn *usbdev.Function, stream []byte) {
	t.Helper()
	padded := append(stream[:len(stream):len(stream)], make([]byte, -len(stream)&7)...)
	n, sum := fn.BootSum()
	if n != int64(len(padded)) || sum != sha256.Sum256(padded) {
		t.Errorf("%d bytes arrived, sum %x; want %d, %x", n, sum, len(padded), sha256.Sum256(padded))
	}
	if over, lost := fn.DPU().BootLost(); over != 0 || lost != 0 {
		t.Errorf("%d bytes overflowed the boot FIFO, %d were lost to a chip that was not ready", over, lost)
	}
}

func TestPush(t *testing.T) {
	generations(t, func(t *testing.T, g reg.Generation) {
		bubble(t, bluefield.Config{Generation: g}, usbdev.Options{}, func(r *rig, fn *usbdev.Function, d *rshim.Device) {
			stream := image(t, g, 1<<20)
			stream = append(stream, "PASSWORD=x\n"...) // bf.cfg, of odd length
			if err := push(r.ctx, d, stream); err != nil {
				t.Fatal(err)
			}
			arrived(t, fn, stream)
			if err := fn.DPU().WaitStage(r.ctx, bluefield.StageReady); err != nil {
				t.Fatal(err)
			}
		})
	})
}
