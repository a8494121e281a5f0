// SPDX-License-Identifier: Apache-2.0

package afmctp

import (
	"testing"
	"unsafe"
)

// The sizes are those of the C compiler for the kernel's headers, on 32- and
// 64-bit systems alike. Run with GOARCH=386 as well.
func TestABI(t *testing.T) {
	var a sockaddr
	var c tagControl
	var c2 tagControl2
	for _, tt := range []struct {
		name      string
		got, want uintptr
	}{
		{"sizeof sockaddr", unsafe.Sizeof(a), 12},
		{"offset network", unsafe.Offsetof(a.network), 4},
		{"offset eid", unsafe.Offsetof(a.eid), 8},
		{"offset typ", unsafe.Offsetof(a.typ), 9},
		{"offset tag", unsafe.Offsetof(a.tag), 10},
		{"sizeof tagControl", unsafe.Sizeof(c), 4},
		{"offset tag in tagControl", unsafe.Offsetof(c.tag), 1},
		{"offset flags in tagControl", unsafe.Offsetof(c.flags), 2},
		{"sizeof tagControl2", unsafe.Sizeof(c2), 12},
		{"offset peer in tagControl2", unsafe.Offsetof(c2.peer), 4},
		{"offset local in tagControl2", unsafe.Offsetof(c2.local), 5},
		{"offset flags in tagControl2", unsafe.Offsetof(c2.flags), 6},
		{"offset tag in tagControl2", unsafe.Offsetof(c2.tag), 8},
	} {
		if tt.got != tt.want {
			t.Errorf("%s = %d, want %d", tt.name, tt.got, tt.want)
		}
	}
}
