// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/bluefield-go/bmc-rshim/internal/hostaccess"
)

// recoverState is what a recovery of a device has done, for the one that goes on.
type recoverState struct {
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

func stateDir() string { return cmp.Or(os.Getenv("BMC_RSHIM_STATE"), defaultStateDir) }

// statePath is the file for a device.
func statePath(device string) string { return filepath.Join(stateDir(), "recover-"+device) }

// hostPath is the file with the access at run time that the host had before a
// recovery locked it out. It is one for all devices, as their NIC is.
func hostPath() string { return statePath("host") }

// statePaths are the files of all devices that have one.
func statePaths() []string {
	names, _ := filepath.Glob(statePath("rshim*"))
	return names
}

// imageID tells apart what may be pushed: by where the files are, how big and
// how old they are.
func imageID(names ...string) string {
	var ids []string
	for _, name := range names {
		ids = append(ids, fileID(name))
	}
	return strings.Join(ids, "\n")
}

func fileID(name string) string {
	if name == "" || name == "-" {
		return name
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

// save writes the file.
func (s *recoverState) save(name string) error {
	return writeState(name, [][2]string{
		{"image", s.Image}, {"push", s.Push},
		{"started", strconv.FormatInt(s.Started, 10)}, {"done", strconv.FormatBool(s.Done)},
	})
}

// writeState writes keys with their values to a file, so that there is never half
// of one.
func writeState(name string, said [][2]string) error {
	dir := filepath.Dir(name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".recover-*")
	if err != nil {
		return err
	}
	text := stateTitle + "\n"
	for _, kv := range said {
		text += kv[0] + " " + strconv.Quote(kv[1]) + "\n"
	}
	if _, err = f.WriteString(text); err == nil {
		err = f.Sync() // the directory may be on a disk
	}
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

// loadState reads the file of a device; there reports whether there is one.
func loadState(name string) (s recoverState, there bool, err error) {
	there, err = readState(name, func(key, value string) (err error) {
		switch key {
		case "image":
			s.Image = value
		case "push":
			s.Push = value
		case "started":
			s.Started, err = strconv.ParseInt(value, 10, 64)
		case "done":
			s.Done, err = strconv.ParseBool(value)
		}
		return err
	})
	return s, there, err
}

// saveHost writes down what the host had.
func saveHost(was string) error { return writeState(hostPath(), [][2]string{{"host", was}}) }

// loadHost reads what the host had; "" if no recovery has changed it.
func loadHost() (was string, err error) {
	there, err := readState(hostPath(), func(key, value string) error {
		if key == "host" {
			was = value
		}
		return nil
	})
	if err == nil && there && was != hostaccess.Enabled && was != hostaccess.Locked {
		err = badState(hostPath(), fmt.Errorf("%w: the host's access is %q", errState, was))
	}
	return was, err
}

var errState = errors.New("not the state of a recovery")

// badState is the error of a file that is no good, which whoever made it so has
// to decide about.
func badState(name string, err error) error {
	return fmt.Errorf("the state of an interrupted recovery is not usable: %s: %w; remove the file, and see what bmc-rshim host-access says of the host", name, err)
}

// readState reads a file and has take take what it says.
func readState(name string, take func(key, value string) error) (there bool, err error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("whether a recovery was interrupted cannot be known: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxState))
	if err == nil {
		err = parseState(string(b), take)
	}
	if err != nil {
		return true, badState(name, err)
	}
	return true, nil
}

func parseState(text string, take func(key, value string) error) error {
	title, rest, _ := strings.Cut(text, "\n")
	if title != stateTitle {
		return errState
	}
	for line := range strings.Lines(rest) {
		key, quoted, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		value, err := strconv.Unquote(quoted)
		if err == nil {
			err = take(key, value)
		}
		if err != nil {
			return fmt.Errorf("%w: %q", errState, line)
		}
	}
	return nil
}

func removeState(name string) error {
	err := os.Remove(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
