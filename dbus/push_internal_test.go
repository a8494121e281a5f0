// SPDX-License-Identifier: Apache-2.0

package dbus

import (
	"testing"

	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/rshim/bootlog"
)

func TestPercent(t *testing.T) {
	stream := rshim.PushStreaming
	for _, tt := range []struct {
		p          rshim.PushStatus
		streamOnly bool
		want       byte
	}{
		{rshim.PushStatus{Phase: rshim.PushResetting, Total: 100}, false, 0},
		{rshim.PushStatus{Phase: stream, Bytes: 50, Total: 100}, false, 20},
		{rshim.PushStatus{Phase: stream, Bytes: 50, Missing: 50}, false, 20},
		{rshim.PushStatus{Phase: stream, Bytes: 200, Total: 100}, false, 40},
		{rshim.PushStatus{Phase: stream, Bytes: 50, Total: 100}, true, 49},
		{rshim.PushStatus{Phase: stream, Bytes: 1 << 62, Total: 1 << 62}, true, 99},
		{rshim.PushStatus{Phase: stream, Bytes: -1, Total: -1}, false, 0},
		{rshim.PushStatus{Phase: rshim.PushDone}, false, 40},
		{rshim.PushStatus{Phase: rshim.PushDone, Stage: bootlog.StageInstalling}, false, 55},
		{rshim.PushStatus{Phase: rshim.PushDone, Stage: bootlog.StageInstalling}, true, 99},
	} {
		if got := percent(tt.p, tt.streamOnly); got != tt.want {
			t.Errorf("%+v, %v: %d, want %d", tt.p, tt.streamOnly, got, tt.want)
		}
	}
	last := byte(0)
	for s := bootlog.StageROM; s <= bootlog.StageReady; s++ {
		if n := stagePercent[s]; n <= last || n > 99 {
			t.Errorf("%v is at %d, after %d", s, n, last)
		} else {
			last = n
		}
	}
}
