// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/bluefield-go/bmc-rshim/internal/vmtest/guest"
)

// Result is what is known of a machine's run.
type Result struct {
	Boot     time.Duration // kernel start to init ready, by the guest's clock
	Total    time.Duration // start to end of the machine, by the host's clock
	Console  string
	Packages []*PackageResult
}

// PackageResult is how the tests of one Package went.
type PackageResult struct {
	Path    string
	Err     string // why the package fails, beyond the tests that fail
	Output  string // all of it
	Elapsed time.Duration
	Tests   []*TestResult // the top-level tests
	Metrics []Metric

	raw    bytes.Buffer // output with the marks of -test.v=test2json
	state  guest.Kind   // Start or Exit; "" before
	passed bool         // exit code 0
}

// TestResult is how one test went.
type TestResult struct {
	Name   string // the last element: "bf2" of TestPush/bf2
	Action string // "pass", "fail", "skip"; "" if the test did not come to its end
	Output string
	Sub    []*TestResult
}

// Metric is a measurement that a test reported with guest.Metric.
type Metric struct {
	Name  string
	Value float64
	Unit  string
}

func newResult(job Job) *Result {
	res := &Result{}
	for _, p := range job.Tests {
		res.Packages = append(res.Packages, &PackageResult{Path: p.Path})
	}
	return res
}

// follow reads the machine's console and events until it ends.
func (r *Result) follow(ctx context.Context, p *machineProcess, deadline time.Duration, log io.Writer) error {
	begin := time.Now()
	defer p.kill()
	// The guest keeps the deadline too, and tells more when it does.
	ctx, cancel := context.WithTimeoutCause(ctx, deadline+15*time.Second, fmt.Errorf("no end after %v", deadline))
	defer cancel()

	done := make(chan struct{}) // all runs ended
	var events error
	var console bytes.Buffer
	var wg sync.WaitGroup
	wg.Go(func() { io.Copy(&console, p.console) })
	wg.Go(func() { events = r.readEvents(p.events, done, log) })

	var ended error
	select {
	case <-p.exited:
	case <-done:
		select { // give the machine a moment to power off
		case <-p.exited:
		case <-time.After(10 * time.Second):
		}
	case <-ctx.Done():
		ended = context.Cause(ctx)
	}
	p.kill()
	wg.Wait()
	p.console.Close()
	p.events.Close()
	r.Total = time.Since(begin)
	r.Console = strings.ReplaceAll(console.String(), "\r", "")
	for _, pkg := range r.Packages {
		pkg.finish()
	}
	err := errors.Join(ended, events, kernelTrouble(r.Console))
	if err != nil {
		return fmt.Errorf("vmtest: the machine failed: %w\nlast lines of its console:\n%s", err, tail(r.Console, 60))
	}
	return nil
}

// readEvents takes the guest's events in and closes done when the guest says that it is through.
func (r *Result) readEvents(from io.Reader, done chan<- struct{}, log io.Writer) error {
	lines := bufio.NewReader(from)
	finished := false
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) && len(line) == 0 {
			if !finished {
				return errors.New("it ended before its tests did")
			}
			return nil
		}
		var e guest.Event
		if err := json.Unmarshal(line, &e); err != nil {
			return fmt.Errorf("event %q: %w", line, err)
		}
		switch e.Kind {
		case guest.Boot:
			r.Boot = e.Elapsed
			continue
		case guest.Failed:
			return errors.New(e.Text)
		case guest.Done:
			if !finished {
				finished = true
				close(done)
			}
			continue
		}
		if e.Run < 0 || e.Run >= len(r.Packages) {
			return fmt.Errorf("event of run %d, which does not exist", e.Run)
		}
		r.Packages[e.Run].event(e, log)
	}
}

func (p *PackageResult) event(e guest.Event, log io.Writer) {
	switch e.Kind {
	case guest.Start:
		p.state = guest.Start
		fmt.Fprintf(log, "=== %s\n", p.Path)
	case guest.Output:
		p.raw.Write(e.Data)
		log.Write(bytes.ReplaceAll(e.Data, []byte{testMark}, nil))
	case guest.Exit:
		p.state, p.Elapsed, p.passed = guest.Exit, e.Elapsed, e.Code == 0 && e.Text == ""
		switch {
		case e.Text != "":
			p.Err = e.Text
		case e.Code != 0:
			p.Err = "exit code " + strconv.Itoa(e.Code)
		}
	}
}

// testMark starts the lines that -test.v=test2json marks for the converter.
const testMark = 0x16

// finish turns the raw output into tests and decides whether the package has given its verdict.
func (p *PackageResult) finish() {
	raw := p.raw.Bytes()
	p.Output = string(bytes.ReplaceAll(raw, []byte{testMark}, nil))
	switch {
	case p.state == "":
		p.Err = "was not run"
		return
	case p.state == guest.Start:
		p.Err = "the machine ended during it"
	case p.passed && !strings.Contains("\n"+p.Output, "\nPASS\n"):
		p.Err = "exit code 0, but no PASS"
	}
	p.Metrics = parseMetrics(p.Output)
	cmd := exec.Command("go", "tool", "test2json")
	cmd.Stdin = bytes.NewReader(raw)
	out, err := cmd.Output()
	if err == nil {
		p.Tests, err = parseTests(out)
	}
	if err != nil {
		p.Err = fmt.Sprintf("go tool test2json: %v", err)
	}
}

// parseTests reads the output of test2json.
func parseTests(events []byte) ([]*TestResult, error) {
	root := &TestResult{}
	dec := json.NewDecoder(bytes.NewReader(events))
	for {
		var e struct{ Action, Test, Output string }
		if err := dec.Decode(&e); errors.Is(err, io.EOF) {
			return root.Sub, nil
		} else if err != nil {
			return nil, err
		}
		if e.Test == "" {
			continue
		}
		t := root
		for name := range strings.SplitSeq(e.Test, "/") {
			t = t.sub(name)
		}
		switch e.Action {
		case "output":
			t.Output += e.Output
		case "pass", "fail", "skip":
			t.Action = e.Action
		}
	}
}

func (t *TestResult) sub(name string) *TestResult {
	for _, s := range t.Sub {
		if s.Name == name {
			return s
		}
	}
	s := &TestResult{Name: name}
	t.Sub = append(t.Sub, s)
	return s
}

// parseMetrics reads the lines that guest.Metric writes.
func parseMetrics(output string) []Metric {
	var ms []Metric
	for line := range strings.Lines(output) {
		f := strings.Fields(line)
		if len(f) != 4 || f[0]+" " != guest.MetricPrefix {
			continue
		}
		if v, err := strconv.ParseFloat(f[2], 64); err == nil {
			ms = append(ms, Metric{Name: f[1], Value: v, Unit: f[3]})
		}
	}
	return ms
}
