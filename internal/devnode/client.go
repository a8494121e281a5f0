// SPDX-License-Identifier: Apache-2.0

package devnode

import (
	"encoding/binary"
	"os"
	"syscall"
	"unsafe"
)

// Registers are the registers behind an open /dev/rshimN/rshim, whichever
// daemon serves it.
type Registers struct{ fd int }

// OpenRegisters opens a /dev/rshimN/rshim. Its methods are for one goroutine at
// a time, and wait for as long as the daemon does.
func OpenRegisters(path string) (*Registers, error) {
	fd, err := syscall.Open(path, syscall.O_RDWR|syscall.O_SYNC|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return &Registers{fd}, nil
}

// Close closes the file.
func (r *Registers) Close() error { return syscall.Close(r.fd) }

// Read reads a register of size bytes, 4 or 8, at an address as reg.Linear
// takes it.
func (r *Registers) Read(addr uint32, size int) (uint64, error) {
	return r.ioctl("read register", iocRead2, addr, size, 0)
}

// Write writes one.
func (r *Registers) Write(addr uint32, size int, v uint64) error {
	_, err := r.ioctl("write register", iocWrite2, addr, size, v)
	return err
}

func (r *Registers) ioctl(op string, cmd uintptr, addr uint32, size int, v uint64) (uint64, error) {
	var msg [13]byte
	binary.LittleEndian.PutUint32(msg[:], addr)
	binary.LittleEndian.PutUint64(msg[4:], v)
	msg[12] = byte(size)
	_, err := r.call(op, cmd, &msg[0])
	return binary.LittleEndian.Uint64(msg[4:]), err
}

// call makes an ioctl and returns what it returns.
func (r *Registers) call(op string, cmd uintptr, arg *byte) (int, error) {
	for {
		n, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(r.fd), cmd, uintptr(unsafe.Pointer(arg)))
		switch errno {
		case 0:
			return int(n), nil
		case syscall.EINTR:
		default:
			return 0, os.NewSyscallError(op, errno)
		}
	}
}
