// SPDX-License-Identifier: Apache-2.0

package devnode

import (
	"context"
	"encoding/binary"
	"syscall"

	"github.com/bluefield-go/bmc-rshim/internal/cuse"
	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

// The ioctls of /dev/rshimN/rshim: _IOWR('R', 0 and 1, message) with a packed
// message of a 32-bit address (see reg.Linear), 64 bits of data and, in the
// newer form, the size of the register in bytes. Source: rshim.h of rshim
// 2.8.2. Numbers and layout are the same for 32-bit callers.
const (
	iocRead   = 0xc00c5200
	iocWrite  = 0xc00c5201
	iocRead2  = 0xc00d5200
	iocWrite2 = 0xc00d5201
)

// regDevice is /dev/rshimN/rshim: registers by ioctl.
type regDevice struct{ d *rshim.Device }

func (r regDevice) Open(context.Context, uint32) (cuse.File, error) { return regFile(r), nil }

type regFile struct{ d *rshim.Device }

func (f regFile) Read(context.Context, []byte, int64) (int, error)  { return 0, syscall.EINVAL }
func (f regFile) Write(context.Context, []byte, int64) (int, error) { return 0, syscall.EINVAL }
func (f regFile) Release(context.Context)                           {}

func (f regFile) IoctlSize(cmd uint32) (in, out int, err error) {
	switch cmd {
	case iocRead, iocWrite, iocRead2, iocWrite2:
		in, out = cuse.IOCSize(cmd)
		return in, out, nil
	case iocForce:
		return 0, 0, nil
	case iocState:
		return 0, iocStateSize, nil
	}
	return 0, 0, syscall.ENOSYS // as the C daemon says it
}

func (f regFile) Ioctl(ctx context.Context, c cuse.Ioctl) (int32, error) {
	switch c.Cmd {
	case iocForce:
		return f.force(ctx)
	case iocState:
		f.state(c.Out)
		return 0, nil
	}
	copy(c.Out, c.In)
	addr := reg.Linear(binary.LittleEndian.Uint32(c.In))
	// Only BlueField-3 has addresses above the channels.
	if f.d.Status().Generation != reg.BlueField3 {
		addr.Channel &= 0xf
	}
	size := 8
	if c.Cmd == iocRead2 || c.Cmd == iocWrite2 {
		size = int(c.In[12])
	}
	switch size {
	case 1, 2, 4, 8: // what bf-reg sends; up to 4 is 4, see reg.Generation.USBSize
	default:
		return 0, syscall.EINVAL
	}
	if c.Cmd == iocWrite || c.Cmd == iocWrite2 {
		return 0, errno(f.d.WriteReg(ctx, addr, size, binary.LittleEndian.Uint64(c.In[4:])))
	}
	v, err := f.d.ReadReg(ctx, addr, size)
	binary.LittleEndian.PutUint64(c.Out[4:], v)
	return 0, errno(err)
}
