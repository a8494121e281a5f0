// SPDX-License-Identifier: Apache-2.0

package rshim

import (
	"context"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

// Backend is one RShim as reached over a bus, from the moment it appears there
// until it goes; a chip that resets and comes back is a new Backend. Package
// usbbackend has one for USB.
//
// The register methods may be called from several goroutines at once, those of
// the boot stream from one. All of them end early when the device goes or
// Close is called.
type Backend interface {
	// Name is the device's name: what misc shows as DEV_NAME and rshim.conf
	// maps to an index, for example "usb-2-1.7". It tells where the device
	// is, so that it is the same after a reset.
	Name() string
	Generation() reg.Generation
	Revision() int

	// ReadReg and WriteReg move a register of size bytes, 4 or 8.
	ReadReg(ctx context.Context, a reg.Addr, size int) (uint64, error)
	WriteReg(ctx context.Context, a reg.Addr, size int, v uint64) error

	// BootStart begins a boot stream at offset 0. The stream fails with an
	// os.ErrDeadlineExceeded when the chip takes no byte for stall while some
	// are waiting; transfer bounds a single transfer and is not an error.
	BootStart(stall, transfer time.Duration)
	// BootWrite queues data for the boot FIFO and returns how much of it was
	// queued, less than all only with an error. Queued is not yet taken.
	BootWrite(ctx context.Context, data []byte) (int, error)
	// BootFlush waits until the chip has taken all that was queued.
	BootFlush(ctx context.Context) error
	// BootDrop forgets the bytes from an offset on that the chip has not
	// taken, and returns the offset at which the stream goes on.
	BootDrop(from int64) int64
	// BootEnd ends the stream; what was not taken is dropped.
	BootEnd()

	// Gone is closed when the device has left the bus.
	Gone() <-chan struct{}
	Close() error
}
