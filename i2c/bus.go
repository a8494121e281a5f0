// SPDX-License-Identifier: Apache-2.0

package i2c

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Bus is an I2C bus on which we are master.
type Bus struct {
	f    *os.File
	busy chan struct{}
}

// OpenBus opens the node of bus n in a directory; "" means /dev. Errors are
// *OpError, of ErrNoBus if there is none.
func OpenBus(dev string, n int) (*Bus, error) {
	if dev == "" {
		dev = "/dev"
	}
	path := filepath.Join(dev, "i2c-"+strconv.Itoa(n))
	// NewFile leaves it out of the runtime's poller, which has no use for it.
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV) {
			err = fmt.Errorf("%w: %w (load the driver with modprobe i2c-dev; i2cdetect -l lists the buses)", ErrNoBus, err)
		}
		return nil, &OpError{Op: "open", Device: path, Err: err}
	}
	return &Bus{f: os.NewFile(uintptr(fd), path), busy: make(chan struct{}, 1)}, nil
}

// Write writes data to a device, in one message. Nothing can interrupt a
// transfer, or the wait for a bus that another driver has locked; when ctx is
// done before it ends, Write returns ctx's error and the transfer goes on by
// itself. The next Write waits for it.
func (b *Bus) Write(ctx context.Context, addr uint8, data []byte) error {
	if len(data) > 8192 { // as i2c-dev has it
		return b.fail(addr, unix.EMSGSIZE)
	}
	select {
	case b.busy <- struct{}{}:
	case <-ctx.Done():
		return b.fail(addr, ctx.Err())
	}
	done := make(chan error, 1)
	data = bytes.Clone(data) // Write may return before the transfer ends
	go func() {
		done <- b.write(addr, data)
		<-b.busy
	}()
	select {
	case err := <-done:
		return b.fail(addr, err)
	case <-ctx.Done():
		return b.fail(addr, ctx.Err())
	}
}

func (b *Bus) write(addr uint8, data []byte) error {
	rc, err := b.f.SyscallConn()
	if err != nil {
		return err
	}
	m := &message{addr: uint16(addr), len: uint16(len(data)), buf: unsafe.Pointer(unsafe.SliceData(data))}
	t := &transfer{msgs: unsafe.Pointer(m), n: 1}
	var errno unix.Errno
	if err := rc.Control(func(fd uintptr) {
		_, _, errno = unix.Syscall(unix.SYS_IOCTL, fd, ioctlRDWR, uintptr(unsafe.Pointer(t)))
	}); err != nil {
		return err
	}
	if errno != 0 {
		return errno
	}
	return nil
}

func (b *Bus) fail(addr uint8, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, unix.ENXIO) || errors.Is(err, unix.EREMOTEIO) {
		err = fmt.Errorf("%w (%w)", ErrNoAck, err)
	}
	return &OpError{Op: "send", Device: fmt.Sprintf("%s address 0x%02x", b.f.Name(), addr), Err: err}
}

// Close closes the node. A transfer that is under way ends by itself.
func (b *Bus) Close() error { return b.f.Close() }
