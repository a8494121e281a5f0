// SPDX-License-Identifier: Apache-2.0

package dbus

import (
	"sync"
	"time"
)

// SayAgain sets how long a push may be without Progress.
func (s *Service) SayAgain(d time.Duration) { s.late = d }

// HoldStatus keeps the status of a device from being published, until release is
// called.
func (s *Service) HoldStatus(index int) (release func()) {
	s.mu.Lock()
	v := s.known[index]
	s.mu.Unlock()
	v.order.Lock()
	return sync.OnceFunc(v.order.Unlock)
}
