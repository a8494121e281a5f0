// SPDX-License-Identifier: Apache-2.0

package bootlog

import "strings"

// Stage is how far a DPU has come in its boot, as far as it has told.
type Stage uint8

// Stages, in the order in which a DPU that is being installed goes through
// them. What boots from eMMC leaves Installing and Rebooting out.
const (
	StageUnknown    Stage = iota
	StageROM              // boot ROM or BL1: it boots, or waits for a boot stream
	StageBL2              // trusted boot firmware, memory training
	StageBL31             // runtime firmware
	StageUEFI             //
	StageOS               // UEFI has handed over to an operating system
	StageInstalling       // the installer runs
	StageRebooting        // the installer is done; what it has installed comes next
	StageServices         // Linux is up, what the DPU is for is not yet
	StageReady            //
	StageOff              // it has switched itself off
)

var stages = [...]struct{ word, oem string }{
	{"unknown", "Invalid"},
	{"boot ROM", "BootRom"},
	{"BL2", "BL2"},
	{"BL31", "BL31"},
	{"UEFI", "UEFI"},
	{"starting an operating system", "OsStarting"},
	{"installing", "FirmwareUpdateInProgress"},
	{"rebooting", "OsStarting"},
	{"starting services", "OsStarting"},
	{"ready", "OsIsRunning"},
	{"off", "LowPowerStandby"},
}

func (s Stage) known() Stage {
	if int(s) >= len(stages) {
		return StageUnknown
	}
	return s
}

// String is the stage in words: "UEFI", "installing", "ready".
func (s Stage) String() string { return stages[s.known()].word }

// OEM is the stage as NVIDIA's BMC says it, in SmartNicOsState, in BootProgressOem
// and in the Redfish property OemLastState; "Invalid" stands for unknown.
// Source: SmartNicOsState.interface.yaml of NVIDIA/phosphor-dbus-interfaces.
func (s Stage) OEM() string { return stages[s.known()].oem }

// running reports whether an operating system runs at this stage, beneath which
// BL31 and UEFI's runtime services go on writing to the log.
func (s Stage) running() bool {
	return s == StageOS || s == StageInstalling || s == StageServices || s == StageReady
}

// after is the stage of a DPU that was at s and has logged e.
func (s Stage) after(e Entry) Stage {
	if e.Type == Message && e.Level == Info && isReady(e.Text) {
		return StageReady
	}
	switch e.Module {
	case PSC, BL1:
		if !s.running() || strings.HasSuffix(e.Text, " START") || e.Text == "start" {
			return StageROM
		}
	case BL2, BL2R:
		return StageBL2
	case BL31:
		switch {
		case e.Text == "System Off":
			return StageOff
		case e.Text == "start" || !s.running() && s != StageUEFI:
			return StageBL31
		}
	case UEFI:
		switch {
		case e.Text == "exit Boot Service":
			return StageOS
		case !s.running():
			return StageUEFI
		}
	default:
		return s.afterSoftware(e.Text)
	}
	return s
}

// afterSoftware is after for what the installer, or the installed system, has
// logged.
func (s Stage) afterSoftware(text string) Stage {
	switch {
	case text == "Linux up":
		return StageServices
	case strings.HasPrefix(text, "Installation finished"), text == "Rebooting...":
		return StageRebooting
	case text == "Found bf.cfg", strings.HasPrefix(text, "Installing "), strings.HasSuffix(text, " installation started"):
		return StageInstalling
	}
	return s
}

// isReady reports whether a message says that the DPU has come to where it was
// to come: up, or where there is nothing to come up, in NIC mode.
func isReady(text string) bool {
	text = strings.TrimRight(text, ".")
	return text == "DPU is ready" || text == "In Enhanced NIC mode"
}
