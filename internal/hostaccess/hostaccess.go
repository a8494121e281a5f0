// SPDX-License-Identifier: Apache-2.0

// Package hostaccess reads and sets the host's access to a DPU's RShim by
// running ncsi-oem, which knows how to reach the NIC. Nothing of that is in
// the daemon: it is another program with other rights.
package hostaccess

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// What the host may do with the RShim. At run time there are Enabled, Locked
// and Unknown alone.
const (
	Unknown  = "unknown"
	Disabled = "disabled" // the host does not see it
	Enabled  = "enabled"
	Locked   = "locked" // the host sees it, and cannot use it
)

// Errors that callers tell apart. Every one reaches the caller in an *OpError.
var (
	// ErrNoTool says that there is no ncsi-oem.
	ErrNoTool = errors.New("ncsi-oem is not installed")
	// ErrNoNIC says that nothing answers to NC-SI where it was looked for.
	ErrNoNIC = errors.New("there is no NIC to ask")
	// ErrRefused says that the NIC has answered, and does not do it.
	ErrRefused = errors.New("the NIC refuses")
	// ErrTimeout says that the NIC, or ncsi-oem, has not answered in time.
	ErrTimeout = fmt.Errorf("the NIC does not answer: %w", os.ErrDeadlineExceeded)
	// ErrAnswer says that ncsi-oem printed what makes no sense.
	ErrAnswer = errors.New("ncsi-oem has given an answer that makes no sense")
)

// OpError is the error of an operation.
type OpError struct {
	Op  string // "get", "set", "runtime set"
	Err error
}

func (e *OpError) Error() string { return "host access: " + e.Op + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *OpError) Unwrap() error { return e.Err }

// DefaultTimeout is of one run of ncsi-oem, which may try three times.
const DefaultTimeout = 20 * time.Second

// Tool is how ncsi-oem is run.
type Tool struct {
	Path    string        // "": ncsi-oem, from PATH
	Args    []string      // how to reach the NIC, such as -if eth0
	Timeout time.Duration // 0: DefaultTimeout
}

// Get asks for the host's access: what counts from the DPU's next reset on, and
// what counts until then. A NIC whose firmware does not know the latter has it
// as Unknown.
func (t *Tool) Get(ctx context.Context) (persistent, runtime string, err error) {
	f, err := t.run(ctx, "get")
	if err == nil && f["persistent"] == "" {
		err = fmt.Errorf("%w: no persistent access in it", ErrAnswer)
	}
	if err != nil {
		return Unknown, Unknown, &OpError{"get", err}
	}
	return mode(f["persistent"]), mode(f["runtime"]), nil
}

// SetPersistent sets what counts from the DPU's next reset on: Disabled,
// Enabled or Locked.
func (t *Tool) SetPersistent(ctx context.Context, to string) error {
	if mode(to) == Unknown {
		return &OpError{"set", fmt.Errorf("no such access: %q", to)}
	}
	args := []string{"set", to}
	if to == Disabled {
		args = append(args, "-yes") // who calls this has been asked
	}
	if _, err := t.run(ctx, args...); err != nil {
		return &OpError{"set", err}
	}
	return nil
}

// SetRuntime sets what counts until the DPU's next reset: Enabled or Locked. It
// returns nil also when the NIC says that it is done and its firmware cannot be
// asked; Get has Unknown then.
func (t *Tool) SetRuntime(ctx context.Context, to string) error {
	if to != Enabled && to != Locked {
		return &OpError{"runtime set", fmt.Errorf("no such access at run time: %q", to)}
	}
	if _, err := t.run(ctx, "runtime", "set", to); err != nil {
		return &OpError{"runtime set", err}
	}
	return nil
}

func mode(s string) string {
	switch s {
	case Disabled, Enabled, Locked:
		return s
	}
	return Unknown
}

// maxOutput is what is kept of what ncsi-oem prints, in bytes.
const maxOutput = 64 << 10

// run runs ncsi-oem and returns the fields of what it has to say.
func (t *Tool) run(ctx context.Context, command ...string) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(t.Timeout, DefaultTimeout))
	defer cancel()
	args := append(append([]string{"-json"}, t.Args...), command...)
	cmd := exec.CommandContext(ctx, cmp.Or(t.Path, "ncsi-oem"), args...)
	var stdout, stderr bounded
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	// A descendant may have the pipes open for longer than it lives.
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("%w: %w", ErrNoTool, err)
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return nil, ErrTimeout
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil && !errors.As(err, &exit):
		return nil, err
	}
	fields, perr := parseJSON(stdout.b)
	if err == nil {
		if perr != nil {
			return nil, fmt.Errorf("%w: %w", ErrAnswer, perr)
		}
		return fields, nil
	}
	return nil, failure(exit.ExitCode(), fields["error"], stderr.b)
}

// bounded keeps the beginning of what is written to it.
type bounded struct{ b []byte }

func (w *bounded) Write(p []byte) (int, error) {
	w.b = append(w.b, p[:min(len(p), maxOutput-len(w.b))]...)
	return len(p), nil
}

// failure is the error of an ncsi-oem that ended with an exit code.
func failure(code int, said string, stderr []byte) error {
	if said == "" {
		line, _, _ := bytes.Cut(bytes.TrimSpace(stderr), []byte("\n"))
		said = strings.TrimPrefix(string(line), "ncsi-oem: ")
	}
	said = printable(said)
	if said == "" {
		said = fmt.Sprintf("ncsi-oem ended with code %d", code)
	}
	if e := exitErrors[code]; e != nil {
		return fmt.Errorf("%w: %s", e, said)
	}
	return errors.New(said)
}

// printable makes a line of what another program has printed.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	return s[:min(len(s), 500)]
}

// exitErrors are the exit codes of ncsi-oem that have an error of their own.
var exitErrors = map[int]error{
	3:  ErrRefused, // the firmware does not know the command
	4:  ErrRefused, // it does not trust this BMC
	5:  ErrTimeout,
	6:  ErrNoNIC,
	7:  ErrRefused, // run-time access is not available now
	9:  os.ErrPermission,
	10: ErrRefused, // what was read back is not what was set
	12: ErrNoNIC,   // there are several, and none was chosen
}
