// SPDX-License-Identifier: Apache-2.0

package bluefield

import (
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

// line is a line of the boot log and how long it takes to get there at
// StageScale 1.
type line struct {
	after time.Duration
	text  string
}

// script is what a generation logs, by stage. Source: the golden boot logs of
// the RShim reference page, section 6.
type script struct {
	rom      []line // when the boot ROM has begun
	bl2      []line // when the first image has been read
	firmware []line // when all that the firmware itself needs has been read
}

const ms = time.Millisecond

var bf3 = script{
	rom: []line{{50 * ms, "INFO[PSC]: PSC BL1 START"}},
	bl2: []line{
		{100 * ms, "INFO[BL2]: start"},
		{0, ""}, // boot mode
		{100 * ms, "INFO[BL2]: VDDQ: 1120 mV"},
		{1500 * ms, "INFO[BL2]: DDR POST passed"},
	},
	firmware: []line{
		{100 * ms, "INFO[BL2]: UEFI loaded"},
		{50 * ms, "INFO[BL31]: start"},
		{0, "INFO[BL31]: lifecycle GA Secured"},
		{0, "INFO[BL31]: VDD: 850 mV"},
		{50 * ms, "INFO[BL31]: runtime"},
		{50 * ms, "INFO[BL31]: MB ping success"},
		{500 * ms, "INFO[UEFI]: eMMC init"},
		{100 * ms, "INFO[UEFI]: eMMC probed"},
		{50 * ms, "INFO[UEFI]: UPVS valid"},
		{200 * ms, "INFO[UEFI]: PMI: updates started"},
		{0, "INFO[UEFI]: PMI: total updates: 1"},
		{600 * ms, "INFO[UEFI]: PMI: updates completed, status 0"},
		{100 * ms, "INFO[UEFI]: PCIe enum start"},
		{400 * ms, "INFO[UEFI]: PCIe enum end"},
		{100 * ms, "INFO[UEFI]: UEFI Secure Boot (enabled)"},
		{0, "INFO[UEFI]: PK configured"},
		{200 * ms, "INFO[UEFI]: Redfish enabled"},
	},
}

var bf2 = script{
	bl2: []line{
		{150 * ms, "INFO[BL2]: start"},
		{0, "INFO[BL2]: no DDR on MSS0"},
		{100 * ms, "INFO[BL2]: calc DDR freq (clk_ref 53836948)"},
		{1500 * ms, "INFO[BL2]: DDR POST passed"},
	},
	firmware: []line{
		{100 * ms, "INFO[BL2]: UEFI loaded"},
		{50 * ms, "INFO[BL31]: start"},
		{50 * ms, "INFO[BL31]: runtime"},
		{500 * ms, "INFO[UEFI]: eMMC init"},
		{100 * ms, "INFO[UEFI]: eMMC probed"},
		{200 * ms, "INFO[UEFI]: PMI: updates started"},
		{600 * ms, "INFO[UEFI]: PMI: updates completed, status 0"},
		{100 * ms, "INFO[UEFI]: PCIe enum start"},
		{400 * ms, "INFO[UEFI]: PCIe enum end"},
	},
}

// The rest is software and the same on all generations.
var (
	exitUEFI = []line{{100 * ms, "INFO[UEFI]: exit Boot Service"}}

	foundConfig = []line{{100 * ms, "INFO[MISC]: Found bf.cfg"}}

	install = []line{
		{300 * ms, "INFO[MISC]: Ubuntu installation started"},
		{200 * ms, "INFO[MISC]: Installing OS image"},
		{1500 * ms, "INFO[MISC]: Changing the default password for user ubuntu"},
		{300 * ms, "INFO[MISC]: Ubuntu installation completed"},
		{100 * ms, "INFO[MISC]: Updating NIC firmware..."},
		{800 * ms, "INFO[MISC]: NIC firmware update done: 32.43.1014"},
		{100 * ms, "INFO[MISC]: Installation finished. Rebooting..."},
	}

	up = []line{
		{1000 * ms, "INFO[MISC]: Linux up"},
		{300 * ms, "INFO[MISC]: DPU is ready"},
	}

	upNIC = []line{{300 * ms, "INFO[MISC]: In Enhanced NIC mode"}}

	upgraded = []line{{500 * ms, "INFO[MISC]: Runtime upgrade finished"}}
)

// shutdown is how long the installer's Linux takes to go down.
const shutdown = 1000 * ms

func (d *DPU) script() *script {
	if d.cfg.Generation == reg.BlueField3 {
		return &bf3
	}
	return &bf2
}
