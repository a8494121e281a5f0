// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
)

// status is what the status command shows. Its JSON names are an interface.
type status struct {
	Device      string      `json:"device"`
	State       string      `json:"state"`
	Reason      string      `json:"reason,omitempty"`
	Name        string      `json:"name"` // as in DEV_NAME
	Generation  string      `json:"generation,omitempty"`
	Revision    int         `json:"revision"`
	OPN         string      `json:"opn,omitempty"`     // part number
	BFMode      string      `json:"bf_mode,omitempty"` // BlueField-3 alone
	BootMode    string      `json:"boot_mode,omitempty"`
	BootTimeout int         `json:"boot_timeout_seconds"`
	USBTimeout  int         `json:"usb_timeout_seconds"`
	Uptime      int         `json:"uptime_seconds,omitempty"` // BlueField-3 alone
	Push        *pushStatus `json:"push,omitempty"`           // not known through the device's files
}

// pushStatus is the last push.
type pushStatus struct {
	Phase   string  `json:"phase"`
	Bytes   int64   `json:"bytes"`
	Seconds float64 `json:"elapsed_seconds"`
	Error   string  `json:"error,omitempty"`
}

func statusCommand(ctx context.Context, e *env, args []string) error {
	var t targetFlags
	fs := flags("status", "", "")
	t.register(fs)
	asJSON := fs.Bool("json", false, "print JSON: an array of devices")
	if err := parse(e, fs, args, 0); err != nil {
		return err
	}
	targets, err := t.all(ctx, e)
	if err != nil {
		return err
	}
	var all []status
	for _, t := range targets {
		defer t.close()
		st, err := t.status(ctx)
		if err != nil {
			return err
		}
		all = append(all, st)
	}
	if *asJSON {
		enc := json.NewEncoder(e.stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(all)
	}
	for i, st := range all {
		if i > 0 {
			fmt.Fprintln(e.stdout)
		}
		st.print(e.stdout)
	}
	return nil
}

// summary is the state in a sentence.
func (s *status) summary() string {
	return strings.TrimSuffix(s.Device+" is "+s.State+": "+s.Reason, ": ")
}

// print prints the status for people.
func (s *status) print(w io.Writer) {
	line := func(key, format string, args ...any) {
		fmt.Fprintf(w, "%-13s"+format+"\n", append([]any{key}, args...)...)
	}
	line("Device", "%s, %s", s.Device, s.Name)
	state := s.State
	if s.Reason != "" {
		state += ": " + s.Reason
	}
	line("State", "%s", state)
	if s.Generation != "" {
		line("Chip", "%s, revision %d", s.Generation, s.Revision)
		line("Part number", "%s", cmp.Or(s.OPN, "unknown"))
		if s.BFMode != "" {
			line("Mode", "%s", s.BFMode)
		}
		line("Boots from", "%s", s.BootMode)
		if s.Uptime > 0 {
			line("Up", "%v", time.Duration(s.Uptime)*time.Second)
		}
	}
	line("Timeouts", "boot %d s, USB %d s", s.BootTimeout, s.USBTimeout)
	if p := s.Push; p != nil {
		line("Last push", "%s, %s in %.1f s", p.Phase, size(p.Bytes), p.Seconds)
		if p.Error != "" {
			line("", "%s", p.Error)
		}
	}
}

// misc is the text of /dev/rshimN/misc, taken apart.
type misc struct {
	values map[string]string // of the lines KEY VALUE...
	log    []string          // lines of the boot log
}

// logTitle is the line after which, and a line of dashes, misc has the boot log.
const logTitle = "Log Messages"

func parseMisc(text string) misc {
	m := misc{values: make(map[string]string)}
	titled, inLog := false, false
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case inLog:
			m.log = append(m.log, line)
		case strings.TrimSpace(line) == logTitle:
			titled = true
		case strings.HasPrefix(line, "---"):
			inLog = titled
		default:
			key, value, _ := strings.Cut(line, " ")
			m.values[key] = strings.TrimSpace(value)
		}
	}
	return m
}

// number is the number that a value begins with, 0 if there is none.
func (m misc) number(key string) (n int) {
	_, _ = fmt.Sscan(m.values[key], &n)
	return n
}

// status is what misc tells about a device.
func (m misc) status(device string) status {
	s := status{
		Device: device, State: "attached", Name: m.values["DEV_NAME"],
		BFMode: m.values["BF_MODE"], BootTimeout: m.number("BOOT_TIMEOUT"),
		USBTimeout: m.number("USB_TIMEOUT"), Uptime: m.number("UP_TIME"),
	}
	chip, ok := m.values["DEV_INFO"]
	switch {
	case !ok:
		s.State = "gone"
		return s
	case m.number("DROP_MODE") != 0:
		s.State = "contended"
	}
	s.Generation, chip, _ = strings.Cut(chip, "(Rev ")
	_, _ = fmt.Sscan(strings.TrimSuffix(chip, ")"), &s.Revision)
	if opn := m.values["OPN_STR"]; opn != "N/A" {
		s.OPN = opn
	}
	if i := m.number("BOOT_MODE"); i >= 0 && i < len(bootModes) {
		s.BootMode = bootModes[i]
	}
	return s
}

// bootModes are the values of BOOT_MODE.
var bootModes = [...]string{"rshim", "emmc", "emmc-boot-swap", "emmc-legacy"}

func seconds(d time.Duration) float64 {
	return float64(d.Round(time.Millisecond)) / float64(time.Second)
}

// size is a number of bytes for people.
func size(n int64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}
