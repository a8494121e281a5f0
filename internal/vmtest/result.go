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
	"regexp"
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

	Elapsed time.Duration // as the test's own process measured it; 0 if it was not told
}

// Metric is a measurement that a test reported with guest.Metric.
type Metric struct {
	Name  string
	Value float64
	Unit  string
}

func newResult(tests []Package) *Result {
	r := &Result{}
	for _, p := range tests {
		r.Packages = append(r.Packages, &PackageResult{Path: p.Path})
	}
	return r
}

// follow reads the machine's console and events until it ends.
func (r *Result) follow(ctx context.Context, p *machineProcess, deadline time.Duration, log io.Writer) error {
	begin := time.Now()
	defer p.kill()
	// The guest keeps the deadline too, and tells more when it does.
	ctx, cancel := context.WithTimeoutCause(ctx, deadline+15*time.Second, fmt.Errorf("no end after %v", deadline))
	defer cancel()

	var console bytes.Buffer
	var events error
	done := make(chan struct{}) // the guest has nothing more to say
	var wg sync.WaitGroup
	wg.Go(func() { io.Copy(&console, p.console) })
	wg.Go(func() {
		events = r.readEvents(p.events, log)
		close(done)
		io.Copy(io.Discard, p.events)
	})

	var ended error
	select {
	case <-p.exited:
	case <-done:
		select { // it powers itself off
		case <-p.exited:
		case <-time.After(3 * time.Second):
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

// readEvents takes the guest's events in until it says that it is through.
func (r *Result) readEvents(from io.Reader, log io.Writer) error {
	lines := bufio.NewReader(from)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return fmt.Errorf("it ended before its tests did (%w)", err)
		}
		var e guest.Event
		if err := json.Unmarshal(line, &e); err != nil {
			return fmt.Errorf("event %q: %w", line, err)
		}
		switch e.Kind {
		case guest.Boot:
			if r.Boot != 0 { // and would for ever: User-Mode Linux starts itself again
				return errors.New("it has restarted before its tests ended")
			}
			r.Boot = e.Elapsed
		case guest.Failed:
			return errors.New(e.Text)
		case guest.Done:
			return nil
		default:
			if e.Run < 0 || e.Run >= len(r.Packages) {
				return fmt.Errorf("event of run %d, which does not exist", e.Run)
			}
			r.Packages[e.Run].event(e, log)
		}
	}
}

func (p *PackageResult) event(e guest.Event, log io.Writer) {
	switch e.Kind {
	case guest.Start:
		p.state = guest.Start
		fmt.Fprintf(log, "=== %s\n", p.Path)
	case guest.Output:
		p.raw.Write(e.Data)
		io.WriteString(log, plain(e.Data))
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

// plain removes what -test.v=test2json adds to the output for the converter.
func plain(output []byte) string {
	return strings.NewReplacer("\x16=== NAME  \n", "", "\x16", "").Replace(string(output))
}

// finish turns the raw output into tests and decides whether the package has given its verdict.
func (p *PackageResult) finish() {
	raw := p.raw.Bytes()
	p.Output = plain(raw)
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
	cmd := exec.Command("go", "tool", "test2json", "-t") // -t: how long each has taken
	cmd.Stdin = bytes.NewReader(raw)
	out, err := cmd.Output()
	if err == nil {
		p.Tests, err = parseTests(out)
	}
	if err != nil {
		p.Err = fmt.Sprintf("go tool test2json: %v", err)
	}
}

// framing is what package testing prints around a test's own output.
var framing = regexp.MustCompile(`^(=== (RUN|PAUSE|CONT|NAME) | *--- (PASS|FAIL|SKIP): )`)

// parseTests reads the output of test2json.
func parseTests(events []byte) ([]*TestResult, error) {
	root := &TestResult{}
	dec := json.NewDecoder(bytes.NewReader(events))
	for {
		var e struct {
			Action, Test, Output string
			Elapsed              float64 // seconds
		}
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
			if !framing.MatchString(e.Output) {
				t.Output += e.Output
			}
		case "pass", "fail", "skip":
			t.Action, t.Elapsed = e.Action, time.Duration(e.Elapsed*float64(time.Second))
		case "bench":
			t.Output += e.Output
			t.Action = "pass"
		}
	}
}

func (r *TestResult) sub(name string) *TestResult {
	for _, s := range r.Sub {
		if s.Name == name {
			return s
		}
	}
	s := &TestResult{Name: name}
	r.Sub = append(r.Sub, s)
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
