// SPDX-License-Identifier: Apache-2.0

package bluefield

import (
	"context"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

// TMWrite offers words to the TMFIFO towards the DPU. It takes what there is
// room for, without waiting, and returns how many that is and a channel that is
// closed when there may be more room.
func (d *DPU) TMWrite(words []uint64) (n int, more <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.notReady {
		return len(words), nil
	}
	n = min(len(words), reg.TmFIFODepth-len(d.tm.in))
	d.tm.in = append(d.tm.in, words[:n]...)
	if n > 0 {
		d.tm.inData.ring()
	}
	if d.tm.lossy {
		d.tm.overflow += int64(len(words) - n)
		n = len(words)
	}
	return n, d.tm.inRem.wait()
}

// TMRead takes up to len(words) words from the TMFIFO towards the host,
// without waiting, and returns how many that is and a channel that is closed
// when more may have come.
func (d *DPU) TMRead(words []uint64) (n int, more <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n = copy(words, d.tm.out)
	d.tm.out = append(d.tm.out[:0], d.tm.out[n:]...)
	if n > 0 {
		d.tm.outRem.ring()
	}
	return n, d.tm.outData.wait()
}

// TMPending returns how many words wait for the host, and a channel that is
// closed when more have come.
func (d *DPU) TMPending() (n int, more <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.tm.out), d.tm.outData.wait()
}

// SendTM puts words into the TMFIFO towards the host as the DPU's software
// does, waiting for room.
func (d *DPU) SendTM(ctx context.Context, words []uint64) error {
	for {
		d.mu.Lock()
		n := min(len(words), reg.TmFIFODepth-len(d.tm.out))
		d.tm.out = append(d.tm.out, words[:n]...)
		if n > 0 {
			d.tm.outData.ring()
		}
		words = words[n:]
		room := d.tm.outRem.wait()
		d.mu.Unlock()
		if len(words) == 0 {
			return nil
		}
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// HoldTM stops the DPU from reading its TMFIFO, and lets it go on.
func (d *DPU) HoldTM(on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tm.hold = on
	d.tm.inData.ring()
}

// LossyTM makes the TMFIFO towards the DPU lose what it has no room for, as
// TMOverflow tells, instead of having it wait.
func (d *DPU) LossyTM(on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tm.lossy = on
}

// drainTM reads the TMFIFO for OnTM, or for nobody.
func (d *DPU) drainTM(ctx context.Context) {
	for {
		d.mu.Lock()
		var words []uint64
		if !d.tm.hold {
			words, d.tm.in = d.tm.in, nil
		}
		if len(words) > 0 {
			d.tm.inRem.ring()
		}
		data := d.tm.inData.wait()
		d.mu.Unlock()
		if len(words) > 0 {
			if d.cfg.OnTM != nil {
				d.cfg.OnTM(words)
			}
			continue
		}
		select {
		case <-data:
		case <-ctx.Done():
			return
		}
	}
}

// pushTM and popTM are the data registers. A write to a full FIFO is lost, a
// read of an empty one is garbage. The caller holds mu.
func (d *DPU) pushTM(v uint64) {
	if len(d.tm.in) >= reg.TmFIFODepth {
		d.tm.overflow++
		return
	}
	d.tm.in = append(d.tm.in, v)
	d.tm.inData.ring()
}

func (d *DPU) popTM() uint64 {
	if len(d.tm.out) == 0 {
		return BadRegister
	}
	v := d.tm.out[0]
	d.tm.out = append(d.tm.out[:0], d.tm.out[1:]...)
	d.tm.outRem.ring()
	return v
}

// clearTM empties both directions. The caller holds mu.
func (d *DPU) clearTM() {
	d.tm.in, d.tm.out = nil, nil
	d.endSoftware()
	d.tm.inRem.ring()
	d.tm.outRem.ring()
}

// TMOverflow returns how many words were written to the full TMFIFO and lost.
func (d *DPU) TMOverflow() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.tm.overflow
}
