// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// Need skips the test when a program or file that it needs is missing, and fails it when CI=true.
// A name with a slash is a file's.
func Need(t testing.TB, names ...string) {
	t.Helper()
	var missing []string
	for _, name := range names {
		var err error
		if strings.Contains(name, "/") {
			_, err = os.Stat(name)
		} else {
			_, err = exec.LookPath(name)
		}
		if err != nil {
			missing = append(missing, name)
		}
	}
	if missing == nil {
		return
	}
	msg := fmt.Sprintf("missing: %s (scripts/setup.sh installs everything)", strings.Join(missing, " "))
	if os.Getenv("CI") == "true" {
		t.Fatal(msg)
	}
	t.Skip(msg)
}

// NeedLane is Need for all that the lane's machines ask of the host. Machines are left out of -short runs.
func NeedLane(t testing.TB, lane Lane) {
	t.Helper()
	if testing.Short() {
		t.Skip("no machines in a short run")
	}
	Need(t, "go")
	switch lane {
	case UML:
		Need(t, "gcc", "make", "patch", "flex", "bison", "bc", "xz", "dpkg-query", umlSourceTar)
	case AST2600:
		Need(t, "qemu-system-arm", "fdtput", "apt-get", "dpkg-deb")
	}
}

// Run runs the job and makes every test of the guest a subtest of t: t.Name()/internal/cuse/TestX/sub. A -test.run
// pattern with slashes reaches the guest: only the packages and tests that it names are run there.
func Run(t *testing.T, m Machine, job Job) *Result {
	t.Helper()
	NeedLane(t, m.Lane)
	depth := strings.Count(t.Name(), "/") + 1
	job.Tests = selectTests(job.Tests, flag.Lookup("test.run").Value.String(), depth)
	if len(job.Tests) == 0 {
		t.Skip("-test.run names none of the guest's packages")
	}
	ctx := t.Context()
	if deadline, ok := t.Deadline(); ok {
		// Be told what the guest was doing rather than be killed.
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, deadline.Add(-30*time.Second), fmt.Errorf("the test's -timeout"))
		defer cancel()
	}
	res, err := Execute(ctx, m, job)
	for _, p := range res.Packages {
		t.Run(strings.TrimPrefix(p.Path, "./"), p.report)
	}
	t.Logf("%s: boot %v, in all %v", m.Lane, res.Boot.Round(time.Millisecond), res.Total.Round(time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func (p *PackageResult) report(t *testing.T) {
	for _, test := range p.Tests {
		t.Run(test.Name, test.report)
	}
	for _, test := range p.Tests {
		if test.Elapsed >= 10*time.Second {
			t.Logf("%v for %s", test.Elapsed.Round(time.Second), test.Name)
		}
	}
	t.Logf("%v in the machine", p.Elapsed.Round(time.Millisecond))
	for _, m := range p.Metrics {
		t.Logf("METRIC %s %g %s", m.Name, m.Value, m.Unit)
	}
	switch {
	case p.Err == "exit code 1" && t.Failed(): // the tests above say why
	case p.Err != "":
		t.Errorf("%s: %s\n%s", p.Path, p.Err, tail(p.Output, 60))
	case len(p.Tests) == 0:
		t.Errorf("%s: no test has run\n%s", p.Path, tail(p.Output, 20))
	}
}

func (r *TestResult) report(t *testing.T) {
	for _, sub := range r.Sub {
		t.Run(sub.Name, sub.report)
	}
	switch r.Action {
	case "pass":
		if r.Output != "" {
			t.Log(r.Output)
		}
	case "skip":
		t.Skip(r.Output)
	case "fail":
		t.Error(r.Output)
	default:
		t.Errorf("did not come to its end\n%s", r.Output)
	}
}

// selectTests applies a -test.run pattern to packages whose subtests are depth levels deep. What is left of the
// pattern after the package's own elements becomes the package's -test.run. Patterns with alternatives across
// slashes are left to the host's own matching, after everything has run.
func selectTests(pkgs []Package, pattern string, depth int) []Package {
	elems := strings.Split(pattern, "/")
	if len(elems) <= depth || strings.Contains(pattern, "|") || strings.ContainsAny(pattern, "[(") {
		return pkgs
	}
	elems = elems[depth:]
	var selected []Package
next:
	for _, p := range pkgs {
		names := strings.Split(strings.TrimPrefix(p.Path, "./"), "/")
		for i, name := range names[:min(len(names), len(elems))] {
			if ok, err := regexp.MatchString(elems[i], name); err != nil || !ok {
				continue next
			}
		}
		if len(elems) > len(names) {
			p.Args = append(p.Args[:len(p.Args):len(p.Args)], "-test.run="+strings.Join(elems[len(names):], "/"))
		}
		selected = append(selected, p)
	}
	return selected
}
