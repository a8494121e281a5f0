// SPDX-License-Identifier: Apache-2.0

package guest_test

import (
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// stallPause is between two looks at how late the machine is.
const stallPause = 20 * time.Millisecond

// stalls is how a test knows what its machine did to it while something was
// being timed: a host that is busy gives the machine no processor for seconds
// at a time, and what is held up then is not the daemon's fault.
type stalls struct {
	mu    sync.Mutex
	worst time.Duration
	begun []time.Time // when each processor's watcher last went to sleep
}

// watchStalls looks until the end of the test, on each processor: one may stand
// still while another goes on.
func watchStalls(t *testing.T) *stalls {
	t.Helper()
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	s, end := new(stalls), make(chan struct{})
	var looking sync.WaitGroup
	var cpus []int
	for cpu := range 1024 { // as many as the set can hold
		if all.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	s.begun = slices.Repeat([]time.Time{time.Now()}, len(cpus))
	for i, cpu := range cpus {
		looking.Go(func() { s.look(t, i, cpu, end) })
	}
	t.Cleanup(func() {
		close(end)
		looking.Wait()
	})
	return s
}

// look is the watcher of one processor.
func (s *stalls) look(t *testing.T, i, cpu int, end <-chan struct{}) {
	runtime.LockOSThread() // and the thread ends with the goroutine
	var one unix.CPUSet
	one.Set(cpu)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Errorf("processor %d: %v", cpu, err)
		return
	}
	pause := unix.NsecToTimespec(stallPause.Nanoseconds())
	for {
		select {
		case <-end:
			return
		default:
		}
		s.mu.Lock()
		s.begun[i] = time.Now()
		s.mu.Unlock()
		_ = unix.Nanosleep(&pause, nil) // the thread's own: no other has to wake it up
		s.mu.Lock()
		s.worst = max(s.worst, time.Since(s.begun[i])-stallPause)
		s.mu.Unlock()
	}
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
	worst := max(s.worst, time.Since(begin))
	for _, begun := range s.begun { // which may be over, and its watcher not have said so yet
		worst = max(worst, time.Since(begun)-stallPause)
	}
	return limit + 10*worst
}
