// SPDX-License-Identifier: Apache-2.0

package bluefield_test

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/bluefield-go/bmc-rshim/rshim/bfb"
	"github.com/bluefield-go/bmc-rshim/rshim/bootlog"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
)

// start runs a DPU until the test, in a bubble, ends. The DPU is where it gets
// without time passing.
func start(t *testing.T, cfg bluefield.Config) *bluefield.DPU {
	t.Helper()
	d := bluefield.New(cfg)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := d.Run(t.Context()); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	t.Cleanup(func() { <-done })
	synctest.Wait()
	return d
}

func read(d *bluefield.DPU, a reg.Addr) uint64     { return d.ReadReg(a, 8) }
func write(d *bluefield.DPU, a reg.Addr, v uint64) { d.WriteReg(a, 8, v) }

// image is a small BFB with what each stage waits for, and a tail.
func image(t *testing.T, size int, tail string) []byte {
	t.Helper()
	var b bytes.Buffer
	data := bytes.Repeat([]byte("bluefield"), size/9+1)[:size]
	err := bfb.Write(&b,
		bfb.Part{ID: bfb.IDPSCBL, Version: 2, Data: bytes.NewReader(data[:size/4])},
		bfb.Part{ID: bfb.IDBL2, Version: 2, Data: bytes.NewReader(data[:size/4])},
		bfb.Part{ID: bfb.IDBL33, Version: 2, Data: bytes.NewReader(data[:size/4])},
		bfb.Part{ID: bfb.IDImage, Data: bytes.NewReader(data)},
		bfb.Part{ID: bfb.IDInitramfs, Data: bytes.NewReader(data)},
	)
	if err != nil {
		t.Fatal(err)
	}
	return append(b.Bytes(), tail...)
}

// push writes p into the boot FIFO as fast as it is taken, or until it has
// been taken by nobody for ever.
func push(t *testing.T, d *bluefield.DPU, p []byte) {
	t.Helper()
	for len(p) > 0 {
		n, more := d.BootWrite(p, 512)
		if p = p[n:]; n > 0 {
			continue
		}
		select {
		case <-more:
		case <-t.Context().Done():
			t.Fatal("nobody reads the boot FIFO")
		}
	}
}

// log reads the boot log as a host does, and clears it.
func log(t *testing.T, d *bluefield.DPU) string {
	t.Helper()
	m := d.Map()
	if v := read(d, m.Semaphore0); v != 0 {
		t.Fatalf("semaphore is taken: %#x", v)
	}
	defer write(d, m.Semaphore0, 0)
	idx := int(read(d, m.ScratchBufCtl))
	write(d, m.ScratchBufCtl, 0)
	words := make([]uint64, idx)
	for i := range words {
		words[i] = read(d, m.ScratchBufDat)
	}
	write(d, m.ScratchBufCtl, 0)
	entries, _ := bootlog.Decode(words)
	var b strings.Builder
	for _, e := range entries {
		b.WriteString(e.String())
	}
	return b.String()
}

// bootRShim resets d into its boot ROM.
func bootRShim(t *testing.T, d *bluefield.DPU) {
	t.Helper()
	write(d, d.Map().BootControl, uint64(reg.BootRShim))
	write(d, d.Map().ResetControl, reg.ResetKey)
	for _, s := range []bluefield.Stage{bluefield.StageReset, bluefield.StageROM} {
		if err := d.WaitStage(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
}
