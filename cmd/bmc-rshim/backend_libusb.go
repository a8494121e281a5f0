// SPDX-License-Identifier: Apache-2.0

//go:build libusb

package main

import (
	"github.com/bluefield-go/bmc-rshim/usbbackend/libusb"
	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

func init() {
	backends["libusb"] = func(string) usb.Host { return libusb.New() }
}
