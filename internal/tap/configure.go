// SPDX-License-Identifier: Apache-2.0

package tap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ifreq is struct ifreq of linux/if.h. Its union has 24 bytes for 64-bit
// programs and 16 for 32-bit ones, whose kernel does not look at the rest.
type ifreq struct {
	name [unix.IFNAMSIZ]byte
	data [24]byte
}

// in6Ifreq is struct in6_ifreq of linux/ipv6.h, and has one layout.
type in6Ifreq struct {
	addr  [16]byte
	bits  uint32
	index int32
}

func ioctl[T ifreq | in6Ifreq](fd int, request uintptr, p *T) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(p)))
	if errno != 0 {
		return errno
	}
	return nil
}

// configure makes the interface of fd, a file of the driver, and returns its
// name. It goes with fd.
func configure(fd int, o Options) (name string, err error) {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", os.NewSyscallError("socket", err)
	}
	defer unix.Close(s)

	var r ifreq
	copy(r.name[:], o.Name)
	binary.NativeEndian.PutUint16(r.data[:], unix.IFF_TAP|unix.IFF_NO_PI)
	if err := ioctl(fd, unix.TUNSETIFF, &r); err != nil {
		// An interface that is no TAP is EINVAL, as is much else.
		if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EINVAL) && ioctl(s, unix.SIOCGIFINDEX, &r) == nil {
			err = fmt.Errorf("%w: %w", ErrTaken, err)
		}
		return "", fmt.Errorf("TUNSETIFF: %w", err)
	}
	if o.MAC != [6]byte{} {
		if err := r.sockaddr(unix.ARPHRD_ETHER, o.MAC[:]).do(s, "SIOCSIFHWADDR", unix.SIOCSIFHWADDR); err != nil {
			return "", err
		}
	}
	if err := r.integer(uint32(o.MTU)).do(s, "SIOCSIFMTU", unix.SIOCSIFMTU); err != nil {
		return "", err
	}
	for _, p := range o.Addresses {
		add := r.addIPv6
		if p.Addr().Is4() {
			add = r.addIPv4
		}
		if err := add(s, p); err != nil {
			return "", fmt.Errorf("address %v: %w", p, err)
		}
	}
	if err := r.do(s, "SIOCGIFFLAGS", unix.SIOCGIFFLAGS); err != nil {
		return "", err
	}
	flags := binary.NativeEndian.Uint16(r.data[:])
	binary.NativeEndian.PutUint16(r.data[:], flags|unix.IFF_UP)
	return unix.ByteSliceToString(r.name[:]), r.do(s, "SIOCSIFFLAGS", unix.SIOCSIFFLAGS)
}

func (r *ifreq) do(s int, op string, request uintptr) error {
	return os.NewSyscallError(op, ioctl(s, request, r))
}

// integer puts a number into the union.
func (r *ifreq) integer(n uint32) *ifreq {
	clear(r.data[:])
	binary.NativeEndian.PutUint32(r.data[:], n)
	return r
}

// sockaddr puts a struct sockaddr into the union.
func (r *ifreq) sockaddr(family uint16, data []byte) *ifreq {
	clear(r.data[:])
	binary.NativeEndian.PutUint16(r.data[:], family)
	copy(r.data[2:], data)
	return r
}

// inet puts an IPv4 address into the union, without a port.
func (r *ifreq) inet(addr [4]byte) *ifreq {
	return r.sockaddr(unix.AF_INET, append([]byte{0, 0}, addr[:]...))
}

// addIPv4 sets the interface's IPv4 address: there is one.
func (r *ifreq) addIPv4(s int, p netip.Prefix) error {
	if err := r.inet(p.Addr().As4()).do(s, "SIOCSIFADDR", unix.SIOCSIFADDR); err != nil {
		return err
	}
	var mask [4]byte
	binary.BigEndian.PutUint32(mask[:], ^uint32(0)<<(32-p.Bits()))
	return r.inet(mask).do(s, "SIOCSIFNETMASK", unix.SIOCSIFNETMASK)
}

// addIPv6 adds an IPv6 address.
func (r *ifreq) addIPv6(s int, p netip.Prefix) error {
	if err := r.do(s, "SIOCGIFINDEX", unix.SIOCGIFINDEX); err != nil {
		return err
	}
	s6, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err) // a kernel without IPv6
	}
	defer unix.Close(s6)
	index := int32(binary.NativeEndian.Uint32(r.data[:]))
	err = ioctl(s6, unix.SIOCSIFADDR, &in6Ifreq{p.Addr().As16(), uint32(p.Bits()), index})
	if errors.Is(err, unix.EEXIST) { // on a persistent TAP
		err = nil
	}
	return os.NewSyscallError("SIOCSIFADDR", err)
}
