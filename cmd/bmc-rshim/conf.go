// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// conf is what /etc/rshim.conf sets. 0 is the default.
type conf struct {
	displayLevel int
	bootTimeout  time.Duration
	usbTimeout   time.Duration
}

// remark is what is to be said about a line of the file.
type remark struct {
	line int  // from 1
	bad  bool // the line is wrong, rather than just of no effect
	text string
}

// readConf reads a file in the C daemon's format: a key and a value in a line,
// and what comes after them does not matter; lines that begin with # are
// comments. Lines that are wrong or of no effect do not keep the others from
// being used. The error is one of r.
func readConf(r io.Reader) (c conf, remarks []remark, err error) {
	s := bufio.NewScanner(r)
	for line := 1; s.Scan(); line++ {
		f := strings.Fields(s.Text())
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		m := remark{line: line, bad: true, text: "no value for " + f[0]}
		if len(f) > 1 {
			m.text, m.bad = c.set(f[0], f[1])
		}
		if m.text != "" {
			remarks = append(remarks, m)
		}
	}
	return c, remarks, s.Err()
}

// set sets a key and returns what there is to say.
func (c *conf) set(key, value string) (text string, bad bool) {
	number := func(low, high int, use func(n int)) (string, bool) {
		n, err := strconv.Atoi(value)
		if err != nil || n < low || n > high {
			return fmt.Sprintf("%s is a number from %d to %d, not %q", key, low, high, value), true
		}
		use(n)
		return "", false
	}
	const later = " is not supported yet"
	switch key {
	case "DISPLAY_LEVEL":
		return number(0, 2, func(n int) { c.displayLevel = n })
	case "BOOT_TIMEOUT":
		return number(1, 86400, func(n int) { c.bootTimeout = time.Duration(n) * time.Second })
	case "USB_TIMEOUT":
		return number(0, 300, func(n int) { c.usbTimeout = time.Duration(n) * time.Second })
	case "DROP_MODE", "FORCE_MODE":
		if value == "0" {
			return "", false
		}
		return key + later, false
	case "none":
		return key + " " + value + later, false
	case "USB_RESET_DELAY":
		return key + " has no effect: a push waits for what the delay was to allow for", false
	case "PCIE_RESET_DELAY", "PCIE_INTR_POLL_INTERVAL", "PCIE_HAS_VFIO", "PCIE_HAS_UIO":
		return key + " has no effect over USB", false
	}
	if n, ok := strings.CutPrefix(key, "rshim"); ok {
		if i, err := strconv.Atoi(n); err == nil && i >= 0 && i < 64 {
			return key + " " + value + later, false
		}
	}
	return fmt.Sprintf("unknown key %q", key), true
}
