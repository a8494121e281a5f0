// SPDX-License-Identifier: Apache-2.0

package main

import (
	"maps"
	"slices"
	"strings"

	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
	"github.com/bluefield-go/bmc-rshim/usbbackend/usbfs"
)

// backends are the USB hosts that are built in, as -usb names them. devRoot
// is where device nodes are.
var backends = map[string]func(devRoot string) usb.Host{
	"usbfs": func(devRoot string) usb.Host { return usbfs.New(usbfs.Options{DevRoot: devRoot}) },
}

// backendNames lists them.
func backendNames() string {
	return strings.Join(slices.Sorted(maps.Keys(backends)), ", ")
}
