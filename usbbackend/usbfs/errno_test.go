// SPDX-License-Identifier: Apache-2.0

package usbfs

import (
	"errors"
	"syscall"
	"testing"

	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

func TestErrorOf(t *testing.T) {
	for errno, want := range map[syscall.Errno]error{
		syscall.ENODEV:     usb.ErrNoDevice,
		syscall.ESHUTDOWN:  usb.ErrNoDevice,
		syscall.EPIPE:      usb.ErrStall,
		syscall.ENOENT:     usb.ErrCancelled,
		syscall.ECONNRESET: usb.ErrCancelled,
		syscall.EOVERFLOW:  usb.ErrOverflow,
		syscall.EBUSY:      usb.ErrBusy,
		syscall.EPROTO:     usb.ErrProtocol,
		syscall.EILSEQ:     usb.ErrProtocol,
		syscall.ETIME:      usb.ErrProtocol,
		syscall.EREMOTEIO:  usb.ErrProtocol,
		syscall.EACCES:     syscall.EACCES,
		syscall.ENOMEM:     syscall.ENOMEM,
	} {
		if got := errorOf(errno); !errors.Is(got, want) {
			t.Errorf("%v: %v, want %v", errno, got, want)
		}
	}
	if err := errorOf(0); err != nil {
		t.Errorf("0: %v", err)
	}
	if err := errorOf(syscall.EPROTO); !errors.Is(err, syscall.EPROTO) {
		t.Errorf("%v has lost its errno", err)
	}
}
