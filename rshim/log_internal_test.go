// SPDX-License-Identifier: Apache-2.0

package rshim

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

// slowSemaphore is a Backend with a boot log to be read, whose semaphore takes
// its time to answer. Nothing else of it is used.
type slowSemaphore struct {
	Backend
	taken bool
}

func (b *slowSemaphore) Gone() <-chan struct{} { return nil }

func (b *slowSemaphore) ReadReg(_ context.Context, a reg.Addr, _ int) (uint64, error) {
	switch a {
	case reg.For(reg.BlueField3).Semaphore0:
		b.taken = true
		time.Sleep(50 * time.Millisecond)
	case reg.For(reg.BlueField3).ScratchBufCtl:
		return 8, nil
	}
	return 0, nil
}

func (b *slowSemaphore) WriteReg(_ context.Context, a reg.Addr, _ int, v uint64) error {
	if a == reg.For(reg.BlueField3).Semaphore0 {
		b.taken = v != 0
	}
	return nil
}

// TestSemaphoreIsGivenBack: a look at the boot log that is cut short while the
// chip answers that the semaphore is ours does not keep it.
func TestSemaphoreIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := new(slowSemaphore)
		s := &session{d: New(0, Options{}), b: b, regs: reg.For(reg.BlueField3), ops: make(chan regOp), mine: true}
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _ = s.own(ctx) }()
		look, end := context.WithTimeout(ctx, 10*time.Millisecond)
		defer end()
		if _, err := s.collect(look); err == nil {
			t.Error("the look was not cut short")
		}
		synctest.Wait()
		if b.taken {
			t.Error("the semaphore is still taken")
		}
		cancel()
		synctest.Wait()
	})
}
