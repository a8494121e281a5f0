// SPDX-License-Identifier: Apache-2.0

package guest_test

import (
	"encoding/binary"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"
)

// TestIoctl reads and writes registers by both forms of the ioctls.
func TestIoctl(t *testing.T) {
	for gen, addr := range map[string]uint32{"bf2": 0x10c28, "bf3": 0x10c48} { // scratchpad 2
		t.Run(gen, func(t *testing.T) {
			r := newRig(t, "-generation", gen)
			f, err := os.OpenFile("/dev/rshim0/rshim", os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			ioctl := func(cmd uintptr, msg []byte) syscall.Errno {
				_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), cmd, uintptr(unsafe.Pointer(&msg[0])))
				runtime.KeepAlive(msg)
				return errno
			}
			msg := func(v uint64, size ...byte) []byte {
				b := binary.LittleEndian.AppendUint32(nil, addr)
				return append(binary.LittleEndian.AppendUint64(b, v), size...)
			}
			for _, form := range []struct {
				read, write uintptr
				size        []byte
			}{
				{0xc00c5200, 0xc00c5201, nil},
				{0xc00d5200, 0xc00d5201, []byte{8}},
			} {
				const v = 0x1122334455667788
				if errno := ioctl(form.write, msg(v, form.size...)); errno != 0 {
					t.Errorf("write: %v", errno)
				}
				got := msg(0, form.size...)
				if errno := ioctl(form.read, got); errno != 0 || binary.LittleEndian.Uint64(got[4:]) != v {
					t.Errorf("read: %v, %x", errno, got)
				}
				if s := r.control("read 0 1 %#x", addr&0xffff); !strings.HasSuffix(s, "value=0x1122334455667788") {
					t.Errorf("the chip has %s", s)
				}
				if errno := ioctl(form.write, msg(0, form.size...)); errno != 0 {
					t.Errorf("write: %v", errno)
				}
			}
			if errno := ioctl(0xc00c52ff, msg(0)); errno != syscall.ENOSYS && errno != syscall.ENOTTY {
				t.Errorf("unknown ioctl: %v", errno)
			}
		})
	}
}
