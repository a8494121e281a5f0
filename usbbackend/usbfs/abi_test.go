// SPDX-License-Identifier: Apache-2.0

package usbfs

import (
	"testing"
	"unsafe"
)

// The numbers and sizes are those of the C compiler for the kernel's headers
// on a 64-bit and on a 32-bit system. Run with GOARCH=386 for the latter.
func TestABI(t *testing.T) {
	is64 := unsafe.Sizeof(uintptr(0)) == 8
	pick := func(on64, on32 uintptr) uintptr {
		if is64 {
			return on64
		}
		return on32
	}
	var u urb
	var c disconnectClaim
	for _, tt := range []struct {
		name      string
		got, want uintptr
	}{
		{"sizeof urb", unsafe.Sizeof(u), pick(56, 44)},
		{"offset status", unsafe.Offsetof(u.status), 4},
		{"offset flags", unsafe.Offsetof(u.flags), 8},
		{"offset buffer", unsafe.Offsetof(u.buffer), pick(16, 12)},
		{"offset bufferLength", unsafe.Offsetof(u.bufferLength), pick(24, 16)},
		{"offset actualLength", unsafe.Offsetof(u.actualLength), pick(28, 20)},
		{"offset signr", unsafe.Offsetof(u.signr), pick(44, 36)},
		{"offset userContext", unsafe.Offsetof(u.userContext), pick(48, 40)},
		{"sizeof disconnectClaim", unsafe.Sizeof(c), 264},
		{"offset driver", unsafe.Offsetof(c.driver), 8},
		{"offset urb in transfer", unsafe.Offsetof(transfer{}.urb), 0},
		{"SUBMITURB", ioctlSubmitURB, pick(0x8038550a, 0x802c550a)},
		{"DISCARDURB", ioctlDiscardURB, 0x550b},
		{"REAPURBNDELAY", ioctlReapURBNDelay, pick(0x4008550d, 0x4004550d)},
		{"RESETEP", ioctlResetEP, 0x80045503},
		{"CLAIMINTERFACE", ioctlClaimInterface, 0x8004550f},
		{"RESET", ioctlReset, 0x5514},
		{"DISCONNECT_CLAIM", ioctlDisconnectClaim, 0x8108551b},
	} {
		if tt.got != tt.want {
			t.Errorf("%s = %#x, want %#x", tt.name, tt.got, tt.want)
		}
	}
}
