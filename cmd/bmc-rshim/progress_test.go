// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"
	"time"
	"unicode/utf8"
)

func TestProgress(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		g     progress
		text  string
		drawn string
	}{
		{progress{Phase: "resetting"}, "resetting", "resetting..."},
		{
			progress{Phase: "streaming", Bytes: 8 * mib, Total: 32 * mib, Rate: 12 * mib, Image: "image-v0"},
			"streaming: 8.0 MiB of 32.0 MiB (25 %), 12.0 MiB/s, 2s left, image-v0",
			"streaming [######------------------]  25%   12.0 MiB/s     2s  image-v0",
		},
		{
			progress{Phase: "streaming", Bytes: 8 * mib, Rate: 300 << 10},
			"streaming: 8.0 MiB, 300.0 KiB/s",
			"streaming    8.0 MiB   300.0 KiB/s  ",
		},
		{
			progress{Phase: "checking", Bytes: 1 << 40, Total: 1 << 40, Rate: 1 << 30},
			"checking: 1048576.0 MiB of 1048576.0 MiB (100 %), 1024.0 MiB/s, 0s left",
			"checking  [########################] 100% 1024.0 MiB/s     0s  ",
		},
		{ // stalled
			progress{Phase: "streaming", Bytes: 8 * mib, Total: 32 * mib, Image: "image_id_200-v15"},
			"streaming: 8.0 MiB of 32.0 MiB (25 %), 0.0 KiB/s, image_id_200-v15",
			"streaming [######------------------]  25%    0.0 KiB/s         image_id_200-v15",
		},
		{progress{Phase: "booting", Bytes: 32 * mib, Total: 32 * mib}, "booting: 32.0 MiB of 32.0 MiB (100 %), 0.0 KiB/s", "booting..."},
	} {
		if got := c.g.String(); got != c.text {
			t.Errorf("got  %q\nwant %q", got, c.text)
		}
		if got := c.g.drawn(); got != c.drawn || utf8.RuneCountInString(got) > 79 {
			t.Errorf("got  %q\nwant %q", got, c.drawn)
		}
	}
}

func TestMeter(t *testing.T) {
	var m meter
	at := time.Unix(1000, 0)
	for i := range int64(100) { // 100 bytes a second, and then 1000
		if i <= 50 {
			if got := m.rate(at, 100*i, at.Add(time.Duration(i)*time.Second)); i > 0 && got != 100 {
				t.Fatalf("after %d s: %v", i, got)
			}
			continue
		}
		got := m.rate(at, 5000+1000*(i-50), at.Add(time.Duration(i)*time.Second))
		if i > 56 && got != 1000 {
			t.Fatalf("after %d s: %v", i, got)
		}
	}
	if len(m.samples) > 10 {
		t.Errorf("%d samples are kept", len(m.samples))
	}
}
