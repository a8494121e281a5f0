// SPDX-License-Identifier: Apache-2.0

package cuse

import (
	"testing"
	"unsafe"
)

// The sizes that a C compiler gives the structs of include/uapi/linux/fuse.h,
// on every machine.
func TestWireSizes(t *testing.T) {
	for name, s := range map[string]struct{ got, want uintptr }{
		"fuse_in_header":              {unsafe.Sizeof(inHeader{}), 40},
		"fuse_out_header":             {unsafe.Sizeof(outHeader{}), 16},
		"cuse_init_in":                {unsafe.Sizeof(initIn{}), 16},
		"cuse_init_out":               {unsafe.Sizeof(initOut{}), 72},
		"fuse_open_in":                {unsafe.Sizeof(openIn{}), 8},
		"fuse_open_out":               {unsafe.Sizeof(openOut{}), 16},
		"fuse_release_in":             {unsafe.Sizeof(releaseIn{}), 24},
		"fuse_read_in":                {unsafe.Sizeof(ioIn{}), 40},
		"fuse_write_out":              {unsafe.Sizeof(writeOut{}), 8},
		"fuse_interrupt_in":           {unsafe.Sizeof(interruptIn{}), 8},
		"fuse_ioctl_in":               {unsafe.Sizeof(ioctlIn{}), 32},
		"fuse_ioctl_out":              {unsafe.Sizeof(ioctlOut{}), 16},
		"fuse_ioctl_iovec":            {unsafe.Sizeof(ioctlIovec{}), 16},
		"fuse_poll_in":                {unsafe.Sizeof(pollIn{}), 24},
		"fuse_poll_out":               {unsafe.Sizeof(pollOut{}), 8},
		"fuse_notify_poll_wakeup_out": {unsafe.Sizeof(notifyPollOut{}), 8},
	} {
		if s.got != s.want {
			t.Errorf("%s has %d bytes, want %d", name, s.got, s.want)
		}
	}
	for name, o := range map[string]struct{ got, want uintptr }{
		"in_header.pid":     {unsafe.Offsetof(inHeader{}.PID), 32},
		"out_header.unique": {unsafe.Offsetof(outHeader{}.Unique), 8},
		"read_in.flags":     {unsafe.Offsetof(ioIn{}.Flags), 32},
		"ioctl_in.arg":      {unsafe.Offsetof(ioctlIn{}.Arg), 16},
		"poll_in.events":    {unsafe.Offsetof(pollIn{}.Events), 20},
	} {
		if o.got != o.want {
			t.Errorf("%s is at %d, want %d", name, o.got, o.want)
		}
	}
}

func TestIOCSize(t *testing.T) {
	for _, c := range []struct {
		cmd     uint32
		in, out int
	}{
		{0xc00c5200, 12, 12},       // _IOWR('R', 0, 12 bytes)
		{0xc00d5201, 13, 13},       // _IOWR('R', 1, 13 bytes)
		{0x40045201, 4, 0},         // _IOW
		{0x80045201, 0, 4},         // _IOR
		{0x5401, 0, 0},             // TCGETS
		{0xffffffff, 16383, 16383}, // the largest
	} {
		if in, out := IOCSize(c.cmd); in != c.in || out != c.out {
			t.Errorf("IOCSize(%#x) = %d, %d, want %d, %d", c.cmd, in, out, c.in, c.out)
		}
	}
}
