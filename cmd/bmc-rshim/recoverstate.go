// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/bluefield-go/bmc-rshim/internal/hostaccess"
)

// recoverState is what a recovery has done, for the one that goes on.
type recoverState struct {
	Host    string // the host's access at run time before it was locked out; "": it was not
	Image   string // imageID of what was pushed
	Push    string // path of the push
	Started int64  // when that began, us since the Epoch
	Done    bool   // it has ended well
}

const (
	defaultStateDir = "/run/bmc-rshim"
	stateTitle      = "bmc-rshim recover 1"
	maxState        = 64 << 10 // bytes
)

// statePath is the file for a device.
func statePath(device string) string {
	return filepath.Join(cmp.Or(os.Getenv("BMC_RSHIM_STATE"), defaultStateDir), "recover-"+device)
}

// imageID tells images apart: by where they are, how big and how old they are.
func imageID(name string) string {
	if name == "-" {
		return "-"
	}
	abs, err := filepath.Abs(name)
	if err != nil {
		return name
	}
	st, err := os.Stat(abs)
	if err != nil {
		return abs
	}
	return fmt.Sprintf("%s %d %d", abs, st.Size(), st.ModTime().UnixNano())
}

// save writes the file, so that there is never half of one.
func (s *recoverState) save(name string) error {
	dir := filepath.Dir(name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".recover-*")
	if err != nil {
		return err
	}
	text := stateTitle + "\n" +
		"host " + strconv.Quote(s.Host) + "\n" +
		"image " + strconv.Quote(s.Image) + "\n" +
		"push " + strconv.Quote(s.Push) + "\n" +
		"started " + strconv.Quote(strconv.FormatInt(s.Started, 10)) + "\n" +
		"done " + strconv.Quote(strconv.FormatBool(s.Done)) + "\n"
	_, err = f.WriteString(text)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// loadState reads the file.
func loadState(name string) (s recoverState, err error) {
	f, err := os.Open(name)
	if err != nil {
		return s, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxState))
	if err != nil {
		return s, err
	}
	if s, err = parseState(string(b)); err != nil {
		err = fmt.Errorf("%s: %w", name, err)
	}
	return s, err
}

var errState = errors.New("not the state of a recovery")

func parseState(text string) (s recoverState, err error) {
	title, rest, _ := strings.Cut(text, "\n")
	if title != stateTitle {
		return s, errState
	}
	for line := range strings.Lines(rest) {
		key, quoted, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		value, err := strconv.Unquote(quoted)
		if err != nil {
			return s, fmt.Errorf("%w: %q", errState, line)
		}
		switch key {
		case "host":
			if value != "" && value != hostaccess.Enabled && value != hostaccess.Locked {
				err = errState
			}
			s.Host = value
		case "image":
			s.Image = value
		case "push":
			s.Push = value
		case "started":
			s.Started, err = strconv.ParseInt(value, 10, 64)
		case "done":
			s.Done, err = strconv.ParseBool(value)
		}
		if err != nil {
			return s, fmt.Errorf("%w: %q", errState, line)
		}
	}
	return s, nil
}

func removeState(name string) error {
	err := os.Remove(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
