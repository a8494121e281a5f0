// SPDX-License-Identifier: Apache-2.0

package usbfs

import (
	"fmt"
	"syscall"

	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

// errorOf translates an errno of a system call, or of the status of an urb.
// What the status codes mean is told in Documentation/driver-api/usb/error-codes.rst
// of the kernel.
func errorOf(errno syscall.Errno) error {
	switch errno {
	case 0:
		return nil
	case syscall.ENODEV, syscall.ESHUTDOWN:
		return usb.ErrNoDevice
	case syscall.EPIPE:
		return usb.ErrStall
	case syscall.ENOENT, syscall.ECONNRESET:
		return usb.ErrCancelled
	case syscall.EOVERFLOW:
		return usb.ErrOverflow
	case syscall.EBUSY:
		return usb.ErrBusy
	case syscall.EPROTO, syscall.EILSEQ, syscall.ETIME, syscall.ETIMEDOUT,
		syscall.ECOMM, syscall.ENOSR, syscall.EREMOTEIO:
		// Host controllers do not agree on which is which.
		return fmt.Errorf("%w: %w", usb.ErrProtocol, errno)
	}
	return errno
}
