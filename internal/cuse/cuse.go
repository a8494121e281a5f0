// SPDX-License-Identifier: Apache-2.0

// Package cuse makes character devices in user space: a Server opens
// /dev/cuse, has the kernel create one node such as /dev/rshim0/boot, and
// answers what programs do with it from a Device.
//
// What a Device sees of its callers is decided by the kernel's cuse driver
// (fs/fuse/cuse.c), which differs from a file system in ways that matter:
//
//   - There is no file position. The offset of a Read or Write is that of the
//     piece within the caller's one system call, so it is 0 except in the
//     later pieces of a call that moves more than MaxIO bytes. lseek does
//     nothing, and pread and pwrite are read and write.
//   - A Read that returns 0 bytes ends the caller's loop, so a File that
//     gives its text once has to remember that it did.
//   - There is no flush: close waits for Release but cannot report an error.
//   - Some calls never get here. O_TRUNC is dropped from the flags of an open
//     and has no effect ("echo x > /dev/rshim0/misc" is open, write, close).
//     truncate, ftruncate, fsync and splice fail with EINVAL in the kernel,
//     mmap with ENODEV.
//
// The process that runs a Server must not open the node with package os, nor
// put it into its own epoll by other means: the kernel then asks the Server
// whether the file is ready while it locks the very epoll through which Go
// would learn of the question, for ever.
//
// When Run ends, calls in progress fail with ECONNABORTED, later ones on files
// that are still open with ENOTCONN (poll wakes up with POLLERR), and an open
// finds no node.
package cuse

import (
	"context"
	"log/slog"
)

// MaxIO is the most bytes that one Read or Write is asked for. The kernel
// moves at most 32 pages in a request (FUSE_DEFAULT_MAX_PAGES_PER_REQ) and
// splits larger calls.
const MaxIO = 128 << 10

// Options describe a node.
type Options struct {
	// Name is the node's name below /dev, "rshim0/boot" for
	// /dev/rshim0/boot. It has to be unique on the machine.
	Name string
	// GID is the group that may read and write the node besides root.
	// 0: root alone (mode 0600); else the mode is 0660.
	GID int
	// UnrestrictedIoctl lets ioctls move data whose direction and size are
	// not encoded in their number, as with TCGETS. It costs these, and all
	// others that move data, a second round trip.
	UnrestrictedIoctl bool
	// DevPath is the path of the cuse driver, "/dev/cuse" if empty. Nodes
	// appear in the same folder.
	DevPath string
	// Logger gets what no caller can be told. nil: discard.
	Logger *slog.Logger
}

// Device is what is behind a node.
//
// A Device and its Files are called from many goroutines at once, one for each
// system call in progress. The context of a call ends when a signal interrupts
// the caller and when the Server stops; the call must then return soon, as
// Run waits for it and the caller cannot even be killed before.
//
// An error reaches the caller as errno: a syscall.Errno in its chain is taken
// as it is, context.Canceled becomes EINTR, a deadline that passed ETIMEDOUT,
// anything else EIO and a line in the log.
type Device interface {
	// Open is open(2). Flags are those of the system call, O_TRUNC,
	// O_CREAT, O_EXCL and O_NOCTTY never among them.
	Open(ctx context.Context, flags uint32) (File, error)
}

// File is one open of a Device. It may also be an Ioctler and a Poller.
// Implementations must not keep the slices that they are given.
type File interface {
	// Read is read(2); off as said in the package's comment. io.EOF with
	// no bytes is end of file. An error beside bytes is dropped: it has to
	// come again from the next Read.
	Read(ctx context.Context, p []byte, off int64) (int, error)
	// Write is write(2); off as said in the package's comment. An error
	// that the system call cannot tell, since bytes of it were taken
	// before, is returned by the File's next one instead; EINTR and
	// EAGAIN, which speak of the call and not of the File, are forgotten.
	Write(ctx context.Context, p []byte, off int64) (int, error)
	// Release is called once, when the last descriptor is closed and all
	// other calls have returned, or when the Server stops. The closing
	// program waits for it. The context ends only with the Server: it has
	// ended already if that is why Release is called.
	Release(ctx context.Context)
}

// Nonblocking reports whether ctx is that of a Read or Write which must not
// wait, since the file has O_NONBLOCK.
func Nonblocking(ctx context.Context) bool { return ctx.Value(nonblocking{}) != nil }

// WithNonblocking makes such a context.
func WithNonblocking(ctx context.Context) context.Context {
	return context.WithValue(ctx, nonblocking{}, true)
}

type nonblocking struct{} // the key

// Poller is a File that is not always ready, and says when it is. Reads and
// writes of files opened with O_NONBLOCK fail with EAGAIN while it is not,
// without being called.
type Poller interface {
	// Poll returns which of events (POLLIN, POLLOUT, ...) are true now,
	// POLLERR and POLLHUP whether asked for or not. It must not wait.
	// Whenever more may have become true, wake tells those who sleep in
	// poll, select or epoll to ask again. It is the same function for all
	// calls on a File, does not block, and may be called at any time, even
	// after Release.
	Poll(events uint32, wake func()) uint32
}

// Ioctler is a File that answers ioctls. Others fail with ENOTTY.
type Ioctler interface {
	// IoctlSize says how many bytes the ioctl reads and writes at the
	// address that is its argument: both 0 if the argument is none. IOCSize
	// knows for a well-formed cmd. An error (ENOTTY) ends the call.
	IoctlSize(cmd uint32) (in, out int, err error)
	// Ioctl is ioctl(2); the result is what it returns to the caller.
	Ioctl(ctx context.Context, c Ioctl) (result int32, err error)
}

// Ioctl is a call of ioctl(2).
type Ioctl struct {
	Cmd    uint32
	Arg    uint64 // an address in the caller's memory, or a plain number
	In     []byte // what stood at Arg; as long as IoctlSize said
	Out    []byte // to be filled; goes to Arg unless there is an error
	Long32 bool   // the caller's long and pointers have 4 bytes
}

// IOCSize takes the sizes from an ioctl number made with _IOR, _IOW or _IOWR
// (include/uapi/asm-generic/ioctl.h; not for MIPS, PowerPC and SPARC). Both
// are 0 for one made otherwise.
func IOCSize(cmd uint32) (in, out int) {
	const write, read = 1, 2 // as the caller sees it
	size, dir := int(cmd>>16&0x3fff), cmd>>30
	if dir&write != 0 {
		in = size
	}
	if dir&read != 0 {
		out = size
	}
	return in, out
}
