// SPDX-License-Identifier: Apache-2.0

package sdnotify

import (
	"context"
	"time"
)

// Watch tells the supervisor that the service is alive, twice as often as it
// wants to hear it, for as long as beat returns: beat goes through what is
// watched and comes back when that has made progress. It returns when ctx ends,
// or at once if no watchdog is asked for. Failures to tell are given to failed.
func (n *Notifier) Watch(ctx context.Context, beat func(context.Context) error, failed func(error)) {
	if n.Interval() == 0 {
		return
	}
	t := time.NewTicker(n.Interval() / 2)
	defer t.Stop()
	for {
		if beat(ctx) != nil {
			return
		}
		if err := n.Alive(); err != nil {
			failed(err)
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}
