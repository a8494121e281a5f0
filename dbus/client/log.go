// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"fmt"
	"time"

	"github.com/bluefield-go/bmc-rshim/dbus/wire"
)

// LogLine is a line of a DPU's boot log.
type LogLine struct {
	Seq  uint64 // grows by one from line to line
	At   time.Time
	Text string
}

// Log returns the lines of a device's boot log from a sequence number on, 0
// for all that is kept, and the number of the line that comes next.
func (c *Client) Log(ctx context.Context, index int, from uint64) (lines []LogLine, next uint64, err error) {
	r, err := c.call(ctx, callLimit, "log", deviceName(index), devicePath(index), ifDevice, "ReadLog", nil, from)
	if err != nil {
		return nil, from, err
	}
	if len(r.Body) != 2 {
		return nil, from, c.opError("log", deviceName(index), fmt.Errorf("%w: %d values instead of two", ErrAnswer, len(r.Body)))
	}
	if lines, err = decodeLines(r.Body[0]); err != nil {
		return nil, from, c.opError("log", deviceName(index), err)
	}
	next, ok := r.Body[1].(uint64)
	if !ok || next < from {
		return nil, from, c.opError("log", deviceName(index), fmt.Errorf("%w: the next line is %v", ErrAnswer, r.Body[1]))
	}
	return lines, next, nil
}

// decodeLines decodes an a(tts).
func decodeLines(v any) ([]LogLine, error) {
	a, ok := v.(wire.Array)
	if !ok {
		return nil, wrongType("lines of the log", v)
	}
	lines := make([]LogLine, 0, len(a.Items))
	for _, item := range a.Items {
		s, ok := item.(wire.Struct)
		if !ok || len(s) != 3 {
			return nil, wrongType("a line of the log", item)
		}
		seq, ok1 := s[0].(uint64)
		us, ok2 := s[1].(uint64)
		text, ok3 := s[2].(string)
		if !ok1 || !ok2 || !ok3 {
			return nil, wrongType("a line of the log", item)
		}
		lines = append(lines, LogLine{seq, when(us), printable(text)})
	}
	return lines, nil
}
