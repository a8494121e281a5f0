// SPDX-License-Identifier: Apache-2.0

package guest_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// usage is what a process uses, as the kernel tells.
type usage struct {
	resident int           // kB
	peak     int           // kB, the most that was ever resident
	wakeups  int           // of all threads, since their start
	cpu      time.Duration // user and system mode, in steps of 10 ms
}

func (r *rig) usage(t *testing.T) (u usage) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d", r.daemon.cmd.Process.Pid)
	u.resident = statusOf(t, dir+"/status", "VmRSS")
	u.peak = statusOf(t, dir+"/status", "VmHWM")
	threads, err := filepath.Glob(dir + "/task/*/status")
	if err != nil || len(threads) == 0 {
		t.Fatalf("%s has no threads: %v", dir, err)
	}
	for _, file := range threads {
		u.wakeups += statusOf(t, file, "voluntary_ctxt_switches") // one each time that it has nothing to do
	}
	b, err := os.ReadFile(dir + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	// The fields are numbered in proc(5); the second, a name, may hold anything.
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	for _, field := range []int{14, 15} { // utime, stime
		n, err := strconv.Atoi(f[field-3])
		if err != nil {
			t.Fatal(err)
		}
		u.cpu += time.Duration(n) * time.Second / 100 // USER_HZ
	}
	return u
}

// statusOf returns a number of a status file: kB or a count.
func statusOf(t *testing.T, file, key string) int {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if name, value, _ := strings.Cut(line, ":"); name == key {
			n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("%s has no %s", file, key)
	return 0
}
