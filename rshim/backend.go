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
// the boot stream from one, of the TMFIFO TMRead from one and TMWrite and
// TMIdle from another. All of them end early when the device goes or Close is
// called.
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

	// TMStart begins anew with the TMFIFO: what is queued or posted from before
	// is forgotten, and nothing is assumed about its state. Neither TMStart nor
	// TMStop is called while another method of the TMFIFO runs.
	TMStart()
	// TMRead waits for words from the DPU and returns what has come: whole
	// words, in the order of the FIFO, at most len(p) bytes, which must be 2048
	// or more. When ctx ends nothing is lost.
	TMRead(ctx context.Context, p []byte) (int, error)
	// TMWrite sends whole words, at most 2048 bytes, as soon as the FIFO has
	// room for all of them. nil means that they are on their way, in order and
	// exactly once; failures of transfers are repaired meanwhile. When ctx
	// ended, nothing of p was sent; any other error is final.
	TMWrite(ctx context.Context, p []byte) error
	// TMIdle waits until the FIFO has taken all that was written.
	TMIdle(ctx context.Context) error
	// TMStop takes back what is under way: the device is no longer ours.
	TMStop()

	// Gone is closed when the device has left the bus.
	Gone() <-chan struct{}
	Close() error
}
