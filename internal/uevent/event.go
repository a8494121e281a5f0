// SPDX-License-Identifier: Apache-2.0

package uevent

import (
	"errors"
	"strings"
)

// Event is one uevent of the kernel.
type Event struct {
	Action string            // "add", "remove", "change", "bind", ...
	Path   string            // of the device below /sys
	Env    map[string]string // SUBSYSTEM, DEVTYPE, SEQNUM and what the subsystem adds
}

// Subsystem returns what the event is about, such as "usb".
func (e Event) Subsystem() string { return e.Env["SUBSYSTEM"] }

var errFormat = errors.New("no uevent")

// parse decodes "ACTION@DEVPATH\0KEY=VALUE\0...", as kobject_uevent_env in
// lib/kobject_uevent.c of the kernel makes it. What is no KEY=VALUE is passed
// over; of a key that comes twice the first counts.
func parse(b []byte) (Event, error) {
	head, rest, _ := strings.Cut(string(b), "\x00")
	action, path, ok := strings.Cut(head, "@")
	if !ok || action == "" || !strings.HasPrefix(path, "/") {
		return Event{}, errFormat
	}
	e := Event{Action: action, Path: path, Env: make(map[string]string)}
	for field := range strings.SplitSeq(rest, "\x00") {
		key, value, ok := strings.Cut(field, "=")
		if !ok || key == "" {
			continue
		}
		if _, have := e.Env[key]; !have {
			e.Env[key] = value
		}
	}
	return e, nil
}
