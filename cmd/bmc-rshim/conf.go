// SPDX-License-Identifier: Apache-2.0

package main

import (
	"maps"
	"slices"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim"
)

// conf is what /etc/rshim.conf sets.
type conf struct {
	displayLevel    int
	bootTimeout     int // seconds
	usbTimeout      int // seconds
	dropMode        int // this and what follows: 0 or 1
	forceMode       int
	autoAttach      int
	grantDuringPush int

	ncsi    []string // arguments of ncsi-oem; nil: not configured
	metrics string   // file for metrics; "": none

	index   map[string]int  // of a device's name
	blocked map[string]bool // devices' names
}

// newConf is the configuration without a file.
func newConf() conf {
	c := conf{index: make(map[string]int), blocked: make(map[string]bool)}
	for _, k := range confKeys {
		if k.at != nil {
			*k.at(&c) = k.def
		}
	}
	return c
}

// confKey is a key that has a number for its value.
type confKey struct {
	name      string
	low, high int
	time      bool // in seconds
	def       int
	zero      int                // what 0 stands for, if it is not itself
	at        func(c *conf) *int // nil: the key has no effect
	idle      string             // why it has none
	live      bool               // a change takes effect without a restart
}

func (k *confKey) isSwitch() bool { return k.low == 0 && k.high == 1 }

const overUSB = " over USB"

// confKeys are the keys of the C daemon, and after its own those of ours.
var confKeys = []confKey{
	{name: "DISPLAY_LEVEL", high: 2, live: true, at: func(c *conf) *int { return &c.displayLevel }},
	{name: "BOOT_TIMEOUT", low: 1, high: 86400, time: true, def: int(rshim.DefaultBootTimeout / time.Second), live: true,
		at: func(c *conf) *int { return &c.bootTimeout }},
	{name: "USB_TIMEOUT", high: 300, time: true, def: int(rshim.DefaultUSBTimeout / time.Second), zero: int(rshim.DefaultUSBTimeout / time.Second), live: true,
		at: func(c *conf) *int { return &c.usbTimeout }},
	{name: "DROP_MODE", high: 1, at: func(c *conf) *int { return &c.dropMode }},
	{name: "FORCE_MODE", high: 1, at: func(c *conf) *int { return &c.forceMode }},
	{name: "USB_RESET_DELAY", idle: ": a push waits for what the delay was to allow for"},
	{name: "PCIE_RESET_DELAY", idle: overUSB},
	{name: "PCIE_INTR_POLL_INTERVAL", idle: overUSB},
	{name: "PCIE_HAS_VFIO", idle: overUSB},
	{name: "PCIE_HAS_UIO", idle: overUSB},
	{name: "AUTO_ATTACH", high: 1, def: 1, live: true, at: func(c *conf) *int { return &c.autoAttach }},
	{name: "GRANT_DURING_PUSH", high: 1, live: true, at: func(c *conf) *int { return &c.grantDuringPush }},
}

// Keys of ours whose value is the rest of the line.
const (
	keyNCSI    = "NCSI"         // how ncsi-oem reaches the NIC, such as -if eth0
	keyMetrics = "METRICS_FILE" // for node_exporter's textfile collector
)

// options are those of a device.
func (c conf) options() rshim.Options {
	return rshim.Options{
		DisplayLevel:    c.displayLevel,
		BootTimeout:     time.Duration(c.bootTimeout) * time.Second,
		USBTimeout:      time.Duration(c.usbTimeout) * time.Second,
		Drop:            c.dropMode != 0,
		Force:           c.forceMode != 0,
		NoAutoAttach:    c.autoAttach == 0,
		GrantDuringPush: c.grantDuringPush != 0,
	}
}

// changes lists the keys that differ in next: those that can be applied while
// the daemon runs, and those that cannot.
func (c *conf) changes(next *conf) (applied, later []string) {
	for _, k := range confKeys {
		switch {
		case k.at == nil || *k.at(c) == *k.at(next):
		case k.live:
			applied = append(applied, k.name)
		default:
			later = append(later, k.name)
		}
	}
	if !slices.Equal(c.ncsi, next.ncsi) {
		later = append(later, keyNCSI)
	}
	if c.metrics != next.metrics {
		later = append(later, keyMetrics)
	}
	if !maps.Equal(c.index, next.index) {
		applied = append(applied, "rshim<N>")
	}
	if !maps.Equal(c.blocked, next.blocked) {
		applied = append(applied, "none")
	}
	return applied, later
}
