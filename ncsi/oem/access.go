// SPDX-License-Identifier: Apache-2.0

package oem

import (
	"fmt"
	"slices"
	"strings"
)

// HostAccess says whether the DPU's host may use RShim over PCIe. The NIC keeps
// it in non-volatile memory; a change takes effect at the DPU's next reboot.
type HostAccess uint8

// States of host access, parameter 0x19.
const (
	Disabled HostAccess = 0
	Enabled  HostAccess = 1
	Locked   HostAccess = 2
)

var hostAccess = setting{"host access", ParamHostAccess, []string{Disabled: "disabled", Enabled: "enabled", Locked: "locked"}}

func (a HostAccess) String() string { return hostAccess.name(uint8(a)) }

// ParseHostAccess is the inverse of String.
func ParseHostAccess(s string) (HostAccess, error) {
	n, err := hostAccess.byName(s)
	return HostAccess(n), err
}

// MarshalText gives the name, and fails for a state that has none.
func (a HostAccess) MarshalText() ([]byte, error) {
	return hostAccess.marshal(uint8(a))
}

// UnmarshalText is ParseHostAccess.
func (a *HostAccess) UnmarshalText(b []byte) (err error) {
	*a, err = ParseHostAccess(string(b))
	return err
}

// RuntimeAccess says whether the host may use RShim over PCIe now, where
// HostAccess is Enabled or Locked. A change is in force at once, and lost at the
// next reset of the DPU.
type RuntimeAccess uint8

// States of run-time access, parameter 0x1B.
const (
	RuntimeEnabled RuntimeAccess = 0
	RuntimeLocked  RuntimeAccess = 1
)

var runtimeAccess = setting{"run-time access", ParamRuntimeAccess, []string{RuntimeEnabled: "enabled", RuntimeLocked: "locked"}}

func (a RuntimeAccess) String() string { return runtimeAccess.name(uint8(a)) }

// ParseRuntimeAccess is the inverse of String.
func ParseRuntimeAccess(s string) (RuntimeAccess, error) {
	n, err := runtimeAccess.byName(s)
	return RuntimeAccess(n), err
}

// MarshalText gives the name, and fails for a state that has none.
func (a RuntimeAccess) MarshalText() ([]byte, error) {
	return runtimeAccess.marshal(uint8(a))
}

// UnmarshalText is ParseRuntimeAccess.
func (a *RuntimeAccess) UnmarshalText(b []byte) (err error) {
	*a, err = ParseRuntimeAccess(string(b))
	return err
}

// setting is a parameter whose states, counted from 0, have names.
type setting struct {
	what  string
	param Parameter
	names []string
}

func (s setting) name(n uint8) string {
	if int(n) < len(s.names) {
		return s.names[n]
	}
	return fmt.Sprintf("unknown (%d)", n)
}

func (s setting) byName(name string) (uint8, error) {
	n := slices.Index(s.names, name)
	if n < 0 {
		last := len(s.names) - 1
		return 0, fmt.Errorf("%s %q: want %s or %s", s.what, name, strings.Join(s.names[:last], ", "), s.names[last])
	}
	return uint8(n), nil
}

func (s setting) marshal(n uint8) ([]byte, error) {
	if int(n) >= len(s.names) {
		return nil, fmt.Errorf("%s %d has no name", s.what, n)
	}
	return []byte(s.names[n]), nil
}
