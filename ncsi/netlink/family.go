// SPDX-License-Identifier: Apache-2.0

package netlink

// The generic netlink family of the kernel (include/uapi/linux/ncsi.h), which
// golang.org/x/sys knows in parts only. There are no multicast groups.
const familyName = "NCSI"

// Commands. Packages can be asked for by everybody, the rest takes
// CAP_NET_ADMIN.
const (
	cmdPackageInfo = 1 // with the dump flag all packages, without it one
	cmdSend        = 4
)

// Attributes of a message.
const (
	attrIndex       = 1 // u32, of the network interface
	attrPackageList = 2 // nested pkgAttr
	attrPackageID   = 3 // u32
	attrChannelID   = 4 // u32
	attrData        = 5 // at most maxData bytes
)

// maxData is what the family's policy allows for attrData.
const maxData = 2048

// Attributes of a package.
const (
	pkgAttr     = 1 // nested, one package
	pkgID       = 2 // u32
	pkgForced   = 3 // flag
	pkgChannels = 4 // nested chAttr
)

// Attributes of a channel.
const (
	chAttr      = 1 // nested, one channel
	chID        = 2 // u32
	chMajor     = 3 // u32, see Channel.Major
	chMinor     = 4 // u32
	chFirmware  = 5 // string
	chLinkState = 6 // u32
	chActive    = 7 // flag
	chForced    = 8 // flag
	chVLANs     = 9 // nested chVLAN
	chVLAN      = 10
)
