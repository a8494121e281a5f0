// SPDX-License-Identifier: Apache-2.0

package vmtest_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bluefield-go/bmc-rshim/internal/vmtest"
)

const fixture = "./internal/vmtest/testdata/fixture"

// job runs each test of the fixture as a package of its own.
func job(t *testing.T, tests ...string) vmtest.Job {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("from the host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	job := vmtest.Job{
		Cmds:  []vmtest.Cmd{{Path: "./internal/vmtest/cmd/guestinit", Name: "hello"}},
		Files: map[string]string{"/opt/vmtest/file": file},
	}
	for _, name := range tests {
		p := vmtest.Package{Path: fixture, Args: []string{"-test.run=^" + name + "$"}}
		if name == "TestHang" {
			p.Timeout = time.Second
		}
		job.Tests = append(job.Tests, p)
	}
	return job
}

// check compares a package's outcome: err is a part of PackageResult.Err.
func check(t *testing.T, p *vmtest.PackageResult, name, action, err string) {
	t.Helper()
	if (p.Err == "") != (err == "") || !strings.Contains(p.Err, err) {
		t.Errorf("%s: error %q, want %q; output:\n%s", name, p.Err, err, p.Output)
	}
	if len(p.Tests) != 1 || p.Tests[0].Name != name {
		t.Errorf("%s: tests are %v", name, p.Tests)
	} else if got := p.Tests[0].Action; got != action {
		t.Errorf("%s: %q, want %q; output:\n%s", name, got, action, p.Output)
	}
}

func checkMachine(t *testing.T, p *vmtest.PackageResult) {
	t.Helper()
	check(t, p, "TestMachine", "pass", "")
	if want := (vmtest.Metric{Name: "answer", Value: 42.5, Unit: "MB/s"}); len(p.Metrics) != 1 || p.Metrics[0] != want {
		t.Errorf("metrics %v, want %v", p.Metrics, want)
	}
}

// TestUML proves that the machine is what tests expect, and that no way to fail in it goes unnoticed.
func TestUML(t *testing.T) {
	t.Parallel()
	vmtest.NeedLane(t, vmtest.UML)
	out := t.TempDir()
	res, err := vmtest.Execute(t.Context(), vmtest.Machine{Lane: vmtest.UML, Out: out, Deadline: 2 * time.Minute},
		job(t, "TestMachine", "TestOrphan", "TestBad", "TestPanic", "TestHang", "TestSilent", "TestRestart", "TestMachine"))
	// User-Mode Linux itself does not always survive its restart; then the machine's deadline ends it.
	if err == nil || !strings.Contains(err.Error(), "it has restarted") && !strings.Contains(err.Error(), "ended before its tests did") {
		t.Errorf("a machine that a test has restarted: %v", err)
	}
	if len(res.Packages) != 8 {
		t.Fatalf("%d packages", len(res.Packages))
	}
	checkMachine(t, res.Packages[0])
	check(t, res.Packages[1], "TestOrphan", "pass", "")
	check(t, res.Packages[2], "TestBad", "fail", "exit code 1")
	check(t, res.Packages[3], "TestPanic", "", "exit code 2")
	check(t, res.Packages[4], "TestHang", "", "exit code 2")
	check(t, res.Packages[5], "TestSilent", "", "no PASS")
	check(t, res.Packages[6], "TestRestart", "", "the machine ended during it")
	if last := res.Packages[7]; last.Err != "was not run" {
		t.Errorf("after the machine's end: %q, %v", last.Err, last.Tests)
	}
	if t.Failed() {
		return
	}
	if sub := res.Packages[2].Tests[0].Sub; len(sub) != 3 || sub[0].Action != "pass" || sub[1].Action != "fail" || sub[2].Action != "skip" ||
		!strings.Contains(sub[1].Output, "as it should") {
		t.Errorf("subtests of TestBad: %+v", sub)
	}
	if got, err := os.ReadFile(filepath.Join(out, "written")); string(got) != "by the guest" {
		t.Errorf("file of the guest: %q, %v", got, err)
	}
	if _, err := os.Stat("testdata/fixture/written"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the guest has reached the host's tree: %v", err)
	}
	t.Logf("boot %v, in all %v", res.Boot, res.Total)
}

