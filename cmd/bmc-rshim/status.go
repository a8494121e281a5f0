// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bluefield-go/bmc-rshim/dbus/client"
)

// status is what the status command shows.
type status struct {
	Device      string
	State       string
	Reason      string
	Name        string // as in DEV_NAME
	Generation  string
	Revision    int
	OPN         string // part number
	BFMode      string // BlueField-3 alone
	BootMode    string
	Limits      bool // the two time limits are known
	BootTimeout int  // seconds
	USBTimeout  int  // seconds
	Uptime      int  // seconds; BlueField-3 alone
	// What the device's files do not tell.
	Owner  string // bmc, other, none
	Stage  string // what the DPU is doing
	Since  time.Time
	Push   *pushStatus
	Counts map[string]uint64
}

func (s status) json(o *object) {
	o.text("device", s.Device)
	o.text("state", s.State)
	o.some("reason", s.Reason)
	o.text("name", s.Name)
	if s.Generation != "" {
		o.text("generation", s.Generation)
		o.int("revision", int64(s.Revision))
	}
	o.some("opn", s.OPN)
	o.some("bf_mode", s.BFMode)
	o.some("boot_mode", s.BootMode)
	if s.Limits {
		o.int("boot_timeout_seconds", int64(s.BootTimeout))
		o.int("usb_timeout_seconds", int64(s.USBTimeout))
	}
	o.count("uptime_seconds", int64(s.Uptime))
	o.some("owner", s.Owner)
	o.some("stage", s.Stage)
	if !s.Since.IsZero() {
		o.text("attached_since", s.Since.UTC().Format(time.RFC3339))
	}
	if s.Push != nil {
		o.object("push", s.Push)
	}
	if len(s.Counts) > 0 {
		o.object("counters", fields(func(o *object) {
			for _, k := range slices.Sorted(maps.Keys(s.Counts)) {
				o.name(k)
				o.b = strconv.AppendUint(o.b, s.Counts[k], 10)
			}
		}))
	}
}

// pushStatus is the last push.
type pushStatus struct {
	Path    string // on D-Bus
	Phase   string
	Outcome string // when it has ended
	Bytes   int64
	Seconds float64
	Error   string
}

func (p *pushStatus) json(o *object) {
	o.some("path", p.Path)
	o.text("phase", p.Phase)
	o.some("outcome", p.Outcome)
	o.int("bytes", p.Bytes)
	o.float("elapsed_seconds", p.Seconds)
	o.some("error", p.Error)
}

func statusCommand(ctx context.Context, e *env, args []string) error {
	var t targetFlags
	f := flags("status", "", "")
	t.register(f)
	asJSON := f.Bool("json", false, "print JSON: an array of devices")
	if err := parse(e, f, args, 0); err != nil {
		return err
	}
	targets, err := t.all(ctx, e)
	if err != nil {
		return err
	}
	var all []status
	var failed error
	for _, t := range targets {
		defer t.close()
		st, err := t.status(ctx)
		if err == nil {
			all = append(all, st)
		} else if failed == nil || !vanished(err) {
			failed = err
		}
	}
	if vanished(failed) && len(all) > 0 { // after the devices had been listed
		failed = nil
	}
	if failed != nil && len(all) == 0 {
		return unavailable(failed)
	}
	if *asJSON {
		if err := printList(e.stdout, all); err != nil {
			return err
		}
		return unavailable(failed)
	}
	for i, st := range all {
		if i > 0 {
			fmt.Fprintln(e.stdout)
		}
		st.print(e.stdout)
	}
	return unavailable(failed)
}

// vanished reports whether an error is that of a device that is no more.
func vanished(err error) bool {
	return errors.Is(err, client.ErrNotFound) || errors.Is(err, fs.ErrNotExist)
}

// summary is the state in a sentence.
func (s *status) summary() string {
	return strings.TrimSuffix(s.Device+" is "+s.State+": "+s.Reason, ": ")
}

// print prints the status for people.
func (s *status) print(w io.Writer) {
	line(w, "Device", "%s", strings.TrimSuffix(s.Device+", "+s.Name, ", "))
	state := s.State
	if s.Reason != "" {
		state += ": " + s.Reason
	}
	line(w, "State", "%s", state)
	if s.Owner == "other" {
		line(w, "Owner", "another: the host, or another backend")
	}
	if s.Generation != "" {
		line(w, "Chip", "%s, revision %d", s.Generation, s.Revision)
		line(w, "Part number", "%s", cmp.Or(s.OPN, "unknown"))
		if s.BFMode != "" {
			line(w, "Mode", "%s", s.BFMode)
		}
		line(w, "Boots from", "%s", cmp.Or(s.BootMode, "unknown"))
		if s.Stage != "" {
			line(w, "Doing", "%s", s.Stage)
		}
		if s.Uptime > 0 {
			line(w, "Up", "%v", time.Duration(s.Uptime)*time.Second)
		}
	}
	if s.Limits {
		line(w, "Timeouts", "boot %d s, USB %d s", s.BootTimeout, s.USBTimeout)
	}
	if p := s.Push; p != nil {
		line(w, "Last push", "%s, %s in %.1f s", cmp.Or(p.Outcome, p.Phase), size(p.Bytes), p.Seconds)
		if p.Error != "" {
			line(w, "", "%s", p.Error)
		}
	}
}

//go:noinline
func line(w io.Writer, key, format string, args ...any) {
	fmt.Fprintf(w, "%-13s"+format+"\n", append([]any{key}, args...)...)
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
func (m misc) number(key string) int { return leading(m.values[key]) }

// leading is the number that a text begins with, 0 if there is none. The
// fmt.Sscan for it would be 30 KiB of the program.
func leading(s string) int {
	end := 0
	for end < len(s) && (s[end] >= '0' && s[end] <= '9' || end == 0 && s[end] == '-') {
		end++
	}
	n, err := strconv.Atoi(s[:end])
	if err != nil {
		return 0
	}
	return n
}

// status is what misc tells about a device.
func (m misc) status(device string) status {
	s := status{
		Device: device, State: "attached", Name: m.values["DEV_NAME"],
		BFMode: m.values["BF_MODE"], Uptime: m.number("UP_TIME"),
	}
	s.limits(m)
	chip, ok := m.values["DEV_INFO"]
	switch {
	case !ok:
		s.State = "gone"
		return s
	case m.number("DROP_MODE") != 0:
		s.State = "contended"
	}
	s.Generation, chip, _ = strings.Cut(chip, "(Rev ")
	s.Revision = leading(chip)
	if opn := m.values["OPN_STR"]; opn != "N/A" {
		s.OPN = opn
	}
	if i := m.number("BOOT_MODE"); i >= 0 && i < len(bootModes) {
		s.BootMode = bootModes[i]
	}
	return s
}

// limits takes the time limits from misc.
func (s *status) limits(m misc) {
	_, boot := m.values["BOOT_TIMEOUT"]
	_, usb := m.values["USB_TIMEOUT"]
	s.Limits, s.BootTimeout, s.USBTimeout = boot && usb, m.number("BOOT_TIMEOUT"), m.number("USB_TIMEOUT")
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
