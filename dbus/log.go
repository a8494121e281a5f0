// SPDX-License-Identifier: Apache-2.0

package dbus

import (
	"context"
	"math"
	"time"

	"github.com/bluefield-go/bmc-rshim/dbus/bus"
	"github.com/bluefield-go/bmc-rshim/dbus/wire"
	"github.com/bluefield-go/bmc-rshim/rshim"
)

// logPause is between two LogAdded: what comes meanwhile is in the next.
const logPause = 250 * time.Millisecond

const logLine wire.Signature = "(tts)"

// readLog returns the lines from a number on, and where to go on.
func (v *device) readLog(_ context.Context, c *bus.Call) ([]any, error) {
	from := int64(math.MaxInt64)
	if n := c.Args[0].(uint64); n < math.MaxInt64 {
		from = int64(n)
	}
	lines, next, _ := v.d.Log(from)
	if len(lines) > maxLogLines {
		lines = lines[:maxLogLines]
		next = lines[maxLogLines-1].Seq + 1
	}
	return []any{logLines(lines), uint64(max(0, next))}, nil
}

// followLog says what comes.
func (v *device) followLog(ctx context.Context) {
	_, from, more := v.d.Log(math.MaxInt64)
	for {
		select {
		case <-more:
		case <-ctx.Done():
			return
		}
		var lines []rshim.LogLine
		lines, from, more = v.d.Log(from)
		for len(lines) > 0 {
			n := min(len(lines), maxLogLines)
			_ = v.o.Emit(ifaceDevice, "LogAdded", logLines(lines[:n])) // who missed it asks with ReadLog
			lines = lines[n:]
		}
		wait(ctx, logPause)
	}
}

// logLines is lines as they stand on the bus.
func logLines(lines []rshim.LogLine) wire.Array {
	a := wire.Array{Elem: logLine}
	for _, l := range lines {
		a.Items = append(a.Items, wire.Struct{uint64(max(0, l.Seq)), micros(l.Time), l.Text})
	}
	return a
}