// TestUMLDeaf proves that a test binary that stops for nothing is stopped, and the next one runs.
func TestUMLDeaf(t *testing.T) {
	t.Parallel()
	vmtest.NeedLane(t, vmtest.UML)
	j := job(t, "TestDeaf", "TestMachine")
	j.Tests[0].Timeout = time.Second
	j.Tests[0].Args = append(j.Tests[0].Args, "-test.timeout=0")
	res, err := vmtest.Execute(t.Context(), vmtest.Machine{Lane: vmtest.UML}, j)
	if err != nil {
		t.Error(err)
	}
	check(t, res.Packages[0], "TestDeaf", "", "killed after 6s")
	checkMachine(t, res.Packages[1])
}

// TestUMLDeadline proves that a machine ends at its deadline.
func TestUMLDeadline(t *testing.T) {
	t.Parallel()
	vmtest.NeedLane(t, vmtest.UML)
	j := job(t, "TestHang")
	j.Tests[0].Timeout = time.Hour
	res, err := vmtest.Execute(t.Context(), vmtest.Machine{Lane: vmtest.UML, Deadline: 20 * time.Second}, j)
	if err == nil || !strings.Contains(err.Error(), "deadline of 20s") {
		t.Errorf("error %v", err)
	}
	check(t, res.Packages[0], "TestHang", "", "the machine ended during it")
}

// TestAST2600 does the same in short, and that a kernel panic is noticed.
func TestAST2600(t *testing.T) {
	t.Parallel()
	vmtest.NeedLane(t, vmtest.AST2600)
	res, err := vmtest.Execute(t.Context(), vmtest.Machine{Lane: vmtest.AST2600},
		job(t, "TestMachine", "TestBad", "TestOrphan", "TestKernelPanic"))
	if err == nil || !strings.Contains(err.Error(), "Kernel panic") || !strings.Contains(err.Error(), "ended before its tests") {
		t.Errorf("kernel panic: %v", err)
	}
	checkMachine(t, res.Packages[0])
	check(t, res.Packages[1], "TestBad", "fail", "exit code 1")
	check(t, res.Packages[2], "TestOrphan", "pass", "")
	if last := res.Packages[3]; last.Err != "the machine ended during it" {
		t.Errorf("TestKernelPanic: %q; output:\n%s", last.Err, last.Output)
	}
	t.Logf("boot %v, in all %v", res.Boot, res.Total)
}

// TestReport runs a failing guest test in a test process of its own, which must fail with the guest's output.
func TestReport(t *testing.T) {
	t.Parallel()
	if os.Getenv("VMTEST_REPORT") == "1" {
		vmtest.Run(t, vmtest.Machine{Lane: vmtest.UML}, job(t, "TestMachine", "TestBad"))
		return
	}
	vmtest.NeedLane(t, vmtest.UML)
	cmd := exec.Command(os.Args[0], "-test.run=^TestReport$", "-test.v")
	cmd.Env = append(os.Environ(), "VMTEST_REPORT=1")
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("exit: %v", err)
	}
	for _, want := range []string{
		"--- PASS: TestReport/internal/vmtest/testdata/fixture/TestMachine ",
		"--- FAIL: TestReport/internal/vmtest/testdata/fixture#01/TestBad/bad ",
		"--- SKIP: TestReport/internal/vmtest/testdata/fixture#01/TestBad/skipped ",
		"as it should", "for a reason", "METRIC answer 42.5 MB/s",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in the output", want)
		}
	}
	if t.Failed() {
		t.Logf("%s", out)
	}
}
