// SPDX-License-Identifier: Apache-2.0

package bus

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// defaultAddress is the specification's "Well-known Message Bus Instances", with /run
// for /var/run as distributions have it.
const defaultAddress = "unix:path=/run/dbus/system_bus_socket"

// SystemAddress returns the address of the system bus: DBUS_SYSTEM_BUS_ADDRESS of
// the environment, or the well-known one.
func SystemAddress() string {
	if a := os.Getenv("DBUS_SYSTEM_BUS_ADDRESS"); a != "" {
		return a
	}
	return defaultAddress
}

// socketNames returns the names of the unix sockets in an address, which may be
// a list; that of an abstract one begins with "@".
func socketNames(address string) ([]string, error) {
	var names []string
	for a := range strings.SplitSeq(address, ";") {
		rest, ok := strings.CutPrefix(a, "unix:")
		if !ok {
			continue
		}
		for pair := range strings.SplitSeq(rest, ",") {
			key, value, _ := strings.Cut(pair, "=")
			if key != "path" && key != "abstract" {
				continue
			}
			name, err := unescape(value)
			if err != nil || name == "" {
				return nil, fmt.Errorf("address %q: no valid %s", a, key)
			}
			if key == "abstract" {
				name = "@" + name
			}
			names = append(names, name)
		}
	}
	if names == nil {
		return nil, fmt.Errorf("address %q names no unix socket", address)
	}
	return names, nil
}

// unescape undoes the %XX of an address.
func unescape(s string) (string, error) {
	var b strings.Builder
	for {
		plain, rest, found := strings.Cut(s, "%")
		b.WriteString(plain)
		if !found {
			return b.String(), nil
		}
		if len(rest) < 2 {
			return "", strconv.ErrSyntax
		}
		c, err := strconv.ParseUint(rest[:2], 16, 8)
		if err != nil {
			return "", err
		}
		b.WriteByte(byte(c))
		s = rest[2:]
	}
}
