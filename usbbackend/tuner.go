// SPDX-License-Identifier: Apache-2.0

package usbbackend

import "time"

const (
	tuneWindow = 256 << 10 // bytes by which one size is judged
	tunePeriod = 128       // windows after which all sizes are tried again
	tuneMargin = 0.97      // of the best rate, which a larger size may be content with
)

// tuner finds the size of transfer at which a stream to a FIFO with credits is
// fastest. What that is depends on what sets the pace: round trips want small
// transfers, since what has arrived is known only when a transfer is through;
// a busy processor wants few. So each size is given a piece of the stream, and
// the largest that is about as fast as the fastest goes on.
type tuner struct {
	sizes []int // ascending
	rates []float64
	now   int // index of the size in use
	count int // windows judged since trying began

	begin time.Time // of the window
	from  int64     // offset of the stream then
}

func newTuner(sizes ...int) *tuner {
	return &tuner{sizes: sizes, rates: make([]float64, len(sizes)), now: len(sizes) - 1}
}

func (t *tuner) size() int { return t.sizes[t.now] }

// restart begins the window anew: time has passed that says nothing.
func (t *tuner) restart(taken int64) { t.begin, t.from = time.Now(), taken }

// took tells how far the stream has come.
func (t *tuner) took(taken int64) {
	if t.begin.IsZero() {
		t.restart(taken)
	}
	if taken-t.from < tuneWindow {
		return
	}
	t.rates[t.now] = float64(taken-t.from) / max(time.Since(t.begin).Seconds(), 1e-9)
	t.restart(taken)
	switch t.count++; {
	case t.count == tunePeriod:
		t.count, t.now = 0, len(t.sizes)-1
	case t.count < len(t.sizes):
		t.now = len(t.sizes) - 1 - t.count
	case t.count == len(t.sizes):
		best := 0.0
		for _, r := range t.rates {
			best = max(best, r)
		}
		for i, r := range t.rates {
			if r >= tuneMargin*best {
				t.now = i
			}
		}
	}
}
