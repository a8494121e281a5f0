// SPDX-License-Identifier: Apache-2.0

package simncsi

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// The remote control is lines of text: "nic NUMBER VERB [JSON]", answered by
// "nic NUMBER ok [JSON]" or "nic NUMBER error TEXT" with the same number. Any
// other line is ignored, so that the line may be a terminal that echoes, and
// have a kernel's messages on it.
const remotePrefix = "nic"

// maxLine is how long a line may be, in bytes.
const maxLine = 64 << 10

// ServeControl does what a Remote at the other end of rw asks. It returns nil at
// the end of rw; to end it before, close rw.
func ServeControl(c Control, rw io.ReadWriter) error {
	s := bufio.NewScanner(rw)
	s.Buffer(nil, maxLine)
	for s.Scan() {
		number, verb, args, ok := cutLine(s.Text())
		if !ok || verb == "ok" || verb == "error" {
			continue
		}
		answer := "ok"
		if result, err := obey(c, verb, args); err != nil {
			answer = "error " + strings.ReplaceAll(err.Error(), "\n", " ")
		} else if result != "" {
			answer += " " + result
		}
		if _, err := fmt.Fprintf(rw, "%s %s %s\n", remotePrefix, number, answer); err != nil {
			return err
		}
	}
	return s.Err()
}

// cutLine takes a line of the protocol apart.
func cutLine(line string) (number, verb, args string, ok bool) {
	f := strings.SplitN(strings.TrimSpace(line), " ", 4)
	if len(f) < 3 || f[0] != remotePrefix {
		return "", "", "", false
	}
	if len(f) == 4 {
		args = f[3]
	}
	return f[1], f[2], args, true
}

func obey(c Control, verb, args string) (string, error) {
	switch verb {
	case "state":
		s, err := c.State()
		if err != nil {
			return "", err
		}
		b, err := json.Marshal(s)
		return string(b), err
	case "set":
		var s State
		if err := json.Unmarshal([]byte(args), &s); err != nil {
			return "", err
		}
		return "", c.SetState(s)
	case "inject":
		var f Fault
		if err := json.Unmarshal([]byte(args), &f); err != nil {
			return "", err
		}
		if err := f.check(); err != nil {
			return "", err
		}
		return "", c.Inject(f)
	case "clear":
		return "", c.Clear()
	case "uninitialise":
		return "", c.Uninitialise()
	case "reboot":
		return "", c.Reboot()
	}
	return "", fmt.Errorf("unknown verb %q", verb)
}

// remoteTimeout is how long a Remote waits for an answer, where its line has
// deadlines.
const remoteTimeout = 30 * time.Second

// Remote is the Control of a NIC at the other end of a line. It is for one
// goroutine at a time.
type Remote struct {
	rw     io.ReadWriter
	r      *bufio.Reader
	number int
}

var _ Control = (*Remote)(nil)

// NewRemote returns a Remote for a line with ServeControl at its other end. If
// rw has a method SetDeadline that works, as files and connections have, no
// call takes longer than 30 s.
func NewRemote(rw io.ReadWriter) *Remote {
	return &Remote{rw: rw, r: bufio.NewReaderSize(rw, maxLine)}
}

func (r *Remote) call(verb string, args any) (string, error) {
	answer, err := r.exchange(verb, args)
	if err != nil {
		return "", fmt.Errorf("remote NIC: %s: %w", verb, err)
	}
	return answer, nil
}

func (r *Remote) exchange(verb string, args any) (string, error) {
	r.number++
	line := fmt.Sprintf("%s %d %s", remotePrefix, r.number, verb)
	if args != nil {
		b, err := json.Marshal(args)
		if err != nil {
			return "", err
		}
		line += " " + string(b)
	}
	if d, ok := r.rw.(interface{ SetDeadline(time.Time) error }); ok {
		// Some files have none, and then there is none.
		if d.SetDeadline(time.Now().Add(remoteTimeout)) == nil {
			defer d.SetDeadline(time.Time{})
		}
	}
	if _, err := io.WriteString(r.rw, line+"\n"); err != nil {
		return "", err
	}
	for {
		line, err := r.r.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			continue // noise
		}
		if err != nil {
			return "", err
		}
		number, verdict, text, ok := cutLine(string(line))
		if !ok || number != fmt.Sprint(r.number) {
			continue
		}
		switch verdict {
		case "ok":
			return text, nil
		case "error":
			return "", errors.New(text)
		}
	}
}

// State implements Control.
func (r *Remote) State() (s State, err error) {
	text, err := r.call("state", nil)
	if err != nil {
		return State{}, err
	}
	err = json.Unmarshal([]byte(text), &s)
	return s, err
}

// SetState implements Control.
func (r *Remote) SetState(s State) error {
	_, err := r.call("set", s)
	return err
}

// Inject implements Control.
func (r *Remote) Inject(f Fault) error {
	_, err := r.call("inject", f)
	return err
}

// Clear implements Control.
func (r *Remote) Clear() error {
	_, err := r.call("clear", nil)
	return err
}

// Uninitialise implements Control.
func (r *Remote) Uninitialise() error {
	_, err := r.call("uninitialise", nil)
	return err
}

// Reboot implements Control.
func (r *Remote) Reboot() error {
	_, err := r.call("reboot", nil)
	return err
}
