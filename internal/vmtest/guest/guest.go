// SPDX-License-Identifier: Apache-2.0

// Package guest is the contract between a test machine's host and its inside: the job the host hands over, the
// events that come back, and the few things a test may ask when it runs in a machine.
package guest

import (
	"os"
	"strconv"
	"time"
)

// Paths and names inside the machine.
const (
	// Env is set to "1" for every test that runs in a machine.
	Env = "VMTEST_IN_GUEST"
	// LaneEnv names the machine's kind: "uml" or "ast2600".
	LaneEnv = "VMTEST_LANE"
	// Dir holds the job's programs (bin), its files, and Out.
	Dir = "/vm"
	// Out is a directory of the host where a User-Mode Linux guest may leave files; the AST2600 has a RAM disk there.
	Out = Dir + "/out"
	// JobFile is where the initramfs carries the Job.
	JobFile = "/vm-job.json"
	// EventPort is the serial line of the events; the console is another one, so that kernel messages cannot mix in.
	EventPort = "/dev/ttyS0"
	// MetricPrefix starts a line of output that the host reads as "METRIC name value unit".
	MetricPrefix = "METRIC "
)

// Job is what the machine's init does before it switches the machine off.
type Job struct {
	Lane     string
	HostRoot bool      // root is a throw-away overlay over the host's own tree (hostfs)
	Now      time.Time // the clock is set when it is behind this
	Seed     []byte    // for the kernel's random numbers: a machine without devices finds none by itself
	Deadline time.Duration
	Modules  []string // kernel modules in load order, paths in the initramfs
	Mounts   []Mount
	Links    map[string]string // symbolic link -> target
	Env      []string
	Runs     []Run
}

// Mount is a directory of the host seen in a User-Mode Linux guest.
type Mount struct {
	Host, Guest string
	ReadOnly    bool
	Overlay     bool // ReadOnly, but what is written stays in the guest's memory
}

// Run is one program, run to its end.
type Run struct {
	Path    string
	Args    []string
	Dir     string
	Timeout time.Duration // then SIGQUIT for the goroutines' stacks, and SIGKILL 5 s later
}

// Kind says what an Event reports.
type Kind string

// The kinds of Event.
const (
	Boot   Kind = "boot"   // init is ready; Elapsed is the time since the kernel started
	Start  Kind = "start"  // a Run starts
	Output Kind = "output" // Data is a piece of its standard output or error
	Exit   Kind = "exit"   // a Run ended with Code; Text says why if it did not exit by itself
	Failed Kind = "failed" // init itself failed with Text
	Done   Kind = "done"   // all runs ended; the machine switches itself off
)

// Event is one line of JSON on EventPort.
type Event struct {
	Kind    Kind          `json:"kind"`
	Run     int           `json:"run"` // index in Job.Runs
	Text    string        `json:"text,omitempty"`
	Data    []byte        `json:"data,omitempty"`
	Code    int           `json:"code,omitempty"`
	Elapsed time.Duration `json:"elapsed,omitempty"`
}

// In reports whether the program runs in a test machine.
func In() bool { return os.Getenv(Env) == "1" }

// Lane returns "uml", "ast2600", or "" outside a machine.
func Lane() string { return os.Getenv(LaneEnv) }

// T is the part of testing.TB that this package needs; guestinit shall not link package testing.
type T interface {
	Helper()
	Skip(args ...any)
}

// Require skips the test unless it runs in a machine.
func Require(t T) {
	t.Helper()
	if !In() {
		t.Skip("runs in a test machine only: go test ./e2e")
	}
}

// Metric reports a measurement to the host; name and unit are single words.
func Metric(t T, name string, value float64, unit string) {
	t.Helper()
	os.Stdout.WriteString(MetricPrefix + name + " " + strconv.FormatFloat(value, 'g', 6, 64) + " " + unit + "\n")
}
