// SPDX-License-Identifier: Apache-2.0

package dbus

import "time"

// SayAgain sets how long a push may be without Progress.
func (s *Service) SayAgain(d time.Duration) { s.late = d }
