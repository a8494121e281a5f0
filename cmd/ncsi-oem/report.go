// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/bluefield-go/bmc-rshim/ncsi"
	"github.com/bluefield-go/bmc-rshim/ncsi/oem"
)

// report is what a command has to say. Its JSON names are an interface.
type report struct {
	Command   string `json:"command,omitempty"`   // its words
	Transport string `json:"transport,omitempty"` // "netlink", "mctp", "i2c"
	Device    string `json:"device,omitempty"`    // as -if, -mctp and -i2c take it
	Package   *int   `json:"package,omitempty"`
	Channel   *int   `json:"channel,omitempty"` // 31: the whole package
	Chosen    string `json:"chosen,omitempty"`  // why this device and package, if the command line left it open

	Persistent   string `json:"persistent,omitempty"`    // "disabled", "enabled", "locked"
	Runtime      string `json:"runtime,omitempty"`       // "enabled", "locked"
	RuntimeError string `json:"runtime_error,omitempty"` // why get could not tell: "unavailable", "unsupported"
	TakesEffect  string `json:"takes_effect,omitempty"`  // of what was set: "dpu-reboot", "now"
	LastsUntil   string `json:"lasts_until,omitempty"`   // of what was set: "dpu-reset"; otherwise it stays
	ReadBack     *bool  `json:"read_back,omitempty"`     // of what was set: false if the firmware can set it and not tell it

	Version  string          `json:"version,omitempty"` // of ncsi-oem, for -version
	Packages []packageReport `json:"packages,omitempty"`
	Data     *string         `json:"data,omitempty"` // raw's response behind what it repeats of the command, in hexadecimal

	ResponseCode *uint16 `json:"response_code,omitempty"` // of a command that the NIC refused
	ReasonCode   *uint16 `json:"reason_code,omitempty"`
	Error        string  `json:"error,omitempty"`
	ExitCode     int     `json:"exit_code"`

	text strings.Builder // the same for people
}

// packageReport is a package that can be reached.
type packageReport struct {
	Transport string          `json:"transport"`
	Device    string          `json:"device"`
	Package   int             `json:"package"`
	Channels  []channelReport `json:"channels,omitempty"` // netlink alone
	Answer    string          `json:"answer,omitempty"`   // to a get, where the kernel has no list: "command completed", or why not
}

type channelReport struct {
	Channel  int    `json:"channel"`
	Version  string `json:"ncsi_version"`
	Firmware string `json:"firmware"`
	LinkUp   bool   `json:"link_up"`
	Active   bool   `json:"active"`
}

// line adds a line for people.
func (r *report) line(format string, args ...any) {
	fmt.Fprintf(&r.text, format+"\n", args...)
}

// on notes which package the command is about.
func (r *report) on(t *target) {
	pkg, channel := t.channel.Package(), t.channel.Channel()
	r.Transport, r.Device, r.Package, r.Channel, r.Chosen = t.address.transport, t.address.String(), &pkg, &channel, t.chosen
}

// fail notes an error, and the codes of the NIC if it is a refusal.
func (r *report) fail(err error) {
	r.Error = oneLine(err.Error())
	if s, ok := errors.AsType[*ncsi.StatusError](err); ok {
		code, reason := uint16(s.Code), uint16(s.Reason)
		r.ResponseCode, r.ReasonCode = &code, &reason
	}
}

// oneLine is a text without line breaks, which errors.Join puts into it.
func oneLine(s string) string { return strings.ReplaceAll(s, "\n", "; ") }

// print prints the report.
func (r *report) print(w io.Writer, asJSON bool) error {
	if !asJSON {
		_, err := io.WriteString(w, r.text.String())
		return err
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

// What the states mean for the host.
var (
	hostMeanings = map[oem.HostAccess]string{
		oem.Disabled: "the host has no RShim",
		oem.Enabled:  "the host has its RShim",
		oem.Locked:   "the host sees its RShim, and cannot use it",
	}
	runtimeMeanings = map[oem.RuntimeAccess]string{
		oem.RuntimeEnabled: "the host can use its RShim",
		oem.RuntimeLocked:  "the host sees its RShim, and cannot use it",
	}
)
