// SPDX-License-Identifier: Apache-2.0

package guest_test

import (
	"os/exec"
	"sync"
	"testing"
	"time"
)

// stallPause is between two looks at how late the machine is.
const stallPause = 20 * time.Millisecond

// stalls is how a test knows what its machine did to it while something was
// being timed: a host that is busy gives the machine no processor for seconds
// at a time, and what is held up then is not the daemon's fault.
type stalls struct {
	mu    sync.Mutex
	worst time.Duration
}

// watchStalls looks until the end of the test.
func watchStalls(t *testing.T) *stalls {
	t.Helper()
	s, end := new(stalls), make(chan struct{})
	var looking sync.WaitGroup
	looking.Go(func() {
		for {
			begin := time.Now()
			select {
			case <-end:
				return
			case <-time.After(stallPause):
			}
			s.mu.Lock()
			s.worst = max(s.worst, time.Since(begin)-stallPause)
			s.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		close(end)
		looking.Wait()
	})
	return s
}

// allow is limit, a time on a machine that has nothing else to do, with room
// for what this one is: ten times as long as it took to run a program that does
// nothing, or to wake up one that is waiting, whichever was the worst.
func (s *stalls) allow(t *testing.T, limit time.Duration) time.Duration {
	t.Helper()
	begin := time.Now()
	if err := exec.Command("true").Run(); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return limit + 10*max(s.worst, time.Since(begin))
}
