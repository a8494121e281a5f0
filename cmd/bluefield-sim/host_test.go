// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestHostCommands takes two DPUs' drivers on the host through their commands.
func TestHostCommands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told bytes.Buffer
		devs := control{newDevice(&told), newDevice(&bytes.Buffer{})}
		if _, err := devs[1].startHost(t.Context(), *hostDrivers["deaf"]); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for _, c := range []struct {
			wait        time.Duration
			line        string
			reply, fail string
		}{
			{0, "host 0 state", "state=none owns=false", ""},
			{0, "host 0 kill", "", errNoHost.Error()},
			{0, "host 0 force", "", errNoHost.Error()},
			{0, "host 0 dance", "", "none of start"},
			{0, "host 0 start now", "", "too many"},
			{0, "host 0 start", "state=checking owns=false", ""},
			{0, "host 0 start", "", errRunning.Error()},
			{2 * time.Second, "host 0 state", "state=attached owns=true", ""},
			{0, "host 0 force", "", "not in drop mode"},
			{0, "host 0 drop", "", ""},
			{time.Second, "host 0 state", "state=dropped owns=false", ""},
			{0, "host 0 undrop", "", ""},
			{4 * time.Second, "host 0 deaf", "state=attached owns=true", ""},
			{0, "write 0 1 0xc40 0x4F53505F524551", "ok", ""},
			{time.Second, "host 0 hear", "state=attached owns=true", ""},
			{0, "read 0 1 0xc40", "value=0x5089836482", ""},
			{0, "write 0 1 0xc40 0x4F53505F524551", "ok", ""},
			{3 * time.Second, "host 0 state", "state=dropped owns=false", ""},
			{0, "host 0 force", "", ""},
			{0, "host 0 stop", "state=off owns=false", ""},
			{0, "host 0 stop", "", errNoHost.Error()},
			{0, "host 1 kill", "state=dead owns=false", ""},
			{0, "host 1 start-force", "state=checking owns=false", ""},
			{2 * time.Second, "host 1 kill", "state=dead owns=false", ""},
		} {
			time.Sleep(c.wait)
			reply, err := devs.do(t.Context(), c.line)
			synctest.Wait()
			if !strings.HasSuffix(reply, c.reply) || (err != nil) != (c.fail != "") || err != nil && !strings.Contains(err.Error(), c.fail) {
				t.Errorf("%q: %q, %v; want %q, %q", c.line, reply, err, c.reply, c.fail)
			}
		}
		want := "host dev=0 state=checking owns=false\n" +
			"host dev=0 state=attached owns=true\n" +
			"host dev=0 state=dropped owns=false\n" +
			"host dev=0 state=checking owns=false\n" +
			"host dev=0 state=attached owns=true\n" +
			"host dev=0 state=granting owns=false\n" +
			"host dev=0 state=dropped owns=false\n"
		if got := told.String(); !strings.HasPrefix(got, want) {
			t.Errorf("events %q, want %q", got, want)
		}
	})
}
