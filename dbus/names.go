// SPDX-License-Identifier: Apache-2.0

// Package dbus is the daemon's service on D-Bus: every DPU, push, console and
// switch of it as objects, in OpenBMC's conventions, and the names by which
// NVIDIA's own services are known. It reads the core and gives it orders; it
// holds no state of its own that matters.
//
// What is published stands in interfaces/*.xml, and what it means in
// docs/dbus.md. The connections, the objects and their properties are package
// dbus/bus; this package says what is in them.
package dbus

import "strconv"

// Names on the bus. The first is the daemon's own; the others are those by
// which OpenBMC and NVIDIA's firmware look for things, and are taken only where
// nobody else has them.
const (
	NameRshim        = "xyz.openbmc_project.Rshim"
	NameNvidiaRshim  = "com.Nvidia.Software.Rshim"
	NameDPUVersion   = "xyz.openbmc_project.Software.DPU.Version"
	NameDPUUpdater   = "xyz.openbmc_project.Software.DPU.Updater"
	NameStateHost    = "xyz.openbmc_project.State.Host"
	NameConnectX     = "xyz.openbmc_project.Settings.connectx"
	nameConsoleStart = "xyz.openbmc_project.Console." // and rshimN
)

// Paths of objects.
const (
	PathManager     = "/xyz/openbmc_project/rshim"
	PathService     = "/xyz/openbmc_project/control/service/rshim"
	PathNvidiaRshim = "/com/nvidia/software/rshim"
	PathLFWP        = "/xyz/openbmc_project/control/lfwp"
	PathSoftware    = "/xyz/openbmc_project/software"
	PathHost        = "/xyz/openbmc_project/state/host0"
	PathHostAccess  = "/xyz/openbmc_project/network/connectx/host_access/HOST_PRIV_RSHIM"
	pathConsole     = "/xyz/openbmc_project/console"
)

// Interfaces of objects, one to a file in interfaces/.
const (
	ifaceManager      = "xyz.openbmc_project.Rshim.Manager"
	ifaceDevice       = "xyz.openbmc_project.Rshim.Device"
	ifacePush         = "xyz.openbmc_project.Rshim.Push"
	ifaceHostAccess   = "xyz.openbmc_project.Rshim.HostAccess"
	ifaceProgress     = "xyz.openbmc_project.Common.Progress"
	ifaceActivation   = "xyz.openbmc_project.Software.Activation"
	ifaceActProgress  = "xyz.openbmc_project.Software.ActivationProgress"
	ifaceVersion      = "xyz.openbmc_project.Software.Version"
	ifaceUpdate       = "xyz.openbmc_project.Software.Update"
	ifaceFilePath     = "xyz.openbmc_project.Common.FilePath"
	ifaceAssociations = "xyz.openbmc_project.Association.Definitions"
	ifaceDelete       = "xyz.openbmc_project.Object.Delete"
	ifaceEnable       = "xyz.openbmc_project.Object.Enable"
	ifaceService      = "xyz.openbmc_project.Control.Service.Attributes"
	ifaceNvidiaRshim  = "com.nvidia.BF.Rshim"
	ifaceBootProgress = "xyz.openbmc_project.State.Boot.Progress"
	ifaceConsole      = "xyz.openbmc_project.Console.Access"
	ifaceNIC          = "xyz.openbmc_project.Control.NcSi.OEM.Nvidia.NicAttribute"
)

// DevicePath is the path of rshim<index>.
func DevicePath(index int) string { return PathManager + "/rshim" + strconv.Itoa(index) }

// PushPath is the path of a push by its number.
func PushPath(number uint64) string {
	return PathManager + "/push/" + strconv.FormatUint(number, 10)
}

// ConsoleName and ConsolePath are the console's, as obmc-console has them.
func ConsoleName(index int) string { return nameConsoleStart + "rshim" + strconv.Itoa(index) }

// ConsolePath is the path of the console of rshim<index>.
func ConsolePath(index int) string { return pathConsole + "/rshim" + strconv.Itoa(index) }

// SoftwarePath is what a DPU's operating system is called among the BMC's
// firmware: DPU_OS, which is NVIDIA's name, for rshim0, and DPU_OS_N for others.
func SoftwarePath(index int) string { return PathSoftware + "/DPU_OS" + suffix(index) }

// UpdatePath is the path of the update of rshim<index> that began last.
func UpdatePath(index int) string { return PathSoftware + "/BF_DPU_BFB_UPDATE" + suffix(index) }

func suffix(index int) string {
	if index == 0 {
		return ""
	}
	return "_" + strconv.Itoa(index)
}
