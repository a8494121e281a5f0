// SPDX-License-Identifier: Apache-2.0

package bfb

import (
	"fmt"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

// ID says what an image is. A bitmap of 64 bits announces the images that
// follow, so that ids above 63 cannot be used.
type ID uint8

// Ids that this project refers to; ParseID knows all of them by name.
const (
	IDBL2       ID = 1 // trusted boot firmware, the first that runs on the Arm cores
	IDBL31      ID = 3
	IDBL33      ID = 5 // UEFI
	IDBL2R      ID = 30
	IDPSCBL     ID = 36 // BlueField-3's platform security controller
	IDNICFW     ID = 41
	IDInfo      ID = 50 // versions of what is inside, as JSON
	IDUpgrade   ID = 51
	IDCapsule   ID = 52
	IDBootACPI  ID = 55
	IDBootDesc  ID = 57
	IDBootPath  ID = 58
	IDBootArgs  ID = 59
	IDImage     ID = 62 // Linux kernel
	IDInitramfs ID = 63
)

// ids are the names that mlx-mkbfb takes as options.
var ids = [64]string{
	1: "bl2", 2: "bl30", 3: "bl31", 4: "bl32", 5: "bl33",
	6: "bl2-cert", 7: "trusted-key-cert",
	8: "bl30-key-cert", 9: "bl31-key-cert", 10: "bl32-key-cert", 11: "bl33-key-cert",
	12: "bl30-cert", 13: "bl31-cert", 14: "bl32-cert", 15: "bl33-cert",
	29: "sys", 30: "bl2r", 31: "bl2r-cert",
	32: "ddr_ini", 33: "snps_images", 34: "ddr_ate_imem", 35: "ddr_ate_dmem",
	36: "psc-bl", 37: "psc-fw", 38: "ddr-cert", 39: "psc-app", 40: "ddr5_snps_images",
	41: "nicfw", 42: "bl2r-auth-cert", 43: "bl2-auth-cert",
	48: "cfg-gi", 49: "dpu-gi", 50: "info", 51: "upgrade-image", 52: "capsule",
	53: "psc-certs", 54: "ramdisk", 55: "boot-acpi", 56: "boot-dtb", 57: "boot-desc",
	58: "boot-path", 59: "boot-args", 60: "boot-timeout", 61: "uefi-tests",
	62: "image", 63: "initramfs",
}

// String is mlx-mkbfb's name of the id.
func (id ID) String() string {
	if int(id) < len(ids) && ids[id] != "" {
		return ids[id]
	}
	return fmt.Sprintf("image_id_%d", uint8(id))
}

// ParseID is the inverse of String for the ids that have a name.
func ParseID(name string) (ID, bool) {
	for id, n := range ids {
		if n == name && n != "" {
			return ID(id), true
		}
	}
	return 0, false
}

// VersionOf is the version that marks images made for a generation: 0 for
// BlueField-1, 1 for -2, 2 for -3. Version 0 also marks images that are for
// all of them: it is what mlx-mkbfb gives when it is told nothing.
func VersionOf(g reg.Generation) uint8 { return uint8(g - reg.BlueField1) }
