// SPDX-License-Identifier: Apache-2.0

// Package tap makes Ethernet interfaces whose other end is this program: what
// the kernel sends on such an interface is read here, and what is written here
// arrives there. Needs CAP_NET_ADMIN, and the kernel's tun driver.
package tap

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

var (
	// ErrNoDriver means that the kernel has no tun driver, or no device
	// node for it.
	ErrNoDriver = errors.New("needs the kernel's tun driver (modprobe tun, or CONFIG_TUN=y)")
	// ErrTaken means that there is an interface of that name, which is not a
	// TAP, or which another program holds.
	ErrTaken = errors.New("an interface of this name is there already")
	// ErrGone means that somebody deleted the interface.
	ErrGone = errors.New("the interface is gone")
)

// DefaultMTU is the MTU of an interface if its options do not say otherwise.
const DefaultMTU = 1500

// Overhead is how much longer than the MTU a frame can be: addresses, type, and
// a VLAN tag.
const Overhead = 14 + 4

// Options of an interface.
type Options struct {
	// Name is of 1 to 15 bytes. For a %d in it the kernel takes the lowest
	// number that gives a new name.
	Name string
	MAC  [6]byte // zero: one at random
	MTU  int     // in bytes; 0 means 1500
	// Addresses are one of IPv4 at most, and any number of IPv6. The kernel
	// may add a link-local one.
	Addresses []netip.Prefix
	// Netns is the network namespace it is made in, a file such as
	// /run/netns/NAME or /proc/PID/ns/net; "": that of the process.
	Netns   string
	DevPath string // of the driver's device node; "" means /dev/net/tun
}

// Interface is a network interface. It is there until Close, unless it was
// there before Open as a persistent TAP.
type Interface struct {
	f    *os.File
	name string
}

// Open makes an interface, sets it up as the options say, and brings it up. A
// persistent TAP of that name that no program holds is taken over instead. With
// an error there is no new interface.
func Open(o Options) (*Interface, error) {
	if len(o.Name) == 0 || len(o.Name) >= unix.IFNAMSIZ {
		return nil, fmt.Errorf("%q: a name of an interface has 1 to %d bytes", o.Name, unix.IFNAMSIZ-1)
	}
	if o.MTU == 0 {
		o.MTU = DefaultMTU
	}
	if o.DevPath == "" {
		o.DevPath = "/dev/net/tun"
	}
	var i *Interface
	err := inNetns(o.Netns, func() (err error) {
		i, err = open(o)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.Name, err)
	}
	return i, nil
}

// open is Open in the network namespace of the calling thread. The interface
// and the sockets stay in that namespace.
func open(o Options) (_ *Interface, err error) {
	fd, err := unix.Open(o.DevPath, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		err = &os.PathError{Op: "open", Path: o.DevPath, Err: err}
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) {
			return nil, fmt.Errorf("%w: %w", ErrNoDriver, err)
		}
		return nil, err
	}
	name, err := configure(fd, o)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	// Only now, because the runtime's poller is to see it with an interface.
	i := &Interface{f: os.NewFile(uintptr(fd), o.DevPath), name: name}
	if err := i.f.SetReadDeadline(time.Time{}); err != nil { // the poller did not take it
		i.f.Close()
		return nil, err
	}
	return i, nil
}

// Name returns the interface's name, as the kernel chose it.
func (i *Interface) Name() string { return i.name }

// Read waits for a frame that the kernel sends, and copies what fits of it to
// p: a frame that fills p may have been longer. The frame has no checksum at
// its end. Errors are final: os.ErrClosed after Close, else one that is ErrGone.
func (i *Interface) Read(p []byte) (int, error) {
	n, err := i.f.Read(p)
	switch {
	case err == nil:
		return n, nil
	case errors.Is(err, os.ErrClosed):
		return 0, os.ErrClosed
	}
	// Either EBADFD, or the poller gave up the file because of it.
	return 0, fmt.Errorf("%w: %w", ErrGone, err)
}

// Write has the kernel receive a frame. It does not wait. Errors concern this
// frame alone: EIO while the interface is down, EINVAL if p is shorter than
// Ethernet's header, EBADFD when the interface is gone, os.ErrClosed after Close.
func (i *Interface) Write(p []byte) (int, error) {
	n, err := i.f.Write(p)
	if errors.Is(err, os.ErrClosed) {
		err = os.ErrClosed
	}
	return n, err
}

// Close removes the interface and ends a Read. The interface is gone when it
// returns.
func (i *Interface) Close() error { return i.f.Close() }

var _ io.ReadWriteCloser = (*Interface)(nil)
