// SPDX-License-Identifier: Apache-2.0

package dbus

import (
	"context"
	"sync"
)

// tasks are the goroutines of something that ends. None is begun once it has.
type tasks struct {
	ctx context.Context
	end context.CancelFunc

	mu   sync.Mutex
	over bool
	wg   sync.WaitGroup
}

func newTasks(ctx context.Context) *tasks {
	ctx, end := context.WithCancel(ctx)
	return &tasks{ctx: ctx, end: end}
}

// run runs f in a goroutine, with a context that ends with the tasks. It reports
// false when they have ended.
func (t *tasks) run(f func(ctx context.Context)) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over || t.ctx.Err() != nil {
		return false
	}
	t.wg.Go(func() { f(t.ctx) })
	return true
}

// stop ends the tasks and waits for them.
func (t *tasks) stop() {
	t.mu.Lock()
	t.over = true
	t.mu.Unlock()
	t.end()
	t.wg.Wait()
}
