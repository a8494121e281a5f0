// SPDX-License-Identifier: Apache-2.0

package i2c

import (
	"testing"
	"unsafe"
)

// The sizes are those of the C compiler for the kernel's headers on a 64-bit
// and on a 32-bit system. Run with GOARCH=386 for the latter.
func TestABI(t *testing.T) {
	is64 := unsafe.Sizeof(uintptr(0)) == 8
	pick := func(on64, on32 uintptr) uintptr {
		if is64 {
			return on64
		}
		return on32
	}
	var m message
	var x transfer
	for _, tt := range []struct {
		name      string
		got, want uintptr
	}{
		{"sizeof message", unsafe.Sizeof(m), pick(16, 12)},
		{"offset flags", unsafe.Offsetof(m.flags), 2},
		{"offset len", unsafe.Offsetof(m.len), 4},
		{"offset buf", unsafe.Offsetof(m.buf), 8},
		{"sizeof transfer", unsafe.Sizeof(x), pick(16, 8)},
		{"offset n", unsafe.Offsetof(x.n), pick(8, 4)},
	} {
		if tt.got != tt.want {
			t.Errorf("%s = %d, want %d", tt.name, tt.got, tt.want)
		}
	}
}
